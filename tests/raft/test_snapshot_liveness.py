"""Replicas exchange the chunks of a snapshot: the core hears only who lives, and in which term."""

from __future__ import annotations

import pytest

from copycat.protocol.peer import InstallReply, InstallSnapshot
from copycat.raft.core import Raft
from copycat.raft.effects import EndShipping, ReceiveSnapshot, RoleChanged, SaveHardState
from copycat.raft.events import LeaderHeard, PeerHeard, SnapshotShipping, Tick
from copycat.raft.state import TERM_MAX
from copycat.types import EntryId, MemberId, ServerState
from tests.raft.helpers import OPTIONS, append, complete_io, core, leader, of, receive, sends

B, C, STRANGER = (MemberId(number) for number in (2, 3, 9))
OFFER = InstallSnapshot(3, B, 1, EntryId(2, 9), 1000, bytes(32), 0)


def test_chunks_keep_a_follower_from_campaigning() -> None:
    raft = core(1, 1, current_term=3)
    receive(raft, B, append(3, 1, (1, 2), []))
    for _ in range(20):
        raft.step(Tick(OPTIONS.election_timeout_ms // 2))
        assert raft.step(LeaderHeard(B, 3, B)) == []
    assert (raft.state, raft.leader) == (ServerState.FOLLOWER, B)
    assert raft.pre_vote_round is None


def test_a_chunk_of_an_older_term_resets_no_timer() -> None:
    raft = core(1, 1, current_term=3)
    receive(raft, B, append(3, 1, (1, 2), []))
    deadline_ms = raft.election_at_ms
    raft.step(Tick(10))
    assert raft.step(LeaderHeard(C, 2, C)) == []
    assert (raft.leader, raft.election_at_ms) == (B, deadline_ms)


def test_a_chunk_of_a_newer_term_names_the_leader() -> None:
    raft = core(1, 1, current_term=3)
    effects = raft.step(LeaderHeard(C, 4, C))
    assert of(effects, SaveHardState)[0].term == 4
    assert (raft.current_term, raft.leader) == (4, C)
    assert raft.hears_leader


def test_two_leaders_of_one_term_cannot_be() -> None:
    raft = core(1, 1, current_term=3)
    raft.step(LeaderHeard(B, 3, B))
    assert raft.leader == B
    assert raft.step(LeaderHeard(C, 3, C)) == []
    assert (raft.leader, raft.ignored) == (B, 1)


def state_after(raft: Raft, event: PeerHeard) -> ServerState:
    """What it is when `event` is all that happened for two election timeouts."""
    for _ in range(2 * OPTIONS.election_timeout_ms // 10):
        raft.step(Tick(10))
        assert raft.step(event) == []
    return raft.state


def test_acknowledgements_of_chunks_let_a_leader_lead_on() -> None:
    raft, _ = leader(1, 1)
    term = raft.current_term
    assert state_after(raft, PeerHeard(B, term)) is ServerState.LEADER
    assert state_after(raft, PeerHeard(B, term - 1)) is ServerState.FOLLOWER


def test_an_acknowledgement_of_a_newer_term_ends_the_leadership() -> None:
    raft, _ = leader(1, 1)
    term = raft.current_term + 1
    effects = raft.step(PeerHeard(B, term))
    assert of(effects, RoleChanged) == [RoleChanged(ServerState.FOLLOWER, term, MemberId(0))]


@pytest.mark.parametrize(
    ("sender", "term", "leader_id"),
    [(MemberId(0), 3, MemberId(0)), (B, 0, B), (B, TERM_MAX + 1, B), (B, 3, C)],
)
def test_nonsense_is_counted(sender: MemberId, term: int, leader_id: MemberId) -> None:
    raft = core(1, 1, current_term=2)
    assert raft.step(LeaderHeard(sender, term, leader_id)) == []
    assert (raft.current_term, raft.ignored) == (2, 1)
    if leader_id == sender:
        assert raft.step(PeerHeard(sender, term)) == []
        assert (raft.current_term, raft.ignored) == (2, 2)


def test_c32_a_leader_that_is_no_known_member_is_heard() -> None:
    raft = core(1, 1, current_term=2)
    assert raft.step(PeerHeard(STRANGER, 3)) == []
    raft.step(LeaderHeard(STRANGER, 3, STRANGER))
    assert (raft.current_term, raft.leader, raft.ignored) == (3, STRANGER, 1)


def test_an_offer_is_taken_once_the_term_allows_it() -> None:
    raft = core(1, 1, current_term=3)
    assert of(receive(raft, B, OFFER), ReceiveSnapshot) == [ReceiveSnapshot(B, OFFER)]
    raft = core(1, 1, current_term=4)
    effects = receive(raft, B, OFFER)
    assert sends(effects) == [(B, InstallReply(4, 1, OFFER.entry, 0, done=False))]
    assert of(effects, ReceiveSnapshot) == []


def test_a_file_for_a_transfer_that_is_over_is_ignored() -> None:
    raft, _ = leader(1, 1)
    complete_io(raft)
    assert of(raft.step(SnapshotShipping(B, 1, EntryId(1, 2))), EndShipping) == []
    assert raft.leader_state is not None
    assert raft.leader_state.progress[B].snapshot == EntryId(0, 0)
