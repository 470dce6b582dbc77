"""What a compaction rewrites: pure arithmetic over `SegmentStats`, the same for every log.

A plan is a list of groups; a group is the ids of neighbouring sealed segments that become one.
Sizes after a rewrite are estimated from the share of entries that go: entries of one segment are
mostly of one size, and a segment that comes out a little larger than planned is still right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from copycat.types import CompactionLimits, SegmentStats

__all__ = ["CompactionTrigger", "Groups", "SegmentLimits", "plan_major", "plan_minor"]

Groups = list[list[int]]
"""Ids of segments, oldest first in each group and from group to group."""

MERGE_FANIN = 4
"""So many small neighbours are merged even if nothing of them goes: each entry is then rewritten
a logarithmic number of times, and the number of files stays small."""
GENERATIONS = 4
"""A segment of this version or a later one is rewritten when a quarter of the threshold goes."""
LARGEST_PER_FREED_MAX = 64
"""The part of the largest segment that a rewrite of another must free at least."""
SPAN_MAX = 1 << 31
"""Indexes of one segment, gaps counted: what the slots of its index can tell (C3)."""
NBYTES_MAX = 1 << 31
"""Bytes of the segments of one group before their rewrite. The log refuses more than 2**32, what
an offset of a slot can tell; half of that leaves room for gaps that are larger than the entries
in whose place they stand."""

RELEASED_MIN = 1024
"""Fewer released entries than these never start a run before its interval."""
ENTRIES_PER_RELEASED_MAX = 32
"""A run looks at every entry's bit: a log of so many entries a released one waits for more."""


class SegmentLimits(NamedTuple):
    """How large a segment may become. Bytes and frames, as in `Storage`."""

    max_segment_size: int
    max_entries_per_segment: int


class CompactionTrigger:
    """How many released entries are worth a run before its interval: a segment's threshold full.

    A segment here is one as large as those that the last run saw, or the first `look`.
    """

    def __init__(self, threshold: float, max_entries_per_segment: int) -> None:
        self._threshold = threshold
        self._per_segment = max_entries_per_segment
        self._deleted = 0
        """Indexes of the log without an entry of their own, at the last run."""
        self._has_observed_nothing = True

    def observe_first(self, released: int, stats: Callable[[], Sequence[SegmentStats]]) -> None:
        """Before the first run: see how large segments are, once some are sealed."""
        if self._has_observed_nothing and released >= RELEASED_MIN:
            self.observe(stats())

    def observe(self, stats: Sequence[SegmentStats]) -> None:
        """What a run found; the tail, the last of them, is still growing."""
        sealed = stats[:-1]
        if sealed:
            self._has_observed_nothing = False
            self._per_segment = sum(one.entries for one in sealed) // len(sealed)
        self._deleted = sum(one.last_index - one.first_index + 1 - one.entries for one in stats)

    def threshold(self, span: int) -> float:
        """Released entries that start a run in a log of so many indexes."""
        entries = max(span - self._deleted, 0)
        share = self._threshold * min(entries, self._per_segment)
        return max(RELEASED_MIN, share, entries / ENTRIES_PER_RELEASED_MAX)


class _Group:
    """Segments that are gathered, and about what they come to."""

    def __init__(self) -> None:
        self.members: list[SegmentStats] = []
        self._nbytes_before = 0
        self._nbytes = 0.0
        self._entries = 0

    def add(self, segment: SegmentStats, removable: int, segment_limits: SegmentLimits) -> bool:
        """Take the next segment, unless the whole would grow too large for one file."""
        remaining = segment.entries - removable
        nbytes = segment.nbytes * (remaining / segment.entries if segment.entries else 0.0)
        is_fit = (
            self._nbytes_before + segment.nbytes <= NBYTES_MAX
            and self._nbytes + nbytes <= segment_limits.max_segment_size
            and self._entries + remaining <= segment_limits.max_entries_per_segment
            and segment.last_index - self._first_index(segment) < SPAN_MAX
        )
        if self.members and not is_fit:
            return False
        self.members.append(segment)
        self._nbytes_before += segment.nbytes
        self._nbytes += nbytes
        self._entries += remaining
        return True

    def _first_index(self, segment: SegmentStats) -> int:
        return (self.members or [segment])[0].first_index

    @property
    def ids(self) -> list[int]:
        return [segment.id for segment in self.members]


