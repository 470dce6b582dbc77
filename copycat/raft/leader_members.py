"""What each member is to a leader: which entries it is sent, which orders, and when that ends.

Voters are those of the newest configuration, committed or not; who is PASSIVE or a RESERVE counts
when that is committed (C35). So a member that is being added is sent nothing before its entry is
committed, and the deletion floor waits for it from the append of the entry on (C31).
"""

from __future__ import annotations

from copycat.protocol.member_record import ConfigurationRecord
from copycat.protocol.peer import ConfigurationNotice
from copycat.raft.configuration import BOOTSTRAP, Configuration
from copycat.raft.effects import EndDeparture, TransferFailure, TransferFinished
from copycat.raft.leader_state import NEVER_MS, LeaderState
from copycat.raft.progress import Progress, ProgressState, Scope
from copycat.raft.state import NOBODY, State, orders_for
from copycat.types import EntryId, MemberId, MemberType

__all__ = [
    "answer_stranger",
    "answer_strangers",
    "end_departure",
    "end_transfer",
    "follow_members",
    "on_configuration_committed",
    "on_older_answer",
]


def end_transfer(raft: State, leader_state: LeaderState, finished: TransferFinished) -> None:
    """The transfer has failed: say so, and go on with changes that waited for it."""
    raft.effects.append(finished)
    leader_state.end_transfer()
    raft.effects += leader_state.changes.end_handing_over(raft.known_configuration)


def follow_members(raft: State, leader_state: LeaderState) -> None:
    """Have the progress of each other member and of nobody else, each with its scope and orders,
    and the timers of a leader that has followers, or of one that has none."""
    raft.peers = raft.other_members()
    departing = [peer for peer in leader_state.departing if peer not in raft.peers]
    leader_state.departing = tuple(departing)
    raft.peers += leader_state.departing
    leader_state.replicator.follow_members(raft, raft.peers, raft.now_ms)
    rows = raft.configurations.above(raft.commit_index)
    for peer in raft.peers:
        _follow_member(raft, leader_state, peer, rows)
    leader_state.limited = tuple(
        peer for peer, progress in leader_state.progress.items() if not progress.sends_all
    )
    target = leader_state.transfer_to
    if target != NOBODY and not raft.configuration.has_vote(target):
        end_transfer(
            raft, leader_state, TransferFinished(False, TransferFailure.NO_TARGET, to=target)
        )
    if not raft.peers:
        leader_state.heartbeat_at_ms = leader_state.check_at_ms = NEVER_MS
    elif leader_state.heartbeat_at_ms == NEVER_MS:
        leader_state.heartbeat_at_ms = raft.now_ms + raft.options.heartbeat_interval_ms
        leader_state.check_at_ms = raft.now_ms + raft.options.election_timeout_ms


def begin_anew(raft: State, leader_state: LeaderState, peer: MemberId) -> None:
    """`peer` has another log than the one that its progress is about, and is what it was."""
    leader_state.replicator.begin_anew(raft, peer, raft.now_ms)
    _follow_member(raft, leader_state, peer, raft.configurations.above(raft.commit_index))


def _follow_member(
    raft: State, leader_state: LeaderState, peer: MemberId, rows: list[Configuration]
) -> None:
    """rows: the configurations that are not committed, oldest first."""
    progress = leader_state.progress[peer]
    committed = raft.committed_configuration
    is_stateful = any(each.type(peer).is_stateful for each in (committed, *rows))
    scope, hold_index = _scope_of(committed, rows, peer)
    if progress.last_request and _has_new_log(progress, scope, is_stateful=is_stateful):
        progress = leader_state.replicator.begin_anew(raft, peer, raft.now_ms)
    progress.orders = orders_for(committed, peer)
    progress.is_stateful = is_stateful
    progress.scope, progress.hold_index = scope, hold_index
    progress.sends_all = scope is Scope.ALL
    if scope is Scope.COMMITTED and not progress.is_fed:
        progress.begin_feeding(progress.next_index, 0)


def _has_new_log(progress: Progress, scope: Scope, *, is_stateful: bool) -> bool:
    """Whether the peer has another log now than the one that its progress is about: it deletes its
    log, or begins one. While any configuration that counts gives it a log, it keeps that."""
    if progress.is_stateful:
        begins = progress.scope >= Scope.HEARTBEATS > scope and not progress.match_index
        return not is_stateful or begins
    return is_stateful and scope < Scope.HEARTBEATS


