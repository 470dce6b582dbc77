"""What a compaction rewrites: pure arithmetic over `SegmentStats`, the same for every log.

A plan is a list of groups; a group is the ids of neighbouring sealed segments that become one.
Sizes after a rewrite are estimated from the share of entries that go: entries of one segment are
mostly of one size, and a segment that comes out a little larger than planned is still right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from copycat.types import CompactionLimits, SegmentStats

__all__ = ["Groups", "Shape", "plan_major", "plan_minor"]

Groups = list[list[int]]
"""Ids of segments, oldest first in each group and from group to group."""

MERGE_FANIN = 4
"""So many small neighbours of one generation are merged even if nothing of them goes: each entry
is then rewritten a logarithmic number of times, and the number of files stays small."""


class Shape(NamedTuple):
    """How large a segment may become. Bytes and frames, as in `Storage`."""

    max_segment_size: int
    max_entries_per_segment: int


class _Group:
    """Segments that are gathered, and about what they come to."""

    def __init__(self) -> None:
        self.members: list[SegmentStats] = []
        self._nbytes = 0.0
        self._entries = 0

    def add(self, segment: SegmentStats, removable: int, shape: Shape) -> bool:
        """Take the next segment, unless the whole would grow too large for one file."""
        left = segment.entries - removable
        nbytes = segment.nbytes * (left / segment.entries if segment.entries else 0.0)
        too_large = self._nbytes + nbytes > shape.max_segment_size
        too_many = self._entries + left > shape.max_entries_per_segment
        if self.members and (too_large or too_many):
            return False
        self.members.append(segment)
        self._nbytes += nbytes
        self._entries += left
        return True

    @property
    def ids(self) -> list[int]:
        return [segment.id for segment in self.members]


def _is_eligible(segment: SegmentStats, limits: CompactionLimits) -> bool:
    """Sealed, and wholly at or below the horizon (Z9, C22)."""
    return segment.is_sealed and segment.last_index <= limits.horizon


def plan_minor(
    stats: Sequence[SegmentStats], limits: CompactionLimits, shape: Shape, threshold: float
) -> Groups:
    """Segments whose removable share times their version reaches `threshold` (Z10).

    Neighbours of one version are merged when they fit, and so are `MERGE_FANIN` and more small
    ones of a version above 1 that no share would bring here.
    """

    def chosen(segment: SegmentStats) -> bool:
        if not _is_eligible(segment, limits) or not segment.removable_minor:
            return False
        return segment.removable_minor / segment.entries * segment.version >= threshold

    groups: list[_Group] = []
    for run in _neighbours(stats, chosen):
        groups += _gathered(run, lambda segment: segment.removable_minor, shape)
    taken = {segment.id for group in groups for segment in group.members}

    def is_leftover(segment: SegmentStats) -> bool:
        small = 2 * segment.nbytes <= shape.max_segment_size and segment.version > 1
        return small and segment.id not in taken and _is_eligible(segment, limits)

    for run in _neighbours(stats, is_leftover):
        merged = _gathered(run, lambda segment: segment.removable_minor, shape)
        groups += [group for group in merged if len(group.members) >= MERGE_FANIN]
    return [group.ids for group in sorted(groups, key=lambda group: group.members[0].first_index)]


def plan_major(stats: Sequence[SegmentStats], limits: CompactionLimits, shape: Shape) -> Groups:
    """Every eligible segment from the front on, merged as far as they fit (Z12).

    A segment that stays by itself and of which nothing would go is left alone; no other is
    passed over, or a deletion could go before what it deleted (X18).
    """
    prefix: list[SegmentStats] = []
    for segment in stats:
        if not _is_eligible(segment, limits):
            break
        prefix.append(segment)
    groups = _gathered(prefix, lambda segment: segment.removable_major, shape)
    return [group.ids for group in groups if _is_worth_it(group)]


def _is_worth_it(group: _Group) -> bool:
    return len(group.members) > 1 or group.members[0].removable_major > 0


def _neighbours(
    stats: Sequence[SegmentStats], chosen: Callable[[SegmentStats], bool]
) -> list[list[SegmentStats]]:
    """The chosen ones in runs of neighbours of one version."""
    runs: list[list[SegmentStats]] = []
    before: SegmentStats | None = None
    for segment in stats:
        if not chosen(segment):
            before = None
            continue
        if before is not None and before.version == segment.version:
            runs[-1].append(segment)
        else:
            runs.append([segment])
        before = segment
    return runs


def _gathered(
    run: Sequence[SegmentStats], removable: Callable[[SegmentStats], int], shape: Shape
) -> list[_Group]:
    """Neighbours in groups as large as fit one file."""
    groups: list[_Group] = []
    for segment in run:
        if not groups or not groups[-1].add(segment, removable(segment), shape):
            groups.append(_Group())
            groups[-1].add(segment, removable(segment), shape)
    return groups
