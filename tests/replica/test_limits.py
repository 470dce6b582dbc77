"""What a member refuses to hold, and whom it does not blame (F18, S14 to S16)."""

from __future__ import annotations

import pytest

from copycat.errors import SerializationError
from copycat.machine import StateMachine, command, query
from copycat.machine.kv import KeyValueStore
from copycat.protocol.client import (
    CommandsRefused,
    Failure,
    QueryRequest,
    QueryResult,
    Refusal,
    Register,
    Registered,
    Results,
)
from copycat.protocol.operations import encode_operation
from copycat.protocol.results import decode_result, decode_results
from copycat.replica import queries
from copycat.types import ConsistencyLevel, ServerState
from tests.replica.harness import Node, commands, lone_leader, open_session

ITEM = KeyValueStore.append("k", b"x" * 100)


def test_f18_a_pause_of_the_member_itself_expires_nobody() -> None:
    node = lone_leader()
    open_session(node)
    node.turn(60_000)  # a laptop slept; nobody could have been heard
    node.settle()
    node.turn(100)
    node.settle()
    assert node.replica.status().sessions == 1
    for _ in range(60):
        node.turn(100)
        node.settle()
    assert node.replica.status().sessions == 0, "from then on silence counts"


def test_f18_a_short_pause_is_no_excuse() -> None:
    node = lone_leader()
    open_session(node)
    for _ in range(11):
        node.turn(600)
        node.settle()
    assert node.replica.status().sessions == 0


def test_s15_timeouts_are_clamped() -> None:
    node = lone_leader()
    given = []
    for asked in (1, 1000, (1 << 32) - 1):
        node.client(Register(1, f"client {asked}", asked))
        node.turn()
        node.settle(2)
        reply = node.last_reply()
        assert isinstance(reply, Registered)
        given.append(reply.timeout_ms)
    assert given == [100, 1000, 86_400_000]


def test_s16_requests_that_wait_for_a_leader_to_be_ready_are_bounded_in_bytes() -> None:
    node = Node("127.0.0.1:1", ("127.0.0.1:1",))
    node.turn()
    node.finish_saves()
    node.turn()
    assert node.replica.raft.state is ServerState.LEADER
    gateway = node.replica._parts.gateway
    assert not gateway.admitting
    gateway._limits.waiting_bytes_max = 250
    for first in (1, 2, 3):
        node.replica.receive_client(7, commands(5, first, ITEM))
    node.turn()
    assert node.host.replies == [(7, CommandsRefused(5, 3, Refusal.OVERLOADED, node.address))]
    node.settle()
    codes = [m.code for _, m in node.host.replies if isinstance(m, CommandsRefused)]
    assert codes == [Refusal.OVERLOADED, Refusal.NO_LEADER, Refusal.NO_LEADER]


def test_s16_all_sessions_together_are_bounded_in_bytes_and_it_drains() -> None:
    node = lone_leader()
    sessions = [open_session(node, connection) for connection in (11, 12, 13)]
    node.replica._parts.gateway._limits.total_bytes_max = 250
    for connection, session in zip((11, 12, 13), sessions, strict=True):
        node.replica.receive_client(connection, commands(session, 1, ITEM))
    node.turn()
    last = sessions[-1]
    assert node.host.replies[-1] == (
        13,
        CommandsRefused(last, 1, Refusal.OVERLOADED, node.address),
    )
    node.settle()
    assert node.replica._parts.gateway._total_nbytes == 0
    node.replica.receive_client(13, commands(last, 1, ITEM))
    node.settle()
    assert isinstance(node.last_reply(), Results)


def test_s14_queries_that_can_never_be_answered_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = lone_leader()
    session = open_session(node)
    monkeypatch.setattr(queries, "WAITING_MAX", 3)
    body = encode_operation(KeyValueStore.size())
    for number in range(1, 6):
        node.client(QueryRequest(number, session, 99, 0, ConsistencyLevel.SEQUENTIAL, body))
        node.turn()
    refused = [m for _, m in node.host.replies if isinstance(m, Failure)]
    assert [(m.request, m.code) for m in refused] == [
        (4, Refusal.OVERLOADED),
        (5, Refusal.OVERLOADED),
    ]


class Wide(StateMachine):
    """Gives more than it takes."""

    @command
    def blob(self, size: int) -> bytes:
        return bytes(size)

    @query
    def look(self, size: int) -> bytes:
        return bytes(size)


def test_large_results_leave_in_several_frames_and_again_from_the_cache() -> None:
    node = lone_leader(machine=Wide())
    session = open_session(node)
    run = commands(session, 1, *[Wide.blob(1 << 20)] * 10)
    for attempt in range(2):
        node.host.replies.clear()
        node.replica.receive_client(7, run)
        node.settle(40)
        frames = [m for _, m in node.host.replies if isinstance(m, Results)]
        assert all(len(frame.body) <= (4 << 20) + 64 for frame in frames)
        if attempt == 0:
            cut = [(frame.first_sequence, frame.count) for frame in frames]
            assert cut == [(1, 3), (4, 3), (7, 3), (10, 1)]
            spans = [frame.last_index - frame.first_index + 1 for frame in frames]
            assert spans == [3, 3, 3, 1]
        assert [f.first_sequence for f in frames] == [
            1 + sum(f.count for f in frames[:n]) for n in range(len(frames))
        ]
        found = [r for f in frames for r in decode_results(f.body, f.count, [bytes] * f.count)]
        assert found == [bytes(1 << 20)] * 10


def test_a_result_that_fits_no_frame_is_an_error_in_its_place() -> None:
    node = lone_leader(machine=Wide())
    session = open_session(node)
    node.replica.receive_client(
        7, commands(session, 1, Wide.blob(1), Wide.blob(17 << 20), Wide.blob(2))
    )
    node.settle()
    reply = node.last_reply()
    assert isinstance(reply, Results)
    one, error, two = decode_results(reply.body, 3, [bytes] * 3)
    assert (one, two) == (b"\0", b"\0\0")
    assert isinstance(error, SerializationError)
    body = encode_operation(Wide.look(17 << 20))
    node.client(QueryRequest(9, session, 3, 0, ConsistencyLevel.SEQUENTIAL, body))
    node.settle()
    answer = node.last_reply()
    assert isinstance(answer, QueryResult)
    assert isinstance(decode_result(answer.body, bytes), SerializationError)
