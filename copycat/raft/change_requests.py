"""What a leader does with a request to change the members: one entry at a time, and no entry that
could stop the cluster.

A change is appended only when the one before it is committed and an entry of this term is, when
the asker has seen the newest committed configuration (C36), and when it could be committed without
the member that it brings (C37). A promotion to ACTIVE takes two entries: the first one lets the
member have all entries, and the second gives it its vote when it keeps up. A leader never appends
the end of its own vote (C34).
"""

from __future__ import annotations

from copycat.protocol.member_record import NO_START, HealingPolicy
from copycat.raft import leader_transfer, membership
from copycat.raft.changes import (
    ConfigurationChange,
    goal_holds,
    next_configuration,
    repeated,
    with_vote,
    without_flag,
)
from copycat.raft.configuration import BOOTSTRAP, Configuration, MemberRecord
from copycat.raft.effects import Append, ChangeFinished, Content
from copycat.raft.leader_state import LeaderState
from copycat.raft.pending_changes import WAITING_MAX, PendingChange, Promotion
from copycat.raft.progress import Progress, ProgressState
from copycat.raft.state import NOBODY, State
from copycat.types import (
    ChangeKind,
    ChangeRefusal,
    EntryId,
    MemberId,
    MemberType,
    ServerState,
    Span,
)

__all__ = [
    "follow_promotions",
    "is_caught_up",
    "may_append",
    "missing_voters",
    "on_change_requested",
    "on_committed",
    "on_progress",
    "repeat_configuration",
]

PROMOTION_TIMEOUTS = 40
"""A promotion that gains nothing for so many election timeouts is taken back: half a minute with
the default of 750 ms. An entry that others write and the member gets is no gain: it is as far
behind as before, and what hinders its vote may be a voter that is away."""


def on_change_requested(raft: State, token: int, change: ConfigurationChange) -> None:
    """Append the change, or say why not; or wait for the very change that was asked for before."""
    leader_state = raft.leader_state
    if leader_state is None:
        _refuse(raft, token, ChangeRefusal.NOT_LEADER)
        return
    committed = raft.committed_configuration
    if raft.commit_index < leader_state.noop_index:
        _refuse(raft, token, ChangeRefusal.NO_OWN_TERM_COMMIT)
    elif goal_holds(change, committed):
        raft.effects.append(ChangeFinished(token, committed))
    elif raft.configuration.entry != committed.entry:
        _join_change_in_flight(raft, leader_state, token, change)
    elif change.type is MemberType.ACTIVE and change.member in leader_state.changes.promotions:
        _await_vote(raft, leader_state.changes.promotions[change.member], token)
    elif not _is_seen(raft, change.base):
        _refuse(raft, token, ChangeRefusal.STALE_BASE)
    elif leader_state.transfer_to != NOBODY:
        _refuse(raft, token, ChangeRefusal.IN_FLIGHT)
    else:
        _change(raft, leader_state, token, change)


def _is_seen(raft: State, base: EntryId) -> bool:
    """C36: whether `base` names the newest committed configuration, or one since which leaders
    have written only what nobody asks for: starts, addresses, domains and weights of the members.

    Each one since then is compared: where the members became the same again, the request may have
    been made already, and been taken back by another one.
    """
    now = raft.committed_configuration
    if base == now.entry:
        return True
    since = [row for row in raft.configurations.rows if row.entry >= base]
    if base == BOOTSTRAP or not since or since[0].entry != base:
        return False
    asked_for = _as_asked_for(now)
    return all(_as_asked_for(row) == asked_for for row in since)


def _as_asked_for(configuration: Configuration) -> tuple[HealingPolicy, list[MemberRecord]]:
    return configuration.policy, [
        each._replace(start=NO_START, address="", failure_domain="", weight=0)
        for each in configuration.members
    ]


def _join_change_in_flight(
    raft: State, leader_state: LeaderState, token: int, change: ConfigurationChange
) -> None:
    """A change is not committed yet: it may be the very one that is asked for again."""
    newest = raft.configuration
    record = newest.record(change.member)
    is_flag = change.type is MemberType.ACTIVE and record is not None and record.is_promotable
    committed = raft.committed_configuration
    is_unknown = change.kind is ChangeKind.REMOVE and committed.record(change.member) is None
    if is_unknown or not (goal_holds(change, newest) or is_flag):
        _refuse(raft, token, ChangeRefusal.IN_FLIGHT)
        return
    waiting = leader_state.changes.waiting
    waiting.append(PendingChange(token, change, newest.entry))
    if len(waiting) > WAITING_MAX:
        _refuse(raft, waiting.pop(0).token, ChangeRefusal.TOO_MANY)


