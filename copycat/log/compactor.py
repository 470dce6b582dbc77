"""Compactions of a bare log: on demand, and by a thread that begins when it is needed.

A compaction copies sealed segments into new files without the entries that the user released, and
puts these files in the place of the old ones. Appends continue meanwhile: the log's lock is held
only while the released entries are determined and while the files change places, never while
bytes are copied. `copycat.storage.compaction.CompactionScheduler` decides when a run is due.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from copycat.errors import ConfigurationError, DiskFullError, ResourceError, StorageError
from copycat.log.background import SHORTAGE_S, Flag, LazyThread
from copycat.storage._native import ReentrantLock, run_locked
from copycat.storage.compaction import CompactionOptions, CompactionRun, CompactionScheduler
from copycat.storage.segment_files import remove_obsolete_files
from copycat.types import Compaction, CompactionLimits, CompactionReport

if TYPE_CHECKING:
    import threading

    from copycat.config import Storage
    from copycat.storage._native import Batch, NativeLog
    from copycat.storage.in_memory import InMemoryLog
    from copycat.storage.interface import Rewrite
    from copycat.storage.recent_batches import RecentBatches
    from copycat.types import CompactionLike

__all__ = ["CompactionThread", "Compactor"]

_LOG = logging.getLogger("copycat.log")


def kind_of(compaction: CompactionLike) -> Compaction:
    """The member of the enum. ConfigurationError when there is no such kind."""
    try:
        return Compaction(compaction)
    except ValueError:
        kinds = " or ".join(f'"{kind}"' for kind in Compaction)
        raise ConfigurationError(
            f"compaction ({compaction!r}) must be {kinds}", hint="nothing was compacted"
        ) from None


def _now_ms() -> float:
    return time.monotonic() * 1000


class Compactor:
    """`log.compactor`: deletes what was released (`Log.release`).

    A minor run takes segments of which enough was released (`compaction_threshold`); a major one
    takes all of the log but its tail, in order. Both run by their intervals too, and a minor one
    when much was released since the last. In place of a minor run that is due comes a major one
    while the free space is below twice `min_free_space`.
    """

    def __init__(self, thread: CompactionThread) -> None:
        self._thread = thread

    @property
    def compact_index(self) -> int:
        """No entry above this one is deleted: the last that is durable, and that was committed
        where `Log.commit` is used."""
        return self._thread.horizon

    @property
    def last_report(self) -> CompactionReport | None:
        """Of the last run that changed something, on demand or by the thread."""
        return self._thread.last_report

    @property
    def failure(self) -> StorageError | None:
        """Why the thread gave up; `compact` raises its own errors."""
        return self._thread.failure

    def compact(self, compaction: CompactionLike = Compaction.MINOR) -> CompactionReport:
        """Run now, in the calling thread. Errors: DiskFullError and DiskError leave the log as
        it was (F13); ValueError when it is closed; ConfigurationError: there is no such kind."""
        return self._thread.compact(kind_of(compaction))


class CompactionThread:
    """Runs the compactions of one log. Its thread begins when something was released.

    `release` and `commit` are called under the log's lock.
    """

    def __init__(
        self,
        log: NativeLog | InMemoryLog,
        storage: Storage,
        *,
        lock: ReentrantLock,
        sync: Callable[[], int],
        recent: RecentBatches[Batch],
    ) -> None:
        self._log = log
        self._lock = lock
        self._sync = sync
        self._recent = recent
        self._free_space_min = 2 * storage.min_free_space
        self._scheduler = CompactionScheduler(CompactionOptions.of(storage), _now_ms())
        self._commit_index: int | None = None
        self._lazy = LazyThread("copycat-compact")
        self._awake = Flag()
        self._stopped = Flag()
        self._running = ReentrantLock()
        self._rewrite: Rewrite | None = None
        """The one that was begun last: whoever ran it may have been interrupted."""
        self._begins_at_ms = 0.0
        """When the next try to start the thread may be."""
        self.last_report: CompactionReport | None = None
        """Of the last run that changed something, on demand or by the thread."""
        self.failure: StorageError | None = None
        """Why the thread gave up."""
        self.compactor = Compactor(self)

    # --- how far it may reach ----------------------------------------------------------------

    @property
    def horizon(self) -> int:
        """No entry above this one is deleted."""
        return run_locked(self._lock, self._limits).horizon

    def commit(self, index: int) -> None:
        """Entries above `index` may still be truncated: they stay."""
        self._commit_index = max(index, self._commit_index or 0)

    def _limits(self) -> CompactionLimits:
        horizon = self._log.durable_index
        if self._commit_index is not None:
            horizon = min(horizon, self._commit_index)
        return CompactionLimits(horizon, horizon, 0)

    # --- a run -------------------------------------------------------------------------------

    def compact(self, compaction: Compaction, *, is_scheduled: bool = False) -> CompactionReport:
        """Run now, in the calling thread, after the run of another thread."""
        return run_locked(self._running, self._run, compaction, is_scheduled)

    def _run(self, compaction: Compaction, is_scheduled: bool) -> CompactionReport:
        """An exception may come anywhere; the next run abandons the rewrite that it left."""
        run = CompactionRun(compaction, _now_ms(), is_scheduled=is_scheduled)
        self._sync()
        rewrite = run_locked(self._lock, self._frozen, run)
        if rewrite is None:
            return self._scheduler.finish(run, _now_ms())
        try:
            rewrite.run()
        except BaseException:
            rewrite.abandon()
            raise
        run_locked(self._lock, self._install, run, rewrite)
        self._sync()  # the manifest that names only the new files
        while self._log.has_obsolete_files():
            remove_obsolete_files(self._log)
        self.last_report = self._scheduler.finish(run, _now_ms())
        return self.last_report

    def _frozen(self, run: CompactionRun) -> Rewrite | None:
        """What is to be rewritten, as it is now; None when there is nothing."""
        if self._rewrite is not None:
            self._rewrite.abandon()  # nothing happens when it was installed
        limits = self._limits()
        self._scheduler.plan(run, self._log, limits)
        self._rewrite = None
        if run.groups:
            self._rewrite = self._log.rewrite(run.groups, limits, major=run.is_major)
        return self._rewrite

    def _install(self, run: CompactionRun, rewrite: Rewrite) -> None:
        self._recent.clear()  # before: memory must not hold what the log does not have any more
        run.installed(self._log.install(rewrite))

    # --- by itself ---------------------------------------------------------------------------

    def release(self, count: int) -> None:
        """So many more entries were released: begin the thread, or wake it when a run is due."""
        self._scheduler.release(count)
        now_ms = _now_ms()
        if not self._stopped.is_set() and self.failure is None and now_ms >= self._begins_at_ms:
            self._begin(now_ms)
        if self._is_due(now_ms):
            self._awake.set()

    def _is_due(self, now_ms: float) -> bool:
        """Also when that is not known for want of resources: the thread backs off then, and the
        caller's entries are released all the same."""
        try:
            return self._scheduler.due(self._log, now_ms, is_short=False) is not None
        except ResourceError:
            return True

    @property
    def thread(self) -> threading.Thread | None:
        """None while it was not needed."""
        return self._lazy.thread

    def _begin(self, now_ms: float) -> None:
        """The thread, unless it runs; without one, what was released waits for the next call."""
        if self._lazy.thread is None:
            self._scheduler.begin_intervals(now_ms)
        try:
            self._lazy.begin(self._work)
        except ResourceError as error:
            self._begins_at_ms = now_ms + SHORTAGE_S * 1000
            _LOG.warning("compactions begin later: %s", error)

    def _work(self) -> None:
        while not self._stopped.is_set():
            now_ms = _now_ms()
            try:
                compaction = self._due(now_ms)
            except ResourceError as error:
                _LOG.warning("a compaction begins later: %s", error)
                self._scheduler.back_off(now_ms)
                compaction = None
            except StorageError as error:
                self._give_up(error)
                return
            if compaction is None:
                self._awake.wait(max(self._scheduler.next_ms(now_ms) - now_ms, 0) / 1000)
                self._awake.clear()
            elif not self._try(compaction):
                return

    def _due(self, now_ms: float) -> Compaction | None:
        """A nearly full disk makes a run that is due a major one, and makes none due by itself:
        no other member needs the room, and the user may be releasing entry by entry."""
        compaction = run_locked(self._lock, self._due_with_room, now_ms)
        if compaction is not None and self._scheduler.waiting and self._is_short():
            return Compaction.MAJOR
        return compaction

    def _due_with_room(self, now_ms: float) -> Compaction | None:
        return self._scheduler.due(self._log, now_ms, is_short=False)

    def _give_up(self, error: StorageError) -> None:
        _LOG.warning("compactions stop: %s", error)
        self.failure = error

    def _is_short(self) -> bool:
        """Whether little is free; where the disk does not say, a run finds out."""
        try:
            return self._log.free_space < self._free_space_min
        except (StorageError, OSError):
            return False

    def _try(self, compaction: Compaction) -> bool:
        """One run of the thread; False when the thread is to end, since the disk fails."""
        try:
            self.compact(compaction, is_scheduled=True)
        except DiskFullError as error:
            _LOG.warning("a %s compaction had no room: %s", compaction, error)
            self._scheduler.back_off(_now_ms())
        except ResourceError as error:
            _LOG.warning("a %s compaction is tried again later: %s", compaction, error)
            self._scheduler.back_off(_now_ms())
        except StorageError as error:
            self._give_up(error)
            return False
        except Exception:  # noqa: BLE001 - the thread must not end with one run
            _LOG.exception("a %s compaction failed, and is tried again", compaction)
            self._scheduler.back_off(_now_ms())
        return True

    def stop(self) -> None:
        """End the thread, after the run that is under way."""
        self._stopped.set()
        self._awake.set()
        self._lazy.join()
        self._stopped.clear()  # a close that found no resources leaves the log open
