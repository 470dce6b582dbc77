"""Polls and votes: who asks, who answers, and what has to be on the disk before."""

from __future__ import annotations

import pytest

from copycat.protocol.peer import PreVote, PreVoteReply, RequestVote, TimeoutNow, VoteReply
from copycat.raft.core import Raft
from copycat.raft.effects import RoleChanged, SaveHardState
from copycat.raft.events import IncarnationCommitted, Reachable, Saved, Tick, Unreachable
from copycat.raft.initial_state import InitialState
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState
from tests.raft.helpers import append, complete_io, core, leader, of, receive, sends


def vote(term: int, last: tuple[int, int] = (0, 0), *, transfer: bool = False) -> RequestVote:
    return RequestVote(term, EntryId(*last), transfer)


def granted(raft: Raft, sender: int, message: RequestVote) -> bool:
    effects = [*receive(raft, sender, message), *raft.step(Saved(raft.save_ticket))]
    (answer,) = [message for _, message in sends(effects) if isinstance(message, VoteReply)]
    return answer.granted


def poll(raft: Raft, elapsed_ms: int = 200) -> list[tuple[int, object]]:
    return list(sends(raft.step(Tick(elapsed_ms))))


def test_a_poll_asks_for_the_next_term_and_takes_none() -> None:
    raft = core(1, 2, current_term=4)
    question = PreVote(5, raft.pre_vote_number + 1, EntryId(2, 2))
    assert poll(raft) == [(2, question), (3, question)]
    assert (raft.current_term, raft.state) == (4, ServerState.FOLLOWER)


def test_a_won_poll_becomes_an_election_that_waits_for_the_disk() -> None:
    raft = core(1)
    poll(raft)
    effects = receive(raft, 2, PreVoteReply(1, raft.pre_vote_number, True))
    assert effects == [
        SaveHardState(2, MemberId(1), 1),
        RoleChanged(ServerState.CANDIDATE, 2, MemberId(0)),
    ]
    assert receive(raft, 2, VoteReply(2, True)) == [], "its own vote is not durable yet"
    effects = raft.step(Saved(1))
    assert raft.state is ServerState.LEADER
    assert [message for _, message in sends(effects)] == [vote(2, (1, 1))] * 2


def test_late_and_foreign_poll_answers_do_not_count() -> None:
    raft = core(1)
    poll(raft)
    assert receive(raft, 2, PreVoteReply(1, raft.pre_vote_number - 1, True)) == []
    assert receive(raft, 2, PreVoteReply(1, raft.pre_vote_number, False)) == []
    assert receive(raft, 9, PreVoteReply(1, raft.pre_vote_number, True)) == []
    assert raft.state is ServerState.FOLLOWER


def test_a_refusal_with_a_higher_term_teaches_the_next_poll() -> None:
    raft = core(1)
    poll(raft)
    receive(raft, 2, PreVoteReply(7, raft.pre_vote_number, False))
    assert raft.current_term == 1
    (_, question), *_ = poll(raft)
    assert isinstance(question, PreVote)
    assert question.term == 8


@pytest.mark.parametrize(
    ("last", "yes"),
    [((2, 3), True), ((2, 9), True), ((3, 1), True), ((2, 2), False), ((1, 9), False)],
)
def test_only_a_log_at_least_as_new_gets_a_vote(last: tuple[int, int], yes: bool) -> None:
    assert granted(core(1, 2, 2), 2, vote(3, last)) is yes
    raft = core(1, 2, 2)
    effects = receive(raft, 2, PreVote(3, 1, EntryId(*last)))
    assert sends(effects) == [(2, PreVoteReply(2, 1, yes))]


def test_i2_one_vote_a_term_and_it_stays() -> None:
    raft = core()
    assert granted(raft, 2, vote(1))
    assert not granted(raft, 3, vote(1))
    assert granted(raft, 2, vote(1)), "asked twice, answered twice"
    receive(raft, 2, append(1, 1, (0, 0), []))
    raft.step(Unreachable(MemberId(2)))
    assert raft.voted_for == 2
    assert not granted(raft, 3, vote(1))
    assert granted(raft, 3, vote(2))


