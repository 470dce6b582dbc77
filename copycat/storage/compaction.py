"""When a compaction runs and what it rewrites: arithmetic over `SegmentStats`, for every log.

`CompactionScheduler` decides when a run pays: by what was released, by two intervals, and never
within a moment after a run that failed. It has no thread and no clock; its caller says what time
it is. The thread of a bare log asks it (`copycat/log/compactor.py`), and so does a member in its
turns (`copycat/replica/compaction.py`).

`plan_minor` and `plan_major` decide what a run rewrites. A plan is a list of groups; a group is
the ids of neighbouring sealed segments that become one. The size of a segment after its rewrite is
estimated from the share of its entries that would be deleted: the entries of one segment are
mostly of one size, and a segment that becomes a little larger than planned does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from copycat.errors import CorruptLogError
from copycat.types import (
    NO_LIMITS,
    Compaction,
    CompactionLimits,
    CompactionReport,
    CompactionResult,
    SegmentStats,
)

if TYPE_CHECKING:
    from copycat.config import Storage
    from copycat.storage.in_memory import InMemoryLog
    from copycat.storage.interface import ReplicaLog

__all__ = [
    "CompactionOptions",
    "CompactionRun",
    "CompactionScheduler",
    "CompactionTrigger",
    "Groups",
    "SegmentLimits",
    "plan_major",
    "plan_minor",
]

Groups = list[list[int]]
"""Ids of segments, oldest first in each group and from group to group."""

MERGE_FANIN = 4
"""So many small neighbours are merged even if no entry of them would be deleted: each entry is
then rewritten a logarithmic number of times, and the number of files stays small."""
GENERATIONS = 4
"""A segment of this version or a later one is rewritten for a quarter of the threshold."""
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
BACK_OFF_MS = 10_000
"""How long no run is due after one that failed, as for want of space (F13)."""
MAJOR_PAUSE_MS = 1_000
"""A major run is followed by no other within so long after its begin: on a short disk one is due
whenever anything was released."""


class SegmentLimits(NamedTuple):
    """How large a segment may become. Bytes and frames, as in `Storage`."""

    max_segment_size: int
    max_entries_per_segment: int


class CompactionOptions(NamedTuple):
    """The settings of `Storage` that concern compactions."""

    segment_limits: SegmentLimits = SegmentLimits(32 << 20, 1 << 20)
    minor_interval_ms: float = 60_000
    major_interval_ms: float = 3_600_000
    threshold: float = 0.5

    @staticmethod
    def of(storage: Storage) -> CompactionOptions:
        """The settings as the user gave them, in seconds there and in milliseconds here."""
        return CompactionOptions(
            SegmentLimits(storage.max_segment_size, storage.max_entries_per_segment),
            max(1, round(storage.minor_compaction_interval * 1000)),
            max(1, round(storage.major_compaction_interval * 1000)),
            storage.compaction_threshold,
        )


class CompactionTrigger:
    """How many released entries are worth a run before its interval.

    They are so many as fill the threshold of one segment. A segment here is as large as those
    that the last run saw; before the first run, as those that `observe_first` saw.
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
        """Remember the segments that a run found; the last one, the tail, is still growing."""
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


class CompactionRun:
    """One run, from its begin to its report: what it rewrites, and what that changed."""

    def __init__(self, compaction: Compaction, now_ms: float, *, is_scheduled: bool) -> None:
        self.compaction = compaction
        self.is_scheduled = is_scheduled
        """The scheduler said that it was due; False: somebody asked for it."""
        self.began_ms = now_ms
        self.groups: Groups = []
        """What it rewrites, from `CompactionScheduler.plan` on."""
        self.released = 0
        """Entries that had been released since the log was opened, when the run was planned."""
        self.is_cut_short = False
        """Something of its plan was left undone, since the log changed meanwhile."""
        self._segments_before = 0
        self._segments_after = 0
        self._bytes_reclaimed = 0

    @property
    def is_major(self) -> bool:
        return self.compaction is Compaction.MAJOR

    def planned(self, groups: Groups, segments: int) -> None:
        """The log has so many segments, of which `groups` are rewritten."""
        self.groups = groups
        self._segments_before = self._segments_after = segments

    def installed(self, result: CompactionResult) -> None:
        """A rewrite of the run took its place in the log."""
        self._segments_after += result.segments_after - result.segments_before
        self._bytes_reclaimed += result.bytes_before - result.bytes_after
        self.is_cut_short |= result.is_cut_short

    def report(self, now_ms: float, failure: Exception | None = None) -> CompactionReport:
        """What the run changed until now."""
        return CompactionReport(
            self._segments_before,
            self._segments_after,
            self._bytes_reclaimed,
            (now_ms - self.began_ms) / 1000,
            failure,
        )


