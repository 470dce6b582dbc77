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
from copycat.raft.effects import Append, Commit, Content, Truncate
from copycat.raft.state import NOBODY, TERM_MAX, State
from copycat.types import NO_ENTRY, MemberId, ServerState, Span

__all__ = [
    "hear_leader",
    "is_well_formed",
    "on_append_entries",
    "on_leader_unreachable",
    "on_synced",
]


def on_append_entries(
    raft: State, sender: MemberId, message: AppendEntries, *, has_gaps: bool
) -> None:
    """Entries or a heartbeat. `core.py` applied the term rule before: the term is not a newer one.

    1. An old term: answer with the current term, change nothing, and leave the election timer.
    2. The entry before the span is not in this log: reject, and hint where both may be equal.
    3. The entries have gaps, and this log may lack more than the gaps stand for: reject, and ask
    for a snapshot (docs/decisions/0017).
    4. Else append what is new, answer at once how much of it is durable (C1), and commit up to
    what this very message verified (C2).
    """
    term = message.term
    if term < raft.current_term:
        reply = AppendReply(raft.current_term, message.request, False, 0, NO_ENTRY)
        raft.send(sender, reply)
        return
    if not hear_leader(raft, message.leader):
        return
    if message.configuration == raft.configuration.entry:
        raft.cluster_deletion_floor = max(raft.cluster_deletion_floor, message.deletion_floor)
    terms = raft.terms
    prev = message.prev
    # An entry below the log cannot be compared: a snapshot covers it, so it is committed, and a
    # leader has what is committed.
    if prev.index > terms.last_index or (
        prev.index >= terms.before.index and terms.term_at(prev.index) != prev.term
    ):
        hint = terms.last_at_or_below(prev)
        raft.send(sender, AppendReply(term, message.request, False, 0, hint))
        return
    span = message.span
    end = span.end
    if has_gaps and not raft.eligibility.accepts_gaps:
        hint = terms.last_at_or_below(prev)
        reply = AppendReply(term, message.request, False, 0, hint, wants_snapshot=True)
        raft.send(sender, reply)
        return
    if span.first <= terms.before.index < end and span.term != terms.before.term:
        raft.ignored += 1  # no leader holds another entry there
        return
    if end > span.first:
        first = terms.first_conflict(span)
        if first < end:
            _append(raft, Span(span.term, first, end))
    verified = end - 1
    raft.verified_index = max(raft.verified_index, verified)
    raft.accepted_request = max(raft.accepted_request, message.request)
    match_index = min(verified, raft.durable_index)
    raft.reported_index = max(raft.reported_index, match_index)
    stable_index = raft.stable_index(match_index)
    raft.send(
        sender, AppendReply(term, message.request, True, match_index, NO_ENTRY, stable_index)
    )
    ceiling = min(message.leader_commit, verified)
    if ceiling > raft.commit_ceiling:
        raft.commit_ceiling = ceiling
        _advance_commit(raft)


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


def _append(raft: State, span: Span) -> None:
    """Append the new entries, and first delete what conflicts with them and nothing else (Raft
    paper, section 5.3)."""
    terms = raft.terms
    if span.first <= terms.last_index:
        after = span.first - 1
        require(
            after >= raft.commit_index and after >= raft.commit_ceiling,
            "a leader asked to replace committed entries (did several members come back with "
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
    terms.append(span)
    raft.effects.append(Append(span, Content.RECEIVED))
    raft.note_entry(span.term)
    raft.sync()


def on_synced(raft: State) -> None:
    """More is durable: report it to the leader of this term, and commit what was verified and
    waited for the disk (C1, C24)."""
    match_index = min(raft.verified_index, raft.durable_index)
    if raft.leader != NOBODY and match_index > raft.reported_index:
        raft.reported_index = match_index
        reply = AppendReply(
            raft.current_term,
            raft.accepted_request,
            True,
            match_index,
            NO_ENTRY,
            raft.stable_index(match_index),
        )
        raft.send(raft.leader, reply)
    _advance_commit(raft)


def _advance_commit(raft: State) -> None:
    index = min(raft.commit_ceiling, raft.durable_index)
    if index > raft.commit_index:
        raft.commit_index = index
        raft.effects.append(Commit(index))


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