def _await_vote(raft: State, promotion: Promotion, token: int) -> None:
    promotion.tokens.append(token)
    if len(promotion.tokens) > WAITING_MAX:
        _refuse(raft, promotion.tokens.pop(0), ChangeRefusal.TOO_MANY)


def _change(
    raft: State, leader_state: LeaderState, token: int, change: ConfigurationChange
) -> None:
    now = raft.committed_configuration
    configuration = next_configuration(change, now, _next_entry(raft), {raft.member, *raft.links})
    if isinstance(configuration, ChangeRefusal):
        _refuse(raft, token, configuration)
    elif change.member not in now.ids and _was_member(raft, change.member):
        _refuse(raft, token, ChangeRefusal.MEMBER_ID_REUSED)
    elif change.member == raft.member and not configuration.has_vote(raft.member):
        _hand_over_first(raft, leader_state, token)
    elif not _is_linked(raft, leader_state, change):
        _refuse(raft, token, ChangeRefusal.NOT_CONNECTED)
    elif missing := _missing_for(raft, leader_state, change, configuration):
        _refuse(raft, token, ChangeRefusal.NO_MAJORITY, missing)
    else:
        entry = configuration.entry
        leader_state.changes.waiting.append(PendingChange(token, change, entry))
        _append(raft, leader_state, configuration)


def _missing_for(
    raft: State, leader_state: LeaderState, change: ConfigurationChange, next_one: Configuration
) -> tuple[MemberId, ...]:
    """The voters that are missing for the entry that is appended now, or for the vote that it is
    to lead to: without them the flag would be of no use."""
    missing = missing_voters(raft, leader_state, next_one)
    record = next_one.record(change.member)
    if missing or record is None or not record.is_promotable:
        return missing
    return missing_voters(
        raft, leader_state, with_vote(change.member, next_one, _next_entry(raft))
    )


def _was_member(raft: State, member: MemberId) -> bool:
    """Whether the log still names this id, as that of a member that was removed. After a trim it
    does not, and then `since` keeps its old log apart from its new one (C30)."""
    return any(row.record(member) is not None for row in raft.configurations.rows)


def _is_linked(raft: State, leader_state: LeaderState, change: ConfigurationChange) -> bool:
    """C37: who is to join or to be promoted, or says that it has moved, has an open link; a
    demotion, a removal or a policy needs none."""
    if change.kind in {ChangeKind.DEMOTE, ChangeKind.REMOVE, ChangeKind.POLICY}:
        return True
    if change.kind is ChangeKind.MOVE and change.member == raft.member:
        return True
    progress = leader_state.progress.get(change.member)
    is_lost = progress is not None and progress.state is ProgressState.LOST
    return change.member in raft.links and not is_lost


def _hand_over_first(raft: State, leader_state: LeaderState, token: int) -> None:
    """C34: this leader would lose its own vote. Whoever asks then asks the next leader."""
    target = leader_transfer.best_follower(raft, leader_state)
    if target == NOBODY or not _is_in_reach(raft, leader_state, leader_state.progress[target]):
        _refuse(raft, token, ChangeRefusal.LEADER_ITSELF)
        return
    leader_state.changes.handing_over.append(token)
    leader_transfer.begin_transfer(raft, leader_state, target)


def _refuse(
    raft: State, token: int, refusal: ChangeRefusal, missing: tuple[MemberId, ...] = ()
) -> None:
    """Answer with the reason, and with the present configuration."""
    demote_first = _to_demote_first(raft, missing) if missing else NOBODY
    raft.effects.append(
        ChangeFinished(token, _present_configuration(raft), refusal, missing, demote_first)
    )


def _present_configuration(raft: State) -> Configuration:
    """The newest that is known to be committed. A leader that has committed an entry of its own
    term has it in its log: one that its directory knows besides was lost with every log."""
    leader_state = raft.leader_state
    if leader_state is None or raft.commit_index < leader_state.noop_index:
        return raft.known_configuration
    return raft.committed_configuration


