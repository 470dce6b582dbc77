"""What a follower does: it checks what a leader sent, appends it, reports what is durable, and
commits what it may.

Each message proves that both logs are equal up to the end of its span, and a follower relies on
nothing beyond that (C2). It reports only what its disk has (C1). So a leader may count every
report, and a follower never has to take one back.
"""

from __future__ import annotations

from collections import deque

from copycat.errors import require
from copycat.protocol.peer import AppendEntries, AppendReply
from copycat.raft import membership
from copycat.raft.configuration import Configuration
from copycat.raft.effects import Append, Commit, Content, Truncate
from copycat.raft.events import Received
from copycat.raft.state import NOBODY, TERM_MAX, State
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState, Span

__all__ = [
    "append_received",
    "hear_leader",
    "is_well_formed",
    "on_append_entries",
    "on_leader_unreachable",
    "on_synced",
    "raise_commit_ceiling",
]


def on_append_entries(raft: State, event: Received, message: AppendEntries) -> None:
    """Entries or a heartbeat. `core.py` applied the term rule before: the term is not a newer one.

    1. An old term: answer with the current term, change nothing, and leave the election timer.
    2. Note what the leader repeats about the members; a reserve says no more than that it did.
    3. The entry before the span is not in this log: reject, and hint where both may be equal.
    4. The entries have gaps, and this log may lack more than the gaps stand for: reject, and ask
    for a snapshot (docs/decisions/0017).
    5. Else append what is new, answer at once how much of it is durable (C1), and commit up to
    what this very message verified (C2).
    """
    term, sender = message.term, message.leader
    if term < raft.current_term:
        raft.send(sender, _rejected(raft, message.request, NO_ENTRY))
        return
    if not hear_leader(raft, sender):
        return
    raft.feeder, raft.leader_commit = message.feeder, message.leader_commit
    if message.configuration == raft.committed_configuration.entry:
        # C31: a floor counts with the configuration whose members it was computed with.
        raft.cluster_deletion_floor = max(raft.cluster_deletion_floor, message.deletion_floor)
    elif message.configuration > raft.orders.configuration:
        membership.on_orders(raft, message)
    if raft.is_reserve:
        _answer_as_reserve(raft, sender, message)
        return
    terms = raft.terms
    prev = message.prev
    # An entry below the log cannot be compared: a snapshot covers it, so it is committed, and a
    # leader has what is committed.
    if prev.index > terms.last_index or (
        prev.index >= terms.before.index and terms.term_at(prev.index) != prev.term
    ):
        raft.send(sender, _rejected(raft, message.request, terms.last_at_or_below(prev)))
        return
    span = message.span
    end = span.end
    if event.has_gaps and not raft.eligibility.accepts_gaps:
        hint = terms.last_at_or_below(prev)
        raft.send(sender, _rejected(raft, message.request, hint, wants_snapshot=True))
        return
    if span.first <= terms.before.index < end and span.term != terms.before.term:
        raft.ignored += 1  # no leader holds another entry there
        return
    if end > span.first:
        first = terms.first_conflict(span)
        if first < end:
            append_received(raft, Span(span.term, first, end), event.configuration)
    verified = end - 1
    raft.verified_index = max(raft.verified_index, verified)
    raft.accepted_request = max(raft.accepted_request, message.request)
    match_index = min(verified, raft.durable_index)
    raft.reported_index = max(raft.reported_index, match_index)
    raft.send(sender, _accepted(raft, message.request, match_index))
    raise_commit_ceiling(raft, min(message.leader_commit, verified))


def raise_commit_ceiling(raft: State, ceiling: int) -> None:
    """The log is verified up to `ceiling`, and that is committed: commit what is durable of it."""
    if ceiling > raft.commit_ceiling:
        raft.commit_ceiling = ceiling
        _advance_commit(raft)


def _accepted(raft: State, request: int, match_index: int) -> AppendReply:
    return AppendReply(
        raft.current_term,
        request,
        True,
        match_index,
        NO_ENTRY,
        raft.stable_index(max(match_index, raft.commit_index)),
        False,
        False,
        raft.known_configuration.entry,
        False,
        raft.terms.last,
        raft.commit_index,
    )


def _rejected(
    raft: State, request: int, hint: EntryId, *, wants_snapshot: bool = False
) -> AppendReply:
    return AppendReply(
        raft.current_term,
        request,
        False,
        0,
        hint,
        raft.stable_index(raft.commit_index),
        wants_snapshot=wants_snapshot,
        configuration=raft.known_configuration.entry,
        last=raft.terms.last,
        commit_index=raft.commit_index,
    )


