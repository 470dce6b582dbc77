"""F15 in the core: a leader whose own disk hangs hands over, steps down, and keeps quiet."""

from __future__ import annotations

from copycat.protocol.peer import AppendReply, PreVote, RequestVote, TimeoutNow
from copycat.raft.core import Raft
from copycat.raft.events import Proposed, Received, Saved, Synced, Tick, Unreachable
from copycat.types import NO_ENTRY, MemberId, ServerState
from tests.raft.helpers import OPTIONS, core, leader, receive, sends, ship

E_MS = OPTIONS.election_timeout_ms
STEP_MS = 20


def answered(raft: Raft) -> None:
    """The followers acknowledge all that was sent to them, and get the next."""
    for peer in raft.peers:
        assert raft.leader_state is not None
        progress = raft.leader_state.progress[peer]
        match_index = progress.sent[-1][1] - 1 if progress.sent else progress.match_index
        reply = AppendReply(raft.current_term, progress.last_request, True, match_index, NO_ENTRY)
        ship(raft, receive(raft, peer, reply))


def hung() -> Raft:
    """A leader that appended, whose sync has not ended for an election timeout."""
    raft, _ = leader()
    ship(raft, raft.step(Proposed(1)))
    answered(raft)
    answered(raft)
    for _ in range(E_MS // STEP_MS):
        raft.step(Tick(STEP_MS))
        answered(raft)
    assert raft.state is ServerState.LEADER
    return raft


def asked_to_campaign(raft: Raft, elapsed_ms: int = STEP_MS) -> list[int]:
    effects = raft.step(Tick(elapsed_ms))
    return [peer for peer, message in sends(effects) if isinstance(message, TimeoutNow)]


def test_f15_it_commits_by_the_disks_of_others_and_hands_over() -> None:
    raft = hung()
    assert raft.commit_index == raft.last.index > raft.durable_index
    assert set(asked_to_campaign(raft)) == {2}
    assert not raft.can_propose


def test_f15_a_sync_in_time_changes_nothing() -> None:
    raft = hung()
    raft.step(Synced(raft.sync_ticket))
    assert asked_to_campaign(raft) == []
    assert raft.can_propose
    assert raft.slow_until_ms == 0


def test_f15_a_disk_that_is_slow_and_alive_keeps_its_leader() -> None:
    raft = hung()
    ship(raft, raft.step(Proposed(1)))
    raft.step(Synced(raft.sync_ticket - 1))
    raft.step(Tick(E_MS // 3))
    assert raft.disk_age_ms == E_MS // 3, "not since the second one was asked for"
    for _ in range(E_MS // STEP_MS - 2):
        answered(raft)
        assert asked_to_campaign(raft) == []
        raft.step(Synced(raft.sync_ticket))
        ship(raft, raft.step(Proposed(1)))
    assert raft.state is ServerState.LEADER


def test_f15_without_anybody_in_reach_it_steps_down() -> None:
    raft, _ = leader()
    ship(raft, raft.step(Proposed(1)))
    for peer in (2, 3):
        raft.step(Unreachable(MemberId(peer)))
    for _ in range(E_MS // STEP_MS + 1):
        raft.step(Tick(STEP_MS))
    assert raft.state is ServerState.FOLLOWER


def test_f15_a_transfer_that_fails_ends_the_leadership_all_the_same() -> None:
    raft = hung()
    raft.step(Tick(STEP_MS))
    for _ in range(E_MS // STEP_MS):
        answered(raft)
        raft.step(Tick(STEP_MS))
    assert raft.state is ServerState.FOLLOWER


def test_f15_for_ten_timeouts_it_does_not_campaign() -> None:
    raft = hung()
    raft.step(Tick(STEP_MS))
    raft.become_follower(raft.current_term, MemberId(0))
    raft.step(Synced(raft.sync_ticket))
    quiet_ms = 0
    while quiet_ms < 8 * E_MS:
        assert not sends(raft.step(Tick(STEP_MS)))
        quiet_ms += STEP_MS
    asked = []
    for _ in range(5 * E_MS // STEP_MS):
        asked += sends(raft.step(Tick(STEP_MS)))
    assert any(isinstance(message, PreVote) for _, message in asked)


def test_f15_it_votes_meanwhile() -> None:
    raft = hung()
    raft.step(Tick(STEP_MS))
    request = RequestVote(raft.current_term + 1, raft.last, True)
    raft.step(Received(MemberId(2), request))
    assert raft.voted_for == 2


def test_f18_a_pause_of_the_process_is_no_slow_disk() -> None:
    raft, _ = leader()
    ship(raft, raft.step(Proposed(1)))
    raft.step(Tick(50 * E_MS))
    assert raft.state is ServerState.LEADER
    assert raft.slow_until_ms == 0


def test_f15_a_vote_that_is_not_saved_for_so_long_keeps_from_campaigning() -> None:
    raft = core(1)
    raft.save_hard_state(5, MemberId(2))
    for _ in range(4 * E_MS // STEP_MS):
        assert not [m for _, m in sends(raft.step(Tick(STEP_MS))) if isinstance(m, PreVote)]
    assert raft.pre_vote_round is None


def test_f15_a_lone_voter_has_nobody_to_hand_over_to() -> None:
    raft = core(1, voters=1, young=True)
    raft.step(Tick(1))
    raft.step(Saved(raft.save_ticket))
    raft.step(Proposed(1))
    for _ in range(3 * E_MS // STEP_MS):
        raft.step(Tick(STEP_MS))
    assert raft.state is ServerState.LEADER
