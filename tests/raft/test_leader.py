"""Proposals, acknowledgements, commit, and the laws of who is believed."""

from __future__ import annotations

import pytest

from copycat.protocol.peer import AppendReply, LogRegressed
from copycat.raft.core import Raft
from copycat.raft.effects import (
    Append,
    Commit,
    Content,
    PeerRegressed,
    Replicate,
    RoleChanged,
    Send,
    ShipSnapshot,
    Sync,
)
from copycat.raft.events import (
    Compacted,
    OldestSnapshotChanged,
    Proposed,
    ReadRequested,
    Synced,
    Tick,
    Unreachable,
)
from copycat.raft.invariants import observe
from copycat.raft.progress import Progress
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState, Span
from tests.raft.helpers import complete_io, core, leader, of, receive, ship


def progress_of(raft: Raft, peer: int) -> Progress:
    assert raft.leader_state is not None
    return raft.leader_state.progress[MemberId(peer)]


def accept(raft: Raft, peer: int, match_index: int, request: int | None = None) -> AppendReply:
    """An honest answer to the newest request of this peer."""
    newest = progress_of(raft, peer).last_request
    return AppendReply(raft.current_term, request or newest, True, match_index, NO_ENTRY)


def test_entries_leave_before_our_own_sync() -> None:
    raft, effects = leader(1, 1)
    kinds = [type(effect) for effect in effects]
    assert kinds[-5:] == [RoleChanged, Append, Replicate, Replicate, Sync]
    assert of(effects, Append) == [Append(Span(2, 3, 4), Content.NOOP)]
    receive(raft, 2, accept(raft, 2, 3))
    effects = raft.step(Proposed(5))
    assert [type(effect) for effect in effects] == [Append, Replicate, Sync]
    assert effects[0] == Append(Span(2, 4, 9), Content.PROPOSED)


def test_our_own_sync_is_a_vote_like_any_other() -> None:
    raft, _ = leader()
    ship(raft, raft.step(Proposed(1)))
    assert of(receive(raft, 2, accept(raft, 2, 1)), Commit) == [Commit(1)]
    assert of(raft.step(Synced(raft.sync_ticket)), Commit) == []
    assert of(receive(raft, 3, accept(raft, 3, 1)), Commit) == []


def lone_leader(*terms: int) -> Raft:
    """The only voter, elected; its no-op is committed."""
    raft = core(*terms, voters=1, young=True)
    raft.step(Tick(0))
    complete_io(raft)
    return raft


def test_c23_a_leader_without_peers_moves_the_floor_with_its_commit() -> None:
    """Nobody's reply and no heartbeat does it: deletions would stay until a snapshot is kept."""
    raft = lone_leader(1, 1)
    assert (raft.commit_index, raft.deletion_floor) == (3, 3)
    raft.step(Proposed(2))
    assert raft.deletion_floor == 3, "not durable yet"
    assert of(raft.step(Synced(raft.sync_ticket)), Commit) == [Commit(5)]
    assert raft.deletion_floor == 5


def test_c23_a_snapshot_holds_the_floor_of_a_leader_without_peers() -> None:
    raft = lone_leader(1, 1)
    raft.step(OldestSnapshotChanged(3))
    raft.step(Proposed(2))
    raft.step(Synced(raft.sync_ticket))
    assert (raft.commit_index, raft.deletion_floor) == (5, 3)
    raft.step(OldestSnapshotChanged(4))
    assert raft.deletion_floor == 4


def test_c23_what_is_only_written_does_not_move_the_floor_of_a_leader_without_peers() -> None:
    raft = lone_leader(1, 1)
    raft.step(Proposed(2))
    raft.step(Synced(raft.sync_ticket, synced_index=4))
    assert (raft.commit_index, raft.deletion_floor) == (5, 4)


def test_a_leader_may_commit_what_the_others_made_durable() -> None:
    raft, _ = leader()
    for peer in (2, 3):
        receive(raft, peer, accept(raft, peer, 1))
    ship(raft, raft.step(Proposed(1)))
    receive(raft, 2, accept(raft, 2, 2))
    assert of(receive(raft, 3, accept(raft, 3, 2)), Commit) == [Commit(2)]
    assert raft.durable_index == 1


def test_figure_8_nothing_of_an_older_term_is_committed_by_count() -> None:
    raft, _ = leader(1, 1, 1)
    assert of(receive(raft, 2, accept(raft, 2, 3)), Commit) == []
    assert of(receive(raft, 3, accept(raft, 3, 3)), Commit) == []
    assert of(receive(raft, 2, accept(raft, 2, 4)), Commit) == [Commit(4)]


@pytest.mark.parametrize("request_number", [0, -1, 99])
def test_i9_replies_to_requests_never_sent_are_ignored(request_number: int) -> None:
    raft, _ = leader()
    reply = AppendReply(raft.current_term, request_number, True, 1, NO_ENTRY)
    assert receive(raft, 2, reply) == []
    assert (raft.ignored, raft.match_index(MemberId(2))) == (1, 0)


def test_a_match_beyond_what_was_sent_is_not_believed() -> None:
    raft, _ = leader(1, 1)
    assert of(receive(raft, 2, accept(raft, 2, 9)), Commit) == []
    assert (raft.ignored, raft.match_index(MemberId(2))) == (1, 0)