def _answer_as_reserve(raft: State, leader: MemberId, message: AppendEntries) -> None:
    """It has no log, so it acknowledges nothing (C33). While its log is being deleted it is
    silent: the leader waits for the end of that."""
    if not raft.is_wiping:
        entry = raft.known_configuration.entry
        reply = AppendReply(
            raft.current_term, message.request, True, 0, NO_ENTRY, configuration=entry
        )
        raft.send(leader, reply)


def hear_leader(raft: State, leader: MemberId) -> bool:
    """Note a message that names `leader` as the leader of this term; False, and no sign of a
    leader, when another member is known to lead it."""
    if raft.leader != leader:
        if raft.leader != NOBODY:
            raft.ignored += 1  # two leaders of one term cannot be: forged or corrupt (I1)
            return False
        raft.become_follower(raft.current_term, leader)
    raft.pre_vote_round = None
    raft.leader_active_until_ms = raft.now_ms + raft.options.election_timeout_ms
    raft.draw_election_timeout()
    return True


def is_well_formed(message: AppendEntries) -> bool:
    """Whether any leader could have made the message; if none could, its sender is broken."""
    prev_term, prev_index = message.prev
    span_term, first, end = message.span
    return (
        message.request >= 1
        and prev_index >= 0
        and 0 <= prev_term <= message.term
        and (prev_term == 0) == (prev_index == 0)
        and first == message.prev.next
        and first <= end <= TERM_MAX
        and prev_term <= span_term <= message.term
        and message.leader_commit >= 0
        and 0 <= message.deletion_floor <= message.leader_commit
    )


def append_received(raft: State, span: Span, configuration: Configuration | None) -> None:
    """Append new entries of a leader, or of a feeder, and first delete what conflicts with them
    and nothing else (Raft paper, section 5.3)."""
    terms = raft.terms
    if span.first <= terms.last_index:
        after = span.first - 1
        require(
            after >= raft.commit_index and after >= raft.commit_ceiling,
            "a member asked to replace committed entries (did several members come back with "
            "older copies of their directories?)",
            member=raft.member,
            leader=raft.leader,
            span=span,
            commit_index=raft.commit_index,
            commit_ceiling=raft.commit_ceiling,
        )
        terms.truncate(after)
        raft.acknowledgements.log_term = raft.current_term
        raft.durable_index = min(raft.durable_index, after)
        raft.synced_index = min(raft.synced_index, after)
        # C6: a sync in flight proves nothing about what is appended after this truncation.
        raft.syncs = deque((ticket, min(index, after), ms) for ticket, index, ms in raft.syncs)
        raft.effects.append(Truncate(after))
        membership.on_truncated(raft, after)
    terms.append(span)
    raft.effects.append(Append(span, Content.RECEIVED, configuration))
    if configuration is not None:
        membership.on_appended(raft, configuration)
    elif raft.configurations.announced is not None:
        membership.on_log_changed(raft)
    raft.note_entry(span.term)
    raft.sync()


def on_synced(raft: State) -> None:
    """More is durable: report it to the leader of this term, and commit what was verified and
    waited for the disk (C1, C24). A member that deletes its log reports nothing (C33)."""
    if raft.is_reserve:
        return
    match_index = min(raft.verified_index, raft.durable_index)
    if raft.leader != NOBODY and match_index > raft.reported_index:
        raft.reported_index = match_index
        raft.send(raft.leader, _accepted(raft, raft.accepted_request, match_index))
    _advance_commit(raft)


def _advance_commit(raft: State) -> None:
    index = min(raft.commit_ceiling, raft.durable_index)
    if index > raft.commit_index:
        raft.commit_index = index
        raft.effects.append(Commit(index))
        if index >= raft.next_configuration_index:
            membership.on_committed(raft)


def on_leader_unreachable(raft: State) -> None:
    """The link to the leader broke: ask for votes after a short random delay, not a full timeout.

    Only this member stops to regard the leader as active. If the leader is alive, the others
    still hear it and refuse their votes, and its next message makes it the leader here again.
    """
    raft.leader_active_until_ms = raft.now_ms
    raft.change_role(ServerState.FOLLOWER, NOBODY)
    before_ms = raft.election_at_ms
    raft.campaign_within(0, raft.options.election_timeout_ms // 8)
    raft.election_at_ms = min(raft.election_at_ms, before_ms)
