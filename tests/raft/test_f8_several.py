"""F8 when more happens: a snapshot is on its way, or several members know what is missing."""

from __future__ import annotations

import pytest

from copycat.protocol.peer import (
    InstallReply,
    LogPosition,
    LogRegressed,
    PreVote,
    PreVoteReply,
    RequestVote,
)
from copycat.raft.core import Raft
from copycat.raft.effects import Effect, EndShipping, RecordLoss, ShipSnapshot, Truncate
from copycat.raft.events import (
    Compacted,
    LossRecorded,
    Proposed,
    Reachable,
    SnapshotShipping,
    Synced,
    Tick,
)
from copycat.types import EntryId, MemberId
from tests.raft.helpers import append, complete_io, core, of, receive, sends, ship
from tests.raft.test_f8_older_copy import leader_of_five, regressed, rejection, reply

B, C, D = (MemberId(number) for number in (2, 3, 4))


def add_two_and_trim(raft: Raft) -> EntryId:
    """The entries 5 and 6 are committed without 2, and the log begins behind them."""
    receive(raft, C, reply(raft, C, 4))
    receive(raft, D, reply(raft, D, 4))
    ship(raft, raft.step(Proposed(2)))
    receive(raft, C, reply(raft, C, 6))
    receive(raft, D, reply(raft, D, 6))
    raft.step(Synced(raft.sync_ticket))
    raft.step(Compacted(7))
    return EntryId(2, 6)


def snapshot_done(raft: Raft, effects: list[Effect], entry: EntryId) -> InstallReply:
    """What 2 says when it has installed the snapshot that it is sent."""
    (asked,) = of(effects, ShipSnapshot)
    raft.step(SnapshotShipping(B, asked.request, entry))
    return InstallReply(raft.current_term, asked.request, entry, 0, True)


@pytest.mark.parametrize("is_noticed_by_position", [True, False])
@pytest.mark.usefixtures("no_follower_feeds")
def test_late_answers_about_a_snapshot_count_for_nothing(is_noticed_by_position: bool) -> None:
    """The process before installed it, and its answer comes when the older copy is known. The
    copy is sent another one."""
    raft = leader_of_five()
    newest = add_two_and_trim(raft)
    raft.step(Tick(20))
    late = snapshot_done(raft, receive(raft, B, rejection(raft, B, hint=EntryId(2, 4))), newest)
    raft.step(Tick(20))
    if is_noticed_by_position:
        effects = receive(raft, B, LogPosition(2, EntryId(1, 3)))
    else:
        effects = receive(raft, B, rejection(raft, B, hint=EntryId(1, 3)))
    assert of(effects, EndShipping) == [EndShipping(B, done=False)]
    assert receive(raft, B, late) == []
    assert raft.leader_state is not None
    assert (raft.match_index(B), raft.leader_state.progress[B].match_index) == (0, 4)
    raft.step(Tick(20))
    effects = receive(raft, B, rejection(raft, B, hint=EntryId(2, 4)))
    done = snapshot_done(raft, effects, newest)
    assert receive(raft, B, late) == []
    receive(raft, B, done)
    assert raft.match_index(B) == 6


def test_a_term_that_no_leader_is_heard_of_hides_nothing() -> None:
    """A candidate that gets no vote raises the term, and so does a loss that is recorded: neither
    had this log drop anything."""
    raft = core(1, member=1, current_term=2)
    receive(raft, C, RequestVote(5, EntryId(0, 0), False))
    assert raft.current_term == 5
    assert raft.position == LogPosition(2, EntryId(1, 1))
    complete_io(raft)
    assert raft.position == LogPosition(2, EntryId(1, 1))


def test_a_leader_that_had_entries_dropped_is_named() -> None:
    raft = core(1, 1, current_term=2)
    receive(raft, B, append(4, 1, (1, 2), []))
    complete_io(raft)
    assert raft.position == LogPosition(2, EntryId(1, 2)), "it dropped nothing"
    effects = receive(raft, B, append(4, 2, (1, 1), [4]))
    assert of(effects, Truncate) == [Truncate(1)]
    assert raft.position == LogPosition(4, EntryId(4, 2))


def test_who_knows_more_is_believed_after_who_knows_less() -> None:
    """Both in any order: it votes only for the most that it is told."""
    for acknowledged in ((EntryId(2, 5), EntryId(2, 8)), (EntryId(2, 8), EntryId(2, 5))):
        raft = regressed()
        for sender, entry in zip((B, C), acknowledged, strict=True):
            receive(raft, sender, LogRegressed(3, entry))
        for last, granted in ((EntryId(2, 7), False), (EntryId(2, 8), True)):
            answers = sends(receive(raft, C, PreVote(9, 3, last)))
            assert answers == [(C, PreVoteReply(3, 3, granted))]


