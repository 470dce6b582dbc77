"""What a member makes of entries that another one feeds it.

A feeder serves facts: what it sends is committed there, and therefore true in every term (C26).
So nobody asks who leads, and nothing is acknowledged to a leader by it. Only a follower takes
fed entries.
"""

from __future__ import annotations

from copycat.raft import election
from copycat.raft.events import EntriesFed
from copycat.raft.follower import append_received, raise_commit_ceiling
from copycat.raft.state import NOBODY, TERM_MAX, State
from copycat.types import ServerState, Span

__all__ = ["on_entries_fed"]


def on_entries_fed(raft: State, event: EntriesFed) -> None:
    """Append what is new of the span, and commit up to its end.

    1. A candidate or a leader drops it, as does a member that has no log.
    2. The term of the feeder is adopted if it is higher, with no leader known: what is fed may
    have been committed in that term, and replace what a leader of this one still counts.
    3. The entry before the span is not in this log, or gaps may not stand for what it lacks: the
    replica asks from another place, or for a snapshot.
    """
    if not _is_well_formed(event) or not election.is_plausible_term(raft, event.term):
        raft.ignored += 1
        return
    if raft.state is not ServerState.FOLLOWER or raft.is_reserve:
        raft.ignored += 1
        return
    if event.term > raft.current_term:
        raft.become_follower(event.term, NOBODY)
    terms, prev, span = raft.terms, event.prev, event.span
    if prev.index > terms.last_index or (
        prev.index >= terms.before.index and terms.term_at(prev.index) != prev.term
    ):
        return
    if event.has_gaps and not raft.eligibility.accepts_gaps:
        return
    end = span.end
    if span.first <= terms.before.index < end and span.term != terms.before.term:
        raft.ignored += 1  # no other entry can be committed there
        return
    if end > span.first:
        first = terms.first_conflict(span)
        if first < end:
            append_received(raft, Span(span.term, first, end), event.configuration)
    raise_commit_ceiling(raft, end - 1)


def _is_well_formed(event: EntriesFed) -> bool:
    """Whether a feeder could have sent it."""
    prev_term, prev_index = event.prev
    span_term, first, end = event.span
    return (
        prev_index >= 0
        and (prev_term == 0) == (prev_index == 0)
        and first == event.prev.next
        and first <= end <= TERM_MAX
        and prev_term <= span_term <= event.term
    )
