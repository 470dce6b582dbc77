"""When a compaction is due: by what was released, by its interval, and not after a failure."""

from __future__ import annotations

from typing import Any

import pytest

from copycat.errors import CorruptLogError, DiskFullError
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
    assert scheduler.next_ms(pause_over - 1) == pause_over
    assert due(scheduler, pause_over) is None, "the major run did what the minor one would"
    assert scheduler.next_ms(pause_over) == 11 * MINUTE_MS
    assert due(scheduler, 11 * MINUTE_MS) == "minor"


def test_a_major_run_is_followed_by_none_for_a_second_though_the_disk_stays_short() -> None:
    scheduler = CompactionScheduler(OPTIONS, 0)
    run(scheduler, 0, Compaction.MAJOR)
    scheduler.release(1)
    assert due(scheduler, MAJOR_PAUSE_MS - 1, is_short=True) is None
    assert due(scheduler, MAJOR_PAUSE_MS, is_short=True) == "major"


def test_both_intervals_begin_anew_with_the_thread_of_a_bare_log() -> None:
    scheduler = CompactionScheduler(OPTIONS, 0)
    scheduler.begin_intervals(20 * MINUTE_MS)
    assert scheduler.next_ms(20 * MINUTE_MS) == 21 * MINUTE_MS
    assert due(scheduler, 21 * MINUTE_MS - 1) is None
    assert due(scheduler, 21 * MINUTE_MS) == "minor"
    assert due(scheduler, 30 * MINUTE_MS) == "major"


@pytest.mark.parametrize("compaction", list(Compaction))
def test_a_run_that_met_damage_is_due_again_after_its_interval_only(
    compaction: Compaction,
) -> None:
    """Not every ten seconds: each run would read up to the damage and write its files in vain."""
    scheduler = CompactionScheduler(OPTIONS, 0)
    interval_ms = 10 * MINUTE_MS if compaction is Compaction.MAJOR else MINUTE_MS
    damage = CorruptLogError("bad", path="/log/1-1.log", offset=0, index=1)
    run(scheduler, interval_ms, compaction, failure=damage)
    back_off_over = interval_ms + 1000 + BACK_OFF_MS
    assert scheduler.next_ms(back_off_over - 1) == back_off_over
    assert due(scheduler, back_off_over) is None
    if compaction is Compaction.MINOR:
        assert due(scheduler, 2 * interval_ms - 1) is None
        assert due(scheduler, 2 * interval_ms) == "minor"
    else:
        assert due(scheduler, 2 * interval_ms - 1) == "minor"
        assert due(scheduler, 2 * interval_ms) == "major"


@pytest.mark.parametrize("compaction", list(Compaction))
def test_runs_that_meet_damage_one_after_the_other_are_further_and_further_apart(
    compaction: Compaction,
) -> None:
    """What is released, and a disk that is nearly full, would begin one every ten seconds."""
    scheduler = CompactionScheduler(OPTIONS, 0)
    scheduler.release(RELEASED_MIN)
    damage = CorruptLogError("bad", path="/log/1-1.log", offset=0, index=1)
    is_short, now_ms, delays = compaction is Compaction.MAJOR, 0, []
    for _ in range(9):
        assert due(scheduler, now_ms, is_short=is_short) == compaction
        run(scheduler, now_ms, compaction, failure=damage)
        began_ms, now_ms = now_ms, now_ms + 1000
        while (other := due(scheduler, now_ms, is_short=is_short)) != compaction:
            if other is not None:  # minor runs that meet no damage continue meanwhile
                run(scheduler, now_ms - 1000, Compaction.MINOR)
                scheduler.release(1)
                continue
            following = scheduler.next_ms(now_ms)
            assert following > now_ms, "a thread that waits for it does not spin"
            now_ms = int(following)
        delays.append((now_ms - began_ms) // 1000 - 1)
    if compaction is Compaction.MINOR:
        assert delays == [10, 20, 40, 60, 60, 60, 60, 60, 60]
    else:
        assert delays == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    run(scheduler, now_ms, Compaction.MAJOR)  # it met none: whatever was damaged is not there
    scheduler.release(RELEASED_MIN)
    now_ms += 1000
    run(scheduler, now_ms, compaction, failure=damage)
    again = now_ms + 1000 + BACK_OFF_MS
    assert due(scheduler, again - 1, is_short=is_short) is None
    assert due(scheduler, again, is_short=is_short) == compaction


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
