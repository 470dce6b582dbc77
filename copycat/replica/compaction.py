"""When a member's log lets go of what its machine released, and how much of it.

The executor says what was released while entry r was applied. That may go once every reply up
to r is acknowledged (C21): until then it waits here, then its bits are set in the log. A run
freezes the bits of all its segments at one moment, rewrites them aside, and the swap rides on
the next sync. Nothing here is replicated: each member cleans by itself, within the limits that
make that harmless (C22, C23).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from copycat.errors import StorageError
from copycat.machine.apply_result import ApplyResult
from copycat.machine.session_executor import SessionExecutor
from copycat.replica.driver import ReplicaParts
from copycat.replica.host import Lane
from copycat.replica.options import CompactionOptions
from copycat.replica.snapshots import Snapshots
from copycat.storage.compaction import CompactionTrigger, plan_major, plan_minor
from copycat.types import NO_LIMITS, Compaction, CompactionLimits, CompactionReport, Release

if TYPE_CHECKING:
    from copycat.storage.interface import Rewrite

__all__ = ["CompactionRunner"]

_LOG = logging.getLogger("copycat.replica")

BACK_OFF_MS = 10_000
"""After a run that the disk had no room for (F13)."""
LOOK_MS = 1_000
"""How often released entries are counted against the threshold."""


Done = Callable[[CompactionReport], None]


class CompactionRunner:
    """One run at a time; asked for by the clock, by what was released, or by somebody."""

    def __init__(
        self,
        parts: ReplicaParts,
        executor: SessionExecutor,
        options: CompactionOptions,
        *,
        snapshots: Snapshots,
    ) -> None:
        self._parts = parts
        self._snapshots = snapshots
        self._executor = executor
        self._options = options
        self._waiting: deque[tuple[int, Release, Sequence[int]]] = deque()
        """(r, class, indexes): released while entries up to r were applied."""
        self._released = 0
        """Entries that were released since the last run that took all it found."""
        self._taken = 0
        """Those that the run under way is to take."""
        self._trigger = CompactionTrigger(options.threshold, options.segment_limits.max_entries_per_segment)
        self._busy = False
        self._waits_for: tuple[int, Callable[[], None]] | None = None
        """(index, what to do then) of a run that waits for this entry to be durable here."""
        self._asked: list[tuple[Compaction, Done | None]] = []
        now_ms = parts.clock.now_ms
        self._look_ms = now_ms + LOOK_MS
        self._minor_ms = now_ms + options.minor_ms
        self._major_ms = now_ms + options.major_ms
        self._not_before_ms = now_ms
        self.runs = 0
        """Runs that changed the log."""
        self.bytes_reclaimed = 0

    # ---- what was released ------------------------------------------------------------------

    def applied(self, outcome: ApplyResult) -> None:
        """A slice came back: keep what it released until its replies are acknowledged."""
        for how, indexes in outcome.releases:
            self._waiting.append((outcome.last_applied, how, indexes))
            self._released += len(indexes)

    # ---- by the clock and on demand ----------------------------------------------------------

    def ask(self, compaction: Compaction, done: Done) -> None:
        """Run as soon as no other run is under way; `done` in a turn."""
        self._asked.append((compaction, done))

    def keep(self, now_ms: int, *, is_short: bool) -> None:
        """Begin a run if one is due. is_short: the disk is nearly full."""
        self._go_on_if_durable()
        if self._busy:
            return
        if not self._asked:
            self._ask_by_clock(now_ms, is_short=is_short)
        if self._asked:
            self._begin(*self._asked.pop(0))

    def _ask_by_clock(self, now_ms: int, *, is_short: bool) -> None:
        if now_ms < self._not_before_ms:
            return
        is_enough = False
        if now_ms >= self._look_ms:
            self._look_ms = now_ms + LOOK_MS
            log = self._parts.log
            self._trigger.observe_first(self._released, lambda: log.segment_stats(NO_LIMITS))
            enough = self._trigger.threshold(log.last_index - log.first_index + 1)
            is_enough = self._released >= enough
        if now_ms >= self._major_ms or (is_short and self._released):
            self._major_ms = now_ms + self._options.major_ms
            self._not_before_ms = now_ms + LOOK_MS
            self._asked.append((Compaction.MAJOR, None))
        elif is_enough or now_ms >= self._minor_ms:
            self._minor_ms = now_ms + self._options.minor_ms
            self._asked.append((Compaction.MINOR, None))

    # ---- a run ------------------------------------------------------------------------------

    def _begin(self, compaction: Compaction, done: Done | None) -> None:
        """First the apply thread is asked how far all replies are acknowledged (C21)."""
        self._busy = True
        began_ms = self._parts.clock.now_ms

        def finish(report: CompactionReport) -> None:
            self._busy = False
            self._parts.host.wake()
            if report.failure is not None:
                _LOG.warning("the log was not cleaned: %s", report.failure)
                self._not_before_ms = self._parts.clock.now_ms + BACK_OFF_MS
            elif report.bytes_reclaimed or report.segments_after != report.segments_before:
                _LOG.info(
                    "a %s compaction made %d segments of %d and freed %d bytes in %d ms",
                    compaction,
                    report.segments_after,
                    report.segments_before,
                    report.bytes_reclaimed,
                    round(report.seconds * 1000),
                )
            if done is not None:
                done(report)

        asked = partial(self._floor_read, compaction, began_ms, finish)
        self._parts.inbox.run(Lane.APPLY, partial(_read_floor, self._executor), asked)

    def _floor_read(
        self,
        compaction: Compaction,
        began_ms: int,
        finish: Callable[[CompactionReport], None],
        found: tuple[int, int],
    ) -> None:
        last_applied, floor = found
        rewrite = partial(self._rewrite, compaction, floor, began_ms, finish)
        self._waits_for = (last_applied, rewrite)
        self._parts.durable.request_full_sync()
        self._go_on_if_durable()

    def _go_on_if_durable(self) -> None:
        """An acknowledgement that a crash takes back is none for who replays from this disk: the
        run begins once this disk has all that the executor had applied when it was asked (C22)."""
        if self._waits_for is None or self._waits_for[0] > self._parts.log.durable_index:
            return
        _, rewrite = self._waits_for
        self._waits_for = None
        rewrite()

    def _limits(self) -> CompactionLimits:
        parts = self._parts
        horizon = min(parts.applier.last_applied, parts.log.durable_index)  # C22
        if parts.applier.last_applied < parts.log.valid_from:
            horizon = 0  # replaying: what is applied is no state of the full log yet
        # What goes with a snapshot goes by whole files (`SnapshotTaker.trim`): a gap in its place
        # would be wrong for whoever is fed from below that snapshot, or falls back to an older.
        floor = min(parts.raft.deletion_floor, self._snapshots.floor(), horizon)
        return CompactionLimits(horizon, floor, 0)

    def _set_bits(self, upto: int) -> None:
        """What was released up to entry `upto`: one above the horizon may be lost with a crash,
        and then nothing has made up for what it released (C22)."""
        log = self._parts.log
        while self._waiting and self._waiting[0][0] <= upto:
            _, how, indexes = self._waiting.popleft()
            log.release(indexes, how)

    def _rewrite(
        self,
        compaction: Compaction,
        floor: int,
        began_ms: int,
        finish: Callable[[CompactionReport], None],
    ) -> None:
        log, options = self._parts.log, self._options
        limits = self._limits()
        self._set_bits(min(floor, limits.horizon))
        self._taken, self._released = self._released, 0
        stats = log.segment_stats(limits)
        self._trigger.observe(stats)
        is_major = compaction is Compaction.MAJOR
        if is_major:
            groups = plan_major(stats, limits, options.segment_limits)
        else:
            groups = plan_minor(stats, limits, options.segment_limits, options.threshold)
        if not groups:
            took_ms = self._parts.clock.now_ms - began_ms
            finish(CompactionReport(len(stats), len(stats), 0, took_ms / 1000))
            return
        # All frozen now, at one moment, whenever each of them is run.
        rewrites = [log.rewrite([group], limits, major=is_major) for group in groups]
        failures: dict[int, StorageError | None] = {}
        before = len(stats)

        for number, rewrite in enumerate(rewrites):
            rewritten = partial(
                self._rewritten, number, rewrites, failures, before, began_ms, finish
            )
            self._parts.inbox.run(Lane.COMPACT, partial(_run, rewrite), rewritten)

    def _rewritten(
        self,
        number: int,
        rewrites: list[Rewrite],
        failures: dict[int, StorageError | None],
        before: int,
        began_ms: int,
        finish: Callable[[CompactionReport], None],
        failure: StorageError | None,
    ) -> None:
        failures[number] = failure
        if len(failures) == len(rewrites):
            self._install(rewrites, failures, before, began_ms, finish)

    def _install(
        self,
        rewrites: list[Rewrite],
        failures: dict[int, StorageError | None],
        before: int,
        began_ms: int,
        finish: Callable[[CompactionReport], None],
    ) -> None:
        """In order, and none behind one that failed, or that was dropped with some of it still in
        the log: a deletion must not go before what it deleted."""
        installed, after, freed = 0, before, 0
        failure: StorageError | None = None
        is_cut_short = False
        for number, rewrite in enumerate(rewrites):
            failure = failure or failures[number]
            if failure is not None or is_cut_short:
                rewrite.abandon()
                continue
            result = self._parts.log.install(rewrite)
            is_cut_short = result.is_cut_short
            installed += result.segments_after
            after += result.segments_after - result.segments_before
            freed += result.bytes_before - result.bytes_after
        if failure is not None or is_cut_short:
            self._released += self._taken  # they wait for the next run, as if just released
        if installed:
            self.runs += 1
            self.bytes_reclaimed += freed
        self._parts.durable.request_layout_sync()
        took_ms = self._parts.clock.now_ms - began_ms
        finish(CompactionReport(before, after, freed, took_ms / 1000, failure))


def _read_floor(executor: SessionExecutor) -> tuple[int, int]:
    """In the apply thread: up to which entry it applied, and all replies are acknowledged."""
    return executor.last_applied, executor.reply_floor()


def _run(rewrite: Rewrite) -> StorageError | None:
    """Off the loop. A disk that is full or fails here leaves the log as it was (F13); a frame
    that cannot be read is damage, and what reads it next says so."""
    try:
        rewrite.run()
    except StorageError as error:
        return error
    return None