def test_a_copy_from_before_the_first_election_votes_when_it_knows_what_it_lacks() -> None:
    """It takes itself for new (C16), and somebody may need its vote to lead and to feed it."""
    raft = core(fresh=True)
    effects = receive(raft, B, LogRegressed(2, EntryId(2, 5)))
    (recorded,) = of(effects, RecordLoss)
    assert raft.eligibility.is_fresh, "not before that is durable"
    raft.step(LossRecorded(recorded.term))
    complete_io(raft)
    for last, granted in ((EntryId(2, 4), False), (EntryId(2, 5), True)):
        answers = sends(receive(raft, C, PreVote(9, 3, last)))
        assert answers == [(C, PreVoteReply(3, 3, granted))]
    raft.step(Tick(100_000))
    assert raft.pre_vote_round is None


def test_what_is_said_before_the_link_is_open_is_said_again_once() -> None:
    """Seed 49555741843: the copy's own link was open first, so the answer was written to the
    link of its earlier process. Another member had told it of less, and it voted again when it
    had that."""
    raft = leader_of_five()
    receive(raft, C, RequestVote(raft.current_term + 1, EntryId(9, 9), True))
    complete_io(raft)
    assert raft.leader_state is None
    notices = [LogRegressed(raft.current_term, EntryId(2, 4))]
    effects = receive(raft, B, LogPosition(2, EntryId(1, 3)))
    assert [message for _, message in sends(effects)] == notices
    effects = raft.step(Reachable(B, fresh=False))
    assert [message for _, message in sends(effects)] == notices
    assert sends(raft.step(Reachable(B, fresh=False))) == []
    receive(raft, B, LogPosition(2, EntryId(1, 3)))
    receive(raft, B, LogPosition(3, EntryId(3, 5)))
    assert sends(raft.step(Reachable(B, fresh=False))) == [], "a newer process has it all"


def test_a_leader_that_was_answered_since_does_not_say_it_again() -> None:
    raft = leader_of_five()
    receive(raft, B, LogPosition(2, EntryId(1, 3)))
    raft.step(Tick(20))
    receive(raft, B, reply(raft, B, 4))
    assert sends(raft.step(Reachable(B, fresh=False))) == []


def test_a_leader_that_was_not_answered_since_says_it_again() -> None:
    """Seed 3017: another member told the copy of less, and its raised term ended the leadership
    before the leader, who knew of more, could compare an answer."""
    raft = leader_of_five()
    notices = [message for _, message in sends(receive(raft, B, LogPosition(2, EntryId(1, 3))))]
    assert [type(message) for message in notices] == [LogRegressed]
    effects = raft.step(Reachable(B, fresh=False))
    assert [
        message for _, message in sends(effects) if isinstance(message, LogRegressed)
    ] == notices
    assert not any(
        isinstance(message, LogRegressed)
        for _, message in sends(raft.step(Reachable(B, fresh=False)))
    )


@pytest.mark.parametrize("is_compared", [True, False])
def test_a_leader_that_steps_down_tells_whom_it_has_not_compared(is_compared: bool) -> None:
    """A new link to 2 opens, and what 2 says first is lost. Another member raises the term before
    2 answers: 2 may be an older copy and have heard of fewer entries from others."""
    raft = leader_of_five()
    receive(raft, C, reply(raft, C, 4))
    assert raft.match_index(B) == 4
    raft.step(Reachable(B, fresh=False))
    if is_compared:
        receive(raft, B, LogPosition(2, EntryId(2, 4)))
    raft.step(Tick(20))
    receive(raft, C, RequestVote(9, EntryId(2, 9), True))
    reported = [each for each in sends(complete_io(raft)) if isinstance(each[1], LogRegressed)]
    assert reported == ([] if is_compared else [(B, LogRegressed(9, EntryId(2, 4)))])


@pytest.mark.parametrize("is_back", [True, False])
def test_a_leader_that_steps_down_tells_once_more_who_lacks_entries(is_back: bool) -> None:
    """Seed 328678245082: the report to 2 was lost. 2 had heard of fewer entries from another
    member, raised its term for that, and so ended the term of the leader that counted more."""
    raft = leader_of_five()
    receive(raft, B, LogPosition(2, EntryId(1, 3)))
    raft.step(Tick(20))
    if is_back:
        receive(raft, B, reply(raft, B, 4))
    receive(raft, C, RequestVote(9, EntryId(2, 9), True))
    reports = [(B, LogRegressed(9, EntryId(2, 4)))]
    reported = [each for each in sends(complete_io(raft)) if isinstance(each[1], LogRegressed)]
    assert reported == ([] if is_back else reports)
    if not is_back:
        assert sends(raft.step(Reachable(B, fresh=False))) == reports
