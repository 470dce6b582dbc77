"""Compaction of the log in memory: what `csrc/compactor.cpp` does, on batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from copycat.log._native import Batch, encode_gap
from copycat.types import CompactionLimits, Release

__all__ = ["MemoryRewrite", "MemorySegment", "RewriteGroup", "reach"]


class MemorySegment:
    """Some batches in a row; sealed when the next segment begins."""

    def __init__(self, first: int, number: int = 1, version: int = 1) -> None:
        self.first = first
        self.number = number
        self.version = version
        self.batches: list[Batch] = []
        self.firsts: list[int] = []
        self.nbytes = 0
        self.count = 0
        """Entries in it, gaps left out."""

    @property
    def end(self) -> int:
        return self.batches[-1].span.end if self.batches else self.first

    def add(self, batch: Batch, count: int) -> None:
        self.count += count
        self.firsts.append(batch.span.first)
        self.batches.append(batch)
        self.nbytes += batch.nbytes

    def keep(self, end: int) -> None:
        """Drop the entries at `end` and above."""
        kept = [batch for batch in self.batches if batch.span.first < end]
        if kept and kept[-1].span.end > end:
            kept[-1] = kept[-1].slice(kept[-1].span.first, end)
        self.batches, self.firsts, self.nbytes, self.count = [], [], 0, 0
        for batch in kept:
            self.add(batch, len(batch.entries()))


def reach(limits: CompactionLimits, how: Release, *, major: bool) -> int:
    """The highest index at which an entry released as `how` may go; 0 for none (Z1 to Z6)."""
    settled = min(limits.horizon, limits.floor)
    return {
        Release.ANY: limits.horizon,
        Release.SETTLED: settled,
        Release.SEQUENTIAL: settled if major else 0,
        Release.SNAPSHOT: min(limits.horizon, limits.snapshot_index),
        Release.UNKNOWN: min(settled, limits.snapshot_index) if major else 0,
    }[how]


class RewriteGroup(NamedTuple):
    """Neighbouring segments that become one; what they were when it was frozen."""

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
