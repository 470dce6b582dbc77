"""The client's session by tables: no socket, no loop, no clock but the numbers given."""

from __future__ import annotations

import pytest

from copycat.client.completion import Finished
from copycat.client.outbox import FRAME_NBYTES_MAX, Outbox
from copycat.client.session import (
    RESEND_MS_MIN,
    ClientSession,
    SessionPhase,
)
from copycat.errors import (
    ApplicationError,
    ClosedSessionError,
    EntryTooLargeError,
    ProtocolError,
    SessionExpiredError,
)
from copycat.protocol.client import (
    Commands,
    CommandsRefused,
    Failure,
    KeepAlive,
    Refusal,
    Registered,
    Results,
)
from copycat.protocol.codec_client import split_operations
from copycat.protocol.operations import encode_operation
from copycat.protocol.results import encode_results, error_value
from tests.client.sessions import (
    SESSION,
    Add,
    ask,
    completed,
    opened,
    refused,
    results,
    runs,
    submit,
)

# ---- sending ---------------------------------------------------------------------------------


def test_one_frame_carries_what_was_submitted_since_the_last() -> None:
    session = opened()
    submit(session, 1, 2, 3)
    (frame,) = session.outgoing(0)
    assert isinstance(frame, Commands)
    assert (frame.session, frame.first_sequence, frame.count) == (SESSION, 1, 3)
    assert split_operations(3, frame.body) == [encode_operation(Add(n)) for n in (1, 2, 3)]
    assert session.outgoing(0) == []
    submit(session, 4)
    assert runs(session.outgoing(0)) == [(4, 1)]


def test_nothing_leaves_before_registration_or_without_a_connection() -> None:
    session = ClientSession()
    submit(session, 1)
    assert session.outgoing(0) == []
    session.opened(Registered(1, SESSION, 6000, "", ()), 0)
    assert session.outgoing(0) == []
    session.connected(0, fresh=True)
    assert runs(session.outgoing(0)) == [(1, 1)]


def test_acked_sequence_is_the_highest_answered_in_order() -> None:
    session = opened()
    submit(session, 1, 2, 3)
    session.outgoing(0)
    session.received(results(1, 10), 0)
    session.received(results(3, 30), 0)
    submit(session, 4)
    (frame,) = session.outgoing(0)
    assert isinstance(frame, Commands)
    assert frame.acked_sequence == 1


def test_a_frame_holds_a_mebibyte_or_one_command() -> None:
    outbox = Outbox()
    size = FRAME_NBYTES_MAX // 4
    outbox.add_many([bytes(size)] * 5, [int] * 5)
    outbox.add(bytes(2 * FRAME_NBYTES_MAX), int)
    outbox.add(b"", int)
    assert runs(list(outbox.frames(SESSION))) == [(1, 4), (5, 1), (6, 1), (7, 1)]


@pytest.mark.parametrize(
    ("commands", "nbytes", "expected"),
    [(3, 1 << 20, [(1, 3)]), (100, 40, [(1, 4)])],
    ids=["by count", "by bytes: the frame that crosses the limit is the last"],
)
def test_the_window_holds_back_the_rest_in_order(
    commands: int, nbytes: int, expected: list[tuple[int, int]]
) -> None:
    outbox = Outbox(window_commands=commands, window_nbytes=nbytes)
    outbox.add_many([bytes(10)] * 4, [int] * 4)
    assert runs(list(outbox.frames(SESSION))) == expected
    outbox.add_many([bytes(10)] * 6, [int] * 6)
    assert outbox.frames(SESSION) == []
    outbox.answer(2)
    first = expected[0][1] + 1
    assert runs(list(outbox.frames(SESSION)))[0][0] == first


def test_the_outbox_forgets_what_was_answered() -> None:
    outbox = Outbox()
    for start in range(0, 10_000, 100):
        outbox.add_many([b"x"] * 100, [int] * 100)
        outbox.frames(SESSION)
        outbox.answer(start + 100)
    assert outbox.is_idle
    assert len(outbox._encoded) < 200
    assert len(outbox._types) == len(outbox._encoded)


