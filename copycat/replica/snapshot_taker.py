"""Snapshots of this member: taken between two slices, saved aside; then the log is trimmed.

The loop never waits: the machine's state becomes a file in the apply thread, piece by piece; the
aside thread reads it back and names it, and only then is the front of the log deleted (C24).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial

from copycat.errors import (
    CopycatError,
    DiskFullError,
    IllegalMemberStateError,
    ResourceError,
    SerializationError,
    StorageError,
    require,
)
from copycat.machine.session_executor import SessionExecutor
from copycat.raft.core import Raft
from copycat.raft.events import Compacted, OldestSnapshotChanged
from copycat.replica.applier import Applier
from copycat.replica.configuration_store import ConfigurationStore
from copycat.replica.driver import Driver
from copycat.replica.feeder import Feeder
from copycat.replica.host import Inbox, Lane
from copycat.replica.log_clock import LogClock
from copycat.replica.options import ReplicaOptions
from copycat.replica.restore import source_of
from copycat.replica.snapshot_sender import SnapshotSender
from copycat.replica.sync_scheduler import SyncScheduler
from copycat.storage.interface import ReplicaLog
from copycat.storage.snapshot_store import Snapshot, SnapshotStore, Writer
from copycat.types import NO_LIMITS, EntryId

__all__ = ["SnapshotTaker"]

log = logging.getLogger("copycat.replica")

SPREAD = 8
"""Members begin an eighth of the threshold after each other."""
AGAIN_MS = 10_000
"""After a full disk, or one that was short of room, the next is tried so much later (F13)."""


_TakeResult = Writer | SerializationError | StorageError
"""The result of the apply thread: a file that is not published yet, or why there is none."""

Done = Callable[[Snapshot | CopycatError], None]


class SnapshotTaker:
    """Takes snapshots, keeps the newest two, trims the log behind them. Called in turns.

    threshold: one is taken when so many bytes of entries were applied since the last; 0: only
    on demand.  sender, feeder: the log stays for the peers to which they send something.
    """

    def __init__(
        self,
        raft: Raft,
        log: ReplicaLog,
        clock: LogClock,
        inbox: Inbox,
        sync_scheduler: SyncScheduler,
        applier: Applier,
        driver: Driver,
        store: SnapshotStore | None,
        executor: SessionExecutor,
        options: ReplicaOptions,
        sender: SnapshotSender,
        configurations: ConfigurationStore,
        feeder: Feeder,
    ) -> None:
        self._raft = raft
        self._log = log
        self._clock = clock
        self._inbox = inbox
        self._sync_scheduler = sync_scheduler
        self._applier = applier
        self._store = store
        self._executor = executor
        self._source = source_of(executor) if store is not None else None
        self._threshold = options.snapshot_threshold
        self._driver = driver
        self._sender = sender
        self._feeder = feeder
        self._configurations = configurations
        self._is_busy = False
        self._begun_index = 0
        """The snapshot that is being written covers at least the entries up to this; 0: none
        is."""
        self._begun_ms = 0
        self._waiting: list[Done] = []
        self._again_ms = 0
        self._applied_nbytes = applier.nbytes
        """`Applier.nbytes` when the last snapshot was taken."""
        self._last_obstacle = ""

    @property
    def index(self) -> int:
        """Index of the newest snapshot that was read back; 0 for none."""
        newest = self._store.newest if self._store is not None else None
        return newest.entry.index if newest is not None else 0

    @property
    def pending_index(self) -> int:
        """Index of the snapshot that is being written here; above all indexes when none is.

        A restart may begin with that snapshot and replay the log from there, so no deletion above
        it may be deleted from the log (C23, decision 0014).
        """
        return self._begun_index or sys.maxsize

    # ---- taking --------------------------------------------------------------------------

    def take(self, done: Done | None = None) -> None:
        """Take one as soon as may be; `done` gets it, or why there is none (in a turn).

        While another is written, this one follows it. When nothing was applied since the
        newest one, that one is the answer.
        """
        self._waiting.append(done or _forget)
        self._begin()

    def advance(self, now_ms: int) -> None:
        """Every turn: whether the log has grown by enough since the last one, or a peer needs a
        newer one."""
        if self._sender.needs_newer and self._sender.take_need_for_newer():
            self.take()
        grown = self._applier.nbytes - self._applied_nbytes
        if not self._threshold or grown < self._threshold or self._is_busy:
            return
        if grown < self._threshold + self._delay():
            return
        if self._source is not None and now_ms >= self._again_ms and not self._refusal():
            self.take()

    def relieve(self, now_ms: int) -> None:
        """The disk is nearly full, or full: a snapshot lets whole files of the log be trimmed,
        however little the log has grown since the last one (F12)."""
        if self._is_busy or self._store is None or now_ms < self._again_ms or self._refusal():
            return
        newest, replica_log = self._store.newest, self._log
        covers = self._applier.last_applied if newest is None else newest.entry.index
        is_new = newest is None or newest.entry.index < self._applier.last_applied
        # What is trimmed then reaches to the older of the two that are kept.
        if is_new and replica_log.segment_stats(NO_LIMITS)[0].last_index <= covers:
            self._again_ms = now_ms + AGAIN_MS
            log.warning("the disk is short of room: a snapshot is taken, to trim the log (F12)")
            self.take()

    def _refusal(self) -> str:
        applier = self._applier
        if self._source is None:
            return "this member keeps no snapshots: its state machine cannot be one"
        if applier.is_paused:
            return "a snapshot of the leader is being installed"
        if applier.last_applied < self._log.valid_from:
            return (
                f"the log is being replayed: {applier.last_applied} of"
                f" {self._log.valid_from} entries (C22)"
            )
        return "" if applier.last_applied else "nothing was applied yet"

    def _begin(self) -> None:
        if self._is_busy or not self._waiting:
            return
        refusal = self._refusal()
        store, source = self._store, self._source
        if refusal or store is None or source is None:
            self._answer(_refused(refusal))
            return
        newest, dispatched_index = store.newest, self._applier.dispatched_index
        if newest is not None and newest.entry.index >= dispatched_index:
            self._answer(newest)
            return
        self._is_busy = True
        self._begun_index = self._applier.last_applied
        self._begun_ms = self._clock.now_ms
        # No slice starts between the outstanding one and this work.
        entry = self._raft.terms.entry_at(dispatched_index)
        in_force = self._raft.configurations.at(dispatched_index)
        configuration = self._configurations.encoded(in_force)
        executor = self._executor

        def take() -> _TakeResult:
            require(
                executor.last_applied == entry.index,
                "a snapshot of another entry",
                last_applied=executor.last_applied,
                entry=entry,
            )
            try:
                return store.begin(
                    entry,
                    time_ms=executor.time_ms,
                    write=source.write_snapshot,
                    configuration=configuration,
                )
            except (SerializationError, StorageError) as error:
                return error

        self._inbox.run(Lane.APPLY, take, partial(self._on_taken, store, entry))

    def _on_taken(self, store: SnapshotStore, entry: EntryId, result: _TakeResult) -> None:
        self._last_was_at()
        if isinstance(result, SerializationError):
            obstacle = str(result)
            if obstacle != self._last_obstacle:
                self._last_obstacle = obstacle
                log.warning("no snapshot can be taken: %s", obstacle)
            self._end(_refused(obstacle))
            return
        if isinstance(result, DiskFullError | ResourceError):
            self._saved(store, result)
            return
        if isinstance(result, StorageError):
            raise result
        writer = result
        if entry.index <= self.index:  # a snapshot of the leader was installed meanwhile
            self._inbox.run(Lane.ASIDE, partial(store.drop, writer), _ignore)
            self._end(_refused("a newer one was installed meanwhile"))
            return
        work = partial(_finish, store, writer)
        self._inbox.run(Lane.ASIDE, work, partial(self._saved, store))

    def _last_was_at(self) -> None:
        """Count from where this snapshot was due, so that members still take theirs at different
        times."""
        nbytes = self._applier.nbytes
        self._applied_nbytes = max(self._applied_nbytes + self._threshold, nbytes - self._delay())
        self._applied_nbytes = min(self._applied_nbytes, nbytes)

    def _delay(self) -> int:
        """How much later than at the threshold this member begins: a snapshot holds up what the
        machine is asked, so no two do it at once, and the leader is the last."""
        raft = self._raft
        others = sorted(each for each in raft.configuration.voters if each != raft.leader)
        rank = others.index(raft.member) if raft.member in others else len(others)
        return rank * self._threshold // SPREAD

    def _saved(
        self, store: SnapshotStore, saved: Snapshot | DiskFullError | ResourceError
    ) -> None:
        if isinstance(saved, DiskFullError | ResourceError):
            self._again_ms = self._clock.now_ms + AGAIN_MS
            log.warning("no snapshot was written, the old ones stay: %s (F13)", saved)
            self._end(saved)
            return
        log.info(
            "a snapshot of %d entries was written: %d bytes in %.1f s",
            saved.entry.index,
            saved.nbytes,
            (self._clock.now_ms - self._begun_ms) / 1000,
        )
        self.keep(store.admit(saved))
        self._end(saved)

    def _end(self, answer: Snapshot | CopycatError) -> None:
        self._is_busy = False
        self._begun_index = 0
        self._answer(answer)

    def _answer(self, answer: Snapshot | CopycatError) -> None:
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(answer)

    # ---- what is deleted -----------------------------------------------------------------

    def keep(self, stale: list[EntryId]) -> None:
        """A snapshot was admitted: tell the core; delete those of `stale`, and the log's front."""
        store = self._store
        if store is None:
            return
        if stale:
            work = partial(store.discard, stale)
            self._inbox.run(Lane.ASIDE, work, partial(self._discarded, store))
        self._driver.step(OldestSnapshotChanged(store.oldest_index))
        self.trim()

    def _discarded(self, store: SnapshotStore, discarded: list[EntryId]) -> None:
        store.forget(discarded)
        self._driver.step(OldestSnapshotChanged(store.oldest_index))
        self.trim()

    def trim(self) -> None:
        """Drop whole files of the log that the oldest snapshot covers.

        Not the newest: should that rot, the one before it needs the log from there (F17). So a
        follower that is slow has the time between two snapshots to be fed with entries, and
        one that is sent a snapshot now finds the log from that snapshot on.
        """
        if self._store is None:
            return
        self._sender.end_stalled()
        in_use = [*self._sender.indexes_in_use(), *self._feeder.indexes_in_use()]
        last = min([self._store.oldest_index, *in_use])
        replica_log = self._log
        if last < replica_log.first_index:
            return
        replica_log.trim(last + 1)
        self._sync_scheduler.request_layout_sync()
        if replica_log.first_index > self._raft.terms.first_index:
            self._driver.step(Compacted(replica_log.first_index))


def _finish(store: SnapshotStore, writer: Writer) -> Snapshot | DiskFullError | ResourceError:
    """In the aside thread: read the file back and give it its name."""
    try:
        return store.finish(writer)
    except (DiskFullError, ResourceError) as error:
        return error


def _refused(why: str) -> IllegalMemberStateError:
    return IllegalMemberStateError(
        f"no snapshot can be taken: {why}", hint="try again later, or on another member"
    )


def _ignore(_: None) -> None:
    """For work that has no result."""


def _forget(answer: Snapshot | CopycatError) -> None:
    """For a snapshot that no caller asked for."""
