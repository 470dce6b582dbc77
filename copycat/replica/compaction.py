"""When a member's log deletes what its machine released, and how much of it.

The executor reports what was released while entry r was applied. It may be deleted once every
reply up to r is acknowledged (C21): until then it is remembered here, then it is marked as
released in the log. Whether a run is worth its cost is decided by
`copycat.storage.compaction.CompactionScheduler`, which is asked in turns of the replica.

A run has five steps, each in a turn of the replica or in a thread, and `_MemberRun` is its state:

1. the apply thread reads how far all replies are acknowledged (C21);
2. everything that was applied at that moment becomes durable here (C22);
3. the released entries of all segments are determined at one moment, one rewrite a group;
4. the compaction threads write the rewrites beside the log;
5. the rewrites take their place in the log, in order, and the next sync writes the manifest.

Nothing here is replicated: each member compacts by itself, within the limits that make that
harmless (C22, C23).
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
from copycat.raft.core import Raft
from copycat.replica.applier import Applier
from copycat.replica.host import Host, Inbox, Lane
from copycat.replica.log_clock import LogClock
from copycat.replica.options import ReplicaOptions
from copycat.replica.snapshot_receiver import SnapshotReceiver
from copycat.replica.snapshot_taker import SnapshotTaker
from copycat.replica.sync_scheduler import SyncScheduler
from copycat.storage.compaction import CompactionRun, CompactionScheduler
from copycat.storage.interface import ReplicaLog
from copycat.types import Compaction, CompactionLimits, CompactionReport, Release

if TYPE_CHECKING:
    from copycat.storage.interface import Rewrite

__all__ = ["CompactionRunner"]

_LOG = logging.getLogger("copycat.replica")

COUNT_INTERVAL_MS = 1_000
"""How often released entries are counted against the threshold."""

Done = Callable[[CompactionReport], None]


class _MemberRun:
    """The state of one run of a member, from its first step to its last."""

    def __init__(self, run: CompactionRun, done: Done | None) -> None:
        self.run = run
        self.done = done
        """Called with the report, in a turn."""
        self.waits_for: int | None = None
        """The run waits until this entry is durable here; None when it does not wait for that."""
        self.acknowledged_index = 0
        """Every reply up to this entry was acknowledged when the run began (C21)."""
        self.rewrites: list[Rewrite] = []
        """One a group, oldest first."""
        self.failures: dict[int, StorageError | None] = {}
        """By the position of a rewrite that was run, why it failed."""


class CompactionRunner:
    """One run at a time; asked for by the clock, by what was released, or by somebody."""

    def __init__(
        self,
        options: ReplicaOptions,
        raft: Raft,
        log: ReplicaLog,
        clock: LogClock,
        host: Host,
        inbox: Inbox,
        sync_scheduler: SyncScheduler,
        applier: Applier,
        executor: SessionExecutor,
        snapshot_taker: SnapshotTaker,
        snapshot_receiver: SnapshotReceiver,
    ) -> None:
        self._raft = raft
        self._log = log
        self._clock = clock
        self._host = host
        self._inbox = inbox
        self._sync_scheduler = sync_scheduler
        self._applier = applier
        self._snapshot_taker = snapshot_taker
        self._snapshot_receiver = snapshot_receiver
        self._executor = executor
        self._scheduler = CompactionScheduler(
            options.compaction, clock.now_ms, count_interval_ms=COUNT_INTERVAL_MS
        )
        self._waiting: deque[tuple[int, Release, Sequence[int]]] = deque()
        """(r, class, indexes): released while entries up to r were applied; not in the log yet."""
        self._run: _MemberRun | None = None
        """The run that is under way."""
        self._asked: list[tuple[Compaction, Done]] = []
        """Runs that somebody asked for, oldest first."""

    # ---- what was released ------------------------------------------------------------------

    def applied(self, outcome: ApplyResult) -> None:
        """A slice was applied: keep what it released until its replies are acknowledged."""
        for policy, indexes in outcome.releases:
            self._waiting.append((outcome.last_applied, policy, indexes))
            self._scheduler.release(len(indexes))

    # ---- by the clock and on demand ----------------------------------------------------------

    def ask(self, compaction: Compaction, done: Done) -> None:
        """Run as soon as no other run is under way; `done` in a turn."""
        self._asked.append((compaction, done))

    def keep(self, now_ms: int, *, is_short: bool) -> None:
        """Begin a run if one is due. is_short: the disk is nearly full."""
        self._continue_if_durable()
        if self._run is not None:
            return
        if self._asked:
            self._begin(*self._asked.pop(0))
            return
        compaction = self._scheduler.due(self._log, now_ms, is_short=is_short)
        if compaction is not None:
            self._begin(compaction, None)

    # ---- a run ------------------------------------------------------------------------------

    def _begin(self, compaction: Compaction, done: Done | None) -> None:
        """First the apply thread is asked how far all replies are acknowledged (C21)."""
        now_ms = self._clock.now_ms
        run = _MemberRun(CompactionRun(compaction, now_ms, is_scheduled=done is None), done)
        self._run = run
        read = partial(_read_acknowledged, self._executor)
        self._inbox.run(Lane.APPLY, read, partial(self._acknowledged_read, run))

    def _acknowledged_read(self, run: _MemberRun, indexes: tuple[int, int]) -> None:
        run.waits_for, run.acknowledged_index = indexes
        self._sync_scheduler.request_full_sync()
        self._continue_if_durable()

    def _continue_if_durable(self) -> None:
        """An acknowledgement that a crash loses does not count for a replay from this disk: the
        run begins once this disk has all that the executor had applied when it was asked (C22)."""
        run = self._run
        if run is None or run.waits_for is None:
            return
        if run.waits_for <= self._log.durable_index:
            run.waits_for = None
            self._rewrite(run)

    def _limits(self) -> CompactionLimits:
        horizon = min(self._applier.last_applied, self._log.durable_index)  # C22
        if self._applier.last_applied < self._log.valid_from:
            horizon = 0  # replaying: what is applied is no state of the full log yet
        # C23: no voter, and no snapshot that a restart here may begin with, lacks these entries.
        pending_index = min(
            self._snapshot_taker.pending_index, self._snapshot_receiver.pending_index
        )
        deletion_floor = min(self._raft.deletion_floor, pending_index, horizon)
        # No snapshot counts as one that replaces entries: these are deleted by whole files
        # (`SnapshotTaker.trim`). A gap in their place would be wrong for a peer that is sent
        # entries from below that snapshot, and for a restart from an older one.
        return CompactionLimits(horizon, deletion_floor, snapshot_index=0)

    def _set_bits(self, upto: int) -> None:
        """Tell the log what was released up to entry `upto`. An entry above the horizon may be
        lost in a crash, and then nothing has replaced what it released (C22)."""
        log = self._log
        while self._waiting and self._waiting[0][0] <= upto:
            _, policy, indexes = self._waiting.popleft()
            log.release(indexes, policy)

    def _rewrite(self, run: _MemberRun) -> None:
        log, limits = self._log, self._limits()
        self._set_bits(min(run.acknowledged_index, limits.horizon))
        self._scheduler.plan(run.run, log, limits)
        if not run.run.groups:
            self._finish(run, None)
            return
        # All frozen now, at one moment, whenever each of them is run.
        is_major = run.run.is_major
        run.rewrites = [log.rewrite([group], limits, major=is_major) for group in run.run.groups]
        for number, rewrite in enumerate(run.rewrites):
            rewritten = partial(self._rewritten, run, number)
            self._inbox.run(Lane.COMPACT, partial(_run, rewrite), rewritten)

    def _rewritten(self, run: _MemberRun, number: int, failure: StorageError | None) -> None:
        run.failures[number] = failure
        if len(run.failures) == len(run.rewrites):
            self._install(run)

    def _install(self, run: _MemberRun) -> None:
        """Install the rewrites in order, and none after one that failed, or that was dropped while
        some of its entries are in the log: a deletion must not be deleted before what it
        deleted."""
        failure: StorageError | None = None
        for number, rewrite in enumerate(run.rewrites):
            failure = failure or run.failures[number]
            if failure is not None or run.run.is_cut_short:
                rewrite.abandon()
            else:
                run.run.installed(self._log.install(rewrite))
        self._sync_scheduler.request_layout_sync()
        self._finish(run, failure)

    def _finish(self, run: _MemberRun, failure: StorageError | None) -> None:
        self._run = None
        self._host.wake()
        report = self._scheduler.finish(run.run, self._clock.now_ms, failure)
        if report.failure is not None:
            _LOG.warning("the log was not cleaned: %s", report.failure)
        elif report.bytes_reclaimed or report.segments_after != report.segments_before:
            _LOG.info(
                "a %s compaction made %d segments of %d and freed %d bytes in %d ms",
                run.run.compaction,
                report.segments_after,
                report.segments_before,
                report.bytes_reclaimed,
                round(report.seconds * 1000),
            )
        if run.done is not None:
            run.done(report)


def _read_acknowledged(executor: SessionExecutor) -> tuple[int, int]:
    """In the apply thread: the last entry that it applied, and the last one up to which all
    replies are acknowledged."""
    return executor.last_applied, executor.acknowledged_index()


def _run(rewrite: Rewrite) -> StorageError | None:
    """In a compaction thread. A disk that is full or fails here leaves the log as it was (F13); a
    frame that cannot be read is damage, which the next read of it reports."""
    try:
        rewrite.run()
    except StorageError as error:
        return error
    return None
