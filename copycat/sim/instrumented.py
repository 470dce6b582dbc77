"""Stores that report to the disk model: every promise, sync, rewrite and snapshot.

What is taken and what is installed is held against every other member's state of that index
(I12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from copycat.errors import require
from copycat.machine.apply_result import MachineQuery, QueryAnswer
from copycat.machine.session_executor import SessionExecutor
from copycat.machine.state_stream import PieceWriter
from copycat.sim.checkers.compaction import Frozen
from copycat.sim.checkers.disk_model import DiskModel
from copycat.sim.checkers.log_history import violated
from copycat.sim.model import SimMachine
from copycat.storage import FaultEnv
from copycat.storage.interface import (
    Batch,
    HardStateStore,
    ReplicaLog,
    Rewrite,
    SaveTicket,
    SyncTicket,
)
from copycat.storage.snapshot_file import Writer
from copycat.storage.snapshot_store import Reception, Snapshot, SnapshotStore
from copycat.types import (
    CompactionLimits,
    CompactionResult,
    EntryId,
    MemberId,
    Release,
    SegmentStats,
    TermRun,
)

__all__ = [
    "InstrumentedExecutor",
    "InstrumentedHardState",
    "InstrumentedLog",
    "InstrumentedSnapshots",
    "Seen",
]


class InstrumentedSnapshots(SnapshotStore):
    """A store that reports each snapshot to the disk model once it is durable.

    did: called with the kind of work that a thread does here (`options.KINDS`).
    """

    def __init__(
        self, env: FaultEnv, directory: str, disk_model: DiskModel, did: Callable[[str], None]
    ) -> None:
        super().__init__(env, directory)
        self._disk_model = disk_model
        self._did = did

    def finish(self, writer: Writer) -> Snapshot:
        self._did("snapshot saved")
        return super().finish(writer)

    def receive(self, entry: EntryId, nbytes: int, digest: bytes) -> Reception:
        super().receive(entry, nbytes, digest)  # refuses what is no snapshot
        path = self._path(entry, "part")
        return InstrumentedReception(
            self._env, path, entry, nbytes, digest, self._publish, did=self._did
        )

    def load(self, snapshot: Snapshot) -> bytes:
        self._did("snapshot published")
        return super().load(snapshot)

    def check(self, snapshot: Snapshot) -> None:
        self._did("snapshot checked")
        super().check(snapshot)

    def read(self, snapshot: Snapshot, offset: int, size: int) -> bytes:
        self._did("chunk read")
        return super().read(snapshot, offset, size)

    def _publish(self, aside: str, entry: EntryId, nbytes: int, digest: bytes) -> Snapshot:
        snapshot = super()._publish(aside, entry, nbytes, digest)
        self._disk_model.published(snapshot.entry)
        return snapshot

    def discard(self, entries: Iterable[EntryId]) -> list[EntryId]:
        going = list(entries)
        self._did("snapshots discarded")
        self._disk_model.discarding(going)
        discarded = super().discard(going)
        self._disk_model.discarded(discarded)
        return discarded


class InstrumentedReception(Reception):
    """A reception that says when the aside thread writes a chunk."""

    def __init__(self, *args: Any, did: Callable[[str], None]) -> None:
        super().__init__(*args)
        self._did = did

    def write(self, offset: int, data: bytes | memoryview) -> int:
        self._did("chunk written")
        return super().write(offset, data)

    def drop(self) -> None:
        self._did("chunks dropped")
        super().drop()


class Seen:
    """Which kind of work a thread just did, as the instrumented parts of the member saw it."""

    def __init__(self) -> None:
        self._kind = ""

    def did(self, kind: str) -> None:
        """An instrumented part was asked for this (`options.KINDS`)."""
        self._kind = kind

    def take(self) -> str:
        """The kind of the piece of work that just ended; "other" when nobody saw it."""
        kind, self._kind = self._kind, ""
        return kind or "other"


class InstrumentedExecutor(SessionExecutor):
    """An executor that says when its state becomes a snapshot (True) or is one now (False).

    did: called with the kind of work that the apply thread does (`options.KINDS`).
    """

    def __init__(
        self, on_snapshot: Callable[[SessionExecutor, bool], None], did: Callable[[str], None]
    ) -> None:
        super().__init__(SimMachine())
        self._on_snapshot = on_snapshot
        self._did = did

    def query(self, queries: list[MachineQuery]) -> list[QueryAnswer]:
        self._did("queries answered")
        return super().query(queries)

    def acknowledged_index(self) -> int:
        self._did("acknowledged index read")
        return super().acknowledged_index()

    def write_snapshot(self, write_piece: PieceWriter) -> None:
        self._did("snapshot taken")
        super().write_snapshot(write_piece)
        self._on_snapshot(self, True)

    def install(self, data: bytes) -> None:
        self._did("snapshot installed")
        super().install(data)
        self._on_snapshot(self, False)


class _InstrumentedSave:
    """A save ticket that tells the disk model which promise is now on the disk."""

    def __init__(self, inner: SaveTicket, disk_model: DiskModel, promise: tuple[int, int]) -> None:
        self.inner = inner
        self._disk_model = disk_model
        self._promise = promise
        disk_model.saving.append(promise)

    def run(self) -> None:
        self.inner.run()
        disk_model = self._disk_model
        if self._promise in disk_model.saving:
            del disk_model.saving[: disk_model.saving.index(self._promise) + 1]
            disk_model.hard_state = self._promise


class InstrumentedHardState:
    """A `HardStateStore` that reports every promise to the disk model."""

    def __init__(self, inner: HardStateStore, disk_model: DiskModel) -> None:
        self.inner = inner
        self._disk_model = disk_model

    @property
    def current_term(self) -> int:
        return self.inner.current_term

    @property
    def voted_for(self) -> MemberId:
        return self.inner.voted_for

    def begin_save(self, term: int, voted_for: MemberId) -> SaveTicket:
        before = (
            self._disk_model.saving[-1] if self._disk_model.saving else self._disk_model.hard_state
        )
        if term < before[0] or (term == before[0] and before[1] not in (0, voted_for)):
            raise violated(
                "I2",
                "the term decreases or the vote changes",
                member=self._disk_model.member,
                before=before,
                after=(term, voted_for),
            )
        return _InstrumentedSave(
            self.inner.begin_save(term, voted_for), self._disk_model, (term, voted_for)
        )

    def end_save(self, ticket: SaveTicket) -> None:
        self.inner.end_save(ticket.inner if isinstance(ticket, _InstrumentedSave) else ticket)


class _SyncScope:
    """What a sync that begins now makes durable."""

    def __init__(self, disk_model: DiskModel) -> None:
        self.upto = disk_model.last_index
        self._older = len(disk_model.older)
        self._installs = disk_model.gaps.installs
        self._front = disk_model.most
        self._disk_model = disk_model

    def note(self) -> None:
        """It is on the disk."""
        disk_model = self._disk_model
        disk_model.durable = max(disk_model.durable, self.upto)
        disk_model.gaps.durable = max(disk_model.gaps.durable, self._installs)
        del disk_model.older[: self._older]
        if not disk_model.older:
            disk_model.least = max(disk_model.least, self._front)


class _InstrumentedSync:
    """A sync ticket that tells the disk model what became durable when it ran."""

    def __init__(self, inner: SyncTicket, disk_model: DiskModel) -> None:
        self.inner = inner
        self._in_flight = disk_model.tickets
        self._scope = _SyncScope(disk_model)
        self._in_flight.append(self._scope)

    def run(self) -> None:
        self.inner.run()
        if self._scope in self._in_flight:
            self._in_flight.remove(self._scope)
            self._scope.note()


class _InstrumentedRewrite:
    """A rewrite with the facts of the moment at which it was frozen."""

    def __init__(self, inner: Rewrite, frozen: Frozen) -> None:
        self.inner = inner
        self.frozen = frozen

    def run(self) -> None:
        self.inner.run()

    def abandon(self) -> None:
        self.inner.abandon()


class InstrumentedLog:
    """A `ReplicaLog` that passes every call on and reports it to the disk model."""

    def __init__(
        self,
        inner: ReplicaLog,
        disk_model: DiskModel,
        on_install: Callable[[int], None] = lambda _: None,
        on_rewrite: Callable[[Rewrite], None] = lambda _: None,
        did: Callable[[str], None] = lambda _: None,
    ) -> None:
        """on_install: called with how many entries each install deleted. on_rewrite: called with
        every rewrite, which must not end before the simulated disk does. did: called with the
        kind of work that a thread does here (`options.KINDS`)."""
        self.inner = inner
        self._disk_model = disk_model
        self._on_install = on_install
        self._on_rewrite = on_rewrite
        self._did = did

    @property
    def first_index(self) -> int:
        return self.inner.first_index

    @property
    def last_index(self) -> int:
        return self.inner.last_index

    @property
    def last_entry(self) -> EntryId:
        return self.inner.last_entry

    @property
    def before(self) -> EntryId:
        return self.inner.before

    @property
    def valid_from(self) -> int:
        return self.inner.valid_from

    @property
    def durable_index(self) -> int:
        return self.inner.durable_index

    def read(self, first: int, end: int, max_bytes: int) -> Batch:
        return self.inner.read(first, end, max_bytes)

    def term_runs(self) -> list[TermRun]:
        return self.inner.term_runs()

    def has_room(self, nbytes: int, *, entries: int = 1, in_new_segment: bool = False) -> bool:
        return self.inner.has_room(nbytes, entries=entries, in_new_segment=in_new_segment)

    def wants_sync(self) -> bool:
        return self.inner.wants_sync()

    def wants_spare(self) -> bool:
        return self.inner.wants_spare()

    def prepare_spare(self) -> None:
        self._did("segment prepared")
        self.inner.prepare_spare()

    def has_obsolete_files(self) -> bool:
        return self.inner.has_obsolete_files()

    def remove_obsolete_files(self) -> None:
        self._did("files removed")
        self.inner.remove_obsolete_files()

    def trim(self, before: int) -> None:
        self._disk_model.trim(before)
        self.inner.trim(before)
        self._disk_model.trimmed(self.inner.first_index)

    def append(self, batch: Batch) -> None:
        frames = self._disk_model.announce(batch)
        scope = _SyncScope(self._disk_model)
        self.inner.append(batch)
        if self.inner.durable_index > self._disk_model.durable:
            scope.note()  # a segment was full, and the manifest was one behind already (C8)
        self._check_durable(self.inner.durable_index)
        self._disk_model.append(frames)

    def begin_sync(self) -> SyncTicket:
        return _InstrumentedSync(self.inner.begin_sync(), self._disk_model)

    def end_sync(self, ticket: SyncTicket) -> int:
        durable = self.inner.end_sync(
            ticket.inner if isinstance(ticket, _InstrumentedSync) else ticket
        )
        return self._check_durable(durable)

    def _check_durable(self, durable: int) -> int:
        if durable > self._disk_model.durable:
            raise violated(
                "I3",
                "the log claims more than was synced",
                member=self._disk_model.member,
                durable_index=durable,
                synced_index=self._disk_model.durable,
            )
        return durable

    def truncate(self, after: int) -> None:
        self._disk_model.truncate(after)
        self.inner.truncate(after)

    def reset(self, entry: EntryId) -> None:
        self._disk_model.reset(entry)
        self.inner.reset(entry)

    def release(self, indexes: Sequence[int], release_class: Release) -> None:
        self.inner.release(indexes, release_class)

    def segment_stats(self, limits: CompactionLimits) -> list[SegmentStats]:
        return self.inner.segment_stats(limits)

    def rewrite(
        self, groups: Sequence[Sequence[int]], limits: CompactionLimits, *, major: bool
    ) -> Rewrite:
        rows = {row.id: row for row in self.inner.segment_stats(limits)}
        first = min(rows[id].first_index for group in groups for id in group)
        last = max(rows[id].last_index for group in groups for id in group)
        frozen = self._disk_model.freeze(limits, first, last, is_major=major)
        inner = self.inner.rewrite(groups, limits, major=major)
        self._on_rewrite(inner)
        return _InstrumentedRewrite(inner, frozen)

    def install(self, rewrite: Rewrite) -> CompactionResult:
        """The laws are held against what can be read now. A power cut leaves that to recovery."""
        require(isinstance(rewrite, _InstrumentedRewrite), "a rewrite of another log")
        assert isinstance(rewrite, _InstrumentedRewrite)  # noqa: S101  # for the type checker
        result = self.inner.install(rewrite.inner)
        if result.segments_after:
            self._disk_model.installing(rewrite.frozen)
            deleted = self._disk_model.installed(self.inner, rewrite.frozen)
            self._on_install(deleted)
        return result

    def mark_idle(self) -> None:
        self.inner.mark_idle()

    def close(self) -> None:
        self.inner.close()
