"""Hard state and snapshots under watch: the shadow is told of every promise and every snapshot.

What is taken and what is installed is held against every other member's state of that index
(I12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from copycat.log.disk import FaultEnv
from copycat.log.interface import HardStateStore, SaveTicket
from copycat.log.snapshots import Snapshot, SnapshotStore
from copycat.machine.executor import Executor
from copycat.machine.state_stream import Sink
from copycat.sim.checkers_log import violated
from copycat.sim.checkers_shadow import Shadow
from copycat.sim.model import SimMachine
from copycat.types import EntryId, MemberId

__all__ = ["WatchedExecutor", "WatchedHardState", "WatchedSnapshots"]


class WatchedSnapshots(SnapshotStore):
    """A store that lets the shadow know of each snapshot once it is durable."""

    def __init__(self, env: FaultEnv, directory: str, shadow: Shadow) -> None:
        super().__init__(env, directory)
        self._shadow = shadow

    def _publish(self, aside: str, entry: EntryId, nbytes: int, digest: bytes) -> Snapshot:
        snapshot = super()._publish(aside, entry, nbytes, digest)
        self._shadow.published(snapshot.entry)
        return snapshot

    def discard(self, entries: Iterable[EntryId]) -> list[EntryId]:
        going = list(entries)
        self._shadow.discarding(going)
        gone = super().discard(going)
        self._shadow.discarded(gone)
        return gone


class WatchedExecutor(Executor):
    """An executor that says when its state becomes a snapshot (True) or is one now (False)."""

    def __init__(self, told: Callable[[Executor, bool], None]) -> None:
        super().__init__(SimMachine())
        self._told = told

    def write_snapshot(self, sink: Sink) -> None:
        super().write_snapshot(sink)
        self._told(self, True)

    def install(self, data: bytes) -> None:
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
