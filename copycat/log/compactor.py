"""Cleaning a bare log: on demand, and by a lazy thread of its own.

What the user released leaves the log by rewriting sealed segments beside it. Appends go on
meanwhile: the log's lock is held to freeze what is released and to swap the files, never while
bytes are copied.
"""

from __future__ import annotations

import logging
import time
from _thread import RLock
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from copycat.errors import DiskFullError, ResourceError, StorageError
from copycat.log.background import SHORTAGE_S, remove_orphans, start_thread
from copycat.log.plan import Enough, Shape, plan_major, plan_minor
from copycat.types import NO_LIMITS, Compaction, CompactionLike, CompactionLimits

if TYPE_CHECKING:
    import threading
    from contextlib import AbstractContextManager

    from copycat.config import Storage
    from copycat.log.interface import ReplicaLog

__all__ = ["CompactionReport", "Compactor"]

_LOG = logging.getLogger("copycat.log")

BACK_OFF_S = 10.0
"""After a run that the disk had no room for, or the system nothing left."""


class CompactionReport(NamedTuple):
    """What one run did. `bytes_reclaimed` are of files; they are free once the run returns."""

    segments_before: int
    segments_after: int
    bytes_reclaimed: int
    seconds: float


class Compactor:
    """`log.compactor`: lets go of what was released (`Log.release`).

    A minor run takes segments of which enough was released (`compaction_threshold`); a major one
    takes all of the log but its tail, in order. Both run by their intervals too, a minor one
    also when much was released since the last, a major one when free space falls below twice
    `min_free_space`.
    """

    def __init__(
        self,
        log: ReplicaLog,
        storage: Storage,
        *,
        lock: AbstractContextManager[object],
        sync: Callable[[], int],
        free_space: Callable[[], int],
        swapped: Callable[[], None],
    ) -> None:
        self._log = log
        self._storage = storage
        self._lock = lock
        self._sync = sync
        self._free_space = free_space
        self._swapped = swapped
        self._shape = Shape(storage.max_segment_size, storage.max_entries_per_segment)
        self._worth_it = Enough(storage.compaction_threshold, storage.max_entries_per_segment)
        self._commit_index: int | None = None
        self._thread: threading.Thread | None = None
        self._awake: threading.Condition | None = None
        self._running = RLock()
        self._released = 0
        """Entries that were released since the last run that took all it found."""
        self._taken = 0
        """Those that the run under way is to take."""
        self._is_stopped = False
        self._starts_at = 0.0
        """When the next try to start the thread may be, by the monotonic clock."""
        self.last_report: CompactionReport | None = None
        """Of the last run that changed something, by hand or by the thread."""
        self.failure: StorageError | None = None
        """Why the thread gave up; `compact` by hand raises its own."""

    # --- how far it may reach ----------------------------------------------------------------

    @property
    def compact_index(self) -> int:
        """Nothing above this entry goes: durable, and committed where `Log.commit` was used."""
        with self._lock:
            return self._limits().horizon

    @property
    def minor_index(self) -> int:
        """How far a minor run may reach; in a bare log as far as any run."""
        return self.compact_index

    @property
    def major_index(self) -> int:
        """How far a major run may reach; a bare log has no other members to wait for."""
        return self.compact_index

    @property
    def snapshot_index(self) -> int:
        """0: a bare log has no snapshots."""
        return 0

    def commit(self, index: int) -> None:
        """Entries above `index` may still be truncated: they stay."""
        self._commit_index = max(index, self._commit_index or 0)

    def _limits(self) -> CompactionLimits:
        horizon = self._log.durable_index
        if self._commit_index is not None:
            horizon = min(horizon, self._commit_index)
        return CompactionLimits(horizon, horizon, 0)

    # --- a run -------------------------------------------------------------------------------

    def compact(self, compaction: CompactionLike = Compaction.MINOR) -> CompactionReport:
        """Run now, in the calling thread. Errors: DiskFullError and DiskError leave the log as
        it was (F13); ValueError when it is closed."""
        with self._running:
            try:
                return self._run(Compaction(compaction))
            finally:  # what it did not take waits for the next run, as if just released
                self._released += self._taken
                self._taken = 0

    def _run(self, compaction: Compaction) -> CompactionReport:
        began = time.perf_counter()
        self._sync()
        with self._lock:
            limits = self._limits()
            stats = self._log.segment_stats(limits)
            self._worth_it.saw(stats)
            self._taken, self._released = self._released, 0
            is_major = compaction is Compaction.MAJOR
            if is_major:
                groups = plan_major(stats, limits, self._shape)
            else:
                threshold = self._storage.compaction_threshold
                groups = plan_minor(stats, limits, self._shape, threshold)
            if not groups:
                self._taken = 0
                return CompactionReport(len(stats), len(stats), 0, time.perf_counter() - began)
            rewrite = self._log.rewrite(groups, limits, major=is_major)
        try:
            rewrite.run()
        except BaseException:
            rewrite.abandon()
            raise
        with self._lock:
            result = self._log.install(rewrite)
            self._swapped()
            if not result.is_cut_short:
                self._taken = 0
            left = len(self._log.segment_stats(limits))
        self._sync()  # the manifest that names the new files alone
        while self._log.has_orphans():
            remove_orphans(self._log)
        self.last_report = CompactionReport(
            segments_before=len(stats),
            segments_after=left,
            bytes_reclaimed=result.bytes_before - result.bytes_after,
            seconds=time.perf_counter() - began,
        )
        return self.last_report

    # --- by itself ---------------------------------------------------------------------------

    def released(self, count: int) -> None:
        """So many more entries were released: begin the thread, or wake it when it is time."""
        self._released += count
        self._worth_it.look(self._released, lambda: self._log.segment_stats(NO_LIMITS))
        if self._thread is None and not self._is_stopped:
            self._start()
        if self._awake is not None and self._released >= self._enough():
            with self._awake:
                self._awake.notify()

    def _enough(self) -> float:
        return self._worth_it.of(self._log.last_index - self._log.first_index + 1)

    def _start(self) -> None:
        import threading  # noqa: PLC0415 - who releases nothing does not pay for it

        if time.monotonic() < self._starts_at:
            return
        awake = threading.Condition()
        try:
            self._thread = start_thread("copycat-compact", self._work, awake)
        except ResourceError as error:  # what was released is released; the next call tries again
            self._starts_at = time.monotonic() + SHORTAGE_S
            _LOG.warning("compactions begin later: %s", error)
        else:
            self._awake = awake

    def _work(self, awake: threading.Condition) -> None:
        storage = self._storage
        now = time.monotonic()
        minor_at = now + storage.minor_compaction_interval
        major_at = now + storage.major_compaction_interval
        while True:
            with awake:
                wait = min(minor_at, major_at) - time.monotonic()
                if wait > 0 and not self._is_stopped and self._released < self._enough():
                    awake.wait(wait)
                if self._is_stopped:
                    return
            now = time.monotonic()
            is_short = self._free_space() < 2 * storage.min_free_space
            is_major = now >= major_at or (is_short and self._released > 0)
            had_room = self._try(Compaction.MAJOR if is_major else Compaction.MINOR)
            if self.failure is not None:
                return
            if not had_room:  # what made it begin is still there: it is tried again
                with awake:
                    awake.wait_for(lambda: self._is_stopped, BACK_OFF_S)
                continue
            now = time.monotonic()
            minor_at = now + storage.minor_compaction_interval
            if is_major:
                major_at = now + storage.major_compaction_interval

    def _try(self, compaction: Compaction) -> bool:
        """One run of the thread; False when the disk or the system had no room for it."""
        try:
            self.compact(compaction)
        except DiskFullError as error:
            _LOG.warning("a %s compaction had no room: %s", compaction, error)
            return False
        except ResourceError as error:
            _LOG.warning("a %s compaction is tried again later: %s", compaction, error)
            return False
        except StorageError as error:
            _LOG.warning("compactions stop: %s", error)
            self.failure = error
        return True

    def stop(self) -> None:
        """End the thread, after the run that is under way."""
        self._is_stopped = True
        if self._awake is not None and self._thread is not None:
            with self._awake:
                self._awake.notify()
            self._thread.join()
