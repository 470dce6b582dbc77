"""What a leader does: propose, replicate, count, commit, confirm reads, hand over, step down.

A leader's own log is one log of the cluster like any other: its own sync is counted as a reply is.
It commits an entry when a majority has it durably and the entry is of the leader's own term. It
stops leading when it hears of a newer term, and also when no majority answered for an election
timeout, for then another leader may be at work.
"""

from __future__ import annotations

from copycat.errors import require
from copycat.protocol.peer import AppendReply, InstallReply
from copycat.raft import (
    change_requests,
    install_snapshot,
    leader_feeding,
    leader_members,
    leader_transfer,
    membership,
    regression,
)
from copycat.raft.effects import Append, Commit, Content, ReadReady
from copycat.raft.leader_state import NEVER_MS, LeaderState
from copycat.raft.progress import Progress, ProgressState, Scope
from copycat.raft.state import NOBODY, State
from copycat.raft.transfer import on_transfer_timeout
from copycat.types import MemberId, ServerState, Span

__all__ = [
    "become_leader",
    "deadline_ms",
    "on_append_reply",
    "on_compacted",
    "on_install_reply",
    "on_peer_reachable",
    "on_proposed",
    "on_read_requested",
    "on_sent",
    "on_synced",
    "on_tick",
]

COMMIT_HEARTBEAT_DELAY_MS = 5
"""How long a new commit index waits for a message with entries, which names it to the followers.

Under load the next entries follow within a millisecond; an empty message in between would
double the messages of a cluster that serves one command at a time.
"""

SLOW_TIMEOUTS = 10
"""For so many election timeouts a leader whose disk was too slow does not campaign (F15)."""


def become_leader(raft: State) -> None:
    """The election is won: append a no-op, the first entry of the term (paper section 8), behind
    the configuration if this log lost that."""
    require(
        raft.state is ServerState.CANDIDATE and not raft.is_saving,
        "only a candidate whose vote is on the disk may lead",
        state=raft.state,
        term=raft.current_term,
    )
    end = raft.terms.end
    leader_state = LeaderState(raft.current_term, end, raft.options.window)
    leader_members.follow_members(raft, leader_state)
    raft.leader_state = leader_state
    raft.votes = frozenset()
    raft.drawn_at_ms = -1
    raft.change_role(ServerState.LEADER, raft.member)
    _commit_known(raft)
    change_requests.repeat_configuration(raft, leader_state)
    _append(raft, leader_state, 1, Content.NOOP)
    change_requests.follow_promotions(raft, leader_state)


def _commit_known(raft: State) -> None:
    """The log up to the newest configuration that is known to be committed is committed, if it
    holds that entry: no count is needed for a fact.

    A leader that was restarted knows of no other commit. By an older configuration it would send
    gaps to a member that joins at a later entry, and was never asked about them (C30).
    """
    entry = raft.known_configuration.entry
    if raft.commit_index < entry.index and raft.terms.term_at(entry.index) == entry.term:
        raft.commit_index = entry.index
        raft.effects.append(Commit(raft.commit_index))
        membership.on_committed(raft)


def on_proposed(raft: State, count: int) -> None:
    """`count` entries of this turn get their indexes; entries leave before our own sync."""
    leader_state = raft.leader_state
    if leader_state is None or leader_state.transfer_to != NOBODY or count < 1:
        raft.ignored += 1
        return
    _append(raft, leader_state, count, Content.PROPOSED)


def _append(raft: State, leader_state: LeaderState, count: int, content: Content) -> None:
    first = raft.terms.end
    span = Span(raft.current_term, first, first + count)
    raft.terms.append(span)
    raft.effects.append(Append(span, content))
    for peer in raft.peers:
        leader_state.replicator.send_entries(raft, peer)
    raft.sync()


def on_sent(raft: State, peer: MemberId, span: Span) -> None:
    """Part of the last Replicate left: send more while the window of `peer` has room."""
    if raft.leader_state is not None:
        raft.leader_state.replicator.on_sent(raft, peer, span)


def on_synced(raft: State, leader_state: LeaderState) -> None:
    """More of the leader's own log is durable, which counts like a follower's reply."""
    _advance_commit(raft, leader_state)


