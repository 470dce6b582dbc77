"""A transfer of leadership that somebody asked for, from the request to who was heard to lead.

The target gets everything first, while nothing new is proposed, and is then told to campaign.
Its election takes the old leader's role at once, and proves nothing: a target that campaigns may
lose. So the old leader waits until it hears who leads, and only then says how it went.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from copycat.raft.effects import TransferFailure, TransferFinished
from copycat.raft.progress import ProgressState
from copycat.types import MemberId, ServerState

if TYPE_CHECKING:
    from copycat.raft.leader_state import LeaderState
    from copycat.raft.state import State

__all__ = ["Transfer", "on_leader_known", "on_step_down", "on_tick", "why_late"]


class Transfer:
    """This member gave up its role for `to`, and has not heard since who leads.

    is_any: the caller left it to this member to whom.  until_ms: when it stops to wait.
    """

    __slots__ = ("is_any", "to", "until_ms")

    def __init__(self, to: MemberId, until_ms: int, *, is_any: bool) -> None:
        self.to = to
        self.until_ms = until_ms
        self.is_any = is_any


def why_late(raft: State, leader_state: LeaderState) -> TransferFinished:
    """The time of a transfer is over, and this member leads still."""
    progress = leader_state.progress[leader_state.transfer_to]
    to, lacks = leader_state.transfer_to, raft.terms.last_index - progress.counted_index
    if not leader_state.is_transfer_asked:
        return TransferFinished(ok=False)
    if progress.state is ProgressState.LOST and not progress.has_regressed:
        return TransferFinished(ok=False, failure=TransferFailure.UNREACHABLE, to=to)
    if lacks:
        return TransferFinished(ok=False, failure=TransferFailure.LAGS, lacks=lacks, to=to)
    return TransferFinished(ok=False, failure=TransferFailure.SILENT, to=to)


def on_step_down(raft: State, leader_state: LeaderState, term: int) -> None:
    """This member does not lead any more, since it heard of `term`; who does is not known."""
    if leader_state.transfer_to == 0:
        return
    if not leader_state.is_transfer_asked:
        raft.effects.append(TransferFinished(ok=term > leader_state.term))
    elif term > leader_state.term:
        until_ms = raft.now_ms + raft.options.election_timeout_ms
        raft.transfer = Transfer(
            leader_state.transfer_to, until_ms, is_any=leader_state.is_transfer_to_any
        )
    else:
        failure = TransferFailure.QUORUM_LOST
        raft.effects.append(
            TransferFinished(ok=False, failure=failure, to=leader_state.transfer_to)
        )


def on_leader_known(raft: State) -> None:
    """Somebody was heard to lead, or this member was elected itself."""
    transfer = raft.transfer
    if transfer is None or raft.leader == 0:
        return
    raft.transfer = None
    is_mine = raft.state is ServerState.LEADER
    ok = not is_mine and (transfer.is_any or raft.leader == transfer.to)
    failure = None if ok else TransferFailure.ANOTHER_LEADS
    raft.effects.append(TransferFinished(ok=ok, failure=failure, to=transfer.to))


def on_tick(raft: State) -> None:
    """Nobody was heard to lead in time: the target campaigned, and lost or went away."""
    transfer = raft.transfer
    if transfer is not None and raft.now_ms >= transfer.until_ms:
        raft.transfer = None
        failure = TransferFailure.NOBODY_LEADS
        raft.effects.append(TransferFinished(ok=False, failure=failure, to=transfer.to))