# ---- replies ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arrivals",
    [
        [results(1, 1, 2, 3, 4)],
        [results(1, 1), results(2, 2, 3), results(4, 4)],
        [results(3, 3, 4), results(1, 1, 2)],
        [results(4, 4), results(2, 2, 3), results(1, 1)],
        [results(1, 1, 2), results(1, 1, 2), results(2, 2, 3), results(1, 1, 2, 3, 4)],
        [results(2, 2), results(2, 2, 3, 4), results(1, 1)],
    ],
    ids=["whole", "parts", "swapped", "backwards", "duplicates", "early, then longer"],
)
def test_completion_is_in_submission_order_whatever_arrives(arrivals: list[Results]) -> None:
    session = opened()
    submit(session, 1, 2, 3, 4)
    session.outgoing(0)
    done = []
    for arrival in arrivals:
        session.received(arrival, 0)
        done += completed(session)
    assert done == [("s1", 1), ("s2", 2), ("s3", 3), ("s4", 4)]
    assert session.is_idle


def test_submit_many_completes_once_with_all_results() -> None:
    session = opened()
    operations = [Add(n) for n in range(5)]
    session.submit_many("many", operations, [encode_operation(o) for o in operations])
    submit(session, 9)
    session.outgoing(0)
    session.received(results(1, 0, 1), 0)
    assert completed(session) == []
    session.received(results(3, 2, 3, 4, 9), 0)
    assert completed(session) == [("many", [0, 1, 2, 3, 4]), ("s9", 9)]


def test_what_the_machine_raised_is_that_commands_result() -> None:
    session = opened()
    submit(session, 1, 2, 3)
    session.outgoing(0)
    session.received(results(1, 1, error_value(ValueError("odd")), 3), 0)
    first, second, third = session.take_finished()
    assert (first, third) == (Finished("s1", 1, False), Finished("s3", 3, False))
    assert second.failed
    assert isinstance(second.value, ApplicationError)


def test_submit_many_with_an_error_still_has_all_results() -> None:
    session = opened()
    session.submit_many("many", [Add(1), Add(2)], [b"x", b"y"])
    session.outgoing(0)
    session.received(results(1, error_value(ValueError("odd")), 2), 0)
    (done,) = session.take_finished()
    assert done.failed
    assert done.value.results == [done.value, 2]


def test_results_that_were_never_asked_for_break_the_protocol() -> None:
    session = opened()
    submit(session, 1)
    session.outgoing(0)
    with pytest.raises(ProtocolError, match="sequences 1 to 2, while 1 were sent"):
        session.received(results(1, 1, 2), 0)


def test_results_of_another_session_are_not_ours() -> None:
    session = opened()
    submit(session, 1)
    session.outgoing(0)
    session.received(Results(SESSION - 1, 1, 1, 5, 5, encode_results([1])), 0)
    assert completed(session) == []


# ---- resending -------------------------------------------------------------------------------


def test_everything_unanswered_leaves_again_on_a_new_connection() -> None:
    session = opened()
    submit(session, 1, 2, 3)
    session.outgoing(0)
    session.received(results(1, 1), 0)
    session.disconnected()
    submit(session, 4)
    assert session.outgoing(5) == []
    session.connected(10)
    first, frame = session.outgoing(10)
    assert isinstance(first, KeepAlive), "the server learns where the session is"
    assert runs([frame]) == [(2, 3)]
    session.received(results(2, 2, 3, 4), 11)
    assert [future for future, _ in completed(session)] == ["s1", "s2", "s3", "s4"]


