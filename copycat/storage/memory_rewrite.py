"""Compaction of the log in memory: what `csrc/compactor.cpp` does, on batches."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from copycat.storage._native import Batch, encode_gap
from copycat.types import NO_ENTRY, CompactionLimits, EntryId, Release

__all__ = ["MemoryRewrite", "MemorySegment", "MemorySegments", "RewriteGroup", "reach"]


class _Row(NamedTuple):
    """A batch, and how much all batches of its segment up to it come to."""

    first: int
    batch: Batch
    nbytes: int
    count: int  # type: ignore[assignment]  # shadows tuple.count on purpose


class MemorySegment:
    """Some batches in a row; sealed when the next segment begins.

    It grows by one step on one list, so that an exception between two steps leaves it whole.
    """

    def __init__(
        self, first: int, number: int = 1, version: int = 1, *, before: EntryId = NO_ENTRY
    ) -> None:
        self.first = first
        self.number = number
        self.version = version
        self.before = before
        """The entry below the first one."""
        self._rows: list[_Row] = []

    @property
    def is_empty(self) -> bool:
        return not self._rows

    @property
    def end(self) -> int:
        return self._rows[-1].batch.span.end if self._rows else self.first

    @property
    def last_entry(self) -> EntryId:
        """What precedes the next segment."""
        if not self._rows:
            return self.before
        span = self._rows[-1].batch.span
        return EntryId(span.term, span.last)

    @property
    def nbytes(self) -> int:
        return self._rows[-1].nbytes if self._rows else 0

    @property
    def count(self) -> int:
        """Entries in it, gaps left out."""
        return self._rows[-1].count if self._rows else 0

    @property
    def batches(self) -> list[Batch]:
        return [row.batch for row in self._rows]

    def batches_from(self, index: int) -> Iterator[Batch]:
        """From the one that holds `index` on."""
        at = bisect_left(self._rows, (index + 1,)) - 1
        return (row.batch for row in islice(self._rows, at, None))

    def add(self, batch: Batch, count: int) -> None:
        row = _Row(batch.span.first, batch, self.nbytes + batch.nbytes, self.count + count)
        self._rows.append(row)

    def cut_to(self, end: int) -> MemorySegment:
        """A copy without the entries at `end` and above."""
        copy = MemorySegment(self.first, self.number, self.version, before=self.before)
        for batch in self.batches:
            span = batch.span
            if span.first < end:
                part = batch if span.end <= end else batch.slice(span.first, end)
                copy.add(part, len(part.entries()))
        return copy


class MemorySegments(list[MemorySegment]):
    """All segments of a log, and how often entries were taken off their end."""

    def __init__(self, segments: Iterable[MemorySegment], truncations: int = 0) -> None:
        super().__init__(segments)
        self.truncations = truncations


def reach(limits: CompactionLimits, policy: Release, *, major: bool) -> int:
    """The highest index at which an entry of class `policy` may be deleted; 0 for none."""
    stable = min(limits.horizon, limits.deletion_floor)
    return {
        Release.ANY: limits.horizon,
        Release.STABLE: stable,
        Release.SEQUENTIAL: stable if major else 0,
        Release.SNAPSHOT: min(limits.horizon, limits.snapshot_index),
        Release.UNKNOWN: min(stable, limits.snapshot_index) if major else 0,
    }[policy]


class RewriteGroup(NamedTuple):
    """Neighbouring segments that become one, as they were when the rewrite was frozen."""

    ids: list[int]
    end: int
    batches: list[Batch]
    drops: frozenset[int]


class MemoryRewrite:
    """`Rewrite` without a disk: batches in, batches out."""

    def __init__(
        self, groups: Sequence[RewriteGroup], horizon: int, meet_fault: Callable[[], None]
    ) -> None:
        self.groups = groups
        self.written: list[list[Batch]] | None = None
        self._horizon = horizon
        self._meet_fault = meet_fault
        self._abandoned = False

    def run(self) -> None:
        """Copy what stays; DiskError and DiskFullError when one was injected."""
        if self._abandoned or self.written is not None:
            return
        try:
            self._meet_fault()
            written = [_cleaned(group, self._horizon) for group in self.groups]
        except BaseException:
            self._abandoned = True
            raise
        self.written = written

    def abandon(self) -> None:
        """Give up: nothing is installed any more."""
        self._abandoned = True
        self.written = None


def _cleaned(group: RewriteGroup, horizon: int) -> list[Batch]:
    """Live frames and gaps, neighbouring gaps of one term as one; one batch a run of a term."""
    parts: list[Batch] = []
    for batch in group.batches:
        times = {index: time_ms for index, _, time_ms, _ in batch.entries()}
        gaps: Mapping[int, tuple[int, int]] = {
            first: (end, valid_from) for first, end, valid_from in batch.gaps()
        }
        index, term = batch.span.first, batch.span.term
        while index < batch.span.end:
            if index in gaps:
                end, valid_from = gaps[index]
                time_ms = batch.slice(index, end).last_time_ms
                _add_gap(parts, encode_gap(term, index, end, time_ms, valid_from))
            elif index in group.drops:
                end = index + 1
                _add_gap(parts, encode_gap(term, index, end, times[index], horizon))
            else:
                end = index + 1
                parts.append(batch.slice(index, end))
            index = end
    return parts


def _add_gap(parts: list[Batch], gap: Batch) -> None:
    last = parts[-1] if parts else None
    if last is None or not last.has_gaps or last.span.term != gap.span.term:
        parts.append(gap)
        return
    before, after = last.gaps()[0], gap.gaps()[0]
    parts[-1] = encode_gap(
        gap.span.term, before[0], after[1], gap.last_time_ms, max(before[2], after[2])
    )
