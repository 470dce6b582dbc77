"""The law of the entries that say whether members are heard (C38)."""

from __future__ import annotations

from copycat.machine.apply_result import AvailabilityChanged
from copycat.sim.checkers.log_history import violated

__all__ = ["StatusChecker"]


class StatusChecker:
    """C38: the entries about one member alternate, and tell that it is available again not within
    an election timeout of the one before, by log time."""

    def __init__(self, election_timeout_ms: int) -> None:
        self._election_timeout_ms = election_timeout_ms
        self._first_shown: dict[int, AvailabilityChanged] = {}
        self._newest: dict[int, AvailabilityChanged] = {}
        """By member: the last entry about it."""

    def applied(self, number: int, change: AvailabilityChanged) -> bool:
        """A member applied it; whether it is the first one that did. The first one to apply an
        entry has applied all before it."""
        shown = self._first_shown.setdefault(change.index, change)
        if shown != change:
            raise violated("C38", "one entry, two contents", member=number, here=change, was=shown)
        before = self._newest.get(change.member)
        if before is not None and change.index <= before.index:
            return False
        self._newest[change.member] = change
        was_available = before is None or before.is_available
        is_early = (
            before is not None
            and change.is_available
            and change.time_ms < before.time_ms + self._election_timeout_ms
        )
        if was_available is change.is_available or is_early:
            raise violated(
                "C38", "news that are none, or too soon", member=number, now=change, before=before
            )
        return True