def _next_entry(raft: State) -> EntryId:
    return EntryId(raft.current_term, raft.terms.end)


def _append(raft: State, leader_state: LeaderState, configuration: Configuration) -> None:
    """It counts from here on; it leaves before this member's own sync, as every entry does."""
    first = raft.terms.end
    span = Span(raft.current_term, first, first + 1)
    raft.terms.append(span)
    raft.effects.append(Append(span, Content.CONFIGURATION, configuration))
    membership.on_appended(raft, configuration)
    for peer in raft.peers:
        leader_state.replicator.send_entries(raft, peer)
    raft.sync()


# ---- whether it could be committed --------------------------------------------------------------


def missing_voters(
    raft: State, leader_state: LeaderState, configuration: Configuration
) -> tuple[MemberId, ...]:
    """C37: empty when the voters of `configuration` that are in reach, without one that is new
    among them, are a majority of it. Else those that are not in reach, and without that one.

    Whoever asks for a change may have left before the change is committed, and then nothing could
    take it back. A single voter that adds a second one has no other choice.
    """
    now = raft.committed_configuration
    in_reach = [
        voter
        for voter in configuration.voters
        if now.has_vote(voter)
        and (
            voter == raft.member or _is_in_reach(raft, leader_state, leader_state.progress[voter])
        )
    ]
    is_second = now.voters == (raft.member,) and len(configuration.voters) == 2
    if is_second or configuration.has_quorum(in_reach):
        return ()
    return tuple(
        voter for voter in configuration.voters if voter not in in_reach and now.has_vote(voter)
    )


def _is_in_reach(raft: State, leader_state: LeaderState, progress: Progress) -> bool:
    """Whether the leader streams to this voter, has heard it within an election timeout, and the
    voter has what the log had a moment ago: what is appended now it has soon."""
    since_ms = raft.now_ms - raft.options.election_timeout_ms
    return (
        progress.state is ProgressState.REPLICATE
        and not progress.is_fed
        and progress.last_contact_ms >= since_ms
        and progress.counted_index >= leader_state.reach_index
    )


def is_caught_up(
    raft: State, leader_state: LeaderState, peer: MemberId, progress: Progress
) -> bool:
    """Whether this member, of whatever type, has a link and, if it has a log, what was committed
    a moment ago: it would soon keep up as a voter."""
    is_lost = progress.state is ProgressState.LOST or progress.is_replaying
    if is_lost or peer not in raft.links:
        return False
    head_index = min(leader_state.reach_index, raft.commit_index)
    return not progress.is_stateful or progress.reported_index >= head_index


def _to_demote_first(raft: State, missing: tuple[MemberId, ...]) -> MemberId:
    """One of the missing voters without whom the others would be a majority that is in reach."""
    leader_state, now = raft.leader_state, raft.committed_configuration
    if leader_state is None:
        return NOBODY
    for voter in missing:
        record = now.record(voter)
        if record is None or not now.has_vote(voter) or len(now.voters) == 1:
            continue
        demoted = record._replace(type=MemberType.PASSIVE, is_leaving=False)
        if not missing_voters(raft, leader_state, now.with_record(demoted, _next_entry(raft))):
            return voter
    return NOBODY


# ---- a log that begins anew ---------------------------------------------------------------------


def repeat_configuration(raft: State, leader_state: LeaderState) -> None:
    """A new leader's log lacks the newest configuration that its directory knows, for which it was
    elected: every voter lost that entry, or an operator accepted the loss. The first entry of the
    leader holds that configuration once more. With any other one a log that the entry was lost
    from would show that it never was committed, and the members of an older one would count (C35).
    """
    if raft.configurations.forget_announced(raft.last):
        membership.on_log_changed(raft)
    elif raft.configurations.announced is not None:
        _append(raft, leader_state, repeated(raft.configuration, _next_entry(raft)))


# ---- commits ------------------------------------------------------------------------------------


def on_committed(raft: State) -> None:
    """The commit index has reached a configuration entry: `membership.on_committed`; a leader also
    answers whoever waits for it, and continues promotions.

    A leader comes here in whatever way it learns of the commit: by its count, by the gaps of its
    log, and by a snapshot. Else a promotion would have nobody who continues it (C36).
    """
    membership.on_committed(raft)
    if raft.leader_state is not None:
        _answer_waiting(raft, raft.leader_state)


