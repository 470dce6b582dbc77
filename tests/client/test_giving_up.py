"""Callers that give up, by tables: what was never sent is dropped, and the error says why."""

from __future__ import annotations

import random

import pytest

from copycat.client.completion import Call
from copycat.client.outbox import Outbox
from copycat.client.session import STUCK_MS, ClientSession
from copycat.client.unavailability import timeout_error
from copycat.errors import (
    CopycatError,
    DiskFullError,
    NoLeaderError,
    OperationTimeout,
    QuorumLostError,
)
from copycat.protocol.client import (
    Commands,
    CommandsRefused,
    Failure,
    KeptAlive,
    QueryRequest,
    QueryResult,
    Refusal,
)
from copycat.protocol.codec_client import split_operations
from copycat.protocol.operations import encode_operation
from copycat.protocol.results import encode_result
from copycat.types import ConsistencyLevel
from tests.client.sessions import (
    SESSION,
    Add,
    Total,
    ask,
    completed,
    opened,
    refused,
    results,
    runs,
    submit,
)

WAIT_MS = 3000


def put(session: ClientSession, amount: int, deadline_ms: int = WAIT_MS) -> Call:
    return session.submit(f"s{amount}", Add(amount), encode_operation(Add(amount)), deadline_ms)


def read(session: ClientSession, future: str, level: ConsistencyLevel, deadline_ms: int) -> int:
    return session.query(future, Total(), encode_operation(Total()), level, deadline_ms)


def failed(session: ClientSession) -> dict[str, CopycatError]:
    return {done.future: done.value for done in session.take_finished() if done.failed}


def amounts(frames: list[object]) -> list[bytes]:
    return [
        operation
        for frame in frames
        if isinstance(frame, Commands)
        for operation in split_operations(frame.count, frame.body)
    ]


# ---- what was never sent ---------------------------------------------------------------------


def test_a_command_that_was_never_sent_leaves_no_trace() -> None:
    session = opened(Outbox(window_commands=1))
    put(session, 1, 10_000)
    abandoned = put(session, 2, 10_000)
    put(session, 3, 10_000)
    assert runs(session.outgoing(0)) == [(1, 1)]
    session.abandon_call(abandoned)
    session.outgoing(0)
    session.received(results(1, 1), 0)
    frames = session.outgoing(0)
    assert runs(frames) == [(2, 1)], "what is behind it moves up: no sequence is missing"
    assert amounts(list(frames)) == [encode_operation(Add(3))]
    session.received(results(2, 3), 0)
    assert completed(session) == [("s1", 1), ("s3", 3)]
    assert session.is_idle


def test_a_command_that_was_sent_keeps_its_place_and_its_answer_is_nobodys() -> None:
    session = opened()
    abandoned = put(session, 1)
    put(session, 2)
    session.outgoing(0)
    session.abandon_call(abandoned)
    session.disconnected()
    session.connected(1)
    assert (1, 2) in runs(session.outgoing(1)), "it may have been logged: it is sent again"
    session.received(results(1, 1, 2), 2)
    assert [future for future, _ in completed(session) if future] == ["s2"]
    assert session.is_idle


def test_of_many_commands_only_those_that_were_sent_stay() -> None:
    session = opened(Outbox(window_commands=2))
    operations = [Add(n) for n in range(5)]
    many = session.submit_many("many", operations, [encode_operation(o) for o in operations])
    put(session, 9)
    session.outgoing(0)
    session.abandon_call(many)
    session.received(results(1, 0, 1), 0)
    frames = session.outgoing(0)
    assert amounts(list(frames)) == [encode_operation(Add(9))]
    assert runs(frames) == [(3, 1)]
    session.received(results(3, 9), 0)
    assert [done for done in completed(session) if done[0]] == [("s9", 9)]


def test_a_query_behind_a_dropped_command_asks_for_the_sequence_that_is_left() -> None:
    session = opened(Outbox(window_commands=1))
    put(session, 1)
    abandoned = put(session, 2)
    request = ask(session, "q")
    first = [m for m in session.outgoing(0) if isinstance(m, QueryRequest)]
    assert first[0].sequence == 2
    session.abandon_call(abandoned)
    again = [m for m in session.outgoing(0) if isinstance(m, QueryRequest)]
    assert [(m.request, m.sequence) for m in again] == [(request, 1)]
    session.received(results(1, 1), 0)
    session.received(QueryResult(request, 50, encode_result(7)), 0)
    assert completed(session) == [("s1", 1), ("q", 7)]


