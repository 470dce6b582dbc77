"""Polls and votes: who asks, who answers, and what has to be on the disk before."""

from __future__ import annotations

import pytest

from copycat.protocol.peer import PreVote, PreVoteReply, RequestVote, TimeoutNow, VoteReply
from copycat.raft.effects import RoleChanged, SaveHardState
from copycat.raft.events import Reachable, Saved, Tick, Unreachable
from copycat.raft.raft import Raft
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState
from tests.raft.helpers import append, core, leader, of, receive, sends, settle


def vote(term: int, last: tuple[int, int] = (0, 0), *, transfer: bool = False) -> RequestVote:
    return RequestVote(term, EntryId(*last), transfer)


def granted(raft: Raft, sender: int, message: RequestVote) -> bool:
    effects = [*receive(raft, sender, message), *raft.step(Saved(raft.save_ticket))]
    (answer,) = [said for _, said in sends(effects) if isinstance(said, VoteReply)]
    return answer.granted


def poll(raft: Raft, elapsed_ms: int = 200) -> list[tuple[int, object]]:
    return list(sends(raft.step(Tick(elapsed_ms))))


def test_a_poll_asks_for_the_next_term_and_takes_none() -> None:
    raft = core(1, 2, current_term=4)
    question = PreVote(5, raft.poll_round + 1, EntryId(2, 2))
    assert poll(raft) == [(2, question), (3, question)]
    assert (raft.current_term, raft.state) == (4, ServerState.FOLLOWER)


def test_a_won_poll_becomes_an_election_that_waits_for_the_disk() -> None:
    raft = core(1)
    poll(raft)
    effects = receive(raft, 2, PreVoteReply(1, raft.poll_round, True))
    assert effects == [
        SaveHardState(2, MemberId(1), 1),
        RoleChanged(ServerState.CANDIDATE, 2, MemberId(0)),
    ]
    assert receive(raft, 2, VoteReply(2, True)) == [], "its own vote is not durable yet"
    effects = raft.step(Saved(1))
    assert raft.state is ServerState.LEADER
    assert [said for _, said in sends(effects)] == [vote(2, (1, 1))] * 2


def test_late_and_foreign_poll_answers_do_not_count() -> None:
    raft = core(1)
    poll(raft)
    assert receive(raft, 2, PreVoteReply(1, raft.poll_round - 1, True)) == []
    assert receive(raft, 2, PreVoteReply(1, raft.poll_round, False)) == []
    assert receive(raft, 9, PreVoteReply(1, raft.poll_round, True)) == []
    assert raft.state is ServerState.FOLLOWER


def test_a_refusal_with_a_higher_term_teaches_the_next_poll() -> None:
    raft = core(1)
    poll(raft)
    receive(raft, 2, PreVoteReply(7, raft.poll_round, False))
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


def test_x1_i2_one_vote_a_term_and_it_stays() -> None:
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
    request = vote(4, (1, 1), transfer=True)
    assert sends(raft.step(Saved(2))) == [(2, request), (3, request)]
    other = core(1, member=3)
    receive(other, 2, append(3, 1, (1, 1), []))
    settle(other)
    assert granted(other, 1, vote(4, (1, 1), transfer=True))
