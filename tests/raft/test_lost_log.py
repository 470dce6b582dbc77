"""A member that lost entries which it acknowledged does not vote with what is left (0016)."""

from __future__ import annotations

import pytest

from copycat.config import RaftOptions
from copycat.protocol.peer import (
    AppendEntries,
    LogPosition,
    PreVote,
    PreVoteReply,
    RequestVote,
    VoteReply,
)
from copycat.raft.configuration import Configuration
from copycat.raft.core import Raft
from copycat.raft.effects import Effect, Send
from copycat.raft.events import (
    IncarnationCommitted,
    Reachable,
    Received,
    Saved,
    SnapshotInstalled,
    Synced,
    Tick,
    Unreachable,
)
from copycat.raft.initial_state import InitialState
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState, Span, TermRun
from tests.raft.cluster import Cluster
from tests.raft.laws import BrokenLaw

ME, B, C = MemberId(1), MemberId(2), MemberId(3)
OPTIONS = RaftOptions(election_timeout_ms=100, heartbeat_interval_ms=20)


def member(*, lost: bool, voters: int = 3, entries: int = 0) -> Raft:
    """Its disk said term 4 after the term was raised; the wait after the start is over for all."""
    raft = Raft(
        ME,
        Configuration.of(*map(MemberId, range(1, voters + 1))),
        OPTIONS,
        InitialState(
            current_term=4,
            term_runs=[TermRun(3, 1)] if entries else [],
            last_index=entries,
            lost=lost,
        ),
        seed=5,
    )
    raft.step(Tick(101))
    return raft


def answers(effects: list[Effect]) -> list[object]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def fed(raft: Raft, term: int, index: int = 1) -> None:
    """Entry `index` of `term`, from B, its leader."""
    prev = NO_ENTRY if index == 1 else EntryId(raft.last.term, index - 1)
    raft.step(Received(B, AppendEntries(term, B, 1, prev, Span(term, index, index + 1), 0)))
    raft.step(Saved(raft.save_ticket))
    raft.step(Synced(raft.sync_ticket))


def test_it_grants_neither_vote_nor_poll_and_does_not_campaign() -> None:
    raft = member(lost=True)
    asked = Received(C, RequestVote(9, EntryId(8, 100), False))
    (saved,) = [e for e in raft.step(asked) if not isinstance(e, Send)][:1]
    assert saved
    assert VoteReply(9, False) in answers(raft.step(Saved(raft.save_ticket)))
    answer = answers(raft.step(Received(C, PreVote(10, 3, EntryId(8, 100)))))
    assert answer == [PreVoteReply(9, 3, False)]
    raft.step(Tick(100_000))
    assert raft.state is ServerState.FOLLOWER
    assert raft.pre_vote_round is None


def test_an_entry_of_a_newer_term_is_the_proof() -> None:
    raft = member(lost=True)
    fed(raft, 5)
    assert not raft.eligibility.is_lost
    assert raft.eligibility.may_vote
    raft.step(Tick(10_000))
    assert raft.pre_vote_round is not None, "it may campaign again"


def test_entries_of_the_terms_that_it_acknowledged_are_no_proof() -> None:
    raft = member(lost=True)
    # A leader of term 5 gives back what is old, one message after the other.
    raft.step(Received(B, AppendEntries(5, B, 1, NO_ENTRY, Span(2, 1, 4), 0)))
    assert raft.eligibility.is_lost
    raft.step(Received(B, AppendEntries(5, B, 2, EntryId(2, 3), Span(3, 4, 9), 0)))
    assert raft.eligibility.is_lost
    raft.step(Received(B, AppendEntries(5, B, 3, EntryId(3, 8), Span(5, 9, 10), 0)))
    assert not raft.eligibility.is_lost


