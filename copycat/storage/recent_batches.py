"""The newest batches of a log, kept in memory as they were appended (`entry_buffer_size`).

`RecentBatches` keeps them, for the bare log and for a member alike. `BatchReader` is how a member
reads its log: the batch that was just appended is nearly always the one that every peer wants
next, and the one that is applied next, so the log is read only for those that lag.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from copycat.storage import interface
    from copycat.storage.interface import ReplicaLog

__all__ = ["BatchReader", "RecentBatches"]

_NONE = 1 << 64
"""Above every index."""

BYTES_MAX = 16 << 20
_BATCH_BYTES = 512
"""What a batch takes beside its frames."""

_Batch = TypeVar("_Batch", bound="interface.Batch")
_Row: TypeAlias = tuple[int, int, _Batch, int, int]


class RecentBatches(Generic[_Batch]):
    """About `entries_max` entries and `bytes_max` bytes, in whole batches.

    Each change is one step on one list, and what was counted is in its rows: an exception
    between two steps leaves it whole. It may lack any batch; it must not have one that the log
    has not, so it forgets before the log drops something, and adds after an append.

    keeps_newest: the newest batch is kept even if it is larger than the limits. Where the bytes
    allow it, at least `entries_max` entries before the newest batch are kept as well: so a peer
    that is one batch behind reads from here, however many entries a batch has. Otherwise at most
    `entries_max` are kept.
    """

    def __init__(
        self, entries_max: int, bytes_max: int = BYTES_MAX, *, keeps_newest: bool = False
    ) -> None:
        self.entries_max = entries_max
        self._bytes_max = bytes_max
        self._keeps_newest = keeps_newest
        self._rows: list[_Row[_Batch]] = []
        """(first, end, batch, entries before it, bytes before it), counted from any batch on."""
        self.first_index = _NONE
        """The lowest index that may be here: most reads are of older ones, and need no search.
        Where it is too high, the log is asked, which is right as well."""
        self.applied = _NONE
        """Entries above this one are needed soon: only the limit of bytes drops them."""

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        rows = self._rows
        return rows[-1][4] + rows[-1][2].nbytes + _BATCH_BYTES - rows[0][4] if rows else 0

    def add(self, batch: _Batch) -> None:
        """Remember what was just appended, and drop the oldest beyond the limits."""
        rows = self._rows
        _, first, end = batch.span
        entries = nbytes = 0
        if rows:
            begin, before, newest, entries, nbytes = rows[-1]
            entries += before - begin
            nbytes += newest.nbytes + _BATCH_BYTES
        entries_from = entries + end - first - self.entries_max
        if self._keeps_newest:
            entries_from -= end - first
        nbytes_from = nbytes + batch.nbytes + _BATCH_BYTES - self._bytes_max
        needed_from = self.applied + 1
        drop = 0
        while drop < len(rows):
            begin, before, _, entries_before, nbytes_before = rows[drop]
            counted = entries_before + (before - begin if self._keeps_newest else 1)
            if nbytes_before >= nbytes_from and (counted > entries_from or before > needed_from):
                break
            drop += 1
        if drop:
            del rows[:drop]
        if self._keeps_newest or (entries >= entries_from and nbytes >= nbytes_from):
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

    def find(self, index: int) -> _Batch | None:
        """The batch that holds entry `index`, if it is kept."""
        rows = self._rows
        if not rows:
            return None
        at = index - rows[0][0]  # where it is when each batch has one entry
        if not (0 <= at < len(rows) and rows[at][0] == index):
            at = bisect_left(rows, (index + 1,)) - 1
        return rows[at][2] if at >= 0 and index < rows[at][1] else None


class BatchReader:
    """A log as its member reads it: the newest batches from memory, the rest from the log."""

    def __init__(
        self, log: ReplicaLog, recent: RecentBatches[interface.Batch], read_bytes_max: int
    ) -> None:
        self._log = log
        self._recent = recent
        recent.applied = 0
        self._read_bytes_max = read_bytes_max
        self._last_read: interface.Batch | None = None

    @property
    def recent_index(self) -> int:
        """From this entry on the log is in memory; as many entries as are kept anyhow count as if
        they were, so that a log that was just opened has some within reach (C29)."""
        least = self._log.last_index + 1 - self._recent.entries_max
        return max(1, min(self._recent.first_index, least))

    def add(self, batch: interface.Batch) -> None:
        """Remember a batch that was appended."""
        self._recent.add(batch)

    def applied_up_to(self, index: int) -> None:
        """Entries up to `index` are applied: the limit of entries counts for them again."""
        self._recent.applied = index

    def truncate(self, after: int) -> None:
        """Forget every batch that reaches above `after`."""
        self._recent.truncate(after)
        if self._last_read is not None and self._last_read.span.last > after:
            self._last_read = None

    def read(self, first: int, end: int) -> interface.Batch:
        """A batch that starts at `first` and ends at `end` or before; one entry at least."""
        batch = self._recent.find(first)
        if batch is None and first < self._recent.first_index:
            batch = self._last_read
        if batch is None or not batch.span.first <= first < batch.span.end:
            batch = self._last_read = self._log.read(
                first, self._log.last_index + 1, self._read_bytes_max
            )
        if batch.span.first == first and batch.span.end <= end:
            return batch
        return batch.slice(first, min(end, batch.span.end))

    def gather(self, first: int, end: int) -> interface.Batch:
        """As `read`, but over the borders of small batches: as much as one message takes.

        A peer that lags behind a stream of small batches would else be sent one of them a round
        trip, and never come nearer while its disk is the slower one.
        """
        batch = self.read(first, end)
        if batch.span.end < end and 2 * batch.nbytes <= self._read_bytes_max:
            return self._log.read(first, end, self._read_bytes_max)
        return batch

    def walk(self, first: int, end: int) -> Iterator[interface.Batch]:
        """Batches that tile [first, end)."""
        while first < end:
            batch = self.read(first, end)
            yield batch
            first = batch.span.end
