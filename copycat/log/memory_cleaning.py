"""Releases and compaction of the log in memory; the rest of it is `copycat.log.memory`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

from copycat.errors import require
from copycat.log.memory_rewrite import (
    MemoryRewrite,
    MemorySegment,
    MemorySegments,
    RewriteGroup,
    reach,
)
from copycat.types import CompactionLimits, CompactionResult, Release, SegmentStats

if TYPE_CHECKING:
    from copycat.log import interface
    from copycat.log._native import Batch

__all__ = ["MemoryCleaning"]


class MemoryCleaning(ABC):
    """The cleaning half of `MemoryLog`: what was released, over the segments of the other."""

    _segments: MemorySegments
    _configurations: list[int]
    _released: dict[int, Release]
    _durable_index: int
    _poison: BaseException | None

    @property
    @abstractmethod
    def first_index(self) -> int: ...
    @property
    @abstractmethod
    def last_index(self) -> int: ...
    @abstractmethod
    def _check(self) -> None: ...
    @abstractmethod
    def _meet_fault(self, operation: str, verb: str) -> None: ...
    @abstractmethod
    def _batches(self) -> Iterator[Batch]: ...

    def release(self, indexes: Sequence[int], how: Release) -> None:
        """Let these entries go; see `ReplicaLog.release`."""
        self._check()
        last = self.last_index
        above = [index for index in indexes if index > last]
        if above:
            raise IndexError(f"entry {above[0]} cannot be released: the log ends at {last}")
        gone = [gap for batch in self._batches() for gap in batch.gaps()]
        for index in indexes:
            if index >= self.first_index and not any(a <= index < b for a, b, _ in gone):
                self._released[index] = min(how, self._released.get(index, how))

    def _keep_releases(self, first: int, last: int) -> None:
        self._released = {i: how for i, how in self._released.items() if first <= i <= last}

    def _removable(
        self, segment: MemorySegment, limits: CompactionLimits, *, major: bool
    ) -> frozenset[int]:
        horizon = min(limits.horizon, self._durable_index, self.last_index - 1)
        capped = limits._replace(horizon=horizon)
        return frozenset(
            index
            for index, how in self._released.items()
            if segment.first <= index < segment.end and index <= reach(capped, how, major=major)
        )

    def segment_stats(self, limits: CompactionLimits) -> list[SegmentStats]:
        """One row a segment; see `ReplicaLog.segment_stats`."""
        self._check()
        return [self._stats(segment, limits) for segment in self._segments]

    def _stats(self, segment: MemorySegment, limits: CompactionLimits) -> SegmentStats:
        sealed = segment is not self._segments[-1]
        return SegmentStats(
            id=segment.number,
            version=segment.version,
            first_index=segment.first,
            last_index=segment.end - 1,
            nbytes=segment.nbytes,
            entries=segment.count,
            released=sum(segment.first <= i < segment.end for i in self._released),
            removable_minor=len(self._removable(segment, limits, major=False)) if sealed else 0,
            removable_major=len(self._removable(segment, limits, major=True)) if sealed else 0,
            is_sealed=sealed and segment.end - 1 <= self._durable_index,
        )

    def rewrite(
        self, groups: Sequence[Sequence[int]], limits: CompactionLimits, *, major: bool
    ) -> MemoryRewrite:
        """Freeze what goes; see `ReplicaLog.rewrite`."""
        self._check()
        frozen = []
        for ids in groups:
            chosen = self._neighbours(ids)
            drops = [self._removable(segment, limits, major=major) for segment in chosen]
            batches = [batch for segment in chosen for batch in segment.batches]
            frozen.append(
                RewriteGroup(list(ids), chosen[-1].end, batches, frozenset().union(*drops))
            )
        horizon = min(limits.horizon, self.last_index)
        return MemoryRewrite(frozen, horizon, self._meet_rewrite_fault)

    def _meet_rewrite_fault(self) -> None:
        try:
            self._meet_fault("write", "rewrite")
        finally:
            self._poison = None  # F13: a rewrite that fails is no failure of the log

    def _neighbours(self, ids: Sequence[int]) -> list[MemorySegment]:
        numbers = [segment.number for segment in self._segments[:-1]]
        if not ids or ids[0] not in numbers:
            raise ValueError(f"no sealed segments {list(ids)}")
        begin = numbers.index(ids[0])
        chosen = self._segments[begin : begin + len(ids)]
        is_durable = chosen[-1].end - 1 <= self._durable_index
        if numbers[begin : begin + len(ids)] != list(ids) or not is_durable:
            raise ValueError(f"the segments {list(ids)} are no sealed neighbours")
        return chosen

    def install(self, rewrite: interface.Rewrite) -> CompactionResult:
        """Swap in what was written; see `ReplicaLog.install`."""
        self._check()
        made = cast("MemoryRewrite", rewrite)
        require(made.written is not None, "a rewrite is run before it is installed")
        before: list[MemorySegment] = []
        after: list[MemorySegment] = []
        is_cut_short = False
        for group, batches in zip(made.groups, made.written or [], strict=True):
            old = [s for s in self._segments if s.number in group.ids]
            if [s.number for s in old] != group.ids or old[-1].end != group.end:
                if self.first_index < group.end:
                    is_cut_short = True
                    break
                continue
            version = max(s.version for s in old) + 1
            fresh = MemorySegment(old[0].first, old[0].number, version, before=old[0].before)
            for batch in batches:
                fresh.add(batch, len(batch.entries()))
            begin = self._segments.index(old[0])
            self._segments[begin : begin + len(old)] = [fresh]
            self._released = {i: w for i, w in self._released.items() if i not in group.drops}
            self._configurations = [i for i in self._configurations if i not in group.drops]
            before += old
            after.append(fresh)
        made.abandon()
        return CompactionResult(
            len(before),
            len(after),
            sum(segment.nbytes for segment in before),
            sum(segment.nbytes for segment in after),
            sum(s.count for s in before) - sum(s.count for s in after),
            is_cut_short,
        )