def _scope_of(
    committed: Configuration, rows: list[Configuration], peer: MemberId
) -> tuple[Scope, int]:
    """Which entries `peer` is sent, and where it is held back.

    C34: nobody receives the entry that takes its vote, or its log, before that is committed: with
    that entry its log may be the newest one, while it can neither lead nor count.
    """
    newest = rows[-1] if rows else committed
    if newest.has_vote(peer):
        return Scope.ALL, 0
    before = committed.record(peer)
    for row in rows:
        record = row.record(peer)
        loses_vote = before is not None and before.type is MemberType.ACTIVE
        is_sent_all = before is not None and before.is_promotable
        loses_log = is_sent_all and (record is None or not record.is_stateful)
        if (loses_vote and not row.has_vote(peer)) or loses_log:
            return Scope.HELD_BACK, row.entry.index
        before = record
    record = committed.record(peer)
    if record is None:
        is_added = newest.record(peer) is not None
        return (Scope.NOTHING if is_added else Scope.HEARTBEATS), 0
    if not record.is_stateful:
        return Scope.HEARTBEATS, 0
    promoted = newest.record(peer)
    is_promotable = promoted is not None and promoted.is_promotable
    return (Scope.ALL if is_promotable else Scope.COMMITTED), 0


# ---- who has heard of the committed configuration -----------------------------------------------


def on_configuration_committed(raft: State, leader_state: LeaderState) -> None:
    """`raft.committed_configuration` is another one than before.

    A member with a log learns this from its log a moment later; the others are sent a notice, if
    this one may be the newest (`on_older_answer`). Two configurations may be committed together,
    so who leaves may be in neither the first nor the last of them.
    """
    staying = {*raft.other_members(), *leader_state.departing}
    for peer in [peer for peer in raft.peers if peer not in staying]:
        if leader_state.progress[peer].state is ProgressState.LOST:
            raft.effects.append(EndDeparture(peer))
        else:
            leader_state.departing += (peer,)
    follow_members(raft, leader_state)
    for peer, progress in leader_state.progress.items():
        if progress.scope is Scope.HEARTBEATS:
            if raft.commit_index >= leader_state.noop_index:
                _send_notice(raft, peer, progress)
        else:
            progress.notice_at_ms = raft.now_ms + 2 * raft.options.heartbeat_interval_ms


def on_older_answer(
    raft: State, leader_state: LeaderState, peer: MemberId, progress: Progress, name: EntryId
) -> None:
    """The newest committed configuration that `peer` has is named `name`, another than the
    leader's: send it the leader's if that is newer, and soon again if nothing changes (C28).

    A leader does not know how far its log is committed before an entry of its own term is. Until
    then it announces nothing: a newer configuration of its log may be the committed one.
    """
    if raft.commit_index < leader_state.noop_index or name > raft.committed_configuration.entry:
        return
    if progress.scope < Scope.NOTHING and raft.now_ms >= progress.notice_at_ms:
        _send_notice(raft, peer, progress)


def answer_stranger(raft: State, leader_state: LeaderState, peer: MemberId) -> None:
    """`peer`, which asks for votes or has a new link, is no member: perhaps it was removed while
    it was away, and would ask for ever, or wait for ever. A notice says so (C33).

    A leader that has committed nothing of its own term may not know the newest committed
    configuration, in which `peer` may be a member.
    """
    committed = raft.committed_configuration
    if committed.entry != BOOTSTRAP and raft.commit_index >= leader_state.noop_index:
        _send_configuration(raft, peer)


def answer_strangers(raft: State, leader_state: LeaderState) -> None:
    """The first entry of this leader is committed: tell all that have links and are no members.

    Who came back before this member led was told nothing by it.
    """
    for peer in sorted(raft.links):
        if peer not in raft.peers:
            answer_stranger(raft, leader_state, peer)


def _send_notice(raft: State, peer: MemberId, progress: Progress) -> None:
    progress.notice_at_ms = raft.now_ms + raft.options.heartbeat_interval_ms
    _send_configuration(raft, peer)


def _send_configuration(raft: State, peer: MemberId) -> None:
    committed = raft.committed_configuration
    record = ConfigurationRecord(committed.entry, 0, committed.members, committed.policy)
    raft.send(peer, ConfigurationNotice(raft.current_term, raft.member, record))


def end_departure(raft: State, leader_state: LeaderState, peer: MemberId) -> None:
    """`peer`, which is no member any more, knows it or cannot be reached."""
    leader_state.departing = tuple(each for each in leader_state.departing if each != peer)
    follow_members(raft, leader_state)
    if peer not in raft.peers:
        raft.effects.append(EndDeparture(peer))
