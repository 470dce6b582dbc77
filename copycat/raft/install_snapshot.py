"""Snapshots in place of entries: when a peer is sent one, and what the receiver's log becomes.

The core decides that a snapshot is sent and that a transfer is over, and what the receiver's log
becomes. It never hears of the bytes: the senders and receivers in the replicas count them. Of each
frame with bytes the core learns only that the sender is alive, and in which term.
"""

from __future__ import annotations

from collections import deque

from copycat.errors import require
from copycat.protocol.peer import InstallReply, InstallSnapshot
from copycat.raft import change_requests, membership
from copycat.raft.effects import (
    Commit,
    EndShipping,
    ReceiveSnapshot,
    Reset,
)
from copycat.raft.events import SnapshotInstalled, SnapshotShipping
from copycat.raft.follower import hear_leader
from copycat.raft.leader_state import LeaderState
from copycat.raft.state import NOBODY, TERM_MAX, State
from copycat.raft.term_index import UNKNOWN_TERM
from copycat.types import EntryId, MemberId

__all__ = [
    "advance_deletion_floor",
    "commit_below_gaps",
    "is_well_formed",
    "on_compacted",
    "on_gaps_known",
    "on_install_reply",
    "on_install_snapshot",
    "on_leader_heard",
    "on_oldest_snapshot_changed",
    "on_peer_heard",
    "on_snapshot_installed",
    "on_snapshot_shipping",
]


# ---- the leader: how far each transfer is -----------------------------------------------------


def commit_below_gaps(raft: State, leader_state: LeaderState) -> None:
    """What the gaps of this log say was committed is committed: no count is needed for a fact.

    A leader that restarted knows of no commit, and cannot count one without the very peer that
    waits for the snapshot (decision 0017). Its own no-op and what follows are never taken so:
    if it was elected without all that was committed, then an operator had accepted a loss.
    """
    if raft.commit_index < leader_state.valid_from < leader_state.noop_index:
        raft.commit_index = leader_state.valid_from
        raft.effects.append(Commit(raft.commit_index))
        if raft.commit_index >= raft.next_configuration_index:
            change_requests.on_committed(raft)


def on_snapshot_shipping(raft: State, event: SnapshotShipping) -> None:
    """The replica chose this one: only now a reply can name it (I9)."""
    leader_state = raft.leader_state
    progress = leader_state.progress.get(event.peer) if leader_state is not None else None
    if progress is None or progress.snapshot_request != event.request:
        return  # of a transfer that is over, and the replica was told that it is
    require(
        event.entry.index <= raft.terms.last_index
        and raft.terms.term_at(event.entry.index) in {event.entry.term, UNKNOWN_TERM},
        "a leader ships a snapshot of entries that it does not have",
        entry=event.entry,
        last=raft.last,
    )
    progress.snapshot = event.entry


def on_install_reply(
    raft: State, leader_state: LeaderState, sender: MemberId, message: InstallReply
) -> bool:
    """A peer says in this term that it has a snapshot, or all that the snapshot covers. True when
    this ends the transfer to the peer, which moves the peer's match_index."""
    progress = leader_state.progress.get(sender)
    if progress is None or not 1 <= message.request <= progress.last_request:
        raft.ignored += 1
        return False
    progress.last_contact_ms = raft.now_ms
    if not progress.has_regressed:
        progress.acked_request = max(progress.acked_request, message.request)
    is_current = message.request == progress.snapshot_request
    if not message.done or not is_current or message.entry != progress.snapshot:
        return False  # of a transfer that is over
    progress.end_snapshot(message.entry.index)
    raft.effects.append(EndShipping(sender, done=True))
    replicator = leader_state.replicator
    if replicator.needs_snapshot(raft, progress.next_index):
        replicator.send_snapshot(raft, sender)
    return True


def advance_deletion_floor(raft: State, leader_state: LeaderState) -> None:
    """C23: the least stable index of all members that have a log, by the committed configuration
    or by a newer one (C31). It never falls.

    While the stable index of one member is unknown, the floor stays where it is.
    """
    least = min(raft.commit_index, raft.stable_index(raft.durable_index))
    for progress in leader_state.progress.values():
        if not progress.is_stateful:
            continue
        if progress.has_regressed:
            return
        least = min(least, progress.stable_index)
    raft.cluster_deletion_floor = max(raft.cluster_deletion_floor, least)


def on_peer_heard(raft: State, sender: MemberId, term: int) -> None:
    """A peer acknowledged bytes of a snapshot: it is alive. A newer term ends this leadership."""
    if term > raft.current_term:
        raft.become_follower(term, NOBODY)
    elif term == raft.current_term and raft.leader_state is not None:
        progress = raft.leader_state.progress.get(sender)
        if progress is not None:
            progress.last_contact_ms = raft.now_ms


# ---- the follower: a snapshot is offered, arrives, and the log is made to fit ------------------