def _answer_waiting(raft: State, leader_state: LeaderState) -> None:
    committed, changes = raft.committed_configuration, leader_state.changes
    waiting, changes.waiting = changes.waiting, []
    follow_promotions(raft, leader_state)
    for each in waiting:
        promotion = changes.promotions.get(each.change.member)
        if each.entry > committed.entry:
            changes.waiting.append(each)
        elif each.change.type is MemberType.ACTIVE and promotion is not None:
            _await_vote(raft, promotion, each.token)
        else:
            raft.effects.append(ChangeFinished(each.token, committed))


def follow_promotions(raft: State, leader_state: LeaderState) -> None:
    """A promotion continues while the committed configuration has its flag, whoever set it; it
    ends with the vote, or when the flag is removed (C36)."""
    committed, promotions = raft.committed_configuration, leader_state.changes.promotions
    flagged = [each.member for each in committed.members if each.is_promotable]
    for member in [member for member in promotions if member not in flagged]:
        promotion = promotions.pop(member)
        refusal = promotion.refusal or ChangeRefusal.SUPERSEDED
        for token in promotion.tokens:
            if committed.has_vote(member):
                raft.effects.append(ChangeFinished(token, committed))
            else:
                _refuse(raft, token, refusal, promotion.missing)
    for member in flagged:
        if member not in promotions:
            promotions[member] = Promotion(raft.now_ms)


# ---- the second entry of a promotion ------------------------------------------------------------


def on_progress(raft: State, leader_state: LeaderState) -> None:
    """Time has passed, or a peer has answered: give the vote to whoever keeps up, and take the
    flag back from a member that gained nothing for too long."""
    for member, promotion in list(leader_state.changes.promotions.items()):
        progress = leader_state.progress.get(member)
        if progress is None:
            continue  # it is this member, elected by an entry that is not committed so far
        lag = raft.terms.last_index - progress.counted_index
        if lag < promotion.least_lag:
            promotion.least_lag = lag
            promotion.gained_at_ms = raft.now_ms
        if raft.storage_full:  # it is this member that hinders it
            promotion.gained_at_ms = raft.now_ms
        keeps_up = _keeps_up(raft, leader_state, promotion, progress)
        if not may_append(raft, leader_state):
            continue
        limit_ms = PROMOTION_TIMEOUTS * raft.options.election_timeout_ms
        if keeps_up and _give_vote(raft, leader_state, member, promotion):
            continue
        if raft.now_ms - promotion.gained_at_ms > limit_ms:
            is_blocked = promotion.missing
            promotion.refusal = (
                ChangeRefusal.NO_MAJORITY if is_blocked else ChangeRefusal.TIMED_OUT
            )
            now = raft.committed_configuration
            _append(raft, leader_state, without_flag(member, now, _next_entry(raft)))


def _keeps_up(
    raft: State, leader_state: LeaderState, promotion: Promotion, progress: Progress
) -> bool:
    """Whether a round that was short enough has ended just now. The next round begins then."""
    has_begun = promotion.round_request > 0
    has_ended = (
        progress.acked_request >= promotion.round_request
        and progress.counted_index >= promotion.round_index
    )
    if has_begun and not has_ended:
        return False
    length_ms = raft.now_ms - promotion.round_at_ms
    next_request = leader_state.replicator.request + 1
    promotion.begin_round(raft.now_ms, raft.terms.last_index, next_request)
    return (
        has_begun
        and length_ms < raft.options.election_timeout_ms
        and progress.state is ProgressState.REPLICATE
        and not progress.is_fed
        and not progress.is_replaying
    )


def may_append(raft: State, leader_state: LeaderState) -> bool:
    """Whether nothing is in flight, and this leader may begin something.

    Nobody asked for the entry that follows, so nobody looked whether the disk has room (F12).
    """
    return (
        raft.state is ServerState.LEADER
        and not raft.storage_full
        and raft.commit_index >= leader_state.noop_index
        and raft.configuration.entry == raft.committed_configuration.entry
        and leader_state.transfer_to == NOBODY
    )


def _give_vote(
    raft: State, leader_state: LeaderState, member: MemberId, promotion: Promotion
) -> bool:
    configuration = with_vote(member, raft.committed_configuration, _next_entry(raft))
    promotion.missing = missing_voters(raft, leader_state, configuration)
    if promotion.missing:
        return False
    _append(raft, leader_state, configuration)
    return True
