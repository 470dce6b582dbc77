"""One pump: what goes to a peer, and when. Integers only; the replica adds the bytes."""

from __future__ import annotations

from copycat.raft.effects import Replicate
from copycat.raft.leader_state import LeaderState
from copycat.raft.progress import Progress, ProgressState
from copycat.raft.state import State
from copycat.types import MemberId, Span

__all__ = ["beat", "pump"]


def pump(raft: State, lead: LeaderState, peer: MemberId, progress: Progress) -> None:
    """Ship the next entries if there are any and the window of `peer` has room.

    One `Replicate` at a time waits for its `Sent`, which says how much of it really left and
    pumps again.
    """
    pace = progress.pace
    end = raft.terms.end
    if (
        progress.asked_request
        or progress.next_index >= end
        or pace is ProgressState.LOST
        or pace is ProgressState.SNAPSHOT
        or len(progress.sent) >= (raft.options.window if pace is ProgressState.REPLICATE else 1)
    ):
        return
    request = _number(raft, lead, progress)
    progress.asked_request = request
    next_index = progress.next_index
    raft.effects.append(
        Replicate(
            peer,
            request,
            raft.terms.entry_at(next_index - 1),
            raft.terms.span_from(next_index, end),
            raft.commit_index,
            min(raft.floor_known, raft.commit_index),
        )
    )


def beat(raft: State, lead: LeaderState, peer: MemberId, progress: Progress) -> None:
    """A heartbeat: empty, right before next_index.

    It finds out what was lost: a follower that lacks what was sent rejects it, and one whose
    replies were lost answers with all that it holds. No window ever stays full for good.
    """
    request = _number(raft, lead, progress)
    next_index = progress.next_index
    progress.note_sent(request, next_index)
    prev = raft.terms.entry_at(next_index - 1)
    span = Span(raft.current_term, next_index, next_index)
    floor = min(raft.floor_known, raft.commit_index)
    raft.effects.append(Replicate(peer, request, prev, span, raft.commit_index, floor))


def _number(raft: State, lead: LeaderState, progress: Progress) -> int:
    lead.request += 1
    progress.last_request = lead.request
    progress.commit_sent = raft.commit_index
    return lead.request