@pytest.mark.parametrize("seed", range(30))
def test_dropping_at_random_leaves_the_others_in_order_without_a_gap(seed: int) -> None:
    rng = random.Random(seed)
    session = opened(Outbox(window_commands=rng.randint(1, 4)))
    calls: dict[int, Call] = {}
    applied: list[int] = []
    given_up: set[int] = set()
    sent: set[int] = set()
    heard: list[int] = []
    for step in range(200):
        if rng.random() < 0.6:
            calls[step] = put(session, step, 1 << 40)
        if calls and rng.random() < 0.3:
            number = rng.choice(list(calls))
            given_up.add(number)
            session.abandon_call(calls.pop(number))
        for frame in session.outgoing(step):
            if isinstance(frame, Commands):
                sent |= {_amount(o) for o in split_operations(frame.count, frame.body)}
                first = frame.first_sequence
                assert first <= len(applied) + 1, "a sequence is missing"
                fresh = split_operations(frame.count, frame.body)[len(applied) + 1 - first :]
                applied += [_amount(operation) for operation in fresh]
        if len(applied) > len(heard) and rng.random() < 0.7:
            upto = rng.randint(len(heard) + 1, len(applied))
            session.received(results(len(heard) + 1, *applied[len(heard) : upto]), step)
            heard = applied[:upto]
        for future, value in completed(session):
            assert future is None or (future == f"s{value}" and calls.pop(value, None) is not None)
    assert applied == sorted(applied)
    assert set(applied) == sent
    assert given_up - sent, "some were dropped in time"


def _amount(encoded: bytes) -> int:
    return next(n for n in range(300) if encode_operation(Add(n)) == encoded)


# ---- the error -------------------------------------------------------------------------------


def why(code: Refusal, missing: tuple[str, ...] = (), since_ms: int = 0) -> CommandsRefused:
    return CommandsRefused(SESSION, 1, code, "", f"because {code.name}", missing, since_ms)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Refusal.NO_LEADER, NoLeaderError),
        (Refusal.NO_QUORUM, QuorumLostError),
        (Refusal.DISK_FULL, DiskFullError),
        (Refusal.OVERLOADED, OperationTimeout),
        (Refusal.ILLEGAL_MEMBER_STATE, NoLeaderError),
        (Refusal.SERVER_FULL, NoLeaderError),
    ],
)
def test_the_error_of_a_command_is_of_the_causes_type(
    code: Refusal, kind: type[CopycatError]
) -> None:
    session = opened()
    put(session, 1)
    session.outgoing(0)
    session.received(why(code, ("b:1", "c:1"), 500), 1000)
    put(session, 2)
    session.outgoing(2000)
    assert session.give_up_ms == WAIT_MS
    session.give_up_overdue(WAIT_MS, WAIT_MS, "a:1: connected")
    errors = failed(session)
    assert set(errors) == {"s1", "s2"}
    for error in errors.values():
        assert type(error) is kind
        assert f"because {code.name}" in error.message
        assert error.state == "a:1: connected"
    assert errors["s1"].outcome_unknown
    assert "the command may still take effect" in str(errors["s1"].hint)
    assert not errors["s2"].outcome_unknown, "in trouble nothing new is sent"
    assert errors["s2"].retryable
    assert "it was never sent" in str(errors["s2"])
    if isinstance(errors["s1"], QuorumLostError):
        assert errors["s1"].missing == ("b:1", "c:1")
        assert errors["s1"].since == 2.5


def test_without_a_known_cause_it_is_a_timeout_and_says_whether_it_was_sent() -> None:
    session = opened(Outbox(window_commands=1))
    put(session, 1)
    put(session, 2)
    session.outgoing(0)
    session.give_up_overdue(WAIT_MS, WAIT_MS, "")
    errors = failed(session)
    assert [type(error) for error in errors.values()] == [OperationTimeout] * 2
    assert (errors["s1"].outcome_unknown, errors["s2"].outcome_unknown) == (True, False)