def on_append_reply(raft: State, sender: MemberId, message: AppendReply) -> None:
    """Credit one answer of the current term; `copycat/raft/core.py` handled all other terms.

    An answer states three separate facts: the peer looked at this leader's term (which counts for
    the check that the leader is heard, and for reads), whether its log matches (which decides
    what to send next), and how much of it is durable (which counts for commits).
    """
    leader_state = raft.leader_state
    progress = leader_state.progress.get(sender) if leader_state is not None else None
    request = message.request
    if leader_state is None or progress is None or not 1 <= request <= progress.last_request:
        raft.ignored += 1
        return
    progress.last_contact_ms = raft.now_ms
    progress.is_replaying = message.is_replaying
    progress.reported_index = message.commit_index
    if message.configuration != raft.committed_configuration.entry:
        name = message.configuration
        leader_members.on_older_answer(raft, leader_state, sender, progress, name)
    elif leader_state.departing and sender in leader_state.departing:
        leader_members.end_departure(raft, leader_state, sender)
        return
    if request <= progress.void_request:
        return
    is_proof = request > progress.match_request or progress.has_regressed
    if is_proof and not regression.on_reply(raft, sender, progress, message):
        return
    if not progress.has_regressed:
        progress.acked_request = max(progress.acked_request, request)
    if progress.is_fed:
        leader_feeding.on_reply(raft, leader_state, progress, message)
    if message.accepted:
        _on_accepted(raft, leader_state, sender, progress, message)
        if leader_state.transfer_to == sender:
            leader_transfer.send_timeout_now(raft, leader_state)
    else:
        _on_rejected(raft, leader_state, sender, progress, message)
    _note_stable(raft, leader_state, progress, message)
    if leader_state.reads.round_request:
        _count_round(raft, leader_state)
    if progress.next_index <= raft.terms.last_index:
        leader_state.replicator.send_entries(raft, sender)
    if leader_state.changes.promotions:
        change_requests.on_progress(raft, leader_state)


def _on_accepted(
    raft: State,
    leader_state: LeaderState,
    sender: MemberId,
    progress: Progress,
    message: AppendReply,
) -> None:
    request = message.request
    match_index = message.match_index
    leader_state.replicator.on_accepted(raft, sender, request)
    if match_index > progress.match_index:
        if not progress.acknowledge(request, match_index):
            raft.ignored += 1
        elif match_index > raft.commit_index:
            _advance_commit(raft, leader_state)


def _note_stable(
    raft: State, leader_state: LeaderState, progress: Progress, message: AppendReply
) -> None:
    """C28: only the peer knows how far its state stays. What is committed counts, whoever sent it
    that; of the rest, what it acknowledged to this leader."""
    known = max(progress.match_index, raft.commit_index)
    stable_index = min(message.stable_index, known)
    if stable_index > progress.stable_index:
        progress.stable_index = stable_index
        install_snapshot.advance_deletion_floor(raft, leader_state)


def _on_rejected(
    raft: State,
    leader_state: LeaderState,
    sender: MemberId,
    progress: Progress,
    message: AppendReply,
) -> None:
    """Return to what both logs have, or send a snapshot to a peer that entries do not help.

    A peer that takes no gaps is sent a snapshot of all that is committed now, and every gap in
    this log lies below that. The deletion floor would not be enough: a leader that restarted
    does not know it any more.
    """
    if progress.state is ProgressState.SNAPSHOT or progress.scope >= Scope.HEARTBEATS:
        return  # as expected: what it lacks is being sent, or it shall not have it
    if message.wants_snapshot and message.request > progress.rewind_request:
        install_snapshot.commit_below_gaps(raft, leader_state)
        min_index = max(raft.commit_index, leader_state.valid_from)
        if not leader_feeding.begin_snapshot(raft, leader_state, sender, progress, min_index):
            leader_state.replicator.send_snapshot(raft, sender, min_index)
    elif message.request > progress.rewind_request and leader_feeding.on_rejected(
        raft, leader_state, sender, progress, message.hint
    ):
        pass
    elif not leader_state.replicator.on_rejected(raft, sender, message.request, message.hint):
        raft.ignored += 1


