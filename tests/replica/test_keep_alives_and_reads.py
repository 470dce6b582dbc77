"""Keep-alives keep a session alive, and a sequential read never answers with an older state."""

from __future__ import annotations

import pytest

from copycat.machine.kv import KeyValueStore
from copycat.protocol.client import (
    KeepAlive,
    KeptAlive,
    QueryRequest,
    QueryResult,
    Register,
    Registered,
    Results,
)
from copycat.protocol.operations import encode_operation
from copycat.protocol.results import decode_result
from copycat.types import ConsistencyLevel
from tests.replica.harness import CLIENT, Network, Node, commands, lone_leader, open_session

TIMEOUT_MS = 5000
"""What `open_session` asks for."""


def pass_time(node: Node, milliseconds: int) -> None:
    for _ in range(milliseconds // 100):
        node.turn(100)
        node.stabilize(rounds=3)


def keep_alive(node: Node, session: int, request: int) -> None:
    node.client(KeepAlive(request, session, 0))
    node.turn()
    node.stabilize()
    reply = node.last_reply()
    assert isinstance(reply, KeptAlive), reply
    assert reply.request == request


def is_open(node: Node, session: int) -> bool:
    mirrored = node.replica._sessions.get(session) is not None
    applied = session in {row.session for row in node.executor.session_rows()}
    assert mirrored == applied
    return applied


def test_a_session_that_only_keeps_alive_lives_as_long_as_it_does() -> None:
    node = lone_leader()
    session = open_session(node)
    for request in range(2, 8):
        pass_time(node, TIMEOUT_MS - 500)
        assert is_open(node, session)
        keep_alive(node, session, request)
    pass_time(node, TIMEOUT_MS - 500)
    assert is_open(node, session)
    pass_time(node, 1000)
    assert not is_open(node, session)


def test_nobody_even_proposes_the_end_of_a_session_that_keeps_alive() -> None:
    """An EXPIRE that the machine refuses would keep it open, too, and hide a leader that looks
    at the wrong time."""
    node = lone_leader()
    session = open_session(node)
    for request in range(2, 6):
        pass_time(node, TIMEOUT_MS - 500)
        before = node.log.last_index
        keep_alive(node, session, request)
        assert node.log.last_index == before + 1
    view = node.replica._sessions.get(session)
    assert view is not None
    assert view.expiring_index == 0


def test_the_keep_alive_of_one_session_keeps_no_other() -> None:
    node = lone_leader()
    active, silent = open_session(node, CLIENT), open_session(node, CLIENT + 1)
    for request in range(2, 4):
        pass_time(node, TIMEOUT_MS - 500)
        keep_alive(node, active, request)
    assert is_open(node, active)
    assert not is_open(node, silent)


def test_followers_see_keep_alives_too() -> None:
    """The next leader begins with what it has seen: an activity, not the time of the opening."""
    net = Network()
    leader = net.elect()
    leader.client(Register(1, "client", TIMEOUT_MS))
    net.stabilize()
    opened = leader.last_reply()
    assert isinstance(opened, Registered)
    net.stabilize(1000)
    leader.client(KeepAlive(2, opened.session, 0))
    for _ in range(4):
        net.stabilize(100)
    views = [n.replica._sessions.get(opened.session) for n in net.nodes.values()]
    activity = [(view.active_index, view.active_ms) for view in views if view is not None]
    assert len(activity) == 3
    assert len(set(activity)) == 1
    assert activity[0][0] > opened.session


# --- sequential reads -------------------------------------------------------------------------


def ask(
    node: Node,
    session: int,
    seen: int,
    level: ConsistencyLevel,
    connection: int,
    *,
    request: int,
) -> None:
    query = encode_operation(KeyValueStore.items("k"))
    node.client(QueryRequest(request, session, 0, seen, level, query), connection)
    node.turn()


def read(node: Node, session: int, seen: int, level: ConsistencyLevel, connection: int) -> None:
    ask(node, session, seen, level, connection, request=connection)  # each read is another one
    node.finish_work()
    node.turn()


def answers(node: Node, connection: int) -> list[tuple[int, list[bytes]]]:
    results = [m for to, m in node.host.replies if to == connection and isinstance(m, QueryResult)]
    return [(m.index, decode_result(m.body, list[bytes])) for m in results]


@pytest.mark.parametrize("by", ["a command", "a read"])
def test_a_follower_that_lags_keeps_a_sequential_read_until_it_is_not_behind(by: str) -> None:
    net = Network()
    leader = net.elect()
    lagging = next(node for node in net.nodes.values() if node is not leader)
    leader.client(Register(1, "client", TIMEOUT_MS))
    net.stabilize()
    net.stabilize(100)
    opened = leader.last_reply()
    assert isinstance(opened, Registered)
    net.cut(lagging.member)
    leader.replica.receive_client(
        CLIENT, commands(opened.session, 1, KeyValueStore.append("k", b"a"))
    )
    net.stabilize(100)
    written = next(m for _, m in leader.host.replies if isinstance(m, Results))
    seen = written.last_index
    if by == "a read":
        read(leader, opened.session, 0, ConsistencyLevel.SEQUENTIAL, CLIENT)
        ((seen, items),) = answers(leader, CLIENT)
        assert items == [b"a"]
    assert lagging.executor.last_applied < seen
    read(lagging, opened.session, seen, ConsistencyLevel.SEQUENTIAL, 8)
    assert answers(lagging, 8) == []
    # Who has seen nothing may read what is there: it is a state of the past, and says so.
    read(lagging, opened.session, 0, ConsistencyLevel.SEQUENTIAL, 9)
    assert answers(lagging, 9) == [(lagging.executor.last_applied, [])]
    net.mend(lagging.member)
    for _ in range(6):
        net.stabilize(100)
    ((index, items),) = answers(lagging, 8)
    assert index >= seen
    assert items == [b"a"]


def test_a_sequential_read_waits_exactly_for_what_its_client_saw() -> None:
    node = lone_leader()
    session = open_session(node)
    read(node, session, node.executor.last_applied, ConsistencyLevel.SEQUENTIAL, 8)
    assert [index for index, _ in answers(node, 8)] == [node.executor.last_applied]
    read(node, session, node.executor.last_applied + 1, ConsistencyLevel.SEQUENTIAL, 9)
    assert answers(node, 9) == []
    node.replica.receive_client(CLIENT, commands(session, 1, KeyValueStore.append("k", b"a")))
    node.turn()
    node.stabilize()
    assert answers(node, 9) == [(node.executor.last_applied, [b"a"])]


def test_a_linearizable_read_does_not_go_below_what_its_client_saw_either() -> None:
    node = lone_leader()
    session = open_session(node)
    read(node, session, node.executor.last_applied + 1, ConsistencyLevel.LINEARIZABLE, 9)
    node.stabilize()
    assert answers(node, 9) == []
    node.replica.receive_client(CLIENT, commands(session, 1, KeyValueStore.append("k", b"a")))
    node.turn()
    node.stabilize()
    assert answers(node, 9) == [(node.executor.last_applied, [b"a"])]


# --- a read that takes longer than its client's patience --------------------------------------


@pytest.mark.parametrize("level", [ConsistencyLevel.LINEARIZABLE, ConsistencyLevel.SEQUENTIAL])
def test_a_read_that_is_asked_again_by_other_connections_runs_once(
    level: ConsistencyLevel,
) -> None:
    node = lone_leader()
    session = open_session(node)
    for connection in (8, 9, 10):
        ask(node, session, 0, level, connection, request=5)
        node.turn()
        assert len(node.host.work) == 1, "it is under way already"
        if connection == 9:
            node.replica.client_disconnected(8)
    node.stabilize()
    assert [len(answers(node, connection)) for connection in (8, 9, 10)] == [0, 0, 1]


def test_the_first_runs_answer_is_not_older_than_what_the_client_saw_meanwhile() -> None:
    node = lone_leader()
    session = open_session(node)
    ask(node, session, 0, ConsistencyLevel.SEQUENTIAL, 8, request=5)
    assert len(node.host.work) == 1
    seen = node.executor.last_applied + 1
    ask(node, session, seen, ConsistencyLevel.SEQUENTIAL, 9, request=5)
    node.stabilize()
    assert answers(node, 9) == []
    node.replica.receive_client(CLIENT, commands(session, 1, KeyValueStore.append("k", b"a")))
    node.turn()
    node.stabilize()
    assert answers(node, 9) == [(seen, [b"a"])]
    assert answers(node, 8) == []


def test_another_operation_under_the_same_number_is_a_read_of_its_own() -> None:
    node = lone_leader()
    session = open_session(node)
    ask(node, session, 0, ConsistencyLevel.SEQUENTIAL, 8, request=5)
    query = encode_operation(KeyValueStore.items("other"))
    node.client(QueryRequest(5, session, 0, 0, ConsistencyLevel.SEQUENTIAL, query), 9)
    node.turn()
    node.stabilize()
    assert len(answers(node, 8)) == len(answers(node, 9)) == 1


def test_c30_a_member_that_joins_answers_no_queries() -> None:
    net = Network()
    leader = net.elect()
    joining = next(node for node in net.nodes.values() if node is not leader)
    leader.client(Register(1, "client", TIMEOUT_MS))
    net.stabilize()
    net.stabilize(100)
    opened = leader.last_reply()
    assert isinstance(opened, Registered)
    raft = joining.replica.raft
    raft.eligibility.on_configuration(raft.configuration, is_joining=True)
    read(joining, opened.session, 0, ConsistencyLevel.SEQUENTIAL, 8)
    assert answers(joining, 8) == []
    net.stabilize(100)
    assert len(answers(joining, 8)) == 1, "the leader answers in its place"
    raft.eligibility.on_configuration(raft.configuration)
    read(joining, opened.session, 0, ConsistencyLevel.SEQUENTIAL, 9)
    assert len(answers(joining, 9)) == 1