@pytest.mark.parametrize("code", [Refusal.COMMAND, Refusal.OVERLOADED, Refusal.NO_LEADER])
def test_a_refusal_resends_from_where_it_says(code: Refusal) -> None:
    session = opened()
    submit(session, 1, 2, 3, 4)
    session.outgoing(0)
    session.received(refused(3, code), 1)
    later = session.deadline_ms()
    assert (later == 1) == (code is Refusal.COMMAND), "only a first gap is closed at once"
    assert runs(session.outgoing(later)) == [(3, 2)]
    assert session.leader == "b:1"


def test_a_refusal_that_is_repeated_without_progress_waits_longer() -> None:
    session = opened()
    submit(session, 1)
    now_ms, waits = 0, []
    for _ in range(8):
        assert runs(session.outgoing(now_ms)) == [(1, 1)]
        session.received(refused(1, Refusal.OVERLOADED), now_ms)
        waits.append(session.deadline_ms() - now_ms)
        now_ms = session.deadline_ms()
    assert waits == [10, 20, 40, 80, 160, 320, 500, 500]


def test_refusals_of_frames_behind_a_refused_one_rewind_once() -> None:
    session = opened()
    for n in (1, 2, 3):
        submit(session, n)
        session.outgoing(0)
    session.received(refused(1, Refusal.OVERLOADED), 0)
    session.received(refused(1, Refusal.COMMAND), 0)
    session.received(refused(1, Refusal.COMMAND), 0)
    assert runs(session.outgoing(session.deadline_ms())) == [(1, 3)]


def test_a_frame_that_was_lost_on_the_way_is_sent_again_and_later_each_time() -> None:
    session = opened()
    submit(session, 1)
    session.outgoing(0)
    assert session.deadline_ms() == RESEND_MS_MIN
    assert runs(session.outgoing(RESEND_MS_MIN - 1)) == []
    assert runs(session.outgoing(RESEND_MS_MIN)) == [(1, 1)]
    assert runs(session.outgoing(2 * RESEND_MS_MIN)) == []
    assert runs(session.outgoing(3 * RESEND_MS_MIN)) == [(1, 1)]


def test_a_refusal_below_what_was_answered_is_stale() -> None:
    session = opened()
    submit(session, 1, 2)
    session.outgoing(0)
    session.received(results(1, 1, 2), 0)
    session.received(refused(1, Refusal.NO_LEADER), 0)
    assert runs(session.outgoing(9999)) == []


def test_a_command_that_every_server_finds_too_large_fails_and_the_rest_goes_on() -> None:
    session = opened()
    session.submit("big", Add(1), bytes(5000))
    submit(session, 2)
    session.outgoing(0)
    limit = "storage.max_entry_size of the server 10.0.0.1:8700 is 4096"
    session.received(CommandsRefused(SESSION, 1, Refusal.TOO_LARGE, "", limit), 0)
    (frame,) = session.outgoing(0)
    assert isinstance(frame, Commands)
    assert split_operations(2, frame.body) == [b"", encode_operation(Add(2))]
    session.received(results(1, error_value(TypeError("no operation")), 2), 0)
    big, other = session.take_finished()
    assert isinstance(big.value, EntryTooLargeError)
    assert "5000 bytes" in str(big.value)
    assert limit in big.value.render(), "whose setting it is, and what it is now"
    assert "servers" in (big.value.hint or "")
    assert other == Finished("s2", 2, False)


def test_two_commands_that_are_too_large_take_no_other_one_with_them() -> None:
    """Frames behind the first refused one are refused as well, each for what was in it then."""
    session = opened()
    for name, size in (("one", 1_200_000), ("two", 1_100_000), ("small", 300), ("less", 200)):
        session.submit(name, Add(1), bytes(size))
    waiting = session.outgoing(0)
    assert len(runs(waiting)) == 3, "a frame for each large one, and one for the others"
    expected = 1
    for _ in range(9):
        if not waiting:
            break
        frame, waiting = waiting[0], waiting[1:]
        assert isinstance(frame, Commands)
        sizes = [len(each) for each in split_operations(frame.count, frame.body)]
        if max(sizes) > 1_000_000:
            code, number = Refusal.TOO_LARGE, frame.first_sequence
        elif frame.first_sequence > expected:
            code, number = Refusal.COMMAND, expected
        elif frame.first_sequence < expected:
            continue
        else:
            values = [1 if size else error_value(TypeError("no operation")) for size in sizes]
            session.received(results(expected, *values), 0)
            expected += frame.count
            continue
        session.received(CommandsRefused(SESSION, number, code, ""), 0)
        waiting += session.outgoing(0)
    outcomes = dict(completed(session))
    assert isinstance(outcomes["one"], EntryTooLargeError)
    assert isinstance(outcomes["two"], EntryTooLargeError)
    assert (outcomes["small"], outcomes["less"]) == (1, 1)