def on_install_reply(raft: State, sender: MemberId, message: InstallReply) -> None:
    """A peer of this term says that it has a snapshot: a sign of life like any other."""
    leader_state = raft.leader_state
    if leader_state is None:
        raft.ignored += 1
        return
    if install_snapshot.on_install_reply(raft, leader_state, sender, message):
        _advance_commit(raft, leader_state)
    if leader_state.reads.round_request:
        _count_round(raft, leader_state)
    if sender in leader_state.progress:
        leader_state.replicator.send_entries(raft, sender)


def on_compacted(raft: State, first_index: int) -> None:
    """The front of the log was deleted: continue with each peer from what the log still has."""
    install_snapshot.on_compacted(raft, first_index)
    if raft.leader_state is not None:
        for peer in raft.peers:
            raft.leader_state.replicator.send_entries(raft, peer)


def _advance_commit(raft: State, leader_state: LeaderState) -> None:
    """Commit what a majority made durable, if it is of our own term (Figure 8, I7)."""
    match_of = {  # `Progress.counted_index`, without a call for each
        peer: 0 if progress.has_regressed else progress.match_index
        for peer, progress in leader_state.progress.items()
    }
    match_of[raft.member] = raft.durable_index
    index = raft.configuration.agreed_index(match_of)
    if index <= raft.commit_index or index < leader_state.noop_index:
        return
    is_first = raft.commit_index < leader_state.noop_index
    raft.commit_index = index
    raft.effects.append(Commit(index))
    if index >= raft.next_configuration_index:
        change_requests.on_committed(raft)
        if leader_state.reads.round_request:  # fewer voters may be enough for it now
            _count_round(raft, leader_state)
    if is_first:
        leader_members.answer_strangers(raft, leader_state)
    for peer in leader_state.limited:
        leader_state.replicator.send_entries(raft, peer)
    if not raft.peers:  # no heartbeat and nobody's reply does it (C23)
        install_snapshot.advance_deletion_floor(raft, leader_state)
    elif leader_state.commit_heartbeat_at_ms == NEVER_MS:
        leader_state.commit_heartbeat_at_ms = raft.now_ms + COMMIT_HEARTBEAT_DELAY_MS
    if leader_state.reads.wants_round:
        _begin_round(raft, leader_state)


# ---- reads ---------------------------------------------------------------------------


def on_read_requested(raft: State, token: int) -> None:
    """C10: wait for an entry of our own term to be committed, then for a round of its own."""
    leader_state = raft.leader_state
    if leader_state is None:
        raft.ignored += 1
        return
    leader_state.reads.wait(token)
    if leader_state.reads.wants_round:
        _begin_round(raft, leader_state)


def _begin_round(raft: State, leader_state: LeaderState) -> None:
    if raft.commit_index < leader_state.noop_index:
        return
    replicator = leader_state.replicator
    leader_state.reads.begin(replicator.request + 1, raft.commit_index)
    for peer in raft.peers:
        replicator.send_heartbeat(raft, peer)
    _count_round(raft, leader_state)


def _count_round(raft: State, leader_state: LeaderState) -> None:
    reads = leader_state.reads
    confirmed = [raft.member]
    for peer, progress in leader_state.progress.items():
        if progress.acked_request >= reads.round_request:
            confirmed.append(peer)
    if raft.configuration.has_quorum(confirmed):
        raft.effects.append(ReadReady(*reads.confirmed()))
        if reads.wants_round:
            _begin_round(raft, leader_state)


# ---- time ----------------------------------------------------------------------------


