"""Real servers whose promises do not wait for the disk: level "memory", durability "os"."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from copycat import (
    Compaction,
    CopycatClient,
    CopycatServer,
    DiskError,
    Durability,
    StateMachine,
    Storage,
    StorageLevel,
    command,
    query,
)
from copycat.config import CompressionName
from copycat.member.markers import UNSYNCED_ACKS_FILE
from tests.log.test_levels import mapped_files
from tests.server.cluster import TIMERS, Book, Trio, free_address, run, server


class Shelf(StateMachine):
    """A newer put of a name lets the one before go."""

    def __init__(self) -> None:
        self.items: dict[str, int] = {}

    @command(key="name")
    def put(self, name: str, number: int) -> None:
        self.items[name] = number

    @query
    def all(self) -> dict[str, int]:
        return dict(self.items)


def beginnings(directory: str) -> set[bytes]:
    """Of the segments that a compaction wrote."""
    return {path.read_bytes()[:7] for path in Path(directory).glob("log/*-2.log")}


@pytest.mark.slow
def test_a_member_in_memory_comes_back_empty_and_is_fed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            trio = Trio(tmp_path, stack, level=StorageLevel.MEMORY)
            await trio.start()
            async with CopycatClient(*trio.addresses) as client:
                for number in range(5):
                    await client.submit(Book.add(number))
                away = trio.followers[0]
                await away.shutdown()
                assert not (Path(away.storage.directory) / "log").exists()
                await trio.start(str(away.address))
                assert await client.submit(Book.add(5)) == 6
                await trio.all_applied()
                back = trio.servers[str(away.address)]
                assert back.state_machine.entries == list(range(6))
                assert back._node is not None
                replica = back._node.replica
                assert replica is not None
                # A sync and a word of the leader later than what it applied.
                await trio.until(lambda: not replica.raft.eligibility.is_lost)

    run(scenario)


@pytest.mark.slow
def test_a_cluster_in_memory_that_was_stopped_whole_starts_empty(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            trio = Trio(tmp_path, stack, level=StorageLevel.MEMORY)
            await trio.start()
            async with CopycatClient(*trio.addresses) as client:
                assert await client.submit(Book.add(1)) == 1
            for member in list(trio.servers.values()):
                await member.shutdown()
            await trio.start()
            async with CopycatClient(*trio.addresses) as client:
                assert await client.submit(Book.count()) == 0

    run(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("level", [StorageLevel.MAPPED, StorageLevel.DISK])
def test_a_member_that_was_away_is_fed_from_sealed_segments(
    tmp_path: Path, level: StorageLevel
) -> None:
    """Its log is opened at the level of its storage, as its maps show."""

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            trio = Trio(tmp_path, stack, level=level, max_entries_per_segment=8)
            await trio.start()
            async with CopycatClient(*trio.addresses) as client:
                away = trio.followers[0]
                await away.shutdown()
                for number in range(40):
                    await client.submit(Book.add(number))
                await trio.start(str(away.address))
                await trio.all_applied()
                assert trio.servers[str(away.address)].state_machine.entries == list(range(40))
                assert (".log" in mapped_files(tmp_path)) is (level is StorageLevel.MAPPED)

    run(scenario)


@pytest.mark.slow
@pytest.mark.parametrize(("compression", "magic"), [("lz4", b"COPYPAK"), ("none", b"COPYSEG")])
def test_a_member_packs_what_it_compacts_unless_told_not_to(
    tmp_path: Path, compression: CompressionName, magic: bytes
) -> None:
    directory = str(tmp_path / "member")

    def member(address: str) -> CopycatServer[Shelf]:
        storage = Storage(directory=directory, max_entries_per_segment=8, compression=compression)
        timers: dict[str, Any] = TIMERS
        return CopycatServer(address, Shelf, storage=storage, cluster_name="test", **timers)

    async def scenario() -> None:
        address = free_address()
        async with member(address) as server:
            await server.bootstrap(address)
            async with CopycatClient(address) as client:
                for number in range(40):
                    await client.submit(Shelf.put("one", number))
                report = await server.compact(Compaction.MAJOR)
            assert report.segments_after > 0
            assert beginnings(directory) == {magic}
        async with member(address) as server:
            await server.bootstrap(address)
            async with CopycatClient(address) as client:
                assert await client.submit(Shelf.all()) == {"one": 39}

    run(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [Durability.INTERVAL, Durability.OS])
def test_weaker_modes_serve_and_say_so(
    tmp_path: Path, mode: Durability, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            trio = Trio(tmp_path, stack, durability=mode)
            await trio.start()
            async with CopycatClient(*trio.addresses) as client:
                for number in range(20):
                    assert await client.submit(Book.add(number)) == number + 1
                assert trio.leader.status().durability is mode
                assert f'storage.durability is "{mode}"' in caplog.text
                assert (Path(trio.leader.storage.directory) / UNSYNCED_ACKS_FILE).exists()
                for member in list(trio.servers.values()):
                    await member.shutdown()
                    assert not (Path(member.storage.directory) / UNSYNCED_ACKS_FILE).exists()
                await trio.start()
                assert await client.submit(Book.count()) == 20

    run(scenario)


def refuse_writes(path: Path) -> None:
    """From now on every write to this open file of the process fails, and every sync of it."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if entry.readlink() == path:
                os.dup2(nothing, int(entry.name))
    os.close(nothing)


@pytest.mark.slow
def test_f9_a_member_that_its_disk_stops_remembers_its_unsynced_acks(tmp_path: Path) -> None:
    async def scenario() -> None:
        storage = Storage(directory=str(tmp_path / "one"), durability=Durability.OS)
        async with server(tmp_path, free_address(), storage=storage) as member:
            await member.bootstrap()
            async with member.client() as client:
                await client.submit(Book.add(1))
                refuse_writes(tmp_path / "one" / "log" / "1-1.log")
                unanswered = asyncio.ensure_future(client.submit(Book.add(2)))
                with pytest.raises(DiskError, match="Bad file descriptor"):
                    await member.wait_stopped()
                unanswered.cancel()
        marker_words = (tmp_path / "one" / UNSYNCED_ACKS_FILE).read_text().split()
        assert marker_words == ["os"], "not even this boot proves what it acknowledged"

    run(scenario)
