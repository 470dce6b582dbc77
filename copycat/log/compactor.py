"""Cleaning a bare log: on demand, and by a lazy thread of its own.

What the user released leaves the log by rewriting sealed segments beside it. Appends go on
meanwhile: the log's lock is held to freeze what is released and to swap the files, never while
bytes are copied.
"""

from __future__ import annotations

import logging
import time
from _thread import RLock
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from copycat.errors import ConfigurationError, DiskFullError, ResourceError, StorageError
from copycat.log.background import SHORTAGE_S, Flag, LazyThread
from copycat.storage._native import run_locked
from copycat.storage.compaction import CompactionTrigger, SegmentLimits, plan_major, plan_minor
from copycat.storage.obsolete_files import remove_obsolete_files
from copycat.types import NO_LIMITS, Compaction, CompactionLimits, CompactionReport

if TYPE_CHECKING:
    import threading

    from copycat.config import Storage
    from copycat.storage.interface import ReplicaLog, Rewrite
    from copycat.types import CompactionLike, CompactionResult, SegmentStats

__all__ = ["Compactor"]

_LOG = logging.getLogger("copycat.log")

BACK_OFF_S = 10.0
"""After a run that the disk had no room for, or the system nothing left."""


class _Frozen(NamedTuple):
    """What a run is to do; `rewrite` is None when there is nothing."""

    rewrite: Rewrite | None
    stats: Sequence[SegmentStats]
    limits: CompactionLimits
    released: int
    """How many releases it knows of."""


