"""Members that join, are promoted, demoted and removed, from any member about any member."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from copycat import (
    ChangeSupersededError,
    ConfigurationError,
    CopycatClient,
    CopycatServer,
    LastVoterError,
    MemberIdReusedError,
    MemberStatus,
    MemberType,
    ServerState,
    StaleConfigurationError,
)
from copycat.cli.cluster.app import ClusterOptions, run_with
from copycat.client.cluster_connection import ClusterConnection
from copycat.client.membership import Membership
from copycat.config import ServerOptions
from copycat.raft.progress import ProgressState
from copycat.server.node import Node
from copycat.types import MemberId
from tests.server.cluster import Book, free_address, run, server

pytestmark = pytest.mark.slow


class Growing:
    """A cluster that begins with one member, in a folder for all directories."""

    def __init__(self, path: Path, stack: AsyncExitStack) -> None:
        self.path = path
        self.stack = stack
        self.servers: dict[str, CopycatServer[Any]] = {}
        self.heard: dict[str, list[str]] = {}
        self.loop = "application"

    async def new(self, name: str, address: str = "") -> CopycatServer[Any]:
        """A server of this name, whose port is open; its events are in `heard`."""
        options = {"name": name, "loop": self.loop}
        one = server(self.path / name, address or free_address(), Book, **options)
        lines = self.heard.setdefault(name, [])
        one.cluster.on_join(lambda member: lines.append(f"join {member.name}"))
        one.cluster.on_leave(lambda member: lines.append(f"leave {member.name}"))
        self.servers[name] = one
        await self.stack.enter_async_context(one)
        return one

    async def bootstrap(self) -> CopycatServer[Any]:
        """The first member, which leads."""
        return await (await self.new("a")).bootstrap()

    async def join(self, name: str, *, type: Any = "active") -> CopycatServer[Any]:
        """One more member, which asks all that run."""
        places = [str(one.address) for one in self.servers.values() if one.is_running]
        return await (await self.new(name)).join(*places, type=type)

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():  # noqa: ASYNC110  (of several servers; there is no one event)
            await asyncio.sleep(0.01)

    def types(self, seen_by: CopycatServer[Any]) -> dict[str, MemberType]:
        """What one member takes each member for, by the name of its server."""
        names = {str(one.address): name for name, one in self.servers.items()}
        return {names[address]: one.type for address, one in seen_by.cluster.members.items()}

    async def all_see(self, **types: str) -> None:
        """Wait until every member that runs sees these types."""
        expected = {name: MemberType(type) for name, type in types.items()}
        members = [self.servers[name] for name in types if self.servers[name].is_running]
        await self.until(lambda: all(self.types(one) == expected for one in members))

    async def leader(self) -> CopycatServer[Any]:
        """The one that leads, once there is one."""

        def leaders() -> list[CopycatServer[Any]]:
            return [one for one in self.servers.values() if one.state is ServerState.LEADER]

        await self.until(lambda: len(leaders()) == 1)
        return leaders()[0]


def growing(path: Path, test: Callable[[Growing], Any]) -> None:
    """Run a test with a cluster whose members are all shut down at the end."""

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            await test(Growing(path, stack))

    run(scenario)


def test_members_join_as_each_type_and_every_member_hears_of_it(tmp_path: Path) -> None:
    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        async with a.client() as client:
            await client.submit_many(Book.add(n) for n in range(50))
            b = await cluster.join("b")
            d = await cluster.join("d", type="passive")
            e = await cluster.join("e", type="reserve")
            voters = {ServerState.LEADER, ServerState.FOLLOWER}  # a busy machine may elect b
            states = ServerState.PASSIVE, ServerState.RESERVE
            await cluster.until(lambda: {a.state, b.state} == voters)
            await cluster.until(lambda: (d.state, e.state) == states)
            await cluster.all_see(a="active", b="active", d="passive", e="reserve")
            assert await client.submit(Book.add(50)) == 51
            await cluster.until(lambda: len(d.state_machine.entries) == 51)
            assert e.status().last_index == 0
        addresses = {name: str(one.address) for name, one in cluster.servers.items()}
        await cluster.until(lambda: len(cluster.heard["a"]) == 3)
        assert cluster.heard["a"] == [f"join {addresses[name]}" for name in "bde"]
        assert f"join {addresses['e']}" in cluster.heard["b"]
        assert f"join {addresses['e']}" in cluster.heard["d"]
        ids = {one.cluster.member.id for one in cluster.servers.values()}
        assert len(ids) == 4

    growing(tmp_path, test)


def test_any_member_changes_any_member(tmp_path: Path) -> None:
    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        b = await cluster.join("b")
        c = await cluster.join("c", type="reserve")
        heard: list[MemberType] = []
        a.cluster.members[str(c.address)].on_type_change(heard.append)

        await c.cluster.members[str(c.address)].promote()
        await cluster.all_see(a="active", b="active", c="passive")
        await b.cluster.members[str(c.address)].promote("active")
        await cluster.all_see(a="active", b="active", c="active")
        voters = ServerState.FOLLOWER, ServerState.LEADER
        await cluster.until(lambda: c.state in voters)
        await c.cluster.members[str(b.address)].demote(MemberType.RESERVE)
        await cluster.all_see(a="active", b="reserve", c="active")
        await cluster.until(lambda: b.state is ServerState.RESERVE)
        assert heard == [MemberType.PASSIVE, MemberType.ACTIVE]

        # The leader hands over before it is removed, whoever asks.
        leader = await cluster.leader()
        other = c if leader is a else a
        await b.cluster.members[str(leader.address)].remove()
        await cluster.until(lambda: other.state is ServerState.LEADER)
        await cluster.until(lambda: leader.state is ServerState.INACTIVE)
        async with CopycatClient(str(b.address), cluster_name="test") as client:
            assert await client.submit(Book.add(1)) == 1
        with pytest.raises(LastVoterError):
            await other.leave()

    growing(tmp_path, test)


def test_a_stale_member_object_changes_nothing(tmp_path: Path) -> None:
    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        b = await cluster.join("b", type="passive")
        old = a.cluster.members[str(b.address)]
        c = await cluster.join("c", type="reserve")
        with pytest.raises(StaleConfigurationError) as caught:
            await old.promote()
        assert isinstance(caught.value, ConfigurationError)
        assert (str(c.address), "reserve") in caught.value.members
        assert cluster.types(a)["b"] is MemberType.PASSIVE

    growing(tmp_path, test)


def test_what_is_stored_wins_at_a_restart_of_all(tmp_path: Path) -> None:
    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        async with a.client() as client:
            await client.submit(Book.add(7))
        await cluster.join("b")
        await cluster.join("c")
        await cluster.join("d", type="passive")
        await cluster.all_see(a="active", b="active", c="active", d="passive")
        await a.cluster.members[str(cluster.servers["d"].address)].remove()
        await cluster.all_see(a="active", b="active", c="active")
        left = [cluster.servers[name] for name in "abc"]
        for one in cluster.servers.values():
            await one.shutdown()
        # As the founder of a cluster of one, and as members of whatever they are told.
        starts = [
            left[0].bootstrap(),
            left[1].bootstrap("127.0.0.1:1", "127.0.0.1:2"),
            left[2].join("127.0.0.1:1"),
        ]
        await asyncio.gather(*starts)
        await cluster.all_see(a="active", b="active", c="active")
        async with left[1].client() as client:
            assert await client.submit(Book.all()) == [7]
        with pytest.raises(MemberIdReusedError):
            await cluster.servers["d"].join(str(a.address))

    growing(tmp_path, test)


@pytest.mark.parametrize("loop", ["application", "thread"])
def test_a_member_leaves(tmp_path: Path, loop: str) -> None:
    async def test(cluster: Growing) -> None:
        cluster.loop = loop
        a = await cluster.bootstrap()
        b = await cluster.join("b")
        await a.leave()
        assert not a.is_running
        await cluster.all_see(b="active")
        await cluster.until(lambda: b.state is ServerState.LEADER)
        await cluster.until(lambda: cluster.heard["b"][-1] == f"leave {a.address}")

    growing(tmp_path, test)


def test_a_join_that_ended_before_the_vote_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start asks for the vote. Who was made passive since then is not promoted."""

    async def ends(self: Membership, *of_whom: object) -> None:
        raise ZeroDivisionError

    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        with monkeypatch.context() as patch:
            patch.setattr(Membership, "promote_newcomer", ends)
            with pytest.raises(ZeroDivisionError):
                await cluster.join("b")
        b = cluster.servers["b"]
        assert not b.is_running
        assert cluster.types(a) == {"a": MemberType.ACTIVE, "b": MemberType.PASSIVE}
        await b.join(str(a.address))
        await cluster.all_see(a="active", b="active")
        await a.cluster.members[str(b.address)].demote("passive")
        await cluster.all_see(a="active", b="passive")
        await b.shutdown()
        await b.join(str(a.address))
        assert cluster.types(b) == {"a": MemberType.ACTIVE, "b": MemberType.PASSIVE}

    growing(tmp_path, test)


