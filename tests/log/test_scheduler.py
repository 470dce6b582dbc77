"""When a compaction is due: by what was released, by its interval, and not after a failure."""

from __future__ import annotations

from typing import Any

from copycat.errors import DiskFullError
from copycat.storage.compaction import (
    BACK_OFF_MS,
    MAJOR_PAUSE_MS,
    RELEASED_MIN,
    CompactionOptions,
    CompactionRun,
    CompactionScheduler,
)
from copycat.types import Compaction, CompactionLimits, CompactionResult, SegmentStats

MINUTE_MS = 60_000
OPTIONS = CompactionOptions(minor_interval_ms=MINUTE_MS, major_interval_ms=10 * MINUTE_MS)
LIMITS = CompactionLimits(1 << 40, 1 << 40, 0)


class OneSegment:
    """A log of one sealed segment of 2000 entries, and an empty tail."""

    first_index, last_index = 1, 2000

    def segment_stats(self, limits: CompactionLimits) -> list[SegmentStats]:
        sealed = SegmentStats(1, 1, 1, 2000, 4000, 2000, 1500, 1500, 1500, True)
        return [sealed, SegmentStats(2, 1, 2001, 2000, 0, 0, 0, 0, 0, False)]


LOG: Any = OneSegment()


def run(
    scheduler: CompactionScheduler, now_ms: int, compaction: Compaction, **failure: Exception
) -> CompactionRun:
    """One that the scheduler asked for; it takes a second."""
    made = CompactionRun(compaction, now_ms, is_scheduled=True)
    scheduler.plan(made, LOG, LIMITS)
    scheduler.finish(made, now_ms + 1000, **failure)
    return made


def due(scheduler: CompactionScheduler, now_ms: int, *, is_short: bool = False) -> str | None:
    return scheduler.due(LOG, now_ms, is_short=is_short)


def test_intervals_are_counted_from_the_begin_of_the_run_before() -> None:
    scheduler = CompactionScheduler(OPTIONS, 0)
    assert due(scheduler, MINUTE_MS - 1) is None
    assert scheduler.next_ms(0) == MINUTE_MS
    assert due(scheduler, MINUTE_MS) == "minor"
    run(scheduler, MINUTE_MS, Compaction.MINOR)
    assert due(scheduler, 2 * MINUTE_MS - 1) is None
    assert due(scheduler, 2 * MINUTE_MS) == "minor"
    assert due(scheduler, 10 * MINUTE_MS) == "major", "before the minor one that is due too"
    run(scheduler, 10 * MINUTE_MS, Compaction.MAJOR)
    pause_over = 10 * MINUTE_MS + MAJOR_PAUSE_MS
    assert due(scheduler, pause_over - 1) is None
    assert due(scheduler, pause_over) == "minor"
    assert scheduler.next_ms(pause_over - 1) == pause_over


def test_a_run_on_demand_moves_no_interval() -> None:
    scheduler = CompactionScheduler(OPTIONS, 0)
    by_hand = CompactionRun(Compaction.MINOR, MINUTE_MS - 1, is_scheduled=False)
    scheduler.plan(by_hand, LOG, LIMITS)
    scheduler.finish(by_hand, MINUTE_MS - 1)
    assert due(scheduler, MINUTE_MS) == "minor"


def test_what_was_released_starts_a_minor_run_once() -> None:
    scheduler = CompactionScheduler(OPTIONS, 0)
    scheduler.release(RELEASED_MIN - 1)
    assert due(scheduler, 0) is None
    scheduler.release(1)
    assert due(scheduler, 0) == "minor", "half of a segment of 2000 entries"
    made = run(scheduler, 0, Compaction.MINOR)
    assert made.groups == [[1]]
    assert scheduler.waiting == 0
    assert due(scheduler, 1000) is None


def test_released_entries_are_counted_now_and_then_when_asked() -> None:
    scheduler = CompactionScheduler(OPTIONS, 0, count_interval_ms=1000)
    scheduler.release(RELEASED_MIN)
    assert due(scheduler, 999) is None
    assert due(scheduler, 1000) == "minor"
    assert due(scheduler, 1001) is None


def test_a_short_disk_makes_any_released_entry_worth_a_major_run() -> None:
    scheduler = CompactionScheduler(OPTIONS, 0)
    assert due(scheduler, 0, is_short=True) is None, "nothing was released"
    scheduler.release(1)
    assert due(scheduler, 0) is None
    assert due(scheduler, 0, is_short=True) == "major"


def test_f13_after_a_failure_the_same_run_is_due_again_when_the_back_off_is_over() -> None:
    scheduler = CompactionScheduler(OPTIONS, 0)
    scheduler.release(5)
    full = DiskFullError("no room", errno=28)
    run(scheduler, MINUTE_MS, Compaction.MINOR, failure=full)
    again = MINUTE_MS + 1000 + BACK_OFF_MS
    assert due(scheduler, again - 1, is_short=True) is None
    assert scheduler.next_ms(again - 1) == again
    assert due(scheduler, again) == "minor"
    assert scheduler.waiting == 5


def test_what_a_run_that_was_cut_short_left_is_waited_for_by_the_next() -> None:
    scheduler = CompactionScheduler(OPTIONS, 0)
    scheduler.release(RELEASED_MIN)
    made = CompactionRun(Compaction.MINOR, 0, is_scheduled=True)
    scheduler.plan(made, LOG, LIMITS)
    scheduler.release(7)
    made.installed(CompactionResult(0, 0, 0, 0, 0, is_cut_short=True))
    scheduler.finish(made, 10)
    assert scheduler.waiting == RELEASED_MIN + 7
    made = run(scheduler, 20, Compaction.MINOR)
    assert scheduler.waiting == 0


def test_releases_during_a_run_wait_for_the_next() -> None:
    scheduler = CompactionScheduler(OPTIONS, 0)
    scheduler.release(9)
    made = CompactionRun(Compaction.MAJOR, 0, is_scheduled=False)
    scheduler.plan(made, LOG, LIMITS)
    scheduler.release(4)
    made.installed(CompactionResult(2, 1, 5000, 3000, 20))
    report = scheduler.finish(made, 2500)
    assert scheduler.waiting == 4
    assert (report.segments_before, report.segments_after) == (2, 1)
    assert (report.bytes_reclaimed, report.seconds, report.failure) == (2000, 2.5, None)
