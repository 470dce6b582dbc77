"""A transfer of leadership, from the request until it is known who leads.

The target is sent everything first, while nothing new is proposed, and is then asked to campaign.
Its election ends the old leader's role at once, but the target may lose that election. So the old
leader waits until it hears who leads, and only then reports how the transfer ended.
"""

from __future__ import annotations

from copycat.raft.effects import TransferFailure, TransferFinished
from copycat.raft.leader_state import LeaderState
from copycat.raft.progress import ProgressState
from copycat.types import MemberId

__all__ = ["Transfer", "on_step_down", "on_transfer_timeout"]


class Transfer:
    """This member gave up its role for `to`, and has not heard since who leads.

    is_any: whether the caller left the choice of the target to this member.  until_ms: when this
    member stops to wait.
    """

    __slots__ = ("is_any", "to", "until_ms")

    def __init__(self, to: MemberId, until_ms: int, *, is_any: bool) -> None:
        self.to = to
        self.until_ms = until_ms
        self.is_any = is_any

    def on_leader_known(self, leader: MemberId, member: MemberId) -> TransferFinished:
        """It is known that `leader` leads; that may be `member`, this one."""
        ok = leader != member and (self.is_any or leader == self.to)
        failure = None if ok else TransferFailure.ANOTHER_LEADS
        return TransferFinished(ok=ok, failure=failure, to=self.to)

    def on_timeout(self) -> TransferFinished:
        """No leader was heard in time: the target lost its election, or cannot be heard."""
        return TransferFinished(ok=False, failure=TransferFailure.NOBODY_LEADS, to=self.to)


def on_transfer_timeout(leader_state: LeaderState, last_index: int) -> TransferFinished:
    """The time of a transfer is over, and this member, whose log ends at `last_index`, leads."""
    progress = leader_state.progress[leader_state.transfer_to]
    to, lacks = leader_state.transfer_to, last_index - progress.counted_index
    if not leader_state.is_transfer_requested:
        return TransferFinished(ok=False)
    if progress.state is ProgressState.LOST and not progress.has_regressed:
        return TransferFinished(ok=False, failure=TransferFailure.UNREACHABLE, to=to)
    if lacks:
        return TransferFinished(ok=False, failure=TransferFailure.LAGS, lacks=lacks, to=to)
    return TransferFinished(ok=False, failure=TransferFailure.SILENT, to=to)


def on_step_down(
    leader_state: LeaderState, term: int, until_ms: int
) -> Transfer | TransferFinished | None:
    """What becomes of a transfer when this member stops leading, since it heard of `term`.

    It is not known who leads now, so a transfer that was requested continues until `until_ms`.
    None: no transfer was under way.
    """
    to = leader_state.transfer_to
    if to == 0:
        return None
    if not leader_state.is_transfer_requested:
        return TransferFinished(ok=term > leader_state.term)
    if term > leader_state.term:
        return Transfer(to, until_ms, is_any=leader_state.is_transfer_to_any)
    return TransferFinished(ok=False, failure=TransferFailure.QUORUM_LOST, to=to)