@pytest.mark.parametrize("kind", ["passive", "reserve"])
def test_a_join_that_somebody_else_ends_leaves_the_member_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()

        async def superseded(self: Membership, _: MemberId, address: str, *base: object) -> Any:
            await a.cluster.members[address].demote(kind)
            raise ChangeSupersededError(f"{address} was made {kind} meanwhile")

        with monkeypatch.context() as patch:
            patch.setattr(Membership, "promote_newcomer", superseded)
            b = await cluster.join("b")
        assert b.is_running
        await cluster.all_see(a="active", b=kind)

    growing(tmp_path, test)


def test_c33_who_is_removed_while_only_its_own_link_is_open_is_told(tmp_path: Path) -> None:
    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        b = await cluster.join("b", type="passive")
        host: Any = a._node.host if a._node is not None else None
        host.disconnect_peer(b.status().member)
        await cluster.until(lambda: a.status().unreachable == (str(b.address),))
        await a.cluster.members[str(b.address)].remove()
        await cluster.until(lambda: b.state is ServerState.INACTIVE)
        assert b.is_running
        assert list(a.cluster.members) == [str(a.address)]

    growing(tmp_path, test)


def test_a_member_runs_while_it_starts_again_without_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        b = await cluster.join("b", type="passive")
        was_running: list[bool] = []
        listen = Node.listen

        async def watched(node: Node) -> ServerOptions:
            was_running.append(b.is_running)
            return await listen(node)

        monkeypatch.setattr(Node, "listen", watched)
        await a.cluster.members[str(b.address)].remove()
        await cluster.until(lambda: bool(was_running) and b.state is ServerState.INACTIVE)
        assert was_running == [True]
        assert b.is_running
        await b.shutdown()
        assert not b.is_running

    growing(tmp_path, test)


