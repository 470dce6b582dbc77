"""Large answers and slow connections: what finds no room waits at its request, and arrives."""

from __future__ import annotations

import pytest

from copycat.machine import StateMachine, command, query
from copycat.machine.apply_result import RunReply
from copycat.machine.sessions import SessionRecord
from copycat.protocol.client import (
    CommandsRefused,
    Failure,
    KeepAlive,
    QueryRequest,
    QueryResult,
    Refusal,
    Register,
    Registered,
    Results,
)
from copycat.protocol.codec_client import encode_server
from copycat.protocol.framing import split_frame
from copycat.protocol.operations import encode_operation
from copycat.protocol.results import PIECE_NBYTES, decode_results, encode_results
from copycat.replica.connections import TURN_NBYTES_MAX
from copycat.replica.host import REPLY_ROOM
from copycat.replica.requests import FORWARDED_NBYTES_MAX, SMALL_NBYTES
from copycat.types import ConsistencyLevel
from tests.replica.harness import CLIENT, Network, Node, commands, lone_leader, open_session

MIB = 1 << 20


class Wide(StateMachine):
    """Gives more than it takes, and counts how often it was asked."""

    def __init__(self) -> None:
        self.applied: list[int] = []
        self.asked: list[int] = []

    @command
    def blob(self, number: int, size: int) -> bytes:
        self.applied.append(number)
        return b"%d," % number + bytes(size)

    @query
    def look(self, number: int, size: int) -> bytes:
        self.asked.append(number)
        return bytes(size)


def leader_with_a_slow_client() -> tuple[Node, Wide, int]:
    machine = Wide()
    node = lone_leader(machine=machine)
    session = open_session(node)
    node.host.unsent[CLIENT] = 0
    node.host.replies.clear()
    return node, machine, session


def ask(node: Node, session: int, number: int, size: int, connection: int = CLIENT) -> None:
    operation = encode_operation(Wide.look(number, size))
    level = ConsistencyLevel.LINEARIZABLE
    node.client(QueryRequest(number, session, 0, 0, level, operation), connection)


def answered(node: Node) -> list[int]:
    return [m.request for _, m in node.host.replies if isinstance(m, QueryResult)]


def numbers(node: Node) -> list[int]:
    """The commands whose results were sent, in order."""
    sequences: list[int] = []
    for _, message in node.host.replies:
        if isinstance(message, Results):
            sequences += range(message.first_sequence, message.first_sequence + message.count)
    return sequences


def results(node: Node) -> list[int]:
    """What they say, in order."""
    answers = []
    for _, message in node.host.replies:
        if isinstance(message, Results):
            values = decode_results(message.body, message.count, [bytes] * message.count)
            answers += [int(value.partition(b",")[0]) for value in values]
    return answers


def test_a_burst_of_large_queries_waits_as_requests_and_all_are_answered_once() -> None:
    node, machine, session = leader_with_a_slow_client()
    for number in range(1, 81):
        ask(node, session, number, MIB)
    most, rounds = 0, 0
    while len(answered(node)) < 80:
        node.stabilize()
        assert len(answered(node)) > rounds, "each time there is room, one more is answered"
        most = max(most, node.host.unsent[CLIENT])
        node.host.unsent[CLIENT] = 0
        rounds += 1
    assert answered(node) == machine.asked == list(range(1, 81))
    assert most < REPLY_ROOM + MIB + 1024, "never more than one over the edge"


def test_small_queries_of_another_client_do_not_wait_behind_a_full_connection() -> None:
    node, _, session = leader_with_a_slow_client()
    node.host.unsent[CLIENT] = REPLY_ROOM
    ask(node, session, 1, 10)
    ask(node, session, 2, 10, connection=99)
    node.stabilize()
    assert answered(node) == [2]
    node.host.unsent[CLIENT] = 0
    node.stabilize()
    assert answered(node) == [2, 1]


def test_one_answer_always_fits() -> None:
    node, _, session = leader_with_a_slow_client()
    ask(node, session, 1, 15 * MIB)
    node.stabilize()
    assert answered(node) == [1]


def test_a_query_that_is_asked_again_while_it_waits_runs_once() -> None:
    node, machine, session = leader_with_a_slow_client()
    node.host.unsent[CLIENT] = REPLY_ROOM
    for _ in range(5):
        ask(node, session, 1, 10)
        node.stabilize()
    node.host.unsent[CLIENT] = 0
    node.stabilize()
    assert (answered(node), machine.asked) == ([1], [1])
    ask(node, session, 1, 10)
    node.stabilize()
    assert answered(node) == [1, 1], "once it is answered, asking again is a new request"


