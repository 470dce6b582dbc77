"""C43, over real sockets: a member whose disk was lost, or restored, comes back by itself."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from copycat import CopycatClient, CopycatServer, DirectoryRefusedError, MemberType
from copycat.member.way_back import WAY_BACK_FILE, WayBackFile, WayBackRecord
from copycat.storage import Env
from copycat.types import MemberId
from tests.server.cluster import Book, Trio, run, server, trio

pytestmark = pytest.mark.slow


async def add(cluster: Trio, first: int, end: int) -> None:
    async with CopycatClient(*cluster.addresses, cluster_name="test") as client:
        for number in range(first, end):
            await client.submit(Book.add(number))


def directory_of(member: CopycatServer[Book]) -> Path:
    return Path(member.storage.directory)


async def without_disk(member: CopycatServer[Book]) -> str:
    """Stop it; its directory is gone. Its address."""
    await member.shutdown()
    shutil.rmtree(directory_of(member))
    return str(member.address)


def records(member: CopycatServer[Book]) -> dict[MemberId, tuple[MemberType, str, MemberId]]:
    members = member.status().configuration.members
    return {one.member: (one.type, one.address, one.replaces) for one in members}


async def has_come_back(cluster: Trio, address: str, old: MemberId) -> CopycatServer[Book]:
    """It is a passive member under a new id, in the place of the old one, and has everything."""
    member = cluster.servers[address]
    await cluster.all_applied()
    status = member.status()
    assert status.member != old
    known = records(cluster.leader)
    assert known[status.member] == (MemberType.PASSIVE, address, old)
    assert known[old][:2] == (MemberType.ACTIVE, address), "it keeps its vote until it is removed"
    assert len(known) == 4
    assert not (directory_of(member) / WAY_BACK_FILE).exists()
    return member


def test_c43_wiped_founder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        async with trio(tmp_path) as cluster:
            await add(cluster, 0, 20)
            await cluster.all_applied()
            victim = cluster.followers[0]
            old = victim.status().member
            address = await without_disk(victim)
            await cluster.start(address)
            member = await has_come_back(cluster, address, old)
            assert member.state_machine.entries == list(range(20))
            assert [each for each in directory_of(member).iterdir() if "aside" in each.name] == []
            # A later start with the same arguments is that of the new member.
            now = member.status().member
            await member.shutdown()
            await cluster.start(address)
            assert cluster.servers[address].status().member == now
            # An operator gives the vote to it.
            leader = cluster.leader
            await leader.cluster.members[
                f"{address} (id {old:032x}"[: len(address) + 13] + ")"
            ].remove()
            await leader.cluster.members[address].promote()
            assert records(leader)[now] == (MemberType.ACTIVE, address, old)
            await add(cluster, 20, 25)

    run(play)
    messages = [record.getMessage() for record in caplog.records]
    assert any("it comes back as a new member: it asks" in one for one in messages)
    assert any("its old id keeps its vote until it is removed" in one for one in messages)


def test_c43_restart_loop(tmp_path: Path) -> None:
    async def play() -> None:
        async with trio(tmp_path) as cluster:
            await add(cluster, 0, 5)
            victim = cluster.followers[0]
            old = victim.status().member
            address = str(victim.address)
            for _ in range(3):
                await without_disk(cluster.servers[address])
                await cluster.start(address)
                await has_come_back(cluster, address, old)

    run(play)


def test_c42_restored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The leader does without it: it sets its old files aside, and comes back as a new member."""

    async def play() -> None:
        async with trio(tmp_path) as cluster:
            await add(cluster, 0, 20)
            await cluster.all_applied()
            victim, copy = cluster.followers[0], tmp_path / "copy"
            old = victim.status().member
            shutil.copytree(directory_of(victim), copy)
            await add(cluster, 20, 60)
            await cluster.all_applied()
            address = await without_disk(victim)
            shutil.copytree(copy, directory_of(victim))
            await cluster.start(address)
            await cluster.until(lambda: cluster.servers[address].status().member != old)
            await cluster.until(
                lambda: (
                    not (directory_of(victim) / WAY_BACK_FILE).exists()
                    and cluster.servers[address].is_running
                )
            )
            member = await has_come_back(cluster, address, old)
            assert member.state_machine.entries == list(range(60))
            aside = directory_of(member) / "set-aside-1"
            assert (aside / "identity-a").exists()
            assert (aside / "log").is_dir()

    run(play)
    messages = [record.getMessage() for record in caplog.records]
    assert any("this directory is an older copy of itself" in one for one in messages)
    assert any("set-aside-1 now; delete them" in one for one in messages)


def test_c43_rejoin_can_be_forbidden(tmp_path: Path) -> None:
    async def play() -> None:
        async with trio(tmp_path) as cluster:
            await add(cluster, 0, 5)
            victim = cluster.followers[0]
            address = await without_disk(victim)
            directory = directory_of(victim)
            for _ in range(2):  # the second start knows it from its directory
                async with server(directory, address, rejoin=False) as member:
                    with pytest.raises(DirectoryRefusedError):
                        await member.bootstrap(*cluster.addresses)
                    assert not member.is_running
            assert len(records(cluster.leader)) == 3
            # The next start may.
            await cluster.start(address)
            await has_come_back(cluster, address, victim.status().member)

    run(play)


def test_c43_whose_address_nobody_names_stops(tmp_path: Path) -> None:
    async def play() -> None:
        async with trio(tmp_path) as cluster:
            await add(cluster, 0, 5)
            victim = cluster.followers[0]
            name = str(victim.address)
            await victim.shutdown()
            await cluster.leader.cluster.members[name].remove()
            shutil.rmtree(directory_of(victim))
            with pytest.raises(
                DirectoryRefusedError, match="no member of cluster test listens at"
            ):
                await cluster.start(name)
            assert len(records(cluster.leader)) == 2

    run(play)


def test_c43_a_start_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    """The record is written, and a part of the files is set aside: the next start does the
    rest."""

    async def play() -> None:
        async with trio(tmp_path) as cluster:
            await add(cluster, 0, 5)
            victim = cluster.followers[0]
            old, address, directory = (
                victim.status().member,
                str(victim.address),
                directory_of(victim),
            )
            await victim.shutdown()
            file = WayBackFile(Env(), str(directory))
            record = file.write(
                WayBackRecord(
                    member=old,
                    is_empty=False,
                    addresses=tuple(cluster.addresses),
                    reason="it is a test",
                )
            )
            (directory / record.folder).mkdir()
            (directory / "log").rename(directory / record.folder / "log")
            await cluster.start(address)
            await has_come_back(cluster, address, old)
            aside = directory / record.folder
            assert (aside / "identity-b").exists()
            assert (aside / "log").is_dir()

    run(play)


def test_c43_shutdown_ends_a_way_back(tmp_path: Path) -> None:
    """Nobody leads: it waits for a leader, and a shutdown does not wait for that."""

    async def play() -> None:
        async with trio(tmp_path) as cluster:
            victim = cluster.followers[0]
            old, address, directory = (
                victim.status().member,
                str(victim.address),
                directory_of(victim),
            )
            for each in list(cluster.servers.values()):
                await each.shutdown()
            WayBackFile(Env(), str(directory)).write(
                WayBackRecord(
                    member=old, is_empty=False, addresses=tuple(cluster.addresses), reason="a test"
                )
            )
            member = cluster.member(address)
            async with member:
                starting = asyncio.create_task(member.bootstrap(*cluster.addresses))
                await asyncio.sleep(0)
                await member.shutdown()
                starting.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await starting
            assert not (directory / "set-aside-1").exists(), "nobody said that it may"

    run(play)
