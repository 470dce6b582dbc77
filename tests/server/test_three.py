"""Three real servers on loopback, with real disks: the whole road of a command."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from copycat import (
    ApplicationError,
    ClientState,
    ConsistencyLevel,
    CopycatClient,
    ServerSelection,
    ServerState,
    UnknownMemberError,
)
from copycat.client import session
from tests.server.cluster import Book, free_address, run, server, trio

pytestmark = pytest.mark.slow


def test_one_member_is_a_cluster_and_its_state_survives(tmp_path: Path) -> None:
    async def scenario() -> None:
        counts, address = [], free_address()
        for _ in range(2):
            async with server(tmp_path / "one", address) as alone:
                await alone.bootstrap()
                async with alone.client() as client:
                    counts.append(await client.submit(Book.add(1)))
                    assert await client.submit(Book.count()) == counts[-1]
        assert counts == [1, 2]

    run(scenario)


def test_a_command_reaches_three_disks_and_comes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as cluster:
            await cluster.all_applied()
            async with CopycatClient(*cluster.addresses) as client:
                assert client.state is ClientState.CONNECTED
                assert await client.submit(Book.add(5)) == 1
                with pytest.raises(ApplicationError, match="ValueError: odd"):
                    await client.submit(Book.fail("odd"))
                assert await client.submit_many(Book.add(n) for n in range(500)) == list(
                    range(2, 502)
                )
            await cluster.all_applied()
            for member in cluster.servers.values():
                assert member.state_machine.entries == [5, *range(500)]
                assert member.status().durable_index == member.status().last_index

    run(scenario)


@pytest.mark.parametrize("selection", list(ServerSelection))
def test_commands_and_queries_work_through_any_member(
    tmp_path: Path, selection: ServerSelection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A sequential query waits for the commands before it, unless none was answered for a second:
    # a busy machine may be as slow as that.
    monkeypatch.setattr(session, "STUCK_MS", 60_000)

    async def scenario() -> None:
        async with (
            trio(tmp_path) as cluster,
            CopycatClient(*cluster.addresses, server_selection=selection) as client,
        ):
            awaited = [client.submit(Book.add(n)) for n in range(300)]
            level = ConsistencyLevel.SEQUENTIAL
            seen = client.submit(Book.count(), consistency=level)
            confirmed = client.submit(Book.count())
            assert await asyncio.gather(*awaited) == list(range(1, 301))
            assert (await seen, await confirmed) == (300, 300)

    run(scenario)


def test_a_follower_relays_and_serves_sequential_reads_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as cluster:
            await cluster.all_applied()
            follower = str(cluster.followers[0].address)
            async with CopycatClient(follower) as client:
                assert await client.submit(Book.add(1)) == 1
                assert await client.submit(Book.count()) == 1
                level = ConsistencyLevel.SEQUENTIAL
                assert await client.submit(Book.all(), consistency=level) == [1]

    run(scenario)


def test_leadership_is_handed_over_and_every_command_counts_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as cluster:
            await cluster.all_applied()
            old = cluster.leader
            async with CopycatClient(*cluster.addresses) as client:
                awaited = [client.submit(Book.add(n)) for n in range(200)]
                await awaited[0]
                stopping = asyncio.create_task(old.shutdown())
                awaited += [client.submit(Book.add(n)) for n in range(200, 2000)]
                assert await asyncio.gather(*awaited) == list(range(1, 2001))
                await stopping
                assert old.state is ServerState.INACTIVE
                await cluster.start(str(old.address))
                assert await client.submit(Book.add(2000)) == 2001
            await cluster.all_applied()
            for member in cluster.running:
                assert member.state_machine.entries == list(range(2001))

    run(scenario)


def test_all_stop_and_the_cluster_comes_back_with_its_state(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as cluster:
            async with CopycatClient(*cluster.addresses) as client:
                await client.submit_many(Book.add(n) for n in range(50))
            await asyncio.gather(*(member.shutdown() for member in cluster.running))
            assert not cluster.running
            await cluster.start()
            async with CopycatClient(*cluster.addresses) as client:
                assert await client.submit(Book.all()) == list(range(50))

    run(scenario)


def test_a_majority_is_enough_to_start_and_to_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as cluster:
            await cluster.all_applied()
            down = cluster.followers[0]
            await down.shutdown()
            async with CopycatClient(*cluster.addresses) as client:
                assert await client.submit_many(Book.add(n) for n in range(100)) == list(
                    range(1, 101)
                )
                await cluster.start(str(down.address))
            await cluster.all_applied()
            (back,) = [s for s in cluster.running if s.address == down.address]
            assert back.state_machine.entries == list(range(100))

    run(scenario)


def test_leadership_is_handed_to_whom_the_caller_names(tmp_path: Path) -> None:
    async def test() -> None:
        async with trio(tmp_path) as cluster:
            await cluster.all_applied()
            old = cluster.leader
            heir = next(member for member in cluster.servers.values() if member is not old)
            with pytest.raises(UnknownMemberError, match="no member"):
                await old.cluster.transfer_leadership("127.0.0.1:1")
            await old.cluster.transfer_leadership(str(heir.address))
            await cluster.until(lambda: heir.state is ServerState.LEADER)
            async with heir.client() as client:
                assert await client.submit(Book.add(1)) == 1

    run(test)


def test_c40_any_member_may_have_leadership_transferred(tmp_path: Path) -> None:
    async def test() -> None:
        async with trio(tmp_path) as cluster:
            await cluster.all_applied()
            old = cluster.leader
            heir, other = (member for member in cluster.servers.values() if member is not old)
            with pytest.raises(UnknownMemberError, match="no member"):
                await other.cluster.transfer_leadership("127.0.0.1:1")
            await other.cluster.transfer_leadership(str(heir.address))
            assert other.status().leader == str(heir.address)
            await other.cluster.transfer_leadership(str(heir.address))
            await other.cluster.transfer_leadership(other.cluster.member)
            assert other.status().leader == str(other.address)
            term = other.status().term
            await old.cluster.transfer_leadership()
            await cluster.all_applied()
            assert cluster.leader is not other
            assert cluster.leader.status().term == term + 1, "once, and not once more"

    run(test)
