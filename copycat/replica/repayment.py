"""A member that owes entries: it says so, and forgets the debt once its log holds them again.

The core decides when that is (C12); what is here only talks and removes a file.
"""

from __future__ import annotations

import logging

from copycat.errors import require
from copycat.log.debt import Debt
from copycat.raft.events import GapsKnown, LossAccepted
from copycat.replica.carry import Parts

__all__ = ["Repayment"]

log = logging.getLogger("copycat.replica")

AGAIN_MS = 5_000
"""So often it is said what is missing."""


class Repayment:
    """debt: as the directory was opened with; None for nothing."""

    def __init__(self, parts: Parts, address: str, debt: Debt | None) -> None:
        self._parts = parts
        self._address = address
        self._debt = debt
        self._again_ms = 0
        if debt is not None and debt.is_given_up:
            effects = parts.raft.step(LossAccepted(debt.owed))
            require(not effects, "nothing follows from an accepted loss", effects=effects)

    @property
    def owed(self) -> str:
        """The entries that are missing, in words; empty when none is."""
        return str(self._debt) if self._debt is not None and self._parts.raft.owes else ""

    def gaps_known(self) -> GapsKnown:
        """How far the holes of this log prove what was committed (C22).

        Not where it was given up: the entries that are there now are others.
        """
        valid_from, debt = self._parts.log.valid_from, self._debt
        if debt is not None and debt.is_given_up and valid_from >= debt.first_index:
            valid_from = 0
        return GapsKnown(valid_from)

    def keep(self, now_ms: int) -> None:
        """Now and then, in a turn: settle, or say what is missing and what it waits for."""
        debt, raft = self._debt, self._parts.raft
        if debt is None:
            return
        if not (raft.owes or raft.has_given_up):
            self._debt = None
            self._parts.host.aside(debt.settle, lambda _: None)
            how = "were given up" if debt.is_given_up else "are here again"
            log.warning("%s: %s %s: it votes as ever", self._address, debt, how)
        elif raft.owes and now_ms >= self._again_ms:
            self._again_ms = now_ms + AGAIN_MS
            log.warning(
                "%s: %s were damaged on this disk (%d are here): it votes only for a member that"
                " has them, and waits for a leader to give them back",
                self._address,
                debt,
                self._parts.log.last_index,
            )