def test_c9_a_vote_waits_and_dies_with_its_term() -> None:
    raft = core()
    assert sends(receive(raft, 2, vote(1))) == []
    assert sends(receive(raft, 3, vote(2))) == []
    assert raft.step(Saved(1)) == [], "the term has moved on: the older vote never leaves"
    assert sends(raft.step(Saved(2))) == [(3, VoteReply(2, True))]
    assert raft.step(Saved(1)) == []


def test_a_higher_term_and_the_vote_are_one_save() -> None:
    effects = receive(core(), 2, vote(5))
    assert of(effects, SaveHardState) == [SaveHardState(5, MemberId(2), 1)]


def test_while_a_leader_is_heard_polls_and_votes_move_nothing() -> None:
    raft = core(1)
    receive(raft, 2, append(3, 1, (1, 1), []))
    complete_io(raft)
    deadline = raft.election_at_ms
    last = EntryId(9, 9)
    assert sends(receive(raft, 3, PreVote(9, 1, last))) == [(3, PreVoteReply(3, 1, False))]
    assert sends(receive(raft, 3, vote(9, (9, 9)))) == [(3, VoteReply(3, False))]
    assert (raft.current_term, raft.leader, raft.election_at_ms) == (3, 2, deadline)


def test_a_leader_answers_no() -> None:
    raft, _ = leader()
    last = EntryId(9, 9)
    assert sends(receive(raft, 3, PreVote(9, 1, last))) == [(3, PreVoteReply(1, 1, False))]
    assert sends(receive(raft, 3, vote(9, (9, 9)))) == [(3, VoteReply(1, False))]
    assert raft.state is ServerState.LEADER


def test_a_poll_does_not_reset_the_timer_a_vote_does() -> None:
    raft = core()
    raft.step(Tick(10))
    raft.election_at_ms = raft.now_ms + 20
    receive(raft, 2, PreVote(1, 1, NO_ENTRY))
    receive(raft, 2, vote(0))
    assert raft.timeout_ms == 20
    receive(raft, 2, vote(1))
    assert raft.timeout_ms >= 100


def test_c11_a_member_that_starts_grants_nothing_for_one_election_timeout() -> None:
    raft = core(young=True)
    assert not granted(raft, 2, vote(1))
    assert raft.current_term == 0
    raft.election_at_ms += 200
    raft.step(Tick(99))
    assert not granted(raft, 2, vote(1))
    raft.step(Tick(1))
    assert granted(raft, 2, vote(1))


@pytest.mark.parametrize("term", [1, 2])
def test_c11_who_was_just_started_votes_for_no_heir_either(term: int) -> None:
    """It may be an older copy of its directory, and the request late (F8)."""
    raft = core(1, young=True)
    heir = RequestVote(term, EntryId(1, 1), True)
    assert sends(receive(raft, 3, heir)) == [(3, VoteReply(1, False))]
    raft.step(Tick(100))
    effects = [*receive(raft, 3, heir), *raft.step(Saved(raft.save_ticket))]
    assert sends(effects)[-1] == (3, VoteReply(term, True))


def test_c11_an_unreachable_leader_does_not_shorten_the_grace() -> None:
    raft = core(young=True)
    receive(raft, 2, append(1, 1, (0, 0), []))
    raft.step(Saved(1))
    raft.step(Unreachable(MemberId(2)))
    assert raft.timeout_ms >= 100
    assert not granted(raft, 3, vote(2))


def test_c16_a_fresh_directory_needs_to_meet_a_majority() -> None:
    raft = core(fresh=True, voters=5)
    assert poll(raft, 1000) == []
    assert raft.timeout_ms > 1 << 60
    assert not granted(raft, 2, vote(1))
    assert sends(receive(raft, 2, PreVote(2, 1, NO_ENTRY))) == [(2, PreVoteReply(1, 1, False))]
    raft.step(Reachable(MemberId(2), fresh=True))
    raft.step(Reachable(MemberId(2), fresh=True))
    raft.step(Reachable(MemberId(9), fresh=True))
    assert not granted(raft, 2, vote(2))
    raft.step(Reachable(MemberId(4), fresh=False))
    raft.step(Reachable(MemberId(5), fresh=False))
    assert not granted(raft, 2, vote(2)), "it may have been wiped: those have a past"
    raft.step(Reachable(MemberId(3), fresh=True))
    assert granted(raft, 2, vote(2))


