"""A session goes on in no other cluster of the same name: not at a server, and not at a client."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from copycat import ClusterReplacedError, CopycatClient, CopycatServer, blocking
from copycat.client.driver import SessionDriver
from copycat.machine.kv import KeyValueStore
from copycat.protocol.client import (
    CommandsRefused,
    Failure,
    KeepAlive,
    KeptAlive,
    QueryRequest,
    Refusal,
    Register,
    Registered,
    ServerMessage,
)
from copycat.protocol.operations import encode_operation
from copycat.types import ConsistencyLevel, MemberType, SessionState
from tests.client.sessions import completed, opened, submit
from tests.replica.clusters import Cluster, Member
from tests.replica.harness import commands, lone_leader, open_session
from tests.server.cluster import TIMERS, Book, free_address, run

OTHER = 77
"""The incarnation of no cluster here."""


def changed() -> Cluster:
    """A cluster with an incarnation."""
    cluster = Cluster(3)
    cluster.elect()
    cluster.add("127.0.0.1:4")
    return cluster


def answers_at(member: Member, connection: int) -> list[ServerMessage]:
    return [message for at, message in member.host.replies if at == connection]


def session_of(cluster: Cluster) -> int:
    """A session that the leader opened."""
    cluster.leader.client(Register(1, "first", 600_000), 8)
    cluster.run(4)
    registered = answers_at(cluster.leader, 8)[-1]
    assert isinstance(registered, Registered)
    return registered.session


def query(request: int) -> QueryRequest:
    size = encode_operation(KeyValueStore.size())
    return QueryRequest(request, 1, 0, 0, ConsistencyLevel.SEQUENTIAL, size)


@pytest.mark.slow
@pytest.mark.parametrize("leads", [True, False])
def test_c41_nothing_of_a_session_of_another_incarnation_is_taken(leads: bool) -> None:
    cluster = changed()
    leader = cluster.leader
    asked = leader if leads else next(each for each in cluster.up if each is not leader)
    session = session_of(cluster)
    before = leader.replica.status().last_index
    asked.client(KeepAlive(1, session, 0, "test", OTHER), 9)
    asked.replica.receive_client(9, commands(session, 1, KeyValueStore.append("k", b"a")))
    asked.client(query(2), 9)
    cluster.run(4)
    answers = answers_at(asked, 9)
    assert [type(each) for each in answers] == [Failure, CommandsRefused, Failure]
    for each in answers:
        assert isinstance(each, Failure | CommandsRefused)
        assert each.code == Refusal.CLUSTER_REPLACED
        assert f"is of one with incarnation {OTHER:032x}" in each.reason
    assert leader.replica.status().last_index == before


@pytest.mark.slow
def test_c41_a_session_learns_the_incarnation_that_its_cluster_gets() -> None:
    cluster = Cluster(3)
    cluster.elect()
    cluster.leader.client(Register(1, "client", 5000), 9)
    cluster.run(4)
    (registered,) = answers_at(cluster.leader, 9)
    assert isinstance(registered, Registered)
    assert registered.incarnation == 0
    cluster.add("127.0.0.1:4")
    own = cluster.leader.replica.members.cluster_incarnation
    for number in (0, own):
        cluster.leader.client(KeepAlive(2, registered.session, 0, "test", number), 9)
        cluster.run(4)
        answer = answers_at(cluster.leader, 9)[-1]
        assert isinstance(answer, KeptAlive)
        assert answer.incarnation == own


def test_c41_a_cluster_without_an_incarnation_is_no_cluster_that_had_one() -> None:
    """Its founders were wiped and started again with the old list."""
    node = lone_leader()
    session = open_session(node)
    node.client(Register(1, "client", 5000, "test", 0, OTHER), 9)
    node.replica.receive_client(9, commands(session, 1, KeyValueStore.append("k", b"a")))
    node.stabilize()
    codes = [
        message.code
        for at, message in node.host.replies
        if at == 9 and isinstance(message, Failure | CommandsRefused)
    ]
    assert codes == [Refusal.CLUSTER_REPLACED] * 2


@pytest.mark.slow
def test_c41_who_does_not_know_the_incarnation_yet_takes_no_command() -> None:
    """A founder was away while the members were changed for the first time. A client that comes
    to it with the first frame of a later connection is answered by the leader; what follows waits
    until this member knows by itself which cluster this is."""
    cluster = Cluster(3)
    cluster.elect()
    away = next(each for each in cluster.up if each is not cluster.leader)
    session = session_of(cluster)
    cluster.cut(away)
    cluster.add("127.0.0.1:4")
    own = cluster.leader.replica.members.cluster_incarnation
    away.client(KeepAlive(1, session, 0, "test", own), 9)
    away.replica.receive_client(9, commands(session, 1, KeyValueStore.append("k", b"a")))
    away.turn()
    refused = answers_at(away, 9)[-1]
    assert isinstance(refused, CommandsRefused)
    assert refused.code == Refusal.NO_LEADER
    assert "does not know yet" in refused.reason
    cluster.mend(away)
    cluster.run(60)
    away.client(KeepAlive(2, session, 0, "test", own), 9)
    cluster.run(4)
    assert isinstance(answers_at(away, 9)[-1], KeptAlive)


def test_what_the_cluster_says_of_itself_is_said_to_the_next_server() -> None:
    session = opened()
    (first,) = keep_alives(session)
    assert first.incarnation == 0
    session.received(KeptAlive(first.request, "a:1", ("a:1",), OTHER), 10)
    assert session.cluster_incarnation == OTHER
    session.connected(20)
    (second,) = [each for each in session.outgoing(20) if isinstance(each, KeepAlive)]
    assert second.incarnation == OTHER


def keep_alives(session: Any) -> list[KeepAlive]:
    session.connected(5)
    return [each for each in session.outgoing(5) if isinstance(each, KeepAlive)]


def test_the_operations_of_a_replaced_cluster_say_what_is_unknown() -> None:
    session = opened()
    submit(session, 1)
    session.outgoing(0)
    submit(session, 2)
    session.replaced("a:1 is of another one")
    errors = [value for _, value in completed(session)]
    assert [type(each) for each in errors] == [ClusterReplacedError] * 2
    assert [each.outcome_unknown for each in errors] == [True, False]
    assert "a:1 is of another one" in errors[0].message
    assert session.outgoing(10) == []


# --- real servers ----------------------------------------------------------------------------


async def grown(first: CopycatServer[Book], second: CopycatServer[Book]) -> None:
    """A cluster with an incarnation."""
    await first.bootstrap()
    await second.join(str(first.address), type=MemberType.PASSIVE)


@pytest.mark.slow
@pytest.mark.parametrize("recovery", ["recover", "close"])
def test_c41_a_client_of_a_cluster_that_was_wiped(tmp_path: Path, recovery: Any) -> None:
    async def scenario() -> None:
        address = free_address()
        options: dict[str, Any] = dict(TIMERS)
        old = CopycatServer(address, Book, storage=tmp_path / "old", **options)
        second = CopycatServer(free_address(), Book, storage=tmp_path / "second", **options)
        client = CopycatClient(address, session_timeout=1.0, recovery_strategy=recovery)
        async with old, second:
            await grown(old, second)
            await client.connect()
            assert await client.submit(Book.add(1)) == 1
        async with CopycatServer(address, Book, storage=tmp_path / "new", **options) as new:
            await new.bootstrap()
            with pytest.raises(ClusterReplacedError) as caught:
                await client.submit(Book.add(2), timeout=20)
            assert "has no incarnation" in caught.value.message
            assert client.session.state is SessionState.CLOSED
            async with CopycatClient(address) as other:
                assert await other.submit(Book.all()) == []
            await client.recover()
            assert await client.submit(Book.add(3)) == 1
            await client.close()

    run(scenario)


@pytest.mark.slow
def test_c41_a_blocking_client_of_a_cluster_that_was_wiped(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(TIMERS)
    address = free_address()
    clients: list[blocking.CopycatClient] = []

    async def before() -> None:
        old = CopycatServer(address, Book, storage=tmp_path / "old", **options)
        second = CopycatServer(free_address(), Book, storage=tmp_path / "second", **options)
        async with old, second:
            await grown(old, second)
            client = await asyncio.to_thread(blocking.CopycatClient, address, session_timeout=1.0)
            clients.append(client)
            assert await asyncio.to_thread(client.submit, Book.add(1)) == 1

    async def after() -> None:
        async with CopycatServer(address, Book, storage=tmp_path / "new", **options) as new:
            await new.bootstrap()
            (client,) = clients
            with pytest.raises(ClusterReplacedError):
                await asyncio.to_thread(client.submit, Book.add(2), timeout=20)
            await asyncio.to_thread(client.recover)
            assert await asyncio.to_thread(client.submit, Book.all()) == []
            await asyncio.to_thread(client.close)

    run(before)
    run(after)


@pytest.mark.slow
def test_c41_one_server_of_another_cluster_ends_no_session(tmp_path: Path) -> None:
    """Somebody started a founder again, with an empty disk; the cluster itself runs elsewhere."""

    async def scenario() -> None:
        options: dict[str, Any] = dict(TIMERS)
        stray_address = free_address()
        first = CopycatServer(free_address(), Book, storage=tmp_path / "first", **options)
        second = CopycatServer(free_address(), Book, storage=tmp_path / "second", **options)
        stray = CopycatServer(stray_address, Book, storage=tmp_path / "stray", **options)
        async with first, second, stray:
            await grown(first, second)
            await stray.bootstrap()
            async with CopycatClient(str(first.address), session_timeout=2.0) as client:
                assert await client.submit(Book.add(1)) == 1
                id_before = client.session.id
                driver = client._driver
                assert isinstance(driver, SessionDriver)
                driver._selector._given_addresses = (stray_address,)
                for number in range(2, 6):
                    assert driver._connection is not None
                    driver._connection.close("the test closes it")
                    assert await client.submit(Book.add(number), timeout=10) == number
                assert client.session.id == id_before
            async with CopycatClient(stray_address) as other:
                assert await other.submit(Book.all()) == []

    run(scenario)
