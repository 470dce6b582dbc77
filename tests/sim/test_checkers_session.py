"""Every checker of sessions has a test in which it fires."""

from __future__ import annotations

from contextlib import AbstractContextManager

import msgspec
import pytest

from copycat.errors import InvariantError
from copycat.machine.apply_result import (
    ApplyResult,
    RunReply,
    SessionEnded,
    SessionKeptAlive,
    SessionOpened,
)
from copycat.machine.envelope import encode_keep_alive
from copycat.sim.checkers.linearizability import Operation
from copycat.sim.checkers.sessions import SessionChecker
from copycat.types import EntryKind, Run


def fires(rule: str) -> AbstractContextManager[object]:
    return pytest.raises(InvariantError, match=f"^{rule}:")


class Sessions:
    """A log of one session, 1, whose client asked for three appends and a failure."""

    def __init__(self) -> None:
        self.asked = {
            (1, number): Operation(
                chain=1,
                number=number,
                kind="append" if number < 4 else "fail",
                key=1,
                arguments=(number,),
                invoked_us=0,
            )
            for number in (1, 2, 3, 4)
        }
        self.checker = SessionChecker(self.asked)
        self.index = 0

    def entry(self, kind: EntryKind, time_ms: int = 0, acked: int = 0) -> int:
        self.index += 1
        payload = encode_keep_alive(1, acked) if kind is EntryKind.KEEP_ALIVE else b""
        run = Run(self.index, int(kind), time_ms, 0, 0, 0, [payload])
        self.checker.committed([run])
        return self.index

    def register(self) -> None:
        index = self.entry(EntryKind.REGISTER)
        self.apply(SessionOpened(index, "c", 1000, 0))

    def command(self, *sequences: int, session: int = 1) -> int:
        first = self.index + 1
        payloads = [b"x"] * len(sequences)
        run = Run(first, int(EntryKind.COMMAND), 0, session, sequences[0], 0, payloads)
        self.index += len(sequences)
        self.checker.committed([run])
        return first

    def apply(
        self,
        *changes: SessionOpened | SessionKeptAlive | SessionEnded,
        rejected: tuple[tuple[int, int, int], ...] = (),
        member: int = 0,
    ) -> None:
        self.checker.outcome(member, ApplyResult(self.index, 0, [], list(changes), list(rejected)))

    def reply(self, first_sequence: int, index: int, *results: object) -> RunReply:
        body = msgspec.msgpack.encode(list(results))
        last = index + len(results) - 1
        return RunReply(1, first_sequence, len(results), index, last, 0, body)

    def hear(self, first_sequence: int, index: int, *results: object) -> None:
        reply = self.reply(first_sequence, index, *results)
        self.checker.reply("client", 1, first_sequence, reply)


@pytest.fixture
def sessions() -> Sessions:
    made = Sessions()
    made.register()
    return made


def test_an_honest_session_passes(sessions: Sessions) -> None:
    first = sessions.command(1, 2, 3)
    sessions.apply()
    sessions.hear(1, first, 1, 2, 3)
    sessions.hear(2, first + 1, 2)
    sessions.checker.check_tokens()


def test_i17_a_command_logged_twice(sessions: Sessions) -> None:
    sessions.command(1, 2)
    sessions.command(2)
    with fires("I17"):
        sessions.apply()


def test_i18_a_gap_in_a_session(sessions: Sessions) -> None:
    sessions.command(1)
    sessions.command(3)
    with fires("I18"):
        sessions.apply()


def test_i17_a_command_nobody_asked_for(sessions: Sessions) -> None:
    sessions.command(1, 2, 3, 4, 5)
    with fires("I17"):
        sessions.apply()


def test_i17_another_reply_than_the_first_time(sessions: Sessions) -> None:
    sessions.asked[(1, 1)].kind = "fail"
    first = sessions.command(1)
    sessions.apply()
    sessions.hear(1, first, msgspec.msgpack.Ext(1, b"one"))
    with fires("I17"):
        sessions.hear(1, first, msgspec.msgpack.Ext(1, b"other"))


def test_i17_a_reply_to_what_took_no_effect_or_from_elsewhere(sessions: Sessions) -> None:
    first = sessions.command(1)
    sessions.apply()
    with fires("I17"):
        sessions.hear(1, first, 1, 2)
    with fires("I17"):
        sessions.hear(1, first + 1, 1)


def test_i18_a_result_that_no_order_explains(sessions: Sessions) -> None:
    first = sessions.command(1)
    sessions.apply()
    with fires("I18"):
        sessions.hear(1, first, 2)


def test_i17_a_command_of_an_open_session_is_refused(sessions: Sessions) -> None:
    first = sessions.command(1)
    with fires("I17"):
        sessions.apply(rejected=((1, 1, first),))


def test_a_command_after_the_end_is_ignored(sessions: Sessions) -> None:
    ended = sessions.entry(EntryKind.CLOSE)
    first = sessions.command(1)
    sessions.apply(SessionEnded(1, False, ended), rejected=((1, 1, first),))
    assert sessions.checker.effects == {}
    sessions.checker.session_lost(1)


def test_i19_an_expiry_before_its_time(sessions: Sessions) -> None:
    ended = sessions.entry(EntryKind.EXPIRE, time_ms=999)
    with fires("I19"):
        sessions.apply(SessionEnded(1, True, ended))