@pytest.mark.parametrize("level", [ConsistencyLevel.LINEARIZABLE, ConsistencyLevel.SEQUENTIAL])
def test_a_query_that_is_asked_again_for_less_waits_for_less(level: ConsistencyLevel) -> None:
    """Callers gave up what the session had numbered before the query: it was never sent.

    Found by the shipped session in the simulator (seed 690429220330): such a query waited for a
    sequence that nobody would ever send.
    """
    node, machine, session = leader_with_a_slow_client()
    query = encode_operation(Wide.look(1, 10))
    for sequence in (3, 3, 0):
        node.client(QueryRequest(1, session, sequence, 0, level, query), CLIENT)
        node.stabilize()
    assert (answered(node), machine.asked) == ([1], [1])


def test_what_a_connection_left_behind_is_not_run() -> None:
    node, machine, session = leader_with_a_slow_client()
    node.host.unsent[CLIENT] = REPLY_ROOM
    ask(node, session, 1, 10)
    node.stabilize()
    node.replica.client_disconnected(CLIENT)
    node.host.unsent.clear()
    node.stabilize()
    assert not machine.asked
    ask(node, session, 1, 10)
    node.stabilize()
    assert answered(node) == [1]


def drained(node: Node, until: int) -> None:
    """Give the slow client room until so many results were sent."""
    while len(numbers(node)) < until:
        before = len(numbers(node))
        node.host.unsent[CLIENT] = 0
        node.stabilize()
        assert len(numbers(node)) > before


def test_a_burst_of_large_results_waits_in_the_cache_and_all_arrive_in_order() -> None:
    node, machine, session = leader_with_a_slow_client()
    for first in range(1, 81, 20):
        run = [Wide.blob(n, MIB) for n in range(first, first + 20)]
        node.replica.receive_client(CLIENT, commands(session, first, *run))
    node.stabilize()
    assert len(machine.applied) == 80
    assert len(numbers(node)) < 10
    assert node.host.unsent[CLIENT] < REPLY_ROOM + 5 * MIB
    drained(node, 80)
    assert numbers(node) == results(node) == list(range(1, 81))
    assert len(machine.applied) == 80


def test_commands_that_are_sent_again_over_a_slow_connection_are_not_answered_twice() -> None:
    node, _, session = leader_with_a_slow_client()
    run = [Wide.blob(n, MIB) for n in range(1, 21)]
    node.replica.receive_client(CLIENT, commands(session, 1, *run))
    node.stabilize()
    for _ in range(3):
        node.replica.receive_client(CLIENT, commands(session, 1, *run))
        node.stabilize()
    drained(node, 20)
    node.replica.receive_client(CLIENT, commands(session, 1, *run))
    node.host.unsent[CLIENT] = 0
    node.stabilize()
    assert numbers(node) == list(range(1, 21)), "what was written is on its way"


def test_another_connection_gets_all_that_the_client_does_not_have() -> None:
    node, _, session = leader_with_a_slow_client()
    run = [Wide.blob(n, MIB) for n in range(1, 21)]
    node.replica.receive_client(CLIENT, commands(session, 1, *run))
    node.stabilize()
    node.replica.client_disconnected(CLIENT)
    node.host.unsent.clear()
    node.stabilize()
    node.host.replies.clear()
    node.client(KeepAlive(5, session, 0), 99)
    node.replica.receive_client(99, commands(session, 1, *run))
    node.stabilize(40)
    assert numbers(node) == list(range(1, 21))
    assert {to for to, _ in node.host.replies} == {99}


# ---- over a follower ---------------------------------------------------------------------------


def relayed() -> tuple[Network, Node, Node, int]:
    """A client of a follower, whose link from the leader is slow."""
    net = Network(make=lambda address, members: Node(address, members, machine=Wide()))
    leader = net.elect()
    follower = next(node for node in net.nodes.values() if node is not leader)
    follower.client(Register(1, "client", 5000))
    net.stabilize()
    registered = follower.last_reply()
    assert isinstance(registered, Registered)
    follower.host.replies.clear()
    return net, leader, follower, registered.session


def test_answers_of_the_leader_leave_its_link_room_for_the_log() -> None:
    net, leader, follower, session = relayed()
    leader.host.unsent[follower.member] = 0
    for number in range(1, 41):
        ask(follower, session, number, MIB)
    rounds = 0
    while len(answered(follower)) < 40:
        net.stabilize()
        assert len(answered(follower)) > rounds
        rounds += 1
        assert leader.host.unsent[follower.member] < 3 * MIB
        leader.host.unsent[follower.member] = 0
    assert answered(follower) == list(range(1, 41))


