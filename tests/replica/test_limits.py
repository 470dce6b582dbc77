"""What a member refuses to hold, and whom it does not blame (F18)."""

from __future__ import annotations

import pytest

from copycat.errors import SerializationError
from copycat.machine import StateMachine, command, query
from copycat.machine.apply_result import ApplyResult
from copycat.machine.kv import KeyValueStore
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
from copycat.protocol.framing import Frame
from copycat.protocol.operations import encode_operation
from copycat.protocol.results import decode_result, decode_results
from copycat.replica import applier, queries
from copycat.types import ConsistencyLevel, Run, ServerState
from tests.machine.runs import Script
from tests.replica.harness import Node, commands, lone_leader, open_session

ITEM = KeyValueStore.append("k", b"x" * 100)


def test_f18_a_pause_of_the_member_itself_expires_nobody() -> None:
    node = lone_leader()
    open_session(node)
    node.turn(60_000)  # a laptop slept; nobody could have been heard
    node.stabilize()
    node.turn(100)
    node.stabilize()
    assert node.replica.status().sessions == 1
    for _ in range(60):
        node.turn(100)
        node.stabilize()
    assert node.replica.status().sessions == 0, "from then on silence counts"


def test_f18_a_short_pause_is_no_excuse() -> None:
    node = lone_leader()
    open_session(node)
    for _ in range(11):
        node.turn(600)
        node.stabilize()
    assert node.replica.status().sessions == 0


def test_timeouts_are_clamped() -> None:
    node = lone_leader()
    given = []
    for asked in (1, 1000, (1 << 32) - 1):
        node.client(Register(1, f"client {asked}", asked))
        node.turn()
        node.stabilize(2)
        reply = node.last_reply()
        assert isinstance(reply, Registered)
        given.append(reply.timeout_ms)
    assert given == [100, 1000, 86_400_000]


def test_requests_that_wait_for_a_leader_to_be_ready_are_bounded_in_bytes() -> None:
    node = Node("127.0.0.1:1", ("127.0.0.1:1",))
    node.turn()
    node.finish_saves()
    node.turn()
    assert node.replica.raft.state is ServerState.LEADER
    proposal_queue = node.replica._proposal_queue
    assert not proposal_queue.admitting
    proposal_queue._limits.waiting_bytes_max = 250
    for first in (1, 2, 3):
        node.replica.receive_client(7, commands(5, first, ITEM))
    node.turn()
    assert node.host.replies == [(7, CommandsRefused(5, 3, Refusal.OVERLOADED, node.address))]
    node.stabilize()
    codes = [m.code for _, m in node.host.replies if isinstance(m, CommandsRefused)]
    assert codes == [Refusal.OVERLOADED, Refusal.NO_LEADER, Refusal.NO_LEADER]


def test_a_backlog_in_one_run_is_admitted_when_nothing_is_in_flight() -> None:
    """A client that connects again sends all it has: refused for its size, it would be for ever.

    Found by the shipped session in the simulator (seed 12): all clients stood in a calm.
    """
    node = lone_leader()
    session = open_session(node, 11)
    limits = node.replica._proposal_queue._limits
    limits.inflight_commands_max, limits.inflight_bytes_max = 2, 1
    limits.total_bytes_max = 1
    node.replica.receive_client(11, commands(session, 1, ITEM, ITEM, ITEM))
    node.replica.receive_client(11, commands(session, 4, ITEM))
    node.turn()
    refused = CommandsRefused(session, 4, Refusal.OVERLOADED, node.address)
    assert node.host.replies[-1] == (11, refused)
    node.stabilize()
    reply = node.last_reply()
    assert isinstance(reply, Results)
    assert (reply.first_sequence, reply.count) == (1, 3)
    node.replica.receive_client(11, commands(session, 4, ITEM))
    node.stabilize()
    assert node.last_reply() != refused


