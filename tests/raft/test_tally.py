"""F2: the tally of an election and of a poll, against an oracle that is a set and a comparison.

Answers come doubled, late, of foreign terms, from strangers, refused, and in any order, to 2 to 7
voters. A tally that counts wrong is rarely seen otherwise: polls filter nearly every election
that would be close.
"""

from __future__ import annotations

import random

import pytest

from copycat.protocol.peer import PreVoteReply, RequestVote, VoteReply
from copycat.raft.core import Raft
from copycat.raft.events import Saved, Tick
from copycat.types import MemberId, ServerState
from tests.raft.helpers import core, receive, sends

TERM = 4


def candidate(voters: int, *, is_saved: bool = True) -> Raft:
    """Member 1 asks for votes in term 4, which is the one that it asked for in its poll."""
    raft = core(1, 3, current_term=TERM - 1, voters=voters)
    raft.campaign_within(0, 1)
    raft.step(Tick(1))
    for peer in raft.peers[: voters // 2]:
        receive(raft, peer, PreVoteReply(TERM - 1, raft.pre_vote_number, True))
    assert (raft.state, raft.current_term) == (ServerState.CANDIDATE, TERM)
    if is_saved:
        effects = raft.step(Saved(raft.save_ticket))
        asked = [peer for peer, message in sends(effects) if isinstance(message, RequestVote)]
        assert asked == list(raft.peers)
    return raft


Answer = tuple[int, int, bool]
"""Who says it, in which term, and whether the vote is granted."""


def oracle(voters: int, answers: list[Answer]) -> int:
    """After how many of these answers the candidate leads; more than there are: never.

    A newer term ends its candidacy.
    """
    granted = {1}
    for count, (voter, term, yes) in enumerate(answers, 1):
        is_voter = 2 <= voter <= voters
        if is_voter and term > TERM:
            break
        if is_voter and term == TERM and yes:
            granted.add(voter)
        if 2 * len(granted) > voters:
            return count
    return len(answers) + 1


@pytest.mark.parametrize("voters", range(2, 8))
def test_the_tally_of_an_election_is_that_of_a_set(voters: int) -> None:
    rng = random.Random(voters)
    won = 0
    for _ in range(300):
        answers = [
            (
                rng.randrange(1, voters + 3),
                rng.choices((TERM, TERM - 1, 0, TERM + 1), (20, 3, 1, 1))[0],
                rng.random() < 0.7,
            )
            for _ in range(rng.randrange(1, 2 * voters + 2))
        ]
        wins_at = oracle(voters, answers)
        won += wins_at <= len(answers)
        raft = candidate(voters)
        for count, (voter, term, yes) in enumerate(answers, 1):
            receive(raft, voter, VoteReply(term, yes))
            leads = raft.leader_state is not None and raft.current_term == TERM
            if raft.current_term == TERM:
                assert leads == (count >= wins_at), (voters, answers[:count])
            else:
                assert count < wins_at or wins_at <= len(answers), (voters, answers[:count])
                assert raft.leader_state is None
                break
    assert 30 < won < 270, "both ends are seen"


@pytest.mark.parametrize("voters", range(2, 8))
def test_one_short_of_a_majority_is_none_however_often_it_is_said(voters: int) -> None:
    raft = candidate(voters)
    needed = voters // 2
    for _ in range(3):
        for peer in raft.peers[: needed - 1]:
            receive(raft, peer, VoteReply(TERM, True))
        assert raft.leader_state is None
    receive(raft, raft.peers[needed - 1], VoteReply(TERM, True))
    assert raft.leader_state is not None


@pytest.mark.parametrize("voters", range(2, 8))
def test_its_own_vote_counts_once_it_is_saved_and_once(voters: int) -> None:
    raft = candidate(voters, is_saved=False)
    for peer in raft.peers:
        receive(raft, peer, VoteReply(TERM, True))
    assert raft.leader_state is None, "its own vote is not on the disk"
    raft.step(Saved(raft.save_ticket))
    assert raft.leader_state is not None
    assert len(raft.leader_state.progress) == voters - 1


@pytest.mark.parametrize("voters", range(2, 8))
def test_votes_of_an_earlier_election_do_not_count_in_the_next(voters: int) -> None:
    raft = candidate(voters)
    needed = voters // 2
    for peer in raft.peers[: needed - 1]:
        receive(raft, peer, VoteReply(TERM, True))
    raft.campaign_within(0, 1)
    raft.step(Tick(1))
    for peer in raft.peers[:needed]:
        receive(raft, peer, PreVoteReply(TERM, raft.pre_vote_number, True))
    assert (raft.current_term, raft.leader_state) == (TERM + 1, None)
    raft.step(Saved(raft.save_ticket))
    receive(raft, raft.peers[-1], VoteReply(TERM, True))
    assert raft.leader_state is None
    for peer in raft.peers[: needed - 1]:
        receive(raft, peer, VoteReply(TERM + 1, True))
        assert raft.leader_state is None
    receive(raft, raft.peers[needed - 1], VoteReply(TERM + 1, True))
    assert raft.leader_state is not None


@pytest.mark.parametrize("voters", range(2, 8))
def test_the_tally_of_a_poll_is_that_of_a_set_too(voters: int) -> None:
    rng = random.Random(voters)
    won = 0
    for _ in range(200):
        raft = core(1, 3, current_term=TERM - 1, voters=voters)
        raft.campaign_within(0, 1)
        raft.step(Tick(1))
        number = raft.pre_vote_number
        granted = {1}
        for _ in range(rng.randrange(1, 2 * voters)):
            voter = rng.randrange(1, voters + 3)
            asked = rng.choices((number, number - 1, number + 1), (10, 1, 1))[0]
            yes = rng.random() < 0.7
            receive(raft, voter, PreVoteReply(rng.randrange(TERM), asked, yes))
            if yes and asked == number and 2 <= voter <= voters:
                granted.add(voter)
            campaigns = 2 * len(granted) > voters
            assert (raft.state is ServerState.CANDIDATE) == campaigns, granted
            if campaigns:
                won += 1
                break
    assert 20 < won < 200


@pytest.mark.parametrize("voters", range(2, 8))
def test_a_voter_gives_one_vote_a_term_whoever_asks_how_often(voters: int) -> None:
    rng = random.Random(voters)
    for _ in range(50):
        raft = core(1, 3, current_term=3, voters=voters, member=1)
        given: dict[int, int] = {}
        for _ in range(12):
            peer = MemberId(rng.randrange(2, voters + 1))
            term = rng.randrange(3, 7)
            effects = receive(raft, peer, RequestVote(term, raft.last, False))
            effects += raft.step(Saved(raft.save_ticket))
            for to, message in sends(effects):
                if isinstance(message, VoteReply) and message.granted:
                    assert given.setdefault(message.term, to) == to
                    assert message.term == raft.current_term