def test_a_relayed_answer_without_room_is_refused_and_asked_for_again() -> None:
    net, _, follower, session = relayed()
    follower.host.unsent[CLIENT] = FORWARDED_NBYTES_MAX
    ask(follower, session, 1, MIB)
    ask(follower, session, 2, 10)
    follower.replica.receive_client(CLIENT, commands(session, 1, Wide.blob(1, MIB)))
    for _ in range(4):
        net.stabilize()
    refused = [m for _, m in follower.host.replies if isinstance(m, Failure | CommandsRefused)]
    assert {type(m) for m in refused} == {Failure, CommandsRefused}
    assert {m.code for m in refused} == {Refusal.OVERLOADED}
    assert answered(follower) == [2], "a small one always has room"
    follower.host.unsent[CLIENT] = 0
    ask(follower, session, 1, MIB)
    follower.replica.receive_client(CLIENT, commands(session, 1, Wide.blob(1, MIB)))
    for _ in range(4):
        net.stabilize()
    assert answered(follower) == [2, 1]
    assert numbers(follower) == [1]


def test_a_refusal_is_small() -> None:
    failure = Failure(1, Refusal.OVERLOADED, "127.0.0.1:65535", "x" * 100)
    assert len(encode_server(failure)) < SMALL_NBYTES
    assert split_frame(encode_server(failure)).type


# ---- the work of one turn -----------------------------------------------------------------------


def written_in_a_turn(node: Node) -> int:
    """Bytes of answers that one turn wrote."""
    before = len(node.host.replies)
    node.turn()
    return sum(
        len(message.body)
        for _, message in node.host.replies[before:]
        if isinstance(message, Results | QueryResult)
    )


def test_the_large_results_of_one_run_are_encoded_and_written_in_pieces() -> None:
    node, machine, session = leader_with_a_slow_client()
    operations = [Wide.blob(number, MIB) for number in range(1, 201)]
    node.replica.receive_client(CLIENT, commands(session, 1, *operations))
    most = 0
    while len(numbers(node)) < 200:
        node.finish_syncs()
        node.finish_work()
        most = max(most, written_in_a_turn(node))
        node.host.unsent[CLIENT] = 0
    assert machine.applied == results(node) == list(range(1, 201))
    assert most <= REPLY_ROOM + PIECE_NBYTES + 64


def test_large_results_of_many_sessions_are_written_in_several_turns() -> None:
    node = lone_leader(machine=Wide())
    sessions = {connection: open_session(node, connection) for connection in range(100, 140)}
    node.host.replies.clear()
    for connection, session in sessions.items():
        frame = commands(session, 1, Wide.blob(1, MIB), Wide.blob(2, MIB))
        node.replica.receive_client(connection, frame)
    most, turns = 0, 0
    while len(numbers(node)) < 80:
        node.finish_syncs()
        node.finish_work()
        most = max(most, written_in_a_turn(node))
        turns += 1
        assert turns < 200, "every turn makes some progress"
    assert most <= TURN_NBYTES_MAX + PIECE_NBYTES
    got = dict.fromkeys(sessions, 0)
    for connection, message in node.host.replies:
        if isinstance(message, Results):
            assert message.first_sequence == got[connection] + 1
            got[connection] += message.count
    assert set(got.values()) == {2}


def test_large_answers_to_queries_of_many_connections_are_written_in_several_turns() -> None:
    node = lone_leader(machine=Wide())
    session = open_session(node)
    node.host.replies.clear()
    for number in range(1, 41):
        ask(node, session, number, MIB, connection=100 + number)
    most = 0
    while len(answered(node)) < 40:
        node.finish_work()
        most = max(most, written_in_a_turn(node))
    assert sorted(answered(node)) == list(range(1, 41))
    assert most <= TURN_NBYTES_MAX + MIB + 64


def test_a_piece_from_the_cache_ends_where_the_next_begins() -> None:
    """A part of what a session holds is asked for, and the first answer of it is old."""
    record = SessionRecord(1, "client", 5000, 0)
    for first in range(1, 20, 4):
        values = [b"%d" % n + bytes(1000) for n in range(first, first + 4)]
        record.add_reply(RunReply(1, first, 4, first, first + 3, 0, encode_results(values)))
    answers: list[bytes] = []
    at = 3
    while at <= 20:
        reply = record.cached_reply(at, 20, 0, 1500)
        assert reply.first_sequence == at
        answers += decode_results(reply.body, reply.count, [bytes] * reply.count)
        at += reply.count
    assert [int(value.rstrip(b"\0")) for value in answers] == list(range(3, 21))