def test_c16_a_fresh_directory_whose_incarnation_is_committed_was_never_another_one() -> None:
    raft = core(fresh=True)
    raft.step(Reachable(MemberId(2), fresh=False))
    raft.step(Reachable(MemberId(3), fresh=False))
    assert poll(raft, 5000) == []
    raft.step(IncarnationCommitted())
    assert poll(raft, 5000) != []


def test_the_term_of_the_last_entry_is_a_floor_without_a_vote() -> None:
    young = core(5)
    initial = InitialState(
        current_term=3, voted_for=MemberId(2), term_runs=young.terms.runs, last_index=1
    )
    raft = Raft(MemberId(1), young.configuration, young.options, initial, seed=0)
    assert (raft.current_term, raft.voted_for) == (5, 0)


def test_a_lost_election_polls_again_and_keeps_its_distance() -> None:
    raft = core()
    poll(raft)
    receive(raft, 2, PreVoteReply(0, raft.pre_vote_number, True))
    raft.step(Saved(1))
    assert raft.timeout_ms >= 100
    effects = raft.step(Tick(raft.timeout_ms))
    assert of(effects, RoleChanged) == [RoleChanged(ServerState.FOLLOWER, 1, MemberId(0))]
    assert [type(message) for _, message in sends(effects)] == [PreVote, PreVote]
    assert 25 <= raft.timeout_ms < 100


def test_a_slow_disk_does_not_burn_terms() -> None:
    raft = core()
    poll(raft)
    receive(raft, 2, PreVoteReply(0, raft.pre_vote_number, True))
    for _ in range(5):
        assert raft.step(Tick(200)) == []
    assert (raft.current_term, raft.state) == (1, ServerState.CANDIDATE)


def test_crossing_polls_the_lesser_gives_way() -> None:
    lesser, greater = core(member=1), core(member=2)
    poll(lesser)
    poll(greater)
    receive(lesser, 2, PreVote(1, greater.pre_vote_number, NO_ENTRY))
    receive(greater, 1, PreVote(1, lesser.pre_vote_number, NO_ENTRY))
    receive(lesser, 2, PreVoteReply(0, lesser.pre_vote_number, True))
    receive(greater, 1, PreVoteReply(0, greater.pre_vote_number, True))
    assert lesser.state is ServerState.FOLLOWER
    assert greater.state is ServerState.CANDIDATE


def test_a_link_that_comes_up_is_asked_too() -> None:
    raft = core()
    poll(raft)
    question = PreVote(1, raft.pre_vote_number, NO_ENTRY)
    assert sends(raft.step(Reachable(MemberId(3), fresh=False))) == [(3, question)]
    receive(raft, 2, PreVoteReply(0, raft.pre_vote_number, True))
    assert sends(raft.step(Reachable(MemberId(3), fresh=False))) == [], "held until saved"
    raft.step(Saved(1))
    assert sends(raft.step(Reachable(MemberId(3), fresh=False))) == [(3, vote(1))]


def test_timeout_now_skips_the_poll_and_is_answered_though_a_leader_is_heard() -> None:
    raft = core(1)
    receive(raft, 2, append(3, 1, (1, 1), []))
    complete_io(raft)
    assert receive(raft, 3, TimeoutNow(3)) == [], "only the leader hands over"
    effects = receive(raft, 2, TimeoutNow(3))
    assert of(effects, SaveHardState) == [SaveHardState(4, MemberId(1), 2)]
    request = vote(4, (1, 1), transfer=True)
    assert sends(raft.step(Saved(2))) == [(2, request), (3, request)]
    other = core(1, member=3)
    receive(other, 2, append(3, 1, (1, 1), []))
    complete_io(other)
    assert granted(other, 1, vote(4, (1, 1), transfer=True))
