"""Hard state and snapshots under watch: the shadow is told of every promise and every snapshot.

What is taken and what is installed is held against every other member's state of that index
(I12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from copycat.log.disk import FaultEnv
from copycat.log.interface import HardStateStore, SaveTicket
from copycat.log.snapshot_file import Writer
from copycat.log.snapshots import Reception, Snapshot, SnapshotStore
from copycat.machine.executor import Executor
from copycat.machine.outcome import QueryAnswer, QueryAsk
from copycat.machine.state_stream import Sink
from copycat.sim.checkers_log import violated
from copycat.sim.checkers_shadow import Shadow
from copycat.sim.model import SimMachine
from copycat.types import EntryId, MemberId

__all__ = ["Seen", "WatchedExecutor", "WatchedHardState", "WatchedSnapshots"]


class WatchedSnapshots(SnapshotStore):
    """A store that lets the shadow know of each snapshot once it is durable.

    did: called with the kind of work that a thread does here (`workers.KINDS`).
    """

    def __init__(
        self, env: FaultEnv, directory: str, shadow: Shadow, did: Callable[[str], None]
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

    def __init__(self, inner: SaveTicket, shadow: Shadow, promise: tuple[int, int]) -> None:
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

    def __init__(self, inner: HardStateStore, shadow: Shadow) -> None:
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