def test_a_query_never_says_that_it_may_still_take_effect() -> None:
    session = opened()
    read(session, "q", ConsistencyLevel.LINEARIZABLE, WAIT_MS)
    (request,) = session.outgoing(0)
    assert isinstance(request, QueryRequest)
    session.received(Failure(request.request, Refusal.NO_QUORUM, "", "alone", ("b:1",), 200), 100)
    session.give_up_overdue(WAIT_MS, WAIT_MS, "")
    error = failed(session)["q"]
    assert isinstance(error, QuorumLostError)
    assert not error.outcome_unknown
    assert "effect" not in error.render()
    session.expire("test")


def test_what_an_expiry_and_a_close_say_of_a_query_and_of_what_was_never_sent() -> None:
    for end in (ClientSession.expire, ClientSession.closed):
        session = opened(Outbox(window_commands=1))
        put(session, 1)
        put(session, 2)
        read(session, "q", ConsistencyLevel.LINEARIZABLE, WAIT_MS)
        session.outgoing(0)
        end(session, "test")
        unknown = {future: error.outcome_unknown for future, error in failed(session).items()}
        assert unknown == {"s1": True, "s2": False, "q": False}


def test_an_expired_session_says_when_it_was_last_confirmed() -> None:
    session = opened()
    put(session, 1)
    session.outgoing(0)
    session.received(refused(1, Refusal.UNKNOWN_SESSION), 7300)
    assert "last confirmed 7.3 s ago, its timeout is 6 s" in str(failed(session)["s1"])


def test_deadlines_of_what_was_answered_end_nothing() -> None:
    session = opened()
    put(session, 1, 1000)
    put(session, 2, 2000)
    session.outgoing(0)
    session.received(results(1, 1), 0)
    session.give_up_overdue(1500, 1000, "")
    assert completed(session) == [("s1", 1)]
    assert session.give_up_ms == 2000
    session.give_up_overdue(2000, 1000, "")
    assert set(failed(session)) == {"s2"}


def many(session: ClientSession, future: str, *numbers: int) -> Call:
    made = [Add(n) for n in numbers]
    encoded = [encode_operation(one) for one in made]
    return session.submit_many(future, made, encoded, WAIT_MS)


def test_results_that_wait_for_their_turn_are_no_failure_when_the_time_is_over() -> None:
    """A query before them has no answer; found by the simulator (seed 189504714000): the error
    said of commands that had taken effect that nothing was sent."""
    session = opened()
    request = ask(session, "q")
    put(session, 1)
    many(session, "m", 2, 3)
    session.outgoing(0)
    session.received(results(1, 1, 3, 6), 1)
    assert completed(session) == []
    session.give_up_overdue(WAIT_MS, WAIT_MS, "")
    assert completed(session) == [("s1", 1), ("m", [3, 6])]
    session.received(QueryResult(request, 50, encode_result(7)), WAIT_MS)
    assert completed(session) == [("q", 7), (None, 1), (None, [3, 6])]
    assert session.is_idle


def test_results_of_one_call_that_came_before_and_behind_a_query_are_one_list() -> None:
    session = opened()
    many(session, "m", 1, 2)
    ask(session, "q")
    session.outgoing(0)
    session.received(results(1, 1), 1)
    session.give_up_overdue(WAIT_MS - 1, WAIT_MS, "")
    session.received(results(2, 3), 2)
    assert completed(session) == [("m", [1, 3])]


def test_an_error_counts_what_took_effect() -> None:
    session = opened(Outbox(window_commands=2))
    many(session, "m", 1, 2, 3)
    session.outgoing(0)
    session.received(results(1, 1), 1)
    session.disconnected()
    session.give_up_overdue(WAIT_MS, WAIT_MS, "")
    error = failed(session)["m"]
    assert error.outcome_unknown
    assert not error.retryable
    counted = "1 took effect; 1 have an unknown outcome, 1 were never sent"
    assert counted in error.message
    assert "nothing of it was sent" not in error.message


# ---- reads beside stuck commands -------------------------------------------------------------


def test_a_sequential_read_waits_for_its_commands_while_they_move() -> None:
    session = opened()
    put(session, 1)
    read(session, "q", ConsistencyLevel.SEQUENTIAL, WAIT_MS)
    _, query = session.outgoing(0)
    assert isinstance(query, QueryRequest)
    assert query.sequence == 1
    session.received(QueryResult(query.request, 50, encode_result(1)), 1)
    assert completed(session) == []
    session.received(results(1, 1), 2)
    assert [future for future, _ in completed(session)] == ["s1", "q"]