@pytest.mark.parametrize(("term", "is_proof"), [(3, False), (4, True), (5, True)])
def test_a_snapshot_is_a_proof_if_it_ends_with_such_an_entry(term: int, is_proof: bool) -> None:
    """A leader that has nothing else to send would else never hear a vote of it again."""
    raft = member(lost=True)
    raft.step(Received(B, AppendEntries(5, B, 1, EntryId(5, 12), Span(5, 13, 13), 12)))
    raft.step(Saved(raft.save_ticket))
    raft.step(SnapshotInstalled(B, 2, EntryId(term, 12)))
    raft.step(Synced(raft.sync_ticket))
    assert raft.last == EntryId(term, 12)
    assert raft.eligibility.is_lost is not is_proof
    raft.step(Tick(10_000))
    assert (raft.pre_vote_round is not None) is is_proof


def test_its_own_incarnation_in_the_log_is_no_proof() -> None:
    raft = member(lost=True)
    raft.step(IncarnationCommitted())
    assert raft.eligibility.is_lost


def at(raft: Raft, peer: MemberId, last: EntryId = NO_ENTRY) -> None:
    """`peer` says where its log ends."""
    raft.step(Received(peer, LogPosition(1, last)))


def test_every_voter_without_entries_is_a_proof_but_a_majority_is_not() -> None:
    raft = member(lost=True)
    raft.step(Reachable(B, fresh=False, lost=True))
    at(raft, B)
    assert raft.eligibility.is_lost, "C may hold what was acknowledged"
    raft.step(Reachable(C, fresh=True))
    assert raft.eligibility.is_lost, "C may have more left"
    at(raft, C)
    assert not raft.eligibility.is_lost
    raft.step(Tick(10_000))
    assert raft.pre_vote_round is not None


def test_c13_who_has_less_left_than_another_votes_and_does_not_campaign() -> None:
    raft = member(lost=True, entries=1)
    for peer, last in ((B, EntryId(3, 2)), (C, NO_ENTRY)):
        raft.step(Reachable(peer, fresh=False, lost=True))
        at(raft, peer, last)
    raft.step(Tick(10_000))
    assert raft.pre_vote_round is None
    answer = answers(raft.step(Received(B, PreVote(10, 3, EntryId(3, 2)))))
    assert answer == [PreVoteReply(4, 3, True)]
    fed(raft, 5, 2)
    raft.step(Tick(10_000))
    assert raft.pre_vote_round is not None


def test_a_voter_that_went_away_may_come_back_with_entries() -> None:
    raft = member(lost=True)
    at(raft, B)
    at(raft, C)
    raft.step(Reachable(B, fresh=False, lost=True))
    raft.step(Unreachable(B))
    raft.step(Reachable(C, fresh=False, lost=True))
    assert raft.eligibility.is_lost
    raft.step(Reachable(B, fresh=False, lost=False))
    assert raft.eligibility.is_lost


def test_c16_a_fresh_directory_does_not_count_a_lost_one_as_new() -> None:
    raft = Raft(
        ME,
        Configuration.of(ME, B, C),
        OPTIONS,
        InitialState(
            fresh=True,
        ),
        seed=5,
    )
    raft.step(Reachable(B, fresh=False, lost=True))
    assert raft.eligibility.is_fresh


def test_a_cluster_of_one_goes_on_with_what_is_left() -> None:
    raft = member(lost=True, voters=1)
    assert not raft.eligibility.is_lost
    raft.step(Saved(raft.save_ticket))
    assert raft.state is ServerState.LEADER


def without_its_entries(*, knows: bool) -> Cluster:
    """1 and 2 commit x, 2 loses its memory, 1 its power; 3, which has nothing, campaigns."""
    cluster = Cluster(3)
    cluster.age()
    cluster.elect(1)
    cluster.stabilize()
    cluster.blocked |= {(1, 3), (3, 1), (2, 3), (3, 2)}
    cluster.propose(1, "x")
    cluster.stabilize()
    cluster.forget(2, lost=knows)
    cluster.crash(1)
    cluster.blocked.clear()
    cluster.age()
    for _ in range(5):
        cluster.tick(3, 300)
        cluster.stabilize()
    return cluster


def test_without_the_rule_an_acknowledged_entry_is_lost() -> None:
    """The same trace twice: only the knowledge that entries are missing keeps x."""
    safe = without_its_entries(knows=True)
    assert safe.nodes[3].raft.state is not ServerState.LEADER
    with pytest.raises(BrokenLaw, match=r"I6|C23"):
        without_its_entries(knows=False)
