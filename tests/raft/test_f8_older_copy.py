"""F8: a member that came back with an older copy of its directory is noticed, told, and bound.

`tests/scripts/f8_older_copy.txt` shows it message by message.
"""

from __future__ import annotations

import msgspec
import pytest

from copycat.protocol.peer import (
    AppendReply,
    LogPosition,
    LogRegressed,
    PreVote,
    PreVoteReply,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from copycat.raft.core import Raft
from copycat.raft.effects import (
    Commit,
    PeerRegressed,
    ReadReady,
    RecordLoss,
    SaveHardState,
    StopForGood,
)
from copycat.raft.events import (
    Compacted,
    LossRecorded,
    OldestSnapshotChanged,
    Proposed,
    ReadRequested,
    Saved,
    Synced,
    Tick,
)
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState
from tests.raft.helpers import append, complete_io, core, leader, of, receive, sends, ship

B, C, D, E = (MemberId(number) for number in (2, 3, 4, 5))


def reply(raft: Raft, peer: int, match_index: int, *, request: int = 0) -> AppendReply:
    """`peer` accepts, and holds so much durably."""
    assert raft.leader_state is not None
    newest = raft.leader_state.progress[MemberId(peer)].last_request
    return AppendReply(raft.current_term, request or newest, True, match_index, NO_ENTRY)


def rejection(raft: Raft, peer: int, *, request: int = 0, hint: EntryId = NO_ENTRY) -> AppendReply:
    assert raft.leader_state is not None
    newest = raft.leader_state.progress[MemberId(peer)].last_request
    return AppendReply(raft.current_term, request or newest, False, 0, hint)


def leader_of_five() -> Raft:
    """It knows that 2 holds the entries up to 4, and has asked again since."""
    raft, _ = leader(1, 1, 1, voters=5)
    receive(raft, B, reply(raft, B, 4))
    raft.step(Tick(20))
    return raft


# ---- what proves it ----------------------------------------------------------------------------


@pytest.mark.parametrize("hint", [NO_ENTRY, EntryId(1, 3)])
def test_a_rejection_after_the_acknowledgement_is_a_proof(hint: EntryId) -> None:
    raft = leader_of_five()
    effects = receive(raft, B, rejection(raft, B, hint=hint))
    term = raft.current_term
    assert of(effects, PeerRegressed) == [PeerRegressed(B, EntryId(term, 4), hint)]
    assert sends(effects) == [(B, LogRegressed(term, EntryId(term, 4)))]
    assert raft.match_index(B) == 0


def test_so_is_less_that_is_durable() -> None:
    raft = leader_of_five()
    effects = receive(raft, B, reply(raft, B, 3))
    assert of(effects, PeerRegressed) == [
        PeerRegressed(B, EntryId(raft.current_term, 4), EntryId(0, 3))
    ]


def test_what_was_asked_before_the_acknowledgement_came_is_none() -> None:
    """The network turned two requests round: the later one was rejected before the earlier one
    was accepted. A log that holds everything looks so for a moment."""
    raft, _ = leader(1, 1, 1)
    raft.step(Tick(20))
    assert raft.leader_state is not None
    newest = raft.leader_state.progress[B].last_request
    receive(raft, B, reply(raft, B, 4, request=1))
    for message in (
        rejection(raft, B, request=newest),
        reply(raft, B, 2, request=newest),
        rejection(raft, B, request=1),
    ):
        assert of(receive(raft, B, message), PeerRegressed) == []
    assert raft.match_index(B) == 4


def test_a_hint_at_or_above_the_match_is_none() -> None:
    """Entries that were in flight are missing: that happens whenever a link breaks."""
    raft = leader_of_five()
    ship(raft, raft.step(Proposed(2)))
    hint = EntryId(raft.current_term, 4)
    assert of(receive(raft, B, rejection(raft, B, hint=hint)), PeerRegressed) == []
    assert raft.match_index(B) == 4


def test_it_is_named_once_and_told_with_each_answer() -> None:
    raft = leader_of_five()
    receive(raft, B, rejection(raft, B))
    raft.step(Tick(20))
    effects = receive(raft, B, rejection(raft, B))
    assert of(effects, PeerRegressed) == []
    assert [type(message) for _, message in sends(effects)] == [LogRegressed]


# ---- what it does not count for ----------------------------------------------------------------


def test_it_counts_for_no_commit_until_it_has_everything_again() -> None:
    raft = leader_of_five()
    receive(raft, B, rejection(raft, B))
    assert of(receive(raft, C, reply(raft, C, 4)), Commit) == []
    assert raft.commit_index == 0, "1 and 3 are no majority of five"
    raft.step(Tick(20))
    assert of(receive(raft, B, reply(raft, B, 3)), Commit) == [], "still less than it had"
    raft.step(Tick(20))
    receive(raft, B, reply(raft, B, 4))
    assert raft.match_index(B) == 4
    assert of(receive(raft, C, reply(raft, C, 4)), Commit) == []
    assert of(receive(raft, D, reply(raft, D, 4)), Commit) == [Commit(4)]


@pytest.mark.parametrize("is_noticed_by_position", [True, False])
def test_late_answers_of_the_process_before_count_for_nothing(
    is_noticed_by_position: bool,
) -> None:
    """They acknowledge what the older copy lacks; those to later requests are its own."""
    raft = leader_of_five()
    ship(raft, raft.step(Proposed(1)))
    assert raft.leader_state is not None
    progress = raft.leader_state.progress[B]
    late = reply(raft, B, 5)
    if is_noticed_by_position:
        receive(raft, B, LogPosition(raft.current_term, EntryId(1, 3)))
    else:
        receive(raft, B, rejection(raft, B, hint=EntryId(1, 3)))
    receive(raft, B, late)
    assert (raft.match_index(B), progress.match_index) == (0, 4)
    raft.step(Tick(20))
    receive(raft, B, reply(raft, B, 4))
    receive(raft, B, late)
    assert raft.match_index(B) == 4
    receive(raft, B, reply(raft, B, 5))
    assert raft.match_index(B) == 5


def test_nor_for_a_read_since_it_may_have_forgotten_a_newer_term() -> None:
    raft, _ = leader(1)
    for peer in (B, C):
        receive(raft, peer, reply(raft, peer, 2))
    raft.step(Tick(20))
    receive(raft, B, rejection(raft, B))
    raft.step(ReadRequested(7))
    assert of(receive(raft, B, rejection(raft, B)), ReadReady) == []
    assert of(receive(raft, C, reply(raft, C, 2)), ReadReady) == [ReadReady(7, 2)]


def test_nor_for_the_floor() -> None:
    """C23: what members have decides when deletions are deleted; of this one nothing is known."""

    def report_stable(peer: int, stable_index: int) -> None:
        receive(
            raft, peer, msgspec.structs.replace(reply(raft, peer, 2), stable_index=stable_index)
        )

    raft, _ = leader(1)
    report_stable(B, 1)
    report_stable(C, 1)
    assert raft.cluster_deletion_floor == 1
    raft.step(Tick(20))
    receive(raft, B, rejection(raft, B))
    report_stable(C, 2)
    raft.step(OldestSnapshotChanged(2))
    assert raft.cluster_deletion_floor == 1
    raft.step(Tick(20))
    report_stable(B, 2)
    assert raft.cluster_deletion_floor == 2


def test_what_is_committed_stays_so() -> None:
    raft, _ = leader(1)
    receive(raft, B, reply(raft, B, 2))
    assert raft.commit_index == 2
    raft.step(Tick(20))
    receive(raft, B, rejection(raft, B))
    assert raft.commit_index == 2


# ---- a new link: where its log ends ------------------------------------------------------------


def deposed() -> Raft:
    """It led in term 2, and 2 acknowledged entries up to 4 to it."""
    raft = leader_of_five()
    receive(raft, C, AppendReply(9, 1, False, 0, NO_ENTRY))
    complete_io(raft)
    assert raft.state is ServerState.FOLLOWER
    return raft


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize(
    ("term", "last", "has_regressed"),
    [
        (2, EntryId(1, 3), True),
        (1, NO_ENTRY, True),
        (2, EntryId(2, 3), True),
        (2, EntryId(2, 4), False),
        (2, EntryId(2, 9), False),
        # A leader of a later term may have had it drop what was not committed.
        (3, EntryId(1, 3), False),
    ],
)
def test_the_end_of_a_log_is_compared_with_what_was_acknowledged(
    leads: bool, term: int, last: EntryId, has_regressed: bool
) -> None:
    raft = leader_of_five() if leads else deposed()
    effects = receive(raft, B, LogPosition(term, last))
    notices = [(B, LogRegressed(raft.current_term, EntryId(2, 4)))]
    assert sends(effects) == (notices if has_regressed else [])
    assert len(of(effects, PeerRegressed)) == has_regressed


def test_of_a_peer_that_acknowledged_nothing_nothing_is_known() -> None:
    raft = leader_of_five()
    assert receive(raft, C, LogPosition(0, NO_ENTRY)) == []
    assert receive(core(1, 1), C, LogPosition(0, NO_ENTRY)) == []


def test_a_position_moves_no_term() -> None:
    raft = leader_of_five()
    receive(raft, B, LogPosition(7, EntryId(7, 9)))
    assert (raft.state, raft.current_term) == (ServerState.LEADER, 2)


# ---- the member itself -------------------------------------------------------------------------


def regressed() -> Raft:
    """Member 1 has entry 1 of term 1, and was told by 2 in term 3 that it had 5 of term 2."""
    raft = core(1, current_term=3)
    effects = receive(raft, B, LogRegressed(3, EntryId(2, 5)))
    assert effects == [RecordLoss(EntryId(2, 5), 4)]
    return raft


def test_it_votes_only_for_what_it_had() -> None:
    raft = regressed()
    for last, granted in ((EntryId(2, 4), False), (EntryId(2, 5), True), (EntryId(3, 1), True)):
        answers = sends(receive(raft, C, PreVote(9, 3, last)))
        assert answers == [(C, PreVoteReply(3, 3, granted))]
    receive(raft, C, RequestVote(4, EntryId(2, 4), False))
    assert sends(raft.step(Saved(raft.save_ticket))) == [(C, VoteReply(4, False))]


def test_it_does_not_campaign() -> None:
    raft = regressed()
    raft.step(Tick(100_000))
    assert raft.pre_vote_round is None
    receive(raft, B, TimeoutNow(3))
    assert raft.state is ServerState.FOLLOWER


def test_the_term_is_raised_once_it_is_written_down() -> None:
    raft = regressed()
    effects = raft.step(LossRecorded(4))
    assert of(effects, SaveHardState) == [SaveHardState(4, MemberId(0), raft.save_ticket)]
    receive(raft, B, append(3, 9, (2, 5), []))
    assert sends(raft.step(Saved(raft.save_ticket))) == [
        (B, AppendReply(4, 9, False, 0, NO_ENTRY))
    ]


def test_a_newer_leader_counts_from_nothing_already() -> None:
    raft = regressed()
    receive(raft, C, append(7, 1, (2, 5), []))
    complete_io(raft)
    assert of(raft.step(LossRecorded(4)), SaveHardState) == []
    assert raft.current_term == 7


def test_it_takes_no_gaps_until_it_has_everything_again() -> None:
    raft = regressed()
    assert not raft.eligibility.accepts_gaps
    raft.step(LossRecorded(4))
    complete_io(raft)
    receive(raft, C, append(5, 1, (1, 1), [5]))
    complete_io(raft)
    assert not raft.eligibility.is_recovering, (
        "an entry of a later term: its leader had all that was acknowledged"
    )
    raft.step(Tick(10_000))
    assert raft.pre_vote_round is not None


@pytest.mark.parametrize(
    "message", [LogRegressed(3, EntryId(1, 1)), LogRegressed(3, EntryId(1, 2))]
)
def test_a_late_message_finds_nothing_missing(message: LogRegressed) -> None:
    raft = core(1, 1, current_term=3)
    assert receive(raft, B, message) == []
    assert not raft.eligibility.is_recovering


def test_what_it_was_told_once_is_not_recorded_twice() -> None:
    raft = regressed()
    assert receive(raft, B, LogRegressed(3, EntryId(2, 5))) == []
    assert of(receive(raft, C, LogRegressed(3, EntryId(2, 8))), RecordLoss) == [
        RecordLoss(EntryId(2, 8), 4)
    ]


@pytest.mark.parametrize(
    "acknowledged", [EntryId(4, 1), EntryId(0, 1), EntryId(1, 0), EntryId(1, 1 << 63)]
)
def test_nonsense_is_ignored(acknowledged: EntryId) -> None:
    raft = core(1, current_term=3)
    assert receive(raft, B, LogRegressed(3, acknowledged)) == []
    assert raft.ignored == 1


def test_a_candidate_stops() -> None:
    raft = core(1, current_term=3)
    raft.campaign_within(0, 1)
    raft.step(Tick(1))
    receive(raft, B, PreVoteReply(3, raft.pre_vote_number, True))
    assert raft.votes == frozenset()
    assert raft.voted_for == raft.member
    receive(raft, B, LogRegressed(3, EntryId(2, 5)))
    raft.step(Saved(raft.save_ticket))
    receive(raft, C, VoteReply(raft.current_term, True))
    assert raft.state is ServerState.FOLLOWER


def test_a_leader_goes_on_for_its_own_entry_is_newer() -> None:
    raft, _ = leader(1)
    assert receive(raft, B, LogRegressed(1, EntryId(1, 5))) == []
    assert raft.state is ServerState.LEADER


def test_a_sync_of_what_is_here_proves_nothing_about_what_was_lost() -> None:
    raft = regressed()
    raft.step(Synced(raft.sync_ticket))
    assert raft.eligibility.lost_upto == EntryId(2, 5)


def test_another_log_of_an_older_term_is_no_substitute() -> None:
    """The copy is from before a leader had it drop entries of a term that lost: its log is long
    enough, and holds others."""
    raft = leader_of_five()
    raft.step(Tick(20))
    effects = receive(raft, B, rejection(raft, B, hint=EntryId(1, 4)))
    assert len(of(effects, PeerRegressed)) == 1


def test_a_position_that_was_late_is_forgotten_with_the_next_answer() -> None:
    """It was said before the acknowledgement and came after it; the peer lacks only what was in
    flight, and continues from there."""
    raft = leader_of_five()
    ship(raft, raft.step(Proposed(2)))
    receive(raft, B, LogPosition(2, EntryId(1, 3)))
    assert raft.match_index(B) == 0
    raft.step(Tick(20))
    receive(raft, B, rejection(raft, B, hint=EntryId(2, 4)))
    assert raft.leader_state is not None
    assert raft.leader_state.progress[B].next_index == 5, "a probe"
    raft.step(Tick(20))
    receive(raft, B, reply(raft, B, 4))
    assert raft.match_index(B) == 4


def test_entries_of_a_term_that_lost_are_here_again_and_the_leader_counts_anew() -> None:
    """Its last entry is greater than what it acknowledged, so whoever it votes for has that."""
    raft = core(1, 4, 4, current_term=5)
    receive(raft, B, append(5, 1, (3, 9), []))
    effects = receive(raft, B, LogRegressed(5, EntryId(3, 9)))
    assert of(effects, RecordLoss) == []
    assert raft.current_term == 6
    assert not raft.eligibility.is_recovering


def test_what_was_trimmed_at_the_leader_has_no_exact_name() -> None:
    """A log of entries of an older term that are all here is no proof."""
    raft = leader_of_five()
    receive(raft, C, reply(raft, C, 4))
    receive(raft, D, reply(raft, D, 4))
    ship(raft, raft.step(Proposed(2)))
    receive(raft, C, reply(raft, C, 6))
    receive(raft, D, reply(raft, D, 6))
    raft.step(Synced(raft.sync_ticket))
    raft.step(Compacted(6))
    raft.step(Tick(20))
    assert receive(raft, B, LogPosition(2, EntryId(1, 4))) == []
    effects = receive(raft, B, LogPosition(2, EntryId(1, 3)))
    assert of(effects, PeerRegressed) == [PeerRegressed(B, EntryId(2, 4), EntryId(1, 3))]
    assert [type(message) for _, message in sends(effects)] == [], "it asks first (C42)"
    effects = receive(raft, B, rejection(raft, B, hint=EntryId(1, 3)))
    assert sends(effects) == [(B, LogRegressed(2, EntryId(2, 4), is_final=True))]


# ---- the final word ----------------------------------------------------------------------------


def established() -> Raft:
    """A leader of five that has committed an entry of its term, and has asked again since."""
    raft = leader_of_five()
    receive(raft, C, reply(raft, C, 4))
    receive(raft, D, reply(raft, D, 4))
    raft.step(Tick(20))
    return raft


def final_word(raft: Raft) -> bool:
    (answer,) = [
        message
        for _, message in sends(receive(raft, B, rejection(raft, B)))
        if isinstance(message, LogRegressed)
    ]
    return answer.is_final


def test_c42_who_is_not_needed_is_told_so() -> None:
    assert final_word(established())


def test_c43_a_majority_that_was_heard_long_ago_is_none() -> None:
    raft = established()
    for _ in range(6):
        raft.step(Tick(20))
        receive(raft, B, reply(raft, B, 4))
        receive(raft, C, reply(raft, C, 4))
    raft.step(Tick(20))
    assert not final_word(raft), "1 and C are no majority of five"
    receive(raft, D, reply(raft, D, 4))
    raft.step(Tick(20))
    assert final_word(raft)


def test_c43_others_whose_log_regressed_are_no_majority() -> None:
    raft = established()
    for peer in (C, D):
        receive(raft, peer, rejection(raft, peer))
    assert not final_word(raft)


def test_c43_before_it_has_committed_an_entry_a_leader_ends_nobody() -> None:
    assert not final_word(leader_of_five())


def test_c42_by_the_final_word_it_stops_and_promises_nothing() -> None:
    raft = core(1, current_term=3)
    effects = receive(raft, B, LogRegressed(3, EntryId(2, 5), is_final=True))
    assert of(effects, StopForGood) == [StopForGood(EntryId(2, 5))]
    assert of(effects, RecordLoss) == []


@pytest.mark.parametrize(
    "word",
    [
        LogRegressed(2, EntryId(2, 5), is_final=True),
        LogRegressed(3, EntryId(1, 1), is_final=True),
    ],
)
def test_c42_a_word_of_an_earlier_term_or_about_an_entry_that_is_here_ends_nobody(
    word: LogRegressed,
) -> None:
    raft = core(1, current_term=3)
    assert of(receive(raft, B, word), StopForGood) == []
