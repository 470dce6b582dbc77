"""Whom a leader does not send entries itself, and whom it names for that.

A passive member is always fed. A voter, or a member that becomes one, is fed while its next entry
is no longer in this leader's memory and is committed: history never costs the leader. The leader
sends such a member heartbeats only, and they name the feeder: a follower that the leader streams
to and has heard within an election timeout, or the leader itself. The member asks there (C27).

The leader's own stream begins again when the next entry is within reach, or is above the commit
index, for what is not committed nobody may feed (C29).
"""

from __future__ import annotations

from copycat.protocol.peer import AppendReply
from copycat.raft.effects import EndShipping
from copycat.raft.leader_state import LeaderState
from copycat.raft.progress import Progress, ProgressState, Scope
from copycat.raft.state import NOBODY, State
from copycat.seeded_random import SplitMix64
from copycat.types import EntryId, MemberId

__all__ = ["begin_snapshot", "feeders", "follow_feeding", "on_rejected", "on_reply"]

LEFT_TIMEOUTS = 10
"""For so many election timeouts a feeder is not named again to a member that left it."""


def follow_feeding(raft: State, leader_state: LeaderState) -> None:
    """With each heartbeat: who is fed from here on, and by whom."""
    named: list[MemberId] | None = None
    for peer, progress in leader_state.progress.items():
        if progress.state is ProgressState.SNAPSHOT:  # fed too, if it has just become passive
            snapshot_index = progress.next_index - 1
            if begin_snapshot(raft, leader_state, peer, progress, snapshot_index):
                raft.effects.append(EndShipping(peer, done=False))
        elif progress.is_fed:
            if not _is_out_of_reach(raft, leader_state, progress):
                progress.end_feeding()
        elif _is_out_of_reach(raft, leader_state, progress) and _may_be_fed(
            raft, leader_state, peer, progress
        ):
            progress.begin_feeding(progress.next_index, 0)
        if progress.is_fed:
            if named is None:
                named = feeders(raft, leader_state)
            progress.feeder = _choose(raft, peer, progress, named)


def begin_snapshot(
    raft: State,
    leader_state: LeaderState,
    peer: MemberId,
    progress: Progress,
    min_index: int,
) -> bool:
    """Entries of this log do not help `peer` before it has a snapshot of at least `min_index`: it
    asks a feeder for one. False when no follower can feed it, and this leader sends it."""
    if not _may_be_fed(raft, leader_state, peer, progress):
        return False
    terms, was_fed = raft.terms, progress.is_fed
    next_index = min(max(terms.first_index, min_index + 1), terms.end)
    progress.begin_feeding(next_index, max(min_index, terms.first_index - 1))
    progress.feeder = _choose(raft, peer, progress, feeders(raft, leader_state))
    if not was_fed:
        leader_state.replicator.send_heartbeat(raft, peer)
    return True


def on_rejected(
    raft: State, leader_state: LeaderState, peer: MemberId, progress: Progress, hint: EntryId
) -> bool:
    """`peer` lacks what precedes its next entry, and has `hint`. True when the leader's log does
    not reach back so far, and `peer` asks a feeder for a snapshot."""
    next_index = max(raft.terms.last_at_or_below(hint).next, progress.match_index + 1)
    if not leader_state.replicator.needs_snapshot(raft, next_index):
        return False
    if progress.is_fed and progress.needed_index:
        return True
    return begin_snapshot(raft, leader_state, peer, progress, raft.cluster_deletion_floor)


def on_reply(
    raft: State, leader_state: LeaderState, progress: Progress, message: AppendReply
) -> None:
    """An answer of a peer that is fed: how far it is, and which feeder it left."""
    if message.left_feeder != NOBODY:
        until_ms = raft.now_ms + LEFT_TIMEOUTS * raft.options.election_timeout_ms
        progress.left_feeders[message.left_feeder] = until_ms
    progress.note_fed(message.commit_index, raft.terms.end)
    if not _is_out_of_reach(raft, leader_state, progress):
        progress.end_feeding()


def _is_out_of_reach(raft: State, leader_state: LeaderState, progress: Progress) -> bool:
    """C29: reach is entered at half of what is in memory, and left at the whole."""
    if progress.scope >= Scope.COMMITTED:
        return progress.scope is Scope.COMMITTED
    next_index = progress.next_index
    if progress.is_fed and progress.needed_index:
        return True
    if next_index > raft.commit_index:
        return False
    recent_index = leader_state.recent_index
    if progress.is_fed:
        recent_index += (raft.terms.end - recent_index) // 2
    return next_index < recent_index


def _may_be_fed(
    raft: State, leader_state: LeaderState, peer: MemberId, progress: Progress
) -> bool:
    """Whether anybody but this leader can feed `peer`; a passive member asks this leader too."""
    if progress.is_fed or progress.scope is Scope.COMMITTED:
        return True
    return any(feeder != peer for feeder in feeders(raft, leader_state))


def feeders(raft: State, leader_state: LeaderState) -> list[MemberId]:
    """The followers that this leader streams to and has heard within an election timeout."""
    since_ms = raft.now_ms - raft.options.election_timeout_ms
    return [
        peer
        for peer, progress in leader_state.progress.items()
        if progress.scope <= Scope.HELD_BACK
        and not progress.is_fed
        and progress.state is ProgressState.REPLICATE
        and progress.last_contact_ms >= since_ms
        and not progress.has_regressed
    ]


def _choose(raft: State, peer: MemberId, progress: Progress, named: list[MemberId]) -> MemberId:
    """Rendezvous hashing: each member has an order of feeders of its own, so that when one goes,
    only those that it fed are named another."""
    left = progress.left_feeders
    if left:
        for feeder in [each for each, until_ms in left.items() if until_ms <= raft.now_ms]:
            del left[feeder]
    best, most = raft.member, -1
    for feeder in named:
        weight = _weight(peer, feeder)
        if weight > most and feeder != peer and feeder not in left:
            best, most = feeder, weight
    return best


def _weight(peer: MemberId, feeder: MemberId) -> int:
    mixed = SplitMix64(_folded(peer)).next() ^ _folded(feeder)
    return SplitMix64(mixed).next()


def _folded(member: MemberId) -> int:
    return (member ^ (member >> 64)) & ((1 << 64) - 1)