def test_all_sessions_together_are_bounded_in_bytes_and_it_drains() -> None:
    node = lone_leader()
    sessions = [open_session(node, connection) for connection in (11, 12, 13)]
    node.replica._proposal_queue._limits.total_bytes_max = 250
    for connection, session in zip((11, 12, 13), sessions, strict=True):
        node.replica.receive_client(connection, commands(session, 1, ITEM))
    node.turn()
    last = sessions[-1]
    assert node.host.replies[-1] == (
        13,
        CommandsRefused(last, 1, Refusal.OVERLOADED, node.address),
    )
    node.stabilize()
    assert node.replica._proposal_queue._total_nbytes == 0
    node.replica.receive_client(13, commands(last, 1, ITEM))
    node.stabilize()
    assert isinstance(node.last_reply(), Results)


def test_queries_that_can_never_be_answered_are_bounded(
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
        node.stabilize(40)
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
        results = [r for f in frames for r in decode_results(f.body, f.count, [bytes] * f.count)]
        assert results == [bytes(1 << 20)] * 10


def test_a_result_that_fits_no_frame_is_an_error_in_its_place() -> None:
    node = lone_leader(machine=Wide())
    session = open_session(node)
    node.replica.receive_client(
        7, commands(session, 1, Wide.blob(1), Wide.blob(17 << 20), Wide.blob(2))
    )
    node.stabilize()
    frames = [m for _, m in node.host.replies if isinstance(m, Results)]
    batches = [decode_results(f.body, f.count, [bytes] * f.count) for f in frames]
    one, error, two = [result for results in batches for result in results]
    assert (one, two) == (b"\0", b"\0\0")
    assert isinstance(error, SerializationError)
    body = encode_operation(Wide.look(17 << 20))
    node.client(QueryRequest(9, session, 3, 0, ConsistencyLevel.SEQUENTIAL, body))
    node.stabilize()
    answer = node.last_reply()
    assert isinstance(answer, QueryResult)
    assert isinstance(decode_result(answer.body, bytes), SerializationError)


# ---- F24: replies that nobody acknowledges ----------------------------------------------------


def blobs(session: int, first: int, count: int, size: int, acked: int = 0) -> Frame:
    return commands(session, first, *[Wide.blob(size)] * count, acked=acked)


def cached(node: Node) -> int:
    return sum(row.cached_nbytes for row in node.executor.session_rows())


def flood(node: Node, session: int, size: int, rounds: int) -> int:
    """Ten commands at a time without an acknowledgement, whatever is refused; the next one."""
    sequence = 1
    for _ in range(rounds):
        node.replica.receive_client(7, blobs(session, sequence, 10, size))
        node.stabilize(20)
        sequence = node.executor.session_rows()[0].sequence + 1
    return sequence


@pytest.mark.parametrize("size", [1 << 20, 100 << 10])
def test_f24_replies_that_are_not_acknowledged_are_bounded_in_bytes(size: int) -> None:
    node = lone_leader(machine=Wide())
    session = open_session(node)
    limit = node.replica._proposal_queue._limits.replies_bytes_max = 20 << 20
    sequence = flood(node, session, size, rounds=60)
    assert limit // 2 < cached(node) <= limit
    last = node.last_reply()
    assert isinstance(last, CommandsRefused)
    assert (last.next_sequence, last.code) == (sequence, Refusal.OVERLOADED)
    assert node.replica.status().sessions == 1
    # Nothing was dropped: the first result again, byte for byte.
    node.replica.receive_client(7, blobs(session, 1, 1, size))
    node.stabilize(20)
    reply = [m for _, m in node.host.replies if isinstance(m, Results)][-1]
    assert (reply.first_sequence, reply.count) == (1, 1)
    # What a refused run acknowledges makes room, and the session continues where it was.
    for _ in range(3):
        node.replica.receive_client(7, blobs(session, sequence, 10, size, acked=sequence - 1))
        node.stabilize(20)
    assert node.executor.session_rows()[0].sequence == sequence + 9
    assert cached(node) < limit


def test_f24_a_keep_alive_makes_room_too_and_a_new_leader_knows_the_bound() -> None:
    node = lone_leader(machine=Wide())
    session = open_session(node)
    limits = node.replica._proposal_queue._limits
    limits.replies_bytes_max = 20 << 20
    sequence = flood(node, session, 1 << 20, rounds=5)
    restored = Script(Wide())
    restored.executor.install(node.executor.snapshot())
    assert restored.noop().unacked_nbytes == {session: cached(node)}
    node.client(KeepAlive(9, session, sequence - 1))
    node.stabilize(20)
    assert cached(node) == 0
    node.replica.receive_client(7, blobs(session, sequence, 10, 1 << 20))
    node.stabilize(20)
    assert node.executor.session_rows()[0].sequence == sequence + 9


def test_f24_all_sessions_together_are_bounded_and_who_acknowledged_all_goes_on() -> None:
    node = lone_leader(machine=Wide())
    greedy, modest = open_session(node, 7), open_session(node, 8)
    limits = node.replica._proposal_queue._limits
    limits.replies_total_bytes_max = 15 << 20
    flood(node, greedy, 1 << 20, rounds=10)
    assert cached(node) < 21 << 20
    node.replica.receive_client(8, blobs(modest, 1, 1, 10))
    node.stabilize(20)
    assert isinstance(node.last_reply(), Results)


def test_f24_one_reply_alone_always_fits() -> None:
    node = lone_leader(machine=Wide())
    session = open_session(node)
    node.replica._proposal_queue._limits.replies_bytes_max = 1000
    for sequence in range(1, 4):
        node.replica.receive_client(7, blobs(session, sequence, 1, 5 << 20, acked=sequence - 1))
        node.stabilize(20)
        node.replica.receive_client(7, blobs(session, sequence, 1, 5 << 20, acked=sequence - 1))
        node.stabilize(20)
    assert node.executor.session_rows()[0].sequence >= 2


# ---- what waits for its turn -------------------------------------------------------------------


def test_requests_for_sessions_that_are_logged_and_not_applied_are_bounded() -> None:
    node = lone_leader()
    node.replica._proposal_queue._limits.waiting_max = 3
    for number in range(1, 6):
        node.client(Register(number, f"client {number}", 0))
    node.turn()
    refused = [m for _, m in node.host.replies if isinstance(m, Failure)]
    assert [(m.request, m.code) for m in refused] == [
        (4, Refusal.OVERLOADED),
        (5, Refusal.OVERLOADED),
    ]
    node.stabilize(20)
    node.client(Register(6, "client 6", 0))
    node.stabilize(20)
    assert isinstance(node.last_reply(), Registered)


def test_a_slice_of_large_entries_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applier, "SLICE_NBYTES", 1000)
    node = lone_leader()
    session = open_session(node)
    applied: list[int] = []
    apply = node.executor.apply

    def watched(runs: list[Run]) -> ApplyResult:
        applied.append(sum(len(payload) for run in runs for payload in run.payloads))
        return apply(runs)

    monkeypatch.setattr(node.executor, "apply", watched)
    for sequence in range(1, 41):  # batches of their own
        node.replica.receive_client(7, commands(session, sequence, ITEM))
        node.turn()
    node.stabilize(40)
    assert node.executor.session_rows()[0].sequence == 40
    assert max(applied) < 1200
    assert sum(applied) > 40 * 100