def _is_eligible(segment: SegmentStats, limits: CompactionLimits) -> bool:
    """Sealed, and wholly at or below the horizon (C22)."""
    return segment.is_sealed and segment.last_index <= limits.horizon


def plan_minor(
    stats: Sequence[SegmentStats],
    limits: CompactionLimits,
    segment_limits: SegmentLimits,
    threshold: float,
) -> Groups:
    """Segments whose removable share times their version reaches `threshold`.

    The version counts up to `GENERATIONS` only, and a few bytes are never worth a rewrite: else
    old segments would be written again for every entry that they lose. Neighbours of one version
    are merged when they fit, and so are small ones of any version above 1 that no share would
    bring here, `MERGE_FANIN` of them or more.
    """
    least_nbytes = max((segment.nbytes for segment in stats), default=0) / LARGEST_PER_FREED_MAX

    def chosen(segment: SegmentStats) -> bool:
        if not _is_eligible(segment, limits) or not segment.removable_minor:
            return False
        share = segment.removable_minor / segment.entries
        is_worth_it = share * segment.nbytes >= least_nbytes
        return is_worth_it and share * min(segment.version, GENERATIONS) >= threshold

    groups: list[_Group] = []
    for run in _neighbours(stats, chosen, by_version=True):
        groups += _grouped(run, lambda segment: segment.removable_minor, segment_limits)
    grouped = {segment.id for group in groups for segment in group.members}

    def is_leftover(segment: SegmentStats) -> bool:
        small = 2 * segment.nbytes <= segment_limits.max_segment_size and segment.version > 1
        return small and segment.id not in grouped and _is_eligible(segment, limits)

    for run in _neighbours(stats, is_leftover, by_version=False):
        for tier in _tiers(run):
            merged = _grouped(tier, lambda segment: segment.removable_minor, segment_limits)
            groups += [group for group in merged if len(group.members) >= MERGE_FANIN]
    return [group.ids for group in sorted(groups, key=lambda group: group.members[0].first_index)]


def _tiers(run: Sequence[SegmentStats]) -> list[Sequence[SegmentStats]]:
    """Parts of a run that come to twice their largest member or more, and are many enough.

    So an entry that is merged lies in a segment twice as large as before, at the least.
    """
    if len(run) < MERGE_FANIN:
        return []
    largest = max(run, key=lambda segment: segment.nbytes)
    if sum(segment.nbytes for segment in run) >= 2 * largest.nbytes:
        return [run]
    at = run.index(largest)
    return _tiers(run[:at]) + _tiers(run[at + 1 :])


def plan_major(
    stats: Sequence[SegmentStats], limits: CompactionLimits, segment_limits: SegmentLimits
) -> Groups:
    """Every eligible segment from the front on, merged as far as they fit.

    A segment that stays by itself and of which nothing would go is left alone; no other is
    passed over, or a deletion could go before what it deleted.
    """
    prefix: list[SegmentStats] = []
    for segment in stats:
        if not _is_eligible(segment, limits):
            break
        prefix.append(segment)
    groups = _grouped(prefix, lambda segment: segment.removable_major, segment_limits)
    return [group.ids for group in groups if _is_useful(group)]


def _is_useful(group: _Group) -> bool:
    return len(group.members) > 1 or group.members[0].removable_major > 0


def _neighbours(
    stats: Sequence[SegmentStats], chosen: Callable[[SegmentStats], bool], *, by_version: bool
) -> list[list[SegmentStats]]:
    """The chosen ones in runs of neighbours, of one version each when asked."""
    runs: list[list[SegmentStats]] = []
    before: SegmentStats | None = None
    for segment in stats:
        if not chosen(segment):
            before = None
            continue
        if before is not None and (before.version == segment.version or not by_version):
            runs[-1].append(segment)
        else:
            runs.append([segment])
        before = segment
    return runs


def _grouped(
    run: Sequence[SegmentStats],
    removable: Callable[[SegmentStats], int],
    segment_limits: SegmentLimits,
) -> list[_Group]:
    """Neighbours in groups as large as fit one file."""
    groups: list[_Group] = []
    for segment in run:
        if not groups or not groups[-1].add(segment, removable(segment), segment_limits):
            groups.append(_Group())
            groups[-1].add(segment, removable(segment), segment_limits)
    return groups