def test_servers_that_join_together_are_all_added(tmp_path: Path) -> None:
    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        others = [await cluster.new(name) for name in "bcd"]
        await asyncio.gather(*(one.join(str(a.address)) for one in others))
        await cluster.all_see(a="active", b="active", c="active", d="active")

    growing(tmp_path, test)


def test_the_command_works_over_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        b = await cluster.join("b", type="passive")
        c = await (await cluster.new("c")).join(str(a.address), type="inactive")
        assert c.state is ServerState.INACTIVE
        connection = ClusterConnection([str(b.address)], cluster_name="test")
        try:

            async def command(verb: Any, *addresses: object, **options: Any) -> None:
                places = tuple(map(str, addresses))
                assert await run_with(connection, verb, ClusterOptions(places, **options)) == 0

            await command("add", c.address, goal="reserve")
            await command("promote", b.address)
            await command("transfer", b.address)
            await c.cluster.transfer_leadership(str(a.address))
            await command("transfer", members=(str(c.address),))
            await cluster.until(lambda: c.status().leader == str(b.address))
            await command("demote", a.address, goal="reserve")
            await command("promote", c.address, goal="active")
            await command("remove", a.address)
            capsys.readouterr()
            await command("status", as_json=True)
        finally:
            connection.close()
        document = json.loads(capsys.readouterr().out)
        members = {one["address"]: (one["type"], one["role"]) for one in document["members"]}
        assert members == {
            str(b.address): ("active", "leader"),
            str(c.address): ("active", "follower"),
        }

    growing(tmp_path, test)