class CompactionScheduler:
    """Decides when a run is due, and what it takes. One run at a time: `plan`, then `finish`.

    count_interval_ms: how often `due` compares what was released with what a run needs; 0 means at
    each call. Times are of any clock that never moves back, the same one in all calls.
    """

    def __init__(
        self, options: CompactionOptions, now_ms: float, *, count_interval_ms: float = 0
    ) -> None:
        self._options = options
        self._trigger = CompactionTrigger(
            options.threshold, options.segment_limits.max_entries_per_segment
        )
        self._count_interval_ms = count_interval_ms
        self._released = 0
        """Entries that were released since the log was opened."""
        self._compacted_upto = 0
        """Those of them that the last run knew of that took everything it found. Both only grow,
        so that an exception between two steps loses none."""
        self._count_at_ms = now_ms + count_interval_ms
        self._minor_at_ms = now_ms + options.minor_interval_ms
        self._major_at_ms = now_ms + options.major_interval_ms
        self._not_before_ms = now_ms
        self._damage_delay_ms: dict[Compaction, float] = {}
        """For how long a run of a kind was put off when it met damage last; nothing after one that
        met none."""
        self._retry_at_ms = dict.fromkeys(Compaction, now_ms)
        """Not before this time is a run of a kind that met damage tried again."""

    @property
    def waiting(self) -> int:
        """Released entries that no run has taken so far."""
        return self._released - self._compacted_upto

    def release(self, count: int) -> None:
        """So many more entries were released."""
        self._released += count

    def due(
        self, log: ReplicaLog | InMemoryLog, now_ms: float, *, is_short: bool
    ) -> Compaction | None:
        """The run that is to begin now, or None. is_short: the disk is nearly full."""
        if now_ms < self._not_before_ms:
            return None
        is_enough = False
        if now_ms >= self._count_at_ms:
            self._count_at_ms = now_ms + self._count_interval_ms
            is_enough = self._is_enough(log)
        is_major = now_ms >= self._major_at_ms or (is_short and self.waiting > 0)
        if is_major and now_ms >= self._retry_at_ms[Compaction.MAJOR]:
            return Compaction.MAJOR
        is_minor = is_enough or now_ms >= self._minor_at_ms
        if is_minor and now_ms >= self._retry_at_ms[Compaction.MINOR]:
            return Compaction.MINOR
        return None

    def _is_enough(self, log: ReplicaLog | InMemoryLog) -> bool:
        self._trigger.observe_first(self.waiting, partial(log.segment_stats, NO_LIMITS))
        return self.waiting >= self._trigger.threshold(log.last_index - log.first_index + 1)

    def begin_intervals(self, now_ms: float) -> None:
        """Both intervals begin now: nothing was released before that needs a run."""
        self._minor_at_ms = now_ms + self._options.minor_interval_ms
        self._major_at_ms = now_ms + self._options.major_interval_ms

    def next_ms(self, now_ms: float) -> float:
        """When a run may become due even if nothing more is released."""
        if now_ms < self._not_before_ms:
            return self._not_before_ms
        retries = self._retry_at_ms
        minor_ms = max(self._minor_at_ms, retries[Compaction.MINOR])
        major_ms = max(self._major_at_ms, retries[Compaction.MAJOR])
        return min(minor_ms, major_ms, *(at_ms for at_ms in retries.values() if at_ms > now_ms))

    def plan(
        self, run: CompactionRun, log: ReplicaLog | InMemoryLog, limits: CompactionLimits
    ) -> None:
        """Choose what the run rewrites; `run.groups` may be empty. Just before the rewrites are
        made, since they freeze which entries are released."""
        stats = log.segment_stats(limits)
        self._trigger.observe(stats)
        run.released = self._released
        segment_limits, threshold = self._options.segment_limits, self._options.threshold
        if run.is_major:
            groups = plan_major(stats, limits, segment_limits)
        else:
            groups = plan_minor(stats, limits, segment_limits, threshold)
        run.planned(groups, len(stats))

    def finish(
        self, run: CompactionRun, now_ms: float, failure: Exception | None = None
    ) -> CompactionReport:
        """The run is over. After a failure, what made it begin is still there, and makes another
        begin after `BACK_OFF_MS`; but damage does not mend itself, so a run that met damage
        begins its interval, and what else makes such a run due is put off for longer each time."""
        if failure is not None:
            self.back_off(now_ms)
            if isinstance(failure, CorruptLogError) and run.is_scheduled:
                self._begin_interval(run)
                self._put_off(run, now_ms)
            return run.report(now_ms, failure)
        for kind in Compaction if run.is_major else (run.compaction,):
            self._damage_delay_ms.pop(kind, None)
        if not run.is_cut_short:
            self._compacted_upto = run.released
        self._begin_interval(run)
        if run.is_scheduled and run.is_major:
            self._not_before_ms = run.began_ms + MAJOR_PAUSE_MS
        return run.report(now_ms)

    def _begin_interval(self, run: CompactionRun) -> None:
        """A scheduled major run does all that a minor one would: it begins both intervals."""
        if not run.is_scheduled:
            return
        self._minor_at_ms = run.began_ms + self._options.minor_interval_ms
        if run.is_major:
            self._major_at_ms = run.began_ms + self._options.major_interval_ms

    def _put_off(self, run: CompactionRun, now_ms: float) -> None:
        """A run of a kind met damage: the next one waits twice as long, up to its interval."""
        options, kind = self._options, run.compaction
        interval_ms = options.major_interval_ms if run.is_major else options.minor_interval_ms
        delay_ms = max(2 * self._damage_delay_ms.get(kind, 0), BACK_OFF_MS)
        delay_ms = min(delay_ms, max(interval_ms, BACK_OFF_MS))
        self._damage_delay_ms[kind] = delay_ms
        self._retry_at_ms[kind] = now_ms + delay_ms

    def back_off(self, now_ms: float) -> None:
        """No run is due for a while."""
        self._not_before_ms = now_ms + BACK_OFF_MS


class _Group:
    """Neighbouring segments that become one, and about how large the result will be."""

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

    A segment that would stay by itself, and of which nothing would be deleted, is left alone. No
    other one is left out, or a deletion could be deleted before what it deleted.
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
    """The segments that `chosen` accepts, in runs of neighbours. by_version: of one version."""
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
