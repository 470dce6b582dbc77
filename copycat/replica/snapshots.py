"""Where the core's effects on snapshots meet those who carry them out: one place a member."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial

from copycat.errors import require
from copycat.machine.session_executor import SessionExecutor
from copycat.machine.sessions import SessionRow
from copycat.raft.effects import EndShipping, ReceiveChunk, ShipChunks, ShipSnapshot
from copycat.replica.driver import Driver, ReplicaParts, SnapshotEffect
from copycat.replica.host import Lane
from copycat.replica.snapshot_taker import SnapshotSource, SnapshotTaker, source_of
from copycat.replica.snapshot_transfer import SnapshotReceiver, SnapshotSender
from copycat.storage.snapshot_store import Snapshot, SnapshotStore
from copycat.types import EntryId

__all__ = ["Snapshots"]

log = logging.getLogger("copycat.replica")


class Snapshots:
    """Takes, ships, receives and installs. store: None when the member keeps none.

    pin: an incarnation that the installed state
    knows (C16).
    """

    def __init__(
        self,
        parts: ReplicaParts,
        driver: Driver,
        store: SnapshotStore | None,
        executor: SessionExecutor,
        *,
        threshold: int,
        pin: Callable[[int, int], None],
    ) -> None:
        self._parts = parts
        self._store = store
        self._executor = executor
        self._source = source_of(executor)
        self._driver = driver
        self._record_incarnation = pin
        self._has_warned = False
        self._sending = SnapshotSender(parts, driver, store)
        self._receiving = SnapshotReceiver(parts, driver, store, install=self._install)
        self.taking = SnapshotTaker(
            parts,
            driver,
            store,
            executor,
            threshold=threshold,
            shipped=self._sending.shipped,
        )
        self._sending.snapshotting = self.taking

    def pending_index(self) -> int:
        """Index of the oldest snapshot that is on its way to this disk; above all when none is.

        A restart may begin with that snapshot and replay the log from there, so no deletion above
        it may be deleted from the log (C23, decision 0014).
        """
        return min(
            filter(None, (self.taking.begun, self._receiving.publishing)), default=sys.maxsize
        )

    def execute(self, effect: SnapshotEffect, chunk: bytes) -> None:
        """Carry out one effect of the core; `chunk` arrived with the message that caused it."""
        match effect:
            case ShipSnapshot():
                self._sending.ship(effect)
            case ShipChunks():
                self._sending.go_on(effect)
            case EndShipping():
                self._sending.end(effect)
            case ReceiveChunk():
                self._receive(effect, chunk)

    def _receive(self, effect: ReceiveChunk, chunk: bytes) -> None:
        if self._store is not None and self._source is not None:
            self._receiving.receive(effect, chunk)
        elif not self._has_warned:
            self._has_warned = True
            log.warning(
                "the leader sends a snapshot, and this member cannot take one: its state machine"
                " or its storage has none"
            )

    def stepped_down(self) -> None:
        """What this member shipped as a leader is not its business any more."""
        self._sending.drop_all()

    # ---- installing ----------------------------------------------------------------------

    def _has_room(self, entry: EntryId) -> bool:
        """A log that must begin anew needs a segment: asked before the state changes (F13)."""
        terms, replica_log = self._parts.raft.terms, self._parts.log
        if terms.term_at(entry.index) == entry.term:
            return True
        return replica_log.has_room(0, entries=0, in_new_segment=True)

    def _install(self, snapshot: Snapshot, data: bytes, done: Callable[[], None]) -> None:
        """I12: never over newer state; between two slices; then the log is made to fit."""
        store, source, applier = self._store, self._source, self._parts.applier
        require(store is not None and source is not None, "nothing to install into")
        assert store is not None and source is not None  # noqa: S101,PT018  # for the type checker
        if self._parts.raft.commit_index >= snapshot.entry.index:
            # Entries were quicker. It is as good as one that was taken here.
            done()
            self.taking.keep(store.admit(snapshot))
            return
        if not self._has_room(snapshot.entry):
            self._receiving.postpone(snapshot)
            return
        applier.pause()
        self._parts.inbox.run(
            Lane.APPLY,
            partial(_install, source, data, self._executor),
            partial(self._installed, store, snapshot, done),
        )

    def _installed(
        self,
        store: SnapshotStore,
        snapshot: Snapshot,
        done: Callable[[], None],
        rows: list[SessionRow],
    ) -> None:
        self._parts.applier.installed(snapshot.entry.index)
        self._parts.clock.installed(snapshot.time_ms)
        self._parts.proposal_queue.sessions.load(rows)
        stale = store.supersede(snapshot)
        done()
        for member, incarnation in self._executor.incarnations.items():
            self._record_incarnation(member, incarnation)
        self.taking.keep(stale)
        log.info("a snapshot of the leader was installed: %d entries", snapshot.entry.index)


def _install(source: SnapshotSource, data: bytes, executor: SessionExecutor) -> list[SessionRow]:
    """In the apply thread, between two slices: the sessions of the state that is there now."""
    source.install(data)
    return executor.session_rows()