def is_well_formed(message: InstallSnapshot) -> bool:
    """Whether a leader could have said it."""
    entry = message.entry
    return (
        message.request >= 1
        and 1 <= entry.term <= message.term
        and 1 <= entry.index <= TERM_MAX
        and 0 <= message.offset <= message.nbytes
        and message.nbytes >= 1
        and len(message.digest) == 32
    )


def on_install_snapshot(raft: State, sender: MemberId, message: InstallSnapshot) -> None:
    """A snapshot is offered. 1. An old term: say ours. 2. Already there: say so. 3. Take it."""
    if message.term < raft.current_term:
        _answer(raft, sender, message.request, message.entry, 0, done=False)
        return
    if not hear_leader(raft, message.leader) or raft.is_reserve:
        return
    index = message.entry.index
    if raft.commit_index < index:
        raft.effects.append(ReceiveSnapshot(sender, message))
    elif raft.durable_index >= index:
        _answer(raft, sender, message.request, message.entry, message.nbytes, done=True)
    # Else it is committed here and not yet durable: silence, and the leader asks again.


def on_leader_heard(raft: State, leader: MemberId, term: int) -> None:
    """Bytes of a snapshot arrived: their sender leads. Who led in an older term is not heard."""
    if term > raft.current_term:
        raft.become_follower(term, leader)
    if term == raft.current_term:
        hear_leader(raft, leader)


def on_snapshot_installed(raft: State, event: SnapshotInstalled) -> None:
    """I12: the commit index never decreases; a suffix that continues the entry stays, any
    other is deleted.

    The snapshot is on the disk, so what it covers is durable; should the log be shorter after
    a crash, it begins anew right after the snapshot (C24).
    """
    entry = event.entry
    if raft.is_reserve:
        return  # the transfer began when this member had a log
    if event.term > raft.current_term:
        raft.become_follower(event.term, NOBODY)
    if entry.index > raft.commit_index:
        terms = raft.terms
        continues = terms.term_at(entry.index) == entry.term
        if not continues:
            require(
                raft.leader_state is None,
                "a leader lacks what a snapshot says is committed",
                entry=entry,
                last=raft.last,
            )
            terms.reset(entry)
            raft.acknowledgements.log_term = raft.current_term
            raft.durable_index = entry.index
            raft.verified_index = 0
            raft.reported_index = 0
            raft.syncs = deque((ticket, 0, ms) for ticket, _, ms in raft.syncs)
            raft.effects.append(Reset(entry))
            raft.sync()
        raft.installed_index = entry.index
        raft.durable_index = max(raft.durable_index, entry.index)
        raft.commit_ceiling = max(raft.commit_ceiling, entry.index)
        raft.commit_index = entry.index
        raft.effects.append(Commit(entry.index))
        membership.on_installed(raft, event.configuration, entry.index, continues=continues)
        change_requests.on_committed(raft)
    if raft.leader == event.sender != NOBODY and event.request:
        # The leader has what is committed, so this log equals its log up to there.
        raft.verified_index = max(raft.verified_index, entry.index)
        raft.reported_index = max(raft.reported_index, entry.index)
        if raft.durable_index >= entry.index:
            _answer(raft, event.sender, event.request, entry, 0, done=True)


def _answer(
    raft: State, to: MemberId, request: int, entry: EntryId, offset: int, *, done: bool
) -> None:
    raft.send(to, InstallReply(raft.current_term, request, entry, offset, done))


# ---- both: the front of the log ---------------------------------------------------------------


def on_compacted(raft: State, first_index: int) -> None:
    """The front of the log was deleted: a snapshot of this member covers it."""
    require(
        first_index <= raft.commit_index + 1,
        "a log was trimmed above what is committed",
        first_index=first_index,
        commit_index=raft.commit_index,
    )
    raft.terms.trim(first_index)
    membership.on_trimmed(raft, first_index)
    if raft.leader_state is not None:
        for progress in raft.leader_state.progress.values():
            progress.on_trimmed(first_index)


def on_gaps_known(raft: State, valid_from: int) -> None:
    """This member leads: what it deletes from now on it has committed itself.

    Who takes gaps is judged by the newest committed configuration that this leader knows. One that
    is below `valid_from` may have been committed when the gaps were made, and a member that joins
    by it was never asked about them (C30): so it is committed before anybody is sent a gap.
    """
    if raft.leader_state is not None:
        raft.leader_state.valid_from = valid_from
        if valid_from >= raft.next_configuration_index:
            commit_below_gaps(raft, raft.leader_state)


def on_oldest_snapshot_changed(raft: State, oldest_index: int) -> None:
    """The oldest snapshot on this disk is another one now."""
    raft.oldest_snapshot_index = oldest_index
    if raft.leader_state is not None:
        advance_deletion_floor(raft, raft.leader_state)