def test_f8_a_log_that_regressed_is_told_and_its_match_is_not_lowered() -> None:
    """`tests/raft/test_f8_older_copy.py` has the rest."""
    raft, _ = leader()
    receive(raft, 2, accept(raft, 2, 1))
    raft.step(Tick(20))
    reply = AppendReply(raft.current_term, progress_of(raft, 2).last_request, False, 0, NO_ENTRY)
    (named, notice) = receive(raft, 2, reply)
    assert named == PeerRegressed(MemberId(2), EntryId(1, 1), NO_ENTRY)
    assert notice == Send(MemberId(2), LogRegressed(1, EntryId(1, 1), is_final=False))
    assert (progress_of(raft, 2).match_index, raft.match_index(MemberId(2))) == (1, 0)


def test_replies_of_an_older_term_and_to_a_follower_do_nothing() -> None:
    raft, _ = leader(1)
    before = observe(raft)
    assert receive(raft, 2, AppendReply(1, 1, True, 1, NO_ENTRY)) == []
    assert observe(raft) == before
    follower = core(1)
    assert receive(follower, 2, AppendReply(1, 1, True, 1, NO_ENTRY)) == []
    assert follower.ignored == 1


def test_the_term_of_a_reply_comes_first() -> None:
    raft, _ = leader()
    receive(raft, 2, accept(raft, 2, 1))
    raft.step(ReadRequested(1))
    newest = progress_of(raft, 3).last_request
    effects = receive(raft, 3, AppendReply(9, newest, False, 0, NO_ENTRY))
    assert of(effects, RoleChanged) == [RoleChanged(ServerState.FOLLOWER, 9, MemberId(0))]
    assert raft.leader_state is None


def test_the_window_is_full_and_a_reply_opens_it() -> None:
    raft, _ = leader()
    receive(raft, 2, accept(raft, 2, 1))
    for _ in range(2):
        assert len(ship_to(raft, 2)) == 1
    assert ship_to(raft, 2) == []
    effects = receive(raft, 2, accept(raft, 2, 2))
    assert [effect.span for effect in of(effects, Replicate)] == [Span(1, 4, 5)]


def ship_to(raft: Raft, peer: int) -> list[Replicate]:
    effects = raft.step(Proposed(1))
    ship(raft, effects)
    return [effect for effect in of(effects, Replicate) if effect.peer == peer]


def test_one_replicate_waits_for_its_sent() -> None:
    raft, _ = leader()
    receive(raft, 2, accept(raft, 2, 1))
    first = of(raft.step(Proposed(3)), Replicate)
    assert [effect.span for effect in first] == [Span(1, 2, 5)]
    assert of(raft.step(Proposed(1)), Replicate) == []


def test_the_news_of_a_commit_rides_with_entries_or_leaves_soon() -> None:
    raft, _ = leader()
    receive(raft, 2, accept(raft, 2, 1))
    receive(raft, 3, accept(raft, 3, 1))
    assert raft.timeout_ms == 5
    ship(raft, raft.step(Proposed(1)))
    assert raft.step(Tick(5)) == [], "the entries carried it"
    receive(raft, 2, accept(raft, 2, 2))
    raft.step(Synced(raft.sync_ticket))
    assert [effect.leader_commit for effect in of(raft.step(Tick(5)), Replicate)] == [2, 2]
    assert raft.step(Tick(1)) == []


def test_check_quorum_wants_a_majority_within_the_timeout() -> None:
    raft, _ = leader(voters=5)
    raft.step(Tick(60))
    for peer in (2, 3):
        receive(raft, peer, accept(raft, peer, 0))
    raft.step(Tick(45))
    assert raft.state is ServerState.LEADER
    raft.step(Tick(49))
    raft.step(Tick(49))
    effects = raft.step(Tick(3))
    assert of(effects, RoleChanged) == [RoleChanged(ServerState.FOLLOWER, 1, MemberId(0))]
    assert raft.current_term == 1


def test_check_quorum_looks_twice_after_a_pause_of_its_own() -> None:
    raft, _ = leader()
    raft.step(Tick(5000))
    assert raft.can_propose
    receive(raft, 2, accept(raft, 2, 1))
    raft.step(Tick(20))
    assert raft.can_propose
    raft.step(Tick(5000))
    raft.step(Tick(5000))
    assert raft.state is ServerState.FOLLOWER


def test_a_lost_link_gets_heartbeats_only() -> None:
    raft, _ = leader()
    receive(raft, 2, accept(raft, 2, 1))
    raft.step(Unreachable(MemberId(2)))
    assert of(raft.step(Proposed(2)), Replicate) == []
    heartbeats = of(raft.step(Tick(20)), Replicate)
    assert {(heartbeat.peer, heartbeat.span.length) for heartbeat in heartbeats} == {
        (2, 0),
        (3, 0),
    }
    effects = receive(raft, 2, accept(raft, 2, 1))
    assert [effect.span for effect in of(effects, Replicate)] == [Span(1, 2, 4)]


def test_proposals_to_anybody_else_are_refused() -> None:
    raft = core()
    assert not raft.can_propose
    assert raft.step(Proposed(1)) == []
    assert raft.ignored == 1


@pytest.mark.usefixtures("no_follower_feeds")
def test_the_front_of_a_trimmed_log_is_never_crossed() -> None:
    raft, _ = leader(1, 1, 1)
    receive(raft, 3, accept(raft, 3, 4))
    raft.step(Compacted(3))
    raft.step(Tick(20))
    newest = progress_of(raft, 2).last_request
    effects = receive(raft, 2, AppendReply(raft.current_term, newest, False, 0, EntryId(1, 2)))
    assert [effect.prev for effect in of(effects, Replicate)] == [EntryId(1, 2)]
    raft.step(Tick(20))
    newest = progress_of(raft, 2).last_request
    effects = receive(raft, 2, AppendReply(raft.current_term, newest, False, 0, EntryId(1, 1)))
    assert effects == [ShipSnapshot(MemberId(2), newest + 2, 0)]