# ---- expiry ----------------------------------------------------------------------------------


def test_c18_i19_expiry_lists_what_is_unknown_and_retries_nothing() -> None:
    session = opened(Outbox(window_commands=3))
    submit(session, 1, 2, 3, 4)
    session.outgoing(0)
    ask(session, "q")
    session.received(results(1, 1), 0)
    session.received(refused(1, Refusal.UNKNOWN_SESSION), 0)
    done = session.take_finished()
    assert done[0] == Finished("s1", 1, False)
    assert {d.future for d in done[1:]} == {"s2", "s3", "s4", "q"}
    for each in done[1:]:
        assert isinstance(each.value, SessionExpiredError)
        assert each.value.pending == (Add(2), Add(3))
        assert each.value.unsent == (Add(4),)
    assert session.phase is SessionPhase.CLOSED
    session.connected(10)
    assert session.outgoing(10) == []
    with pytest.raises(ClosedSessionError):
        submit(session, 5)


def test_results_that_waited_for_a_query_survive_expiry() -> None:
    session = opened()
    submit(session, 1)
    ask(session, "q")
    submit(session, 2)
    session.outgoing(0)
    session.received(results(1, 1, 2), 0)
    session.expire("test")
    done = session.take_finished()
    assert [(d.future, d.failed) for d in done] == [("s1", False), ("q", True), ("s2", False)]


def test_expiry_says_for_how_long_the_loop_was_blocked() -> None:
    session = opened()
    submit(session, 1)
    session.outgoing(0)
    session.outgoing(9200)
    session.received(refused(1, Refusal.UNKNOWN_SESSION), 9201)
    (done,) = session.take_finished()
    assert "blocked for 7.2 s" in str(done.value)


def test_unknown_session_of_a_keep_alive_expires() -> None:
    session = opened()
    (message,) = session.outgoing(2000)
    assert isinstance(message, KeepAlive)
    session.received(
        Failure(message.request, Refusal.UNKNOWN_SESSION, "", "no such session"), 2001
    )
    assert session.phase is SessionPhase.CLOSED


@pytest.mark.parametrize("code", [c for c in Refusal if c is not Refusal.UNKNOWN_SESSION])
def test_no_other_refusal_expires(code: Refusal) -> None:
    session = opened()
    submit(session, 1)
    session.outgoing(0)
    session.received(refused(1, code), 0)
    assert session.phase is SessionPhase.OPEN


def test_our_own_close_fails_what_waits() -> None:
    session = opened()
    submit(session, 1)
    session.outgoing(0)
    assert session.close().session == SESSION
    session.closed()
    (done,) = session.take_finished()
    assert isinstance(done.value, ClosedSessionError)
    assert done.value.outcome_unknown


def test_a_call_that_has_completed_has_no_future() -> None:
    """A future has its call as its ticket: a cycle of both would wait for the collector."""
    session = opened()
    calls = [
        session.submit("one", Add(1), encode_operation(Add(1))),
        session.submit_many("many", [Add(1), Add(2)], [encode_operation(Add(1))] * 2),
    ]
    session.outgoing(0)
    session.received(results(1, 1, 2, 3), 1)
    assert [done.future for done in session.take_finished()] == ["one", "many"]
    assert [call.future for call in calls] == [None, None]
