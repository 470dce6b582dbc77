"""What a leader sends to a peer next, and when. Integers only: the replica adds the bytes."""

from __future__ import annotations

from copycat.raft.effects import Replicate
from copycat.raft.leader_state import LeaderState
from copycat.raft.progress import Progress, ProgressState
from copycat.raft.state import State
from copycat.types import MemberId, Span

__all__ = ["replicate", "send_heartbeat"]


def replicate(raft: State, leader_state: LeaderState, peer: MemberId, progress: Progress) -> None:
    """Ship the next entries if there are any and the window of `peer` has room.

    One `Replicate` at a time waits for its `Sent`. That event says how much of the span really
    left, and leads here again.
    """
    state = progress.state
    end = raft.terms.end
    if (
        progress.pending_request
        or progress.next_index >= end
        or state is ProgressState.LOST
        or state is ProgressState.SNAPSHOT
        or len(progress.sent) >= (raft.options.window if state is ProgressState.REPLICATE else 1)
    ):
        return
    request = _number(raft, leader_state, progress)
    progress.pending_request = request
    next_index = progress.next_index
    raft.effects.append(
        Replicate(
            peer,
            request,
            raft.terms.entry_at(next_index - 1),
            raft.terms.span_from(next_index, end),
            raft.commit_index,
            min(raft.cluster_deletion_floor, raft.commit_index),
        )
    )


def send_heartbeat(
    raft: State, leader_state: LeaderState, peer: MemberId, progress: Progress
) -> None:
    """A heartbeat: empty, right before next_index.

    It finds out what was lost: a follower that lacks what was sent rejects it, and one whose
    replies were lost answers with all that it holds. No window ever stays full for good.
    """
    request = _number(raft, leader_state, progress)
    next_index = progress.next_index
    progress.note_sent(request, next_index)
    prev = raft.terms.entry_at(next_index - 1)
    span = Span(raft.current_term, next_index, next_index)
    deletion_floor = min(raft.cluster_deletion_floor, raft.commit_index)
    raft.effects.append(Replicate(peer, request, prev, span, raft.commit_index, deletion_floor))


def _number(raft: State, leader_state: LeaderState, progress: Progress) -> int:
    leader_state.request += 1
    progress.last_request = leader_state.request
    progress.commit_sent = raft.commit_index
    return leader_state.request
