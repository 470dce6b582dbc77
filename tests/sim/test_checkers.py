"""Every checker has a test in which it fires (house.md section 3, lesson 2)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import msgspec
import pytest

from copycat.errors import InvariantError
from copycat.machine.outcome import (
    Outcome,
    RunReply,
    SessionEnded,
    SessionOpened,
    SessionTouched,
)
from copycat.protocol.peer import AppendEntries, AppendReply, RequestVote, VoteReply
from copycat.sim.checkers_log import LogHistory, Shadow, WatchedHardState, WatchedLog
from copycat.sim.checkers_raft import RaftChecker
from copycat.sim.checkers_session import SessionChecker
from copycat.sim.history import Operation
from copycat.types import NO_ENTRY, EntryId, EntryKind, MemberId, Run, ServerState, Span

Frames = list[tuple[int, int, int]]


def fires(rule: str) -> AbstractContextManager[object]:
    return pytest.raises(InvariantError, match=f"^{rule}:")


# --- a cluster of three, as the checkers see it ---------------------------------------------


class View:
    def __init__(self, number: int, shadow: Shadow) -> None:
        self.number = number
        self.shadow = shadow
        self.state = ServerState.FOLLOWER
        self.term = 1
        self.commit_index = 0
        self.last_applied = 0
        self.durable_index = 0
        self.believed: dict[int, int] = {}

    def matches(self) -> Mapping[int, int]:
        return self.believed


class Three:
    def __init__(self) -> None:
        self.history = LogHistory()
        self.shadows = [Shadow(number, self.history) for number in range(3)]
        self.committed: list[tuple[int, int]] = []
        self.checker = RaftChecker(
            self.shadows,
            [101, 102, 103],
            lambda _view, first, end: self.committed.append((first, end)),
            lambda _member, _term: None,
        )
        for shadow in self.shadows:
            shadow.hard_state = (1, 101)
            self.checker.started(shadow.member)
        self.views = [View(number, self.shadows[number]) for number in range(3)]

    def write(self, member: int, frames: Frames, *, durable: bool = True) -> None:
        shadow = self.shadows[member]
        self.history.appended(member, shadow.term_at(shadow.last_index), frames)
        shadow.append(frames)
        if durable:
            shadow.durable = shadow.last_index

    def lead(self, member: int = 0, term: int = 1) -> View:
        view = self.views[member]
        view.state, view.term = ServerState.LEADER, term
        self.checker.after_step(view)
        return view

    def hear(self, member: int, term: int, end: int, commit: int) -> None:
        message = AppendEntries(term, 1, NO_ENTRY, Span(term, end, end), commit)
        self.checker.received(member, message)


def frames(first: int, end: int, term: int = 1, salt: int = 0) -> Frames:
    return [(index, term, index * 1000 + term + salt) for index in range(first, end)]


@pytest.fixture
def three() -> Three:
    return Three()


def test_i1_two_leaders_of_one_term(three: Three) -> None:
    three.lead(0)
    with fires("I1"):
        three.lead(1)


def test_i2_two_votes_in_one_term(three: Three) -> None:
    three.checker.sent(2, 0, VoteReply(1, True))
    three.shadows[2].hard_state = (1, 102)
    with fires("I2"):
        three.checker.sent(2, 1, VoteReply(1, True))


def test_i2_a_vote_that_is_not_durable(three: Three) -> None:
    three.shadows[2].hard_state = (1, 0)
    with fires("I2"):
        three.checker.sent(2, 0, VoteReply(1, True))


def test_i2_a_campaign_before_its_own_vote_is_durable(three: Three) -> None:
    with fires("I2"):
        three.checker.sent(1, 0, RequestVote(1, NO_ENTRY, False))


def test_i2_a_message_of_a_term_that_is_not_durable(three: Three) -> None:
    with fires("I2"):
        three.checker.sent(2, 0, AppendReply(2, 1, True, 0, NO_ENTRY))


def test_i2_a_hard_state_that_changes_its_vote() -> None:
    class Store:
        current_term, voted_for = 3, MemberId(7)

        def begin_save(self, term: int, voted_for: MemberId) -> object:
            raise AssertionError("the checker comes first")

    shadow = Shadow(0, LogHistory())
    shadow.hard_state = (3, 7)
    watched = WatchedHardState(Store(), shadow)  # type: ignore[arg-type]
    with fires("I2"):
        watched.begin_save(3, MemberId(8))
    with fires("I2"):
        watched.begin_save(2, MemberId(0))


def test_i3_an_acknowledgement_of_what_is_not_on_the_platter(three: Three) -> None:
    three.write(1, frames(1, 4), durable=False)
    three.hear(1, 1, end=4, commit=0)
    three.checker.sent(1, 0, AppendReply(1, 1, True, 0, NO_ENTRY))
    with fires("I3"):
        three.checker.sent(1, 0, AppendReply(1, 1, True, 3, NO_ENTRY))


def test_i3_a_promised_entry_is_gone_after_a_crash(three: Three) -> None:
    three.write(1, frames(1, 4))
    three.hear(1, 1, end=4, commit=0)
    three.checker.sent(1, 0, AppendReply(1, 1, True, 3, NO_ENTRY))
    three.shadows[1].crashed()
    with fires("I3"):
        three.shadows[1].recovered(frames(1, 3), (1, 101))


def test_i3_a_log_that_claims_more_than_was_synced() -> None:
    class Log:
        def end_sync(self, ticket: object) -> int:
            return 5

    watched = WatchedLog(Log(), Shadow(0, LogHistory()))  # type: ignore[arg-type]
    with fires("I3"):
        watched.end_sync(None)  # type: ignore[arg-type]


def test_i4_indexes_out_of_order_or_going_back(three: Three) -> None:
    view = three.views[1]
    view.commit_index = 1
    with fires("I4"):  # commit above last
        three.checker.after_step(view)
    view.commit_index, view.last_applied = 0, 1
    with fires("I4"):  # applied above commit
        three.checker.after_step(view)


def test_i4_the_term_goes_back(three: Three) -> None:
    view = three.views[1]
    view.term = 3
    three.checker.after_step(view)
    view.term = 2
    with fires("I4"):
        three.checker.after_step(view)


def test_i4_a_member_wakes_below_its_durable_term(three: Three) -> None:
    three.shadows[1].hard_state = (4, 0)
    three.checker.started(1)
    with fires("I4"):
        three.checker.after_step(three.views[1])


def test_i4_a_follower_commits_above_its_platter(three: Three) -> None:
    three.write(0, frames(1, 3))
    three.write(1, frames(1, 3), durable=False)
    three.hear(1, 1, end=3, commit=2)
    three.views[1].commit_index = 2
    with fires("I4"):
        three.checker.after_step(three.views[1])


def test_i5_one_name_two_contents(three: Three) -> None:
    three.write(0, frames(1, 3))
    with fires("I5"):
        three.write(1, frames(1, 3, salt=1))


def test_i5_one_entry_two_predecessors(three: Three) -> None:
    three.write(0, [*frames(1, 2, term=1), *frames(2, 3, term=3)])
    with fires("I5"):
        three.write(1, [*frames(1, 2, term=2), *frames(2, 3, term=3)])


def test_i6_committed_twice_at_one_index(three: Three) -> None:
    three.write(0, frames(1, 3))
    three.write(1, frames(1, 3))
    leader = three.lead()
    leader.commit_index = 2
    three.checker.after_step(leader)
    assert three.committed == [(1, 3)]
    three.write(2, frames(1, 3, term=2))
    three.hear(2, 2, end=3, commit=2)
    view = three.views[2]
    view.term, view.commit_index = 2, 2
    with fires("I6"):
        three.checker.after_step(view)


def test_i6_committed_without_a_durable_majority(three: Three) -> None:
    three.write(0, frames(1, 3))
    three.write(1, frames(1, 3), durable=False)
    leader = three.lead()
    leader.commit_index = 2
    with fires("I6"):
        three.checker.after_step(leader)


def test_i6_a_leader_without_a_committed_entry(three: Three) -> None:
    three.write(0, frames(1, 3))
    three.write(1, frames(1, 3))
    leader = three.lead()
    leader.commit_index = 2
    three.checker.after_step(leader)
    with fires("I6"):
        three.lead(2, term=2)


def test_i7_a_leader_commits_an_entry_of_another_term(three: Three) -> None:
    for member in (0, 1):
        three.write(member, frames(1, 3))
    leader = three.lead(0, term=2)
    leader.commit_index = 2
    with fires("I7"):
        three.checker.after_step(leader)


def test_i8_commit_above_what_any_request_verified(three: Three) -> None:
    three.write(0, frames(1, 6))
    three.write(1, frames(1, 6))
    three.hear(1, 1, end=4, commit=5)  # verified up to 3 only
    view = three.views[1]
    view.commit_index = 5
    with fires("I8"):
        three.checker.after_step(view)


def test_i9_a_leader_believes_too_much(three: Three) -> None:
    three.write(0, frames(1, 6))
    three.write(1, frames(1, 6), durable=False)
    leader = three.lead()
    leader.believed = {1: 5}
    with fires("I9"):
        three.checker.check_matches(leader)


def test_i9_an_acknowledgement_of_what_no_request_spoke_of(three: Three) -> None:
    three.write(1, frames(1, 6))
    three.hear(1, 1, end=4, commit=0)
    with fires("I9"):
        three.checker.sent(1, 0, AppendReply(1, 1, True, 5, NO_ENTRY))


def test_i10_truncation_below_commit_or_by_a_leader(three: Three) -> None:
    shadow = three.shadows[0]
    three.write(0, frames(1, 6))
    shadow.role = lambda: (False, 3)
    with fires("I10"):
        shadow.truncate(2)
    shadow.role = lambda: (True, 3)
    with fires("I10"):
        shadow.truncate(4)


def test_i24_recovery_loses_or_invents(three: Three) -> None:
    three.write(1, frames(1, 4))
    three.shadows[1].crashed()
    with fires("I24"):
        three.shadows[1].recovered(frames(1, 3), (1, 101))
    with fires("I24"):
        three.shadows[1].recovered([*frames(1, 4), (4, 1, 77)], (1, 101))
    with fires("I24"):
        three.shadows[1].recovered(frames(1, 4), (0, 0))


def test_i24_an_unsynced_tail_may_be_kept_or_lost(three: Three) -> None:
    three.write(1, frames(1, 4), durable=False)
    three.shadows[1].saving.append((2, 0))
    three.shadows[1].crashed()
    three.shadows[1].recovered(frames(1, 3), (2, 0))
    assert three.shadows[1].durable == 2


# --- sessions ---------------------------------------------------------------------------------


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

    def entry(self, kind: EntryKind, time_ms: int = 0) -> int:
        self.index += 1
        run = Run(self.index, int(kind), time_ms, 0, 0, 0, [b""])
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
        *changes: SessionOpened | SessionTouched | SessionEnded,
        rejected: tuple[tuple[int, int, int], ...] = (),
        member: int = 0,
    ) -> None:
        self.checker.outcome(member, Outcome(self.index, 0, [], list(changes), list(rejected)))

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
        sessions.apply(SessionTouched(1, touched, 0))


def test_i19_log_time_goes_back(sessions: Sessions) -> None:
    sessions.entry(EntryKind.NOOP, time_ms=10)
    sessions.entry(EntryKind.NOOP, time_ms=9)
    with fires("I19"):
        sessions.apply()


def test_i19_an_open_session_is_declared_unknown(sessions: Sessions) -> None:
    with fires("I19"):
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
        sessions.apply(SessionTouched(1, index, 0), member=1)


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


def test_an_entry_id_is_ordered_by_term_first() -> None:
    assert EntryId(2, 1) > EntryId(1, 9)
