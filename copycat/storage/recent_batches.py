"""The newest entries of a log, kept in memory as they were appended (`entry_buffer_size`)."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from copycat.storage._native import Batch

    _Row: TypeAlias = tuple[int, int, Batch, int, int]

__all__ = ["RecentEntries"]

_NONE = 1 << 64
"""Above every index."""

BYTES_MAX = 16 << 20
_BATCH_BYTES = 512
"""What a batch takes beside its frames."""


class RecentEntries:
    """At most `entries_max` entries and about 16 MiB in whole batches; what is longer alone is
    not kept at all.

    Each change is one step on one list, and what was counted is in its rows: an exception
    between two steps leaves it whole. It may lack any batch; it must not have one that the log
    has not, so it forgets before the log drops something, and adds after an append.
    """

    def __init__(self, entries_max: int, bytes_max: int = BYTES_MAX) -> None:
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._rows: list[_Row] = []
        """(first, end, batch, entries before it, bytes before it), counted from any batch on."""
        self.first_index = _NONE
        """The lowest index that may be here: most reads are of older ones, and need no search.
        Where it is too high, the log is asked, which is right as well."""

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        rows = self._rows
        return rows[-1][4] + rows[-1][2].nbytes + _BATCH_BYTES - rows[0][4] if rows else 0

    def add(self, batch: Batch) -> None:
        """Remember what was just appended; the oldest go."""
        rows = self._rows
        _, first, end = batch.span
        entries = nbytes = 0
        if rows:
            begin, stop, newest, entries, nbytes = rows[-1]
            entries += stop - begin
            nbytes += newest.nbytes + _BATCH_BYTES
        least_entries = entries + end - first - self._entries_max
        least_nbytes = nbytes + batch.nbytes + _BATCH_BYTES - self._bytes_max
        drop = 0
        while drop < len(rows) and (rows[drop][3] < least_entries or rows[drop][4] < least_nbytes):
            drop += 1
        if drop:
            del rows[:drop]
        if entries >= least_entries and nbytes >= least_nbytes:  # it fits alone
            rows.append((first, end, batch, entries, nbytes))
        self._look()

    def truncate(self, after: int) -> None:
        """Forget every batch that reaches above `after`."""
        at = len(self._rows)
        while at and self._rows[at - 1][1] > after + 1:
            at -= 1
        del self._rows[at:]
        self._look()

    def trim(self, before: int) -> None:
        """Forget every batch that lies below `before`."""
        at = 0
        while at < len(self._rows) and self._rows[at][1] <= before:
            at += 1
        del self._rows[:at]
        self._look()

    def clear(self) -> None:
        """Forget all."""
        self._rows.clear()
        self._look()

    def _look(self) -> None:
        rows = self._rows
        self.first_index = rows[0][0] if rows else _NONE

    def find(self, index: int) -> Batch | None:
        """The batch that holds entry `index`, if it is kept."""
        rows = self._rows
        if not rows:
            return None
        at = index - rows[0][0]  # where it is when each batch has one entry
        if not (0 <= at < len(rows) and rows[at][0] == index):
            at = bisect_left(rows, (index + 1,)) - 1
        return rows[at][2] if at >= 0 and index < rows[at][1] else None
