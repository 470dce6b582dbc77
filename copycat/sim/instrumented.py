"""Hard state and snapshots under watch: the shadow is told of every promise and every snapshot.

What is taken and what is installed is held against every other member's state of that index
(I12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from copycat.errors import require
from copycat.machine.executor import Executor
from copycat.machine.outcome import QueryAnswer, QueryAsk
from copycat.machine.state_stream import Sink
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

__all__ = ["Seen", "WatchedExecutor", "WatchedHardState", "WatchedLog", "WatchedSnapshots"]


class WatchedSnapshots(SnapshotStore):
    """A store that lets the shadow know of each snapshot once it is durable.

    did: called with the kind of work that a thread does here (`workers.KINDS`).
    """

    def __init__(
        self, env: FaultEnv, directory: str, shadow: DiskModel, did: Callable[[str], None]
    ) -> None:
        super().__init__(env, directory)
        self._shadow = shadow
        self._did = did

    def finish(self, writer: Writer) -> Snapshot:
        self._did("snapshot saved")
        return super().finish(writer)

    def receive(self, entry: EntryId, nbytes: int, digest: bytes) -> Reception:
        super().receive(entry, nbytes, digest)  # refuses what is no snapshot
        path = self._path(entry, "part")
        return WatchedReception(
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
        self._shadow.published(snapshot.entry)
        return snapshot

    def discard(self, entries: Iterable[EntryId]) -> list[EntryId]:
        going = list(entries)
        self._did("snapshots discarded")
        self._shadow.discarding(going)
        gone = super().discard(going)
        self._shadow.discarded(gone)
        return gone


class WatchedReception(Reception):
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
    """Which kind of work a thread just did, as the watched parts of the member saw it."""

    def __init__(self) -> None:
        self._kind = ""

    def did(self, kind: str) -> None:
        """A watched part was asked for this (`workers.KINDS`)."""
        self._kind = kind

    def take(self) -> str:
        """The kind of the piece of work that just ended; "other" when nobody saw it."""
        kind, self._kind = self._kind, ""
        return kind or "other"


class WatchedExecutor(Executor):
    """An executor that says when its state becomes a snapshot (True) or is one now (False).

    did: called with the kind of work that the apply thread does (`workers.KINDS`).
    """

    def __init__(self, told: Callable[[Executor, bool], None], did: Callable[[str], None]) -> None:
        super().__init__(SimMachine())
        self._told = told
        self._did = did

    def query(self, asks: list[QueryAsk]) -> list[QueryAnswer]:
        self._did("queries answered")
        return super().query(asks)

    def reply_floor(self) -> int:
        self._did("reply floor read")
        return super().reply_floor()

    def write_snapshot(self, sink: Sink) -> None:
        self._did("snapshot taken")
        super().write_snapshot(sink)
        self._told(self, True)

    def install(self, data: bytes) -> None:
        self._did("snapshot installed")
        super().install(data)
        self._told(self, False)


class _WatchedSave:
    """A save ticket that tells the shadow which promise is now on the disk."""

    def __init__(self, inner: SaveTicket, shadow: DiskModel, promise: tuple[int, int]) -> None:
        self.inner = inner
        self._shadow = shadow
        self._promise = promise
        shadow.saving.append(promise)

    def run(self) -> None:
        self.inner.run()
        shadow = self._shadow
        if self._promise in shadow.saving:
            del shadow.saving[: shadow.saving.index(self._promise) + 1]
            shadow.hard_state = self._promise


class WatchedHardState:
    """A `HardStateStore` that lets the shadow see every promise."""

    def __init__(self, inner: HardStateStore, shadow: DiskModel) -> None:
        self.inner = inner
        self._shadow = shadow

    @property
    def current_term(self) -> int:
        return self.inner.current_term

    @property
    def voted_for(self) -> MemberId:
        return self.inner.voted_for

    def begin_save(self, term: int, voted_for: MemberId) -> SaveTicket:
        before = self._shadow.saving[-1] if self._shadow.saving else self._shadow.hard_state
        if term < before[0] or (term == before[0] and before[1] not in (0, voted_for)):
            raise violated(
                "I2",
                "the hard state goes back or changes its vote",
                member=self._shadow.member,
                before=before,
                after=(term, voted_for),
            )
        return _WatchedSave(
            self.inner.begin_save(term, voted_for), self._shadow, (term, voted_for)
        )

    def end_save(self, ticket: SaveTicket) -> None:
        self.inner.end_save(ticket.inner if isinstance(ticket, _WatchedSave) else ticket)


class _Synced:
    """What a sync that begins now makes durable."""

    def __init__(self, shadow: DiskModel) -> None:
        self.upto = shadow.last_index
        self._older = len(shadow.older)
        self._installs = shadow.gaps.installs
        self._front = shadow.most
        self._shadow = shadow

    def note(self) -> None:
        """It is on the platter."""
        shadow = self._shadow
        shadow.durable = max(shadow.durable, self.upto)
        shadow.gaps.durable = max(shadow.gaps.durable, self._installs)
        del shadow.older[: self._older]
        if not shadow.older:
            shadow.least = max(shadow.least, self._front)


class _WatchedSync(_Synced):
    """A sync ticket that tells the shadow what became durable when it ran."""

    def __init__(self, inner: SyncTicket, shadow: DiskModel) -> None:
        super().__init__(shadow)
        self.inner = inner
        shadow.tickets.append(self)

    def run(self) -> None:
        self.inner.run()
        if self in self._shadow.tickets:
            self._shadow.tickets.remove(self)
            self.note()


class _WatchedRewrite:
    """A rewrite with the facts of the moment at which it was frozen."""

    def __init__(self, inner: Rewrite, frozen: Frozen) -> None:
        self.inner = inner
        self.frozen = frozen

    def run(self) -> None:
        self.inner.run()

    def abandon(self) -> None:
        self.inner.abandon()


class WatchedLog:
    """A `ReplicaLog` that passes everything on and lets the shadow see it."""

    def __init__(
        self,
        inner: ReplicaLog,
        shadow: DiskModel,
        told: Callable[[int], None] = lambda _: None,
        kept: Callable[[Rewrite], None] = lambda _: None,
        did: Callable[[str], None] = lambda _: None,
    ) -> None:
        """told: called with how many entries each install let go.  kept: takes every rewrite,
        which must not end before the simulated disk does.  did: called with the kind of work
        that a thread does here (`workers.KINDS`)."""
        self.inner = inner
        self._shadow = shadow
        self._told = told
        self._kept = kept
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

    def has_orphans(self) -> bool:
        return self.inner.has_orphans()

    def remove_orphans(self) -> None:
        self._did("files removed")
        self.inner.remove_orphans()

    def trim(self, before: int) -> None:
        self._shadow.trim(before)
        self.inner.trim(before)
        self._shadow.trimmed(self.inner.first_index)

    def append(self, batch: Batch) -> None:
        frames = self._shadow.announce(batch)
        synced = _Synced(self._shadow)
        self.inner.append(batch)
        if self.inner.durable_index > self._shadow.durable:
            synced.note()  # a segment was full, and the manifest was one behind already (C8)
        self._check_durable(self.inner.durable_index)
        self._shadow.append(frames)

    def begin_sync(self) -> SyncTicket:
        return _WatchedSync(self.inner.begin_sync(), self._shadow)

    def end_sync(self, ticket: SyncTicket) -> int:
        durable = self.inner.end_sync(ticket.inner if isinstance(ticket, _WatchedSync) else ticket)
        return self._check_durable(durable)

    def _check_durable(self, durable: int) -> int:
        if durable > self._shadow.durable:
            raise violated(
                "I3",
                "the log claims more than was synced",
                member=self._shadow.member,
                durable_index=durable,
                platter=self._shadow.durable,
            )
        return durable

    def truncate(self, after: int) -> None:
        self._shadow.truncate(after)
        self.inner.truncate(after)

    def reset(self, entry: EntryId) -> None:
        self._shadow.reset(entry)
        self.inner.reset(entry)

    def release(self, indexes: Sequence[int], how: Release) -> None:
        self.inner.release(indexes, how)

    def segment_stats(self, limits: CompactionLimits) -> list[SegmentStats]:
        return self.inner.segment_stats(limits)

    def rewrite(
        self, groups: Sequence[Sequence[int]], limits: CompactionLimits, *, major: bool
    ) -> Rewrite:
        rows = {row.id: row for row in self.inner.segment_stats(limits)}
        first = min(rows[id].first_index for group in groups for id in group)
        last = max(rows[id].last_index for group in groups for id in group)
        frozen = self._shadow.freeze(limits, first, last, is_major=major)
        inner = self.inner.rewrite(groups, limits, major=major)
        self._kept(inner)
        return _WatchedRewrite(inner, frozen)

    def install(self, rewrite: Rewrite) -> CompactionResult:
        """The laws are held against what can be read now. A power cut leaves that to recovery."""
        require(isinstance(rewrite, _WatchedRewrite), "a rewrite of another log")
        assert isinstance(rewrite, _WatchedRewrite)  # noqa: S101  # for the type checker
        result = self.inner.install(rewrite.inner)
        if result.segments_after:
            self._shadow.installing(rewrite.frozen)
            gone = self._shadow.installed(self.inner, rewrite.frozen)
            self._told(gone)
        return result

    def mark_idle(self) -> None:
        self.inner.mark_idle()

    def close(self) -> None:
        self.inner.close()
