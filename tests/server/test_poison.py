"""Over real sockets: requests whose code raises the worst take no member with them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from copycat import (
    ApplicationError,
    CopycatClient,
    CopycatError,
    CopycatServer,
    DirectoryInUseError,
    MemoryShortageError,
    command,
    query,
)
from copycat.member.recover import skip_entry
from copycat.storage import Env
from tests.server.cluster import Book, run, trio

pytestmark = pytest.mark.slow


def do(error_name: str) -> None:
    match error_name:
        case "MemoryError":
            "x".rjust(10**15)
        case "RecursionError":
            do(error_name)
            do(error_name)
        case "SystemExit":
            raise SystemExit(3)
        case "KeyboardInterrupt":
            raise KeyboardInterrupt
        case "CancelledError":
            raise asyncio.CancelledError
        case "GeneratorExit":
            raise GeneratorExit
        case "StopIteration":
            raise StopIteration


RAISES = [
    "MemoryError",
    "RecursionError",
    "SystemExit",
    "KeyboardInterrupt",
    "CancelledError",
    "GeneratorExit",
    "StopIteration",
]


class Poison(Book):
    @command
    def poison(self, error_name: str) -> None:
        do(error_name)

    @command
    def starve(self) -> None:
        raise MemoryError  # of what a library asked for, say: nobody knows how much

    @query
    def ask(self, error_name: str) -> None:
        do(error_name)


def test_no_request_takes_a_member_down_now_or_at_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path, Poison) as cluster:
            for before in (0, 1):
                await cluster.all_applied()
                async with CopycatClient(*cluster.addresses) as client:
                    for error_name in RAISES:
                        with pytest.raises(ApplicationError, match=f"^{error_name}"):
                            await client.submit(Poison.poison(error_name))
                        with pytest.raises(ApplicationError, match=f"^{error_name}"):
                            await client.submit(Poison.ask(error_name))
                    assert await client.submit(Poison.add(1)) == before + 1
                await cluster.all_applied()
                assert len(cluster.running) == 3
                for member in cluster.running:
                    await member.shutdown()
                await cluster.start()
            await cluster.all_applied()
            for member in cluster.servers.values():
                assert member.state_machine.entries == [1, 1]

    run(scenario)


def test_an_entry_that_stops_every_member_is_skipped_by_all_or_by_none(
    tmp_path: Path,
) -> None:
    def directory(address: str) -> str:
        return str(tmp_path / address.rpartition(":")[2])

    async def scenario() -> None:
        async with trio(tmp_path, Poison) as cluster:
            await cluster.all_applied()
            async with CopycatClient(*cluster.addresses) as client:
                assert await client.submit(Poison.add(1)) == 1
                starving = client.submit(Poison.starve())
                # The last one has no quorum, so the entry is not committed there any more.
                await cluster.until(lambda: len(cluster.running) == 1)
                (last,) = cluster.running
                causes = []
                for member in set(cluster.servers.values()) - {last}:
                    with pytest.raises(MemoryShortageError) as caught:
                        await member.wait_stopped()
                    causes.append(caught.value)
                await last.shutdown()
            with pytest.raises(CopycatError):
                await starving
            (index,) = {cause.index for cause in causes}
            for cause in causes:
                assert f"--skip-entry {index}" in (cause.hint or "")
            first, second, third = cluster.addresses
            for address in (first, second):
                skip_entry(Env(), directory(address), index, "test")
            await cluster.start(first, second)
            await cluster.until(lambda: len({s.status().leader for s in cluster.running}) == 1)
            # The third would call the code: it is refused, and takes no part.
            alone = cluster.member(third)
            starting = asyncio.create_task(alone.bootstrap(*cluster.addresses))
            await cluster.until(lambda: "skips entry" in str(links_of(alone)))
            await alone.shutdown()
            starting.cancel()
            await asyncio.wait({starting})
            skip_entry(Env(), directory(third), index, "test")
            await cluster.start(third)
            await cluster.all_applied()
            async with CopycatClient(*cluster.addresses) as client:
                assert await client.submit(Poison.add(2)) == 2
            await cluster.all_applied()
            for member in cluster.running:
                assert member.state_machine.entries == [1, 2]
            with pytest.raises(DirectoryInUseError):
                skip_entry(Env(), directory(first), index, "test")

    run(scenario)


def links_of(member: CopycatServer[Book]) -> list[str]:
    """Why each link is not up."""
    node = member._node
    return [] if node is None else [link.reason for link in node.host.peer_links.values()]