def kind_of(compaction: CompactionLike) -> Compaction:
    """The member of the enum. ConfigurationError for what is none."""
    try:
        return Compaction(compaction)
    except ValueError:
        kinds = " or ".join(f'"{kind}"' for kind in Compaction)
        raise ConfigurationError(
            f"compaction ({compaction!r}) must be {kinds}", hint="nothing was cleaned"
        ) from None


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
        lock: RLock,
        sync: Callable[[], int],
        free_space: Callable[[], int],
        swaps: Callable[[], None],
    ) -> None:
        self._log = log
        self._storage = storage
        self._lock = lock
        self._sync = sync
        self._free_space = free_space
        self._swaps = swaps
        self._shape = SegmentLimits(storage.max_segment_size, storage.max_entries_per_segment)
        self._trigger = CompactionTrigger(
            storage.compaction_threshold, storage.max_entries_per_segment
        )
        self._commit_index: int | None = None
        self._lazy = LazyThread("copycat-compact")
        self._awake = Flag()
        self._stopped = Flag()
        self._running = RLock()
        self._rewrite: Rewrite | None = None
        """The one that was begun last: whoever ran it may have been interrupted."""
        self._released = 0
        """Entries that were released, since the log was opened."""
        self._taken = 0
        """How many of them the last run knew of that took all it found."""
        self._begins_at = 0.0
        """When the next try to start the thread may be, by the monotonic clock."""
        self.last_report: CompactionReport | None = None
        """Of the last run that changed something, by hand or by the thread."""
        self.failure: StorageError | None = None
        """Why the thread gave up; `compact` by hand raises its own."""

    # --- how far it may reach ----------------------------------------------------------------

    @property
    def compact_index(self) -> int:
        """Nothing above this entry goes: durable, and committed where `Log.commit` was used."""
        return run_locked(self._lock, self._limits).horizon

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
        it was (F13); ValueError when it is closed; ConfigurationError: there is no such kind."""
        kind = kind_of(compaction)
        return run_locked(self._running, lambda: self._run(kind))

    def _run(self, compaction: Compaction) -> CompactionReport:
        """What is begun here and not done, for an exception, the next run gives up or takes."""
        began = time.perf_counter()
        self._sync()
        found = run_locked(self._lock, self._frozen, compaction)
        before = len(found.stats)
        if found.rewrite is None:
            self._taken = found.released
            return CompactionReport(before, before, 0, time.perf_counter() - began)
        try:
            found.rewrite.run()
        except BaseException:
            found.rewrite.abandon()
            raise
        result, after = run_locked(self._lock, self._installed, found)
        self._sync()  # the manifest that names the new files alone
        while self._log.has_obsolete_files():
            remove_obsolete_files(self._log)
        self.last_report = CompactionReport(
            segments_before=before,
            segments_after=after,
            bytes_reclaimed=result.bytes_before - result.bytes_after,
            seconds=time.perf_counter() - began,
        )
        return self.last_report

    def _frozen(self, compaction: Compaction) -> _Frozen:
        """What is to be rewritten, as it is now (under the log's lock)."""
        if self._rewrite is not None:
            self._rewrite.abandon()  # nothing happens when it was installed
        limits = self._limits()
        stats = self._log.segment_stats(limits)
        self._trigger.observe(stats)
        is_major = compaction is Compaction.MAJOR
        if is_major:
            groups = plan_major(stats, limits, self._shape)
        else:
            groups = plan_minor(stats, limits, self._shape, self._storage.compaction_threshold)
        rewrite = self._log.rewrite(groups, limits, major=is_major) if groups else None
        self._rewrite = rewrite
        return _Frozen(rewrite, stats, limits, self._released)

    def _installed(self, found: _Frozen) -> tuple[CompactionResult, int]:
        """(what installing it changed, how many segments there are), under the log's lock."""
        self._swaps()  # before: memory must not hold what is gone from the log
        result = self._log.install(cast("Rewrite", found.rewrite))
        if not result.is_cut_short:
            self._taken = found.released
        return result, len(self._log.segment_stats(found.limits))

    # --- by itself ---------------------------------------------------------------------------

    def released(self, count: int) -> None:
        """So many more entries were released: begin the thread, or wake it when it is time."""
        self._released += count
        waiting = self._released - self._taken
        self._trigger.observe_first(waiting, lambda: self._log.segment_stats(NO_LIMITS))
        if not self._stopped.is_set() and self.failure is None:
            self._begin()
        if waiting >= self._enough():
            self._awake.set()

    def _enough(self) -> float:
        return self._trigger.threshold(self._log.last_index - self._log.first_index + 1)

    @property
    def _thread(self) -> threading.Thread | None:
        return self._lazy.thread

    def _begin(self) -> None:
        """The thread, unless it runs; without one, what was released waits for the next call."""
        if time.monotonic() < self._begins_at:
            return
        try:
            self._lazy.begin(self._work)
        except ResourceError as error:
            self._begins_at = time.monotonic() + SHORTAGE_S
            _LOG.warning("compactions begin later: %s", error)

    def _work(self) -> None:
        storage = self._storage
        now = time.monotonic()
        minor_at = now + storage.minor_compaction_interval
        major_at = now + storage.major_compaction_interval
        while True:
            wait = min(minor_at, major_at) - time.monotonic()
            if wait > 0 and self._released - self._taken < self._enough():
                self._awake.wait(wait)
                self._awake.clear()
            if self._stopped.is_set():
                return
            now = time.monotonic()
            waiting = self._released - self._taken
            if now < min(minor_at, major_at) and waiting < self._enough():
                continue
            is_major = now >= major_at or (waiting > 0 and self._is_short())
            had_room = self._try(Compaction.MAJOR if is_major else Compaction.MINOR)
            if self.failure is not None:
                return
            if not had_room:  # what made it begin is still there: it is tried again
                self._stopped.wait(BACK_OFF_S)
                continue
            now = time.monotonic()
            minor_at = now + storage.minor_compaction_interval
            if is_major:
                major_at = now + storage.major_compaction_interval

    def _is_short(self) -> bool:
        """Whether little is free; where the disk does not say, a run finds out."""
        try:
            return self._free_space() < 2 * self._storage.min_free_space
        except (StorageError, OSError):
            return False

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
        except Exception:  # noqa: BLE001 - the thread must not end with one run
            _LOG.exception("a %s compaction failed, and is tried again", compaction)
            return False
        return True

    def stop(self) -> None:
        """End the thread, after the run that is under way."""
        self._stopped.set()
        self._awake.set()
        self._lazy.join()
        self._stopped.clear()  # a close that found no resources leaves the log open
