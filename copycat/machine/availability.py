"""Which members the leaders hear, as their entries say (C38): a part of the state.

The newest entry of each member counts; the one before it is released, and so are the entries of
who is no member any more. So a log keeps at most one for each member.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from copycat.machine.apply_result import AvailabilityChanged
from copycat.machine.release_tracker import ReleaseTracker
from copycat.types import Release

__all__ = ["AvailabilityRow", "AvailabilityTable", "SavedRow"]

SavedRow = tuple[bytes, int, bool, int, int]
"""A row as a snapshot has it: member, index, is_available, time_ms, policy."""


class AvailabilityRow(NamedTuple):
    """What the newest entry about one member says."""

    index: int  # type: ignore[assignment]  # shadows tuple.index on purpose
    is_available: bool
    time_ms: int
    """Log time of the entry."""
    policy: Release
    """How it is released when a newer entry takes its place."""


class AvailabilityTable:
    """By member; without a row a member is available."""

    def __init__(self) -> None:
        self._rows: dict[int, AvailabilityRow] = {}

    def record(
        self, member: int, row: AvailabilityRow, tracker: ReleaseTracker
    ) -> AvailabilityChanged:
        """An entry is applied; the one that it replaces is released."""
        self._release(member, tracker)
        self._rows[member] = row
        return AvailabilityChanged(member, row.is_available, row.index, row.time_ms)

    def retain(self, members: Collection[int], tracker: ReleaseTracker) -> None:
        """Forget who is no member any more: nobody is added again under the same id."""
        for member in [member for member in self._rows if member not in members]:
            self._release(member, tracker)

    def _release(self, member: int, tracker: ReleaseTracker) -> None:
        row = self._rows.pop(member, None)
        if row is not None:
            tracker.release(row.index, row.policy, 0)

    def rows(self) -> dict[int, AvailabilityRow]:
        """A copy of all rows."""
        return dict(self._rows)

    def packed(self) -> list[SavedRow]:
        """All rows, in the order of the members, which is the same on every member."""
        return [
            (
                member.to_bytes(16, "little"),
                row.index,
                row.is_available,
                row.time_ms,
                int(row.policy),
            )
            for member, row in sorted(self._rows.items())
        ]

    def replace(self, rows: list[SavedRow]) -> None:
        """Put what a snapshot says in place of everything."""
        self._rows = {
            int.from_bytes(member, "little"): AvailabilityRow(
                index, is_available, time_ms, Release(policy)
            )
            for member, index, is_available, time_ms, policy in rows
        }