def test_f24_a_run_is_cut_where_its_replies_would_not_fit() -> None:
    node = lone_leader(machine=Wide())
    session = open_session(node)
    node.replica._proposal_queue._limits.replies_bytes_max = 20 << 20
    node.replica.receive_client(7, blobs(session, 1, 2, 1 << 20))
    node.stabilize(20)
    node.replica.receive_client(7, blobs(session, 3, 100, 1 << 20))
    node.stabilize(20)
    assert 15 <= node.executor.session_rows()[0].sequence <= 20
    assert cached(node) <= 20 << 20
    refused = [m for _, m in node.host.replies if isinstance(m, CommandsRefused)]
    assert refused[-1].next_sequence == node.executor.session_rows()[0].sequence + 1
    results = [m for _, m in node.host.replies if isinstance(m, Results)]
    assert results[-1].first_sequence + results[-1].count == refused[-1].next_sequence


def test_a_command_above_the_limit_is_refused_with_whose_limit_it_is() -> None:
    node = lone_leader()
    session = open_session(node)
    big = KeyValueStore.append("k", bytes(1 << 20))
    node.replica.receive_client(7, commands(session, 1, big))
    node.stabilize()
    reason = f"storage.max_entry_size of the server {node.address} is {1 << 20}"
    code = Refusal.TOO_LARGE
    assert node.last_reply() == CommandsRefused(session, 1, code, node.address, reason)
