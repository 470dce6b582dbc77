"""F12 in the core: who cannot append does not become leader, and does not stay one."""

from __future__ import annotations

from copycat.protocol.peer import AppendReply, PreVote, PreVoteReply, TimeoutNow, VoteReply
from copycat.raft.core import Raft
from copycat.raft.effects import Append, RoleChanged, TransferFailure, TransferFinished
from copycat.raft.events import Saved, StorageFull, Tick, TransferRequested
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState
from tests.raft.cluster import Cluster
from tests.raft.helpers import OPTIONS, append, complete_io, core, leader, of, receive, sends


def caught_up(raft: Raft, *peers: int) -> None:
    """These peers acknowledge the whole log."""
    assert raft.leader_state is not None
    for peer in peers:
        request = raft.leader_state.progress[MemberId(peer)].last_request
        reply = AppendReply(raft.current_term, request, True, raft.last.index, NO_ENTRY)
        receive(raft, peer, reply)


def handed_to(raft: Raft, elapsed_ms: int = 0) -> list[int]:
    effects = raft.step(Tick(elapsed_ms))
    return [peer for peer, message in sends(effects) if isinstance(message, TimeoutNow)]


def test_f12_a_full_member_does_not_campaign_but_votes() -> None:
    raft = core(1)
    assert raft.step(StorageFull(True)) == []
    for _ in range(10):
        assert sends(raft.step(Tick(2 * OPTIONS.election_timeout_ms))) == []
    assert sends(receive(raft, 2, TimeoutNow(1))) == []
    granted = receive(raft, 2, PreVote(2, 1, EntryId(1, 1)))
    assert sends(granted) == [(2, PreVoteReply(1, 1, True))]
    raft.step(StorageFull(False))
    asked = sends(raft.step(Tick(2 * OPTIONS.election_timeout_ms)))
    assert [type(message) for _, message in asked] == [PreVote, PreVote]


def test_f12_a_full_follower_forgets_a_leader_that_is_silent() -> None:
    raft = core(1)
    receive(raft, 2, append(1, 1, (1, 1), []))
    raft.step(StorageFull(True))
    effects = raft.step(Tick(3 * OPTIONS.election_timeout_ms))
    assert of(effects, RoleChanged) == [RoleChanged(ServerState.FOLLOWER, 1, MemberId(0))]


def test_f12_a_candidate_that_is_full_gives_up_and_is_not_elected() -> None:
    raft = core(1)
    raft.campaign_within(0, 1)
    raft.step(Tick(1))
    receive(raft, 2, PreVoteReply(1, raft.pre_vote_number, True))
    assert raft.state is ServerState.CANDIDATE
    raft.step(StorageFull(True))
    effects = [*raft.step(Saved(raft.save_ticket)), *receive(raft, 2, VoteReply(2, True))]
    assert (raft.state, of(effects, Append)) == (ServerState.FOLLOWER, [])


def test_f12_a_poll_that_was_asked_before_does_not_elect_a_full_member() -> None:
    raft = core(1)
    raft.campaign_within(0, 1)
    raft.step(Tick(1))
    raft.step(StorageFull(True))
    receive(raft, 2, PreVoteReply(1, raft.pre_vote_number, True))
    assert (raft.state, raft.current_term) == (ServerState.FOLLOWER, 1)


def test_f12_a_full_leader_hands_over_at_once_to_one_that_has_everything() -> None:
    raft, _ = leader(1)
    caught_up(raft, 3)
    effects = raft.step(StorageFull(True))
    assert sends(effects) == [(3, TimeoutNow(raft.current_term))]
    assert not raft.can_propose


def test_f12_each_election_timeout_another_follower_is_asked() -> None:
    raft, _ = leader(1)
    caught_up(raft, 2, 3)
    raft.step(StorageFull(True))
    asked: set[int] = {raft.leader_state.transfer_to} if raft.leader_state else set()
    for _ in range(2 * OPTIONS.election_timeout_ms // 10):
        caught_up(raft, 2, 3)
        asked |= {*handed_to(raft, 10)}
    assert asked == {2, 3}
    assert raft.state is ServerState.LEADER


def test_f12_a_full_target_is_silent_and_the_leader_proposes_again() -> None:
    cluster = Cluster(3)
    cluster.age()
    cluster.elect(1)
    cluster.step(2, StorageFull(True))
    cluster.step(1, TransferRequested(MemberId(2)))
    cluster.stabilize()
    assert not cluster.propose(1, "x")
    for _ in range(5):
        cluster.tick(1, 20)
        cluster.stabilize()
    finished = of([effect for _, effect in cluster.effects], TransferFinished)
    silent = TransferFailure.SILENT
    assert finished == [TransferFinished(ok=False, failure=silent, to=MemberId(2))]
    assert cluster.nodes[1].raft.state is ServerState.LEADER
    assert cluster.propose(1, "x")


def test_f12_a_leader_whose_disk_has_room_again_proposes_again() -> None:
    raft, _ = leader(1)
    caught_up(raft, 2, 3)
    raft.step(StorageFull(True))
    raft.step(StorageFull(False))
    finished: list[TransferFinished] = []
    for _ in range(OPTIONS.election_timeout_ms // 10 + 1):
        caught_up(raft, 2, 3)
        finished += of(raft.step(Tick(10)), TransferFinished)
    assert finished == [TransferFinished(False)]
    assert raft.can_propose
    assert handed_to(raft, 10) == []


def test_f12_a_lone_voter_that_is_full_goes_on_leading() -> None:
    raft = core(voters=1, young=True)
    raft.step(Tick(1))
    complete_io(raft)
    assert raft.state is ServerState.LEADER
    assert raft.step(StorageFull(True)) == []
    assert raft.step(Tick(10_000)) == []
    assert (raft.state, raft.can_propose) == (ServerState.LEADER, True)


def test_f12_a_lone_voter_that_starts_full_waits_for_room() -> None:
    raft = core(1, voters=1, young=True)
    raft.step(StorageFull(True))
    assert raft.step(Tick(10_000)) == []
    raft.step(StorageFull(False))
    raft.step(Tick(10_000))
    assert of(complete_io(raft), Append)
    assert raft.state is ServerState.LEADER
