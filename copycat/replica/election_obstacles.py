"""What keeps this member, or one that it knows of, from voting or from leading: in words."""

from __future__ import annotations

from copycat.raft.core import Raft
from copycat.raft.eligibility import Restriction
from copycat.replica.recovery_status import RecoveryStatus

__all__ = ["ElectionObstacles"]


class ElectionObstacles:
    """Asked while no leader is known, for the clients that wait for one.

    address: of this member.
    """

    def __init__(self, address: str, raft: Raft, recovery: RecoveryStatus) -> None:
        self._address = address
        self._raft = raft
        self._recovery = recovery

    def texts(self) -> list[str]:
        """A clause for each obstacle; none when the next election may elect this member."""
        raft, address = self._raft, self._address
        restrictions = raft.eligibility.restrictions
        missing_entries = self._recovery.missing_entries
        clauses = []
        if raft.storage_full:
            clauses.append(f"the disk of {address} is full, so it does not campaign")
        if missing_entries:
            clauses.append(
                f"{address} misses {missing_entries} and votes only for a member that has them"
            )
        if Restriction.LOST in restrictions:
            clauses.append(
                f"{address} may lack entries that it had acknowledged, and has no vote until a"
                " leader has sent it newer ones"
            )
        elif Restriction.FRESH in restrictions:
            clauses.append(
                f"the directory of {address} is empty, and it has no vote until a leader or a"
                " majority with empty directories shows that nothing was lost"
            )
        clauses += [
            f"{peer} runs on an older copy of its directory and does not count until it has its"
            " entries again"
            for peer in self._recovery.regressed
            if peer != address
        ]
        return clauses