def test_elections_and_links_are_heard_by_members_without_a_vote(tmp_path: Path) -> None:
    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        b = await cluster.join("b")
        d = await cluster.join("d", type="reserve")
        leaders: list[str] = []
        statuses: list[MemberStatus] = []
        d.cluster.on_leader_election(lambda member: leaders.append(member.name))
        d.cluster.members[str(a.address)].on_status_change(statuses.append)
        await a.cluster.transfer_leadership()
        await cluster.until(lambda: str(b.address) in leaders)
        await cluster.join("c")
        await a.shutdown()
        await cluster.until(lambda: statuses[-1:] == [MemberStatus.UNAVAILABLE])
        assert d.cluster.members[str(a.address)].status is MemberStatus.UNAVAILABLE

    growing(tmp_path, test)


def test_two_members_at_one_address_are_two_members(tmp_path: Path) -> None:
    """The disk of the first one was lost; the second one has taken its place. It asks to be
    active, and is passive as long as the first one has its vote (C43)."""

    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        await cluster.join("c")
        b = await cluster.join("b")
        lost = b.cluster.member.id
        await b.shutdown()
        again = await cluster.new("b-again", str(b.address))
        await again.join(str(a.address))
        assert again.status().configuration.type(again.cluster.member.id) is MemberType.PASSIVE
        names = [name for name in a.cluster.members if name.startswith(str(b.address))]
        ids = {lost, again.cluster.member.id}
        assert set(names) == {f"{b.address} (id {f'{one:032x}'[:8]})" for one in ids}
        (name,) = [one for one in names if f"{lost:032x}"[:8] in one]
        await a.cluster.members[name].remove()
        assert str(b.address) in a.cluster.members
        replica: Any = a._node.replica if a._node is not None else None
        progress = replica.raft.leader_state.progress[again.cluster.member.id]
        # The link may be a new one, since that of the other member at this address was closed.
        await cluster.until(lambda: progress.state is not ProgressState.LOST)
        await a.cluster.members[str(b.address)].promote()

    growing(tmp_path, test)


def test_c43_a_passive_member_that_lost_its_disk_leaves_no_record(tmp_path: Path) -> None:
    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        b = await cluster.join("b", type="passive")
        await b.shutdown()
        again = await cluster.new("b-again", str(b.address))
        await again.join(str(a.address), type="passive")
        assert set(a.cluster.members) == {str(a.address), str(b.address)}
        assert a.cluster.members[str(b.address)].id == again.cluster.member.id

    growing(tmp_path, test)


def test_a_member_of_another_cluster_says_that_it_does_not_join(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        founder = await cluster.new("other")
        await founder.bootstrap()
        await founder.shutdown()
        await founder.join(str(a.address))
        assert f"it does not join {a.address}" in caplog.text
        assert "it needs an empty directory" in caplog.text
        assert founder.state is ServerState.LEADER

    growing(tmp_path, test)


def test_a_server_that_is_no_member_says_what_it_waits_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "copycat")

    async def test(cluster: Growing) -> None:
        await cluster.bootstrap()
        b = await cluster.join("b", type="inactive")
        assert f"it waits until somebody adds it (copycat cluster add {b.address})" in caplog.text

    growing(tmp_path, test)


def test_a_server_that_was_removed_starts_and_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "copycat")

    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        b = await cluster.join("b", type="passive")
        await a.cluster.members[str(b.address)].remove()
        await cluster.until(lambda: "this member was removed from the cluster" in caplog.text)
        await b.shutdown()
        again = await cluster.new("b", str(b.address))
        await again.bootstrap()
        assert again.state is ServerState.INACTIVE
        assert again.is_running
        with pytest.raises(ConfigurationError, match="is running already"):
            await again.join(str(a.address))
        await again.shutdown()
        with pytest.raises(MemberIdReusedError):
            await again.join(str(a.address))

    growing(tmp_path, test)
