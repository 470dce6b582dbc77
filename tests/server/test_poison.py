"""B7 over real sockets: requests whose code raises the worst take no member with them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from copycat import ApplicationError, CopycatClient, command, query
from tests.server.cluster import Book, run, trio

pytestmark = pytest.mark.slow


def do(how: str) -> None:
    match how:
        case "MemoryError":
            "x".rjust(10**15)
        case "RecursionError":
            do(how)
            do(how)
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
    def poison(self, how: str) -> None:
        do(how)

    @query
    def ask(self, how: str) -> None:
        do(how)


def test_b7_no_request_takes_a_member_down_now_or_at_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path, Poison) as cluster:
            for before in (0, 1):
                await cluster.settled()
                async with CopycatClient(*cluster.addresses) as client:
                    for how in RAISES:
                        with pytest.raises(ApplicationError, match=f"^{how}"):
                            await client.submit(Poison.poison(how))
                        with pytest.raises(ApplicationError, match=f"^{how}"):
                            await client.submit(Poison.ask(how))
                    assert await client.submit(Poison.add(1)) == before + 1
                await cluster.settled()
                assert len(cluster.running) == 3
                for member in cluster.running:
                    await member.shutdown()
                await cluster.start()
            await cluster.settled()
            for member in cluster.servers.values():
                assert member.state_machine.entries == [1, 1]

    run(scenario)