def test_i19_a_closed_session_stirs(sessions: Sessions) -> None:
    ended = sessions.entry(EntryKind.CLOSE)
    sessions.apply(SessionEnded(1, False, ended))
    touched = sessions.entry(EntryKind.KEEP_ALIVE)
    with fires("I19"):
        sessions.apply(SessionKeptAlive(1, touched, 0))


def test_i19_log_time_goes_back(sessions: Sessions) -> None:
    sessions.entry(EntryKind.NOOP, time_ms=10)
    sessions.entry(EntryKind.NOOP, time_ms=9)
    with fires("I19"):
        sessions.apply()


def test_i19_an_open_session_is_declared_unknown(sessions: Sessions) -> None:
    with fires("I19"):
        sessions.checker.session_lost(1)


def test_i19_a_session_in_use_is_replaced(sessions: Sessions) -> None:
    register = sessions.entry(EntryKind.REGISTER)
    sessions.apply(SessionOpened(register, "c", 1000, 0), SessionEnded(1, True, register))
    with fires("I19"):
        sessions.checker.session_lost(1)


def test_i19_another_leader_does_not_know_earlier_registrations(sessions: Sessions) -> None:
    sessions.entry(EntryKind.NOOP)
    register = sessions.entry(EntryKind.REGISTER)
    sessions.apply(SessionOpened(register, "c", 1000, 0), SessionEnded(1, True, register))
    sessions.checker.session_lost(1)


def test_i20_members_disagree(sessions: Sessions) -> None:
    ended = sessions.entry(EntryKind.CLOSE)
    sessions.apply(SessionEnded(1, False, ended))
    with fires("I20"):
        sessions.apply(SessionEnded(1, True, ended), member=1)
    sessions.checker.digest(0, 5, b"a")
    with fires("I20"):
        sessions.checker.digest(1, 5, b"b")


def test_i20_a_session_that_changes_on_one_member_only(sessions: Sessions) -> None:
    index = sessions.entry(EntryKind.NOOP)
    sessions.apply()
    with fires("I20"):
        sessions.apply(SessionKeptAlive(1, index, 0), member=1)


def test_i14_queries_that_lie(sessions: Sessions) -> None:
    first = sessions.command(1, 2)
    sessions.apply()

    def query(result: object, index: int, seen: int = 0, sequence: int = 0) -> None:
        operation = Operation(
            chain="q",
            number=1,
            kind="items",
            key=1,
            arguments=(),
            invoked_us=0,
            returned_us=1,
            result=result,
            index=index,
        )
        sessions.checker.query_answered(operation, 1, sequence, seen)

    query([1], first)
    query([1, 2], first + 1)
    with fires("I14"):
        query([1, 2], first)
    with fires("I14"):
        query([1, 2], first + 2)
    with fires("I21"):
        query([1], first, seen=first + 1)
    with fires("I18"):
        query([1], first, sequence=2)


def test_i17_tokens(sessions: Sessions) -> None:
    sessions.command(1, 2)
    sessions.apply()
    sessions.asked[(1, 3)].result = 3
    with fires("I17"):
        sessions.checker.check_tokens()


def test_i4_applied_before_committed(sessions: Sessions) -> None:
    sessions.index += 1
    with fires("I4"):
        sessions.apply()


# ---- what cleaning asks ------------------------------------------------------------------


def test_c21_the_acknowledged_index_is_what_the_log_says(sessions: Sessions) -> None:
    first = sessions.command(1, 2, 3)
    sessions.apply()
    assert sessions.checker.acknowledged_index() == first - 1
    sessions.entry(EntryKind.KEEP_ALIVE, acked=2)
    sessions.apply(SessionKeptAlive(1, sessions.index, 0))
    assert sessions.checker.acknowledged_index() == first + 1
    ended = sessions.entry(EntryKind.CLOSE)
    sessions.apply(SessionEnded(1, False, ended))
    assert sessions.checker.acknowledged_index() == ended


def test_c19_what_a_session_stands_on_is_held(sessions: Sessions) -> None:
    first = sessions.command(1, 2)
    sessions.apply()
    indexes = [index for index in range(1, first + 2) if sessions.checker.needs_snapshot(index)]
    assert indexes == [1, first + 1], "the register and the newest command"
    ended = sessions.entry(EntryKind.CLOSE)
    sessions.apply(SessionEnded(1, False, ended))
    assert not sessions.checker.needs_snapshot(first + 1)
    assert sessions.checker.needs_snapshot(ended)


def test_i17_over_a_cleaned_log_cached_replies_are_sent_again_as_they_were(
    sessions: Sessions,
) -> None:
    first = sessions.command(1, 2, 3)
    good = sessions.reply(1, first, 1, 2, 3)
    outcome = ApplyResult(sessions.index, 0, [good], [], [])
    sessions.checker.outcome(0, outcome)
    sessions.entry(EntryKind.KEEP_ALIVE, acked=1)
    sessions.apply(SessionKeptAlive(1, sessions.index, 0))
    other = ApplyResult(sessions.index, 0, [sessions.reply(1, first, 7, 2, 3)], [], [])
    sessions.checker.outcome(1, other, valid_from=first)
    with fires("I17"):
        sessions.checker.outcome(1, other)
    awaited = ApplyResult(sessions.index, 0, [sessions.reply(1, first, 7, 8, 3)], [], [])
    with fires("I17"):
        sessions.checker.outcome(1, awaited, valid_from=first)


def test_i6_the_reference_is_never_shown_a_gap(sessions: Sessions) -> None:
    with fires("I6"):
        sessions.checker.committed([Run(2, int(EntryKind.GAP), 0, 0, 3, 9, [])])