@pytest.mark.parametrize("is_told", [True, False])
def test_a_sequential_read_does_not_wait_behind_a_stuck_command(is_told: bool) -> None:
    session = opened()
    put(session, 1)
    read(session, "q", ConsistencyLevel.SEQUENTIAL, WAIT_MS)
    read(session, "r", ConsistencyLevel.LINEARIZABLE, WAIT_MS)
    session.outgoing(0)
    now_ms = 5
    if is_told:
        session.received(why(Refusal.NO_QUORUM), now_ms)
    else:
        now_ms = session.deadline_ms()
        assert now_ms <= STUCK_MS
    again = [m for m in session.outgoing(now_ms) if isinstance(m, QueryRequest)]
    sequential = [m for m in again if m.consistency is ConsistencyLevel.SEQUENTIAL]
    assert [m.sequence for m in sequential] == [0]
    session.received(QueryResult(sequential[0].request, 50, encode_result(5)), now_ms)
    assert completed(session) == [("q", 5)]
    read(session, "later", ConsistencyLevel.SEQUENTIAL, WAIT_MS)
    (query,) = [m for m in session.outgoing(now_ms) if isinstance(m, QueryRequest)]
    assert query.sequence == 0
    session.received(QueryResult(query.request, 50, encode_result(6)), now_ms)
    assert completed(session) == [("later", 6)]
    session.received(results(1, 1), now_ms)
    assert [future for future, _ in completed(session) if future] == ["s1"]


def test_a_linearizable_read_does_not_wait_for_a_command_that_its_caller_gave_up() -> None:
    session = opened()
    put(session, 1)
    session.outgoing(0)
    session.received(why(Refusal.DISK_FULL), 5)
    read(session, "q", ConsistencyLevel.LINEARIZABLE, 1 << 40)
    (query,) = [m for m in session.outgoing(5) if isinstance(m, QueryRequest)]
    assert query.sequence == 1, "its caller waits: the read must see it"
    session.give_up_overdue(WAIT_MS, WAIT_MS, "")
    assert set(failed(session)) == {"s1"}
    (query,) = [m for m in session.outgoing(WAIT_MS) if isinstance(m, QueryRequest)]
    assert query.sequence == 0
    session.received(QueryResult(query.request, 50, encode_result(5)), WAIT_MS)
    assert completed(session) == [("q", 5)]
    put(session, 2, 1 << 40)
    read(session, "r", ConsistencyLevel.LINEARIZABLE, 1 << 40)
    session.received(why(Refusal.DISK_FULL), WAIT_MS)
    (query,) = [m for m in session.outgoing(WAIT_MS) if isinstance(m, QueryRequest)]
    assert query.sequence == 2


def test_what_was_sent_on_a_connection_that_is_gone_was_sent() -> None:
    session = opened()
    put(session, 1)
    session.outgoing(0)
    session.disconnected()
    put(session, 2)
    session.give_up_overdue(WAIT_MS, WAIT_MS, "")
    unknown = {future: error.outcome_unknown for future, error in failed(session).items()}
    assert unknown == {"s1": True, "s2": False}


def test_a_leader_that_lost_answered_commands_is_named() -> None:
    session = opened()
    submit(session, 1, 2, 3)
    session.outgoing(0)
    session.received(results(1, 1, 2, 3), 10)
    submit(session, 4)
    session.outgoing(10)
    session.received(refused(2, Refusal.COMMAND), 20)
    session.received(KeptAlive(1, "b:1", ()), 30)
    assert session.unavailability is not None
    error = timeout_error(
        [Add(4)],
        5,
        unknown=[Add(4)],
        unavailability=session.unavailability,
        servers="",
        now_ms=5000,
    )
    assert isinstance(error, OperationTimeout)
    assert "the leader b:1 knows this session up to command 1 only" in error.message
    assert "command 3 was answered" in error.message
    assert "older copies" in error.message
    session.received(results(4, 4), 6000)
    assert session.unavailability is None, "it was a leader that was cut off; another one answered"


def test_a_gap_of_frames_that_overtook_each_other_is_no_loss() -> None:
    session = opened()
    submit(session, 1, 2, 3)
    session.outgoing(0)
    session.received(results(1, 1), 10)
    session.received(refused(2, Refusal.COMMAND), 20)
    assert session.unavailability is None