def on_tick(raft: State, leader_state: LeaderState, elapsed_ms: int) -> None:
    """CheckQuorum, heartbeats, a commit index that no message has named so far, and transfers."""
    now_ms = raft.now_ms
    if now_ms >= leader_state.check_at_ms and not _check_quorum(raft, leader_state, elapsed_ms):
        raft.become_follower(raft.current_term, NOBODY)
        return
    if now_ms >= leader_state.transfer_at_ms:
        finished = on_transfer_timeout(leader_state, raft.terms.last_index)
        leader_members.end_transfer(raft, leader_state, finished)
        if now_ms < raft.slow_until_ms:
            raft.become_follower(raft.current_term, NOBODY)
            return
    if _disk_is_slow(raft, elapsed_ms) and leader_state.transfer_to == NOBODY:
        _leave_slow_disk(raft, leader_state)
        if raft.leader_state is None:
            return
    if raft.storage_full and leader_state.transfer_to == NOBODY:
        leader_transfer.begin_transfer_when_full(raft, leader_state)
    if now_ms >= leader_state.heartbeat_at_ms:
        leader_state.heartbeat_at_ms = now_ms + raft.options.heartbeat_interval_ms
        leader_state.commit_heartbeat_at_ms = NEVER_MS
        head_index = min(leader_state.reach_index, raft.commit_index)
        leader_state.heard.on_round(now_ms, leader_state.progress, head_index)
        leader_state.lags.on_round(leader_state.progress, head_index, raft.commit_index)
        leader_feeding.follow_feeding(raft, leader_state)
        for peer in leader_state.progress:
            leader_state.replicator.send_heartbeat(raft, peer)
        install_snapshot.advance_deletion_floor(raft, leader_state)
        leader_transfer.send_timeout_now(raft, leader_state)
        if leader_state.changes.promotions:
            change_requests.on_progress(raft, leader_state)
    elif now_ms >= leader_state.commit_heartbeat_at_ms:
        leader_state.commit_heartbeat_at_ms = NEVER_MS
        leader_state.replicator.send_commit_index(raft)


def _disk_is_slow(raft: State, elapsed_ms: int) -> bool:
    """F15: whether the oldest append of this leader has waited for its sync longer than E.

    A process that stood still for a while takes this tick before the answers that came meanwhile,
    so a long tick proves nothing about the disk.
    """
    timeout_ms = raft.options.election_timeout_ms
    is_late = raft.disk_age_ms > timeout_ms and 2 * elapsed_ms < timeout_ms
    return is_late and not raft.is_sole_voter


def _leave_slow_disk(raft: State, leader_state: LeaderState) -> None:
    """Hand over, or step down when nobody is in reach for that.

    While nobody else may lead (the second voter is being made, C40) this member leads on: one with
    a slow disk is better than none.
    """
    target = leader_transfer.best_follower(raft, leader_state)
    if target == NOBODY:
        return
    raft.slow_until_ms = raft.now_ms + SLOW_TIMEOUTS * raft.options.election_timeout_ms
    if leader_state.progress[target].state is ProgressState.LOST:
        raft.become_follower(raft.current_term, NOBODY)
    else:
        leader_transfer.begin_transfer(raft, leader_state, target)


def _check_quorum(raft: State, leader_state: LeaderState, elapsed_ms: int) -> bool:
    """Whether to remain the leader; sets the time of the next check.

    A process that stood still for a while (a slow disk, a stopped machine) takes this tick before
    it has read what arrived meanwhile, so it checks once more a heartbeat later.
    """
    timeout_ms = raft.options.election_timeout_ms
    if _is_quorum_active(raft, leader_state):
        leader_state.check_at_ms = raft.now_ms + timeout_ms
        leader_state.is_second_look = False
        leader_state.reach_index = leader_state.next_reach_index
        leader_state.next_reach_index = raft.terms.last_index
        return True
    if 2 * elapsed_ms < timeout_ms or leader_state.is_second_look:
        return False
    leader_state.check_at_ms = raft.now_ms + raft.options.heartbeat_interval_ms
    leader_state.is_second_look = True
    return True


def _is_quorum_active(raft: State, leader_state: LeaderState) -> bool:
    """Whether a majority answered within E; if not, another leader may be at work (I16)."""
    since_ms = raft.now_ms - raft.options.election_timeout_ms
    active = [raft.member]
    for peer, progress in leader_state.progress.items():
        if progress.last_contact_ms >= since_ms:
            active.append(peer)
    return raft.configuration.has_quorum(active)


def deadline_ms(leader_state: LeaderState) -> int:
    """When `on_tick` next has something to do."""
    return min(
        leader_state.heartbeat_at_ms,
        leader_state.check_at_ms,
        leader_state.commit_heartbeat_at_ms,
        leader_state.transfer_at_ms,
    )


# ---- links ---------------------------------------------------------------------------


def on_peer_reachable(raft: State, leader_state: LeaderState, peer: MemberId) -> None:
    """Send a heartbeat over the new link: the answer says where to continue. Who is no member
    hears that."""
    if peer in leader_state.progress:
        leader_state.replicator.send_heartbeat(raft, peer)
    else:
        leader_members.answer_stranger(raft, leader_state, peer)
