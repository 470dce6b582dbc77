"""Snapshot files on their way between members: as they lie, in chunks, verified whole (D8).

The sender keeps a few chunks in flight and begins with a question, so that a transfer goes on
where it broke off; the receiver writes only what continues what it has. One transfer a peer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from copycat.errors import CorruptLogError, DiskFullError, ProtocolError
from copycat.log.snapshots import Reception, Snapshot, SnapshotStore
from copycat.protocol.codec import encode_install
from copycat.protocol.peer import InstallSnapshot
from copycat.raft.effects import EndShipping, ReceiveChunk, ShipChunks, ShipSnapshot
from copycat.raft.events import (
    Event,
    SnapshotHeld,
    SnapshotInstalled,
    SnapshotShipping,
    Unreachable,
)
from copycat.replica.carry import Parts
from copycat.replica.snapshotting import Snapshotting
from copycat.types import MemberId

__all__ = ["CHUNK_NBYTES", "Receiving", "Sending"]

log = logging.getLogger("copycat.replica")

CHUNK_NBYTES = 1 << 20
"""Bytes of the file in one message."""
WINDOW = 3
"""Chunks in flight to one peer: two hide the round trip, one more the disk's."""
SENDING_MAX = 2
"""Transfers under way at a time: they share disk and link with the entries."""
AGAIN_MS = 1000
"""A full disk takes no chunk for so long."""


class _Shipment:
    """One file on its way to one peer."""

    __slots__ = ("acked", "is_active", "is_asking", "is_reading", "request", "sent", "snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.request = 0
        self.acked = 0
        """Bytes that the peer says it holds."""
        self.sent = 0
        self.is_active = True
        self.is_asking = False
        """What is in flight counts as lost; the next answer says where to go on."""
        self.is_reading = False


class Sending:
    """The leader's side. Effects come in from the carrier; events go back through `queue`."""

    def __init__(
        self,
        parts: Parts,
        store: SnapshotStore | None,
        *,
        queue: Callable[[Event], None],
        enqueue: Callable[[Callable[[], None]], None],
    ) -> None:
        self._parts = parts
        self._store = store
        self._queue = queue
        self._enqueue = enqueue
        self._ships: dict[MemberId, _Shipment] = {}
        self.snapshotting: Snapshotting | None = None

    def shipped(self) -> list[int]:
        """Indexes of the snapshots under way: their receivers go on with the log from there."""
        return [ship.snapshot.entry.index for ship in self._ships.values() if ship.is_active]

    def ship(self, effect: ShipSnapshot) -> None:
        """Begin, take up again, or ask how far it is."""
        store, peer = self._store, effect.peer
        if store is None:
            return
        least = max(effect.floor, self._parts.raft.terms.first_index - 1)
        ship = self._ships.get(peer)
        if ship is not None and ship.snapshot.entry.index < least:
            self._drop(peer)
            ship = None
        if ship is None:
            ship = self._choose(store, least)
            if ship is None:
                return  # asked for again with the next heartbeat
            store.pin(ship.snapshot.entry)
            self._ships[peer] = ship
        ship.request = effect.request
        ship.is_active = ship.is_asking = True
        self._queue(SnapshotShipping(peer, effect.request, ship.snapshot.entry))
        self._write(peer, ship, 0, b"")

    def _choose(self, store: SnapshotStore, least: int) -> _Shipment | None:
        if len(self.shipped()) >= SENDING_MAX:
            return None
        newest = store.newest
        if newest is not None and newest.entry.index >= max(least, 1):
            return _Shipment(newest)
        if self.snapshotting is not None:
            self.snapshotting.take()
        return None

    def go_on(self, effect: ShipChunks) -> None:
        """The peer holds `offset` bytes."""
        ship = self._ships.get(effect.peer)
        if ship is None or ship.request != effect.request:
            return
        ship.acked = min(effect.offset, ship.snapshot.nbytes)
        ship.sent = ship.acked if ship.is_asking else max(ship.sent, ship.acked)
        ship.is_asking = False
        self._pump(effect.peer, ship)

    def _pump(self, peer: MemberId, ship: _Shipment) -> None:
        """Read the next chunk aside, unless the window is full or one is being read."""
        store, at = self._store, ship.sent
        size = min(CHUNK_NBYTES, ship.snapshot.nbytes - at)
        is_full = at - ship.acked >= WINDOW * CHUNK_NBYTES
        if store is None or ship.is_reading or is_full or size <= 0:
            return
        ship.is_reading = True
        snapshot = ship.snapshot
        self._parts.host.aside(
            lambda: store.read(snapshot, at, size),
            lambda data: self._enqueue(lambda: self._was_read(peer, ship, at, data)),
        )

    def _was_read(self, peer: MemberId, ship: _Shipment, at: int, data: bytes) -> None:
        ship.is_reading = False
        if self._ships.get(peer) is not ship or not ship.is_active or ship.is_asking:
            return
        if at == ship.sent:
            ship.sent += len(data)
            self._write(peer, ship, at, data)
        self._pump(peer, ship)

    def _write(self, peer: MemberId, ship: _Shipment, offset: int, data: bytes) -> None:
        snapshot = ship.snapshot
        message = InstallSnapshot(
            self._parts.raft.current_term,
            ship.request,
            snapshot.entry,
            snapshot.nbytes,
            snapshot.digest,
            offset,
        )
        header = encode_install(message, len(data))
        if not self._parts.host.send(peer, header, data or None):
            ship.is_asking = True
            self._queue(Unreachable(peer))

    def end(self, effect: EndShipping) -> None:
        """The peer has it; or the link broke, and the same file goes on when it is back."""
        ship = self._ships.get(effect.peer)
        if ship is None:
            return
        if effect.done:
            self._drop(effect.peer)
        else:
            ship.is_active = False

    def drop_all(self) -> None:
        """This member does not lead any more."""
        for peer in list(self._ships):
            self._drop(peer)

    def _drop(self, peer: MemberId) -> None:
        ship = self._ships.pop(peer)
        if self._store is not None:
            self._store.unpin(ship.snapshot.entry)


class _Whole(NamedTuple):
    """A file that arrived whole, was verified and published."""

    snapshot: Snapshot
    data: bytes


class Receiving:
    """The follower's side: one snapshot at a time, whoever sends it.

    install: makes a verified snapshot the member's state; `done` is called in a turn.
    """

    def __init__(
        self,
        parts: Parts,
        store: SnapshotStore | None,
        *,
        step: Callable[[Event], None],
        enqueue: Callable[[Callable[[], None]], None],
        install: Callable[[Snapshot, bytes, Callable[[], None]], None],
    ) -> None:
        self._parts = parts
        self._store = store
        self._step = step
        self._enqueue = enqueue
        self._install = install
        self._reception: Reception | None = None
        self._is_finishing = False
        self.publishing = 0
        """What the snapshot covers that is on its way to its name; 0: none is."""
        self._writing = 0
        self._again_ms = 0

    def receive(self, effect: ReceiveChunk, body: bytes) -> None:
        """Some bytes, or the question how many are here. Silence makes the sender ask again."""
        message, store = effect.message, self._store
        if store is None or self._is_finishing or self._parts.clock.now_ms < self._again_ms:
            return
        reception = self._reception
        if reception is None or not reception.is_of(message.entry, message.nbytes, message.digest):
            if self._writing:
                return  # another file's chunk is on its way to the disk
            reception = self._begin(store, message)
            if reception is None:
                return
        if body:
            self._writing += 1
            took = reception
            self._parts.host.aside(
                lambda: _write(took, message.offset, body),
                lambda held: self._enqueue(lambda: self._written(took, effect, held)),
            )
        elif not self._writing:
            self._held(effect, reception.held)

    def _begin(self, store: SnapshotStore, message: InstallSnapshot) -> Reception | None:
        older = self._reception
        try:
            self._reception = store.receive(message.entry, message.nbytes, message.digest)
        except ProtocolError as error:
            log.warning("a snapshot is refused: %s", error)
            return None
        if older is not None:
            self._parts.host.aside(older.drop, lambda _: None)
        return self._reception

    def _written(
        self, reception: Reception, effect: ReceiveChunk, held: int | DiskFullError
    ) -> None:
        self._writing -= 1
        if reception is not self._reception or self._is_finishing:
            return
        if isinstance(held, DiskFullError):
            log.warning("a snapshot of the leader has no room: %s (F13)", held)
            self._again_ms = self._parts.clock.now_ms + AGAIN_MS
            self._reception = None
        elif held < reception.nbytes:
            self._held(effect, held)
        elif self._parts.raft.commit_index >= reception.entry.index:
            # Entries were quicker, and may have been cleaned since: it must not be kept (C23).
            self._reception = None
            self._parts.host.aside(reception.drop, lambda _: None)
        else:
            self._is_finishing = True
            self.publishing = reception.entry.index
            store = self._store
            self._parts.host.aside(
                lambda: _finish(store, reception),
                lambda whole: self._enqueue(lambda: self._finished(effect, whole)),
            )

    def _held(self, effect: ReceiveChunk, offset: int) -> None:
        message = effect.message
        self._step(
            SnapshotHeld(effect.sender, message.term, message.request, message.entry, offset)
        )

    def _finished(
        self, effect: ReceiveChunk, whole: _Whole | CorruptLogError | DiskFullError
    ) -> None:
        self._reception = None
        self._is_finishing = False
        if not isinstance(whole, _Whole):
            self.publishing = 0
            log.warning("a snapshot that arrived is not good, it is asked for anew: %s", whole)
            self._again_ms = self._parts.clock.now_ms + AGAIN_MS
            return
        self._is_finishing = True  # nothing else is taken until it is installed
        self._install(whole.snapshot, whole.data, lambda: self._installed(effect))

    def postpone(self, snapshot: Snapshot) -> None:
        """No room to install what arrived: asked for anew, when there may be (F13).

        Its file goes: left behind, a restart would begin with it, whatever was cleaned since.
        """
        store = self._store
        assert store is not None  # noqa: S101  # for the type checker
        log.warning("a snapshot of the leader has no room to be installed (F13)")
        self._parts.host.aside(
            lambda: store.discard([snapshot.entry]),
            lambda _: self._enqueue(self._postponed),
        )

    def _postponed(self) -> None:
        self._is_finishing = False
        self.publishing = 0
        self._again_ms = self._parts.clock.now_ms + AGAIN_MS

    def _installed(self, effect: ReceiveChunk) -> None:
        self._is_finishing = False
        self.publishing = 0
        message = effect.message
        self._step(SnapshotInstalled(effect.sender, message.request, message.entry))


def _write(reception: Reception, offset: int, body: bytes) -> int | DiskFullError:
    try:
        return reception.write(offset, body)
    except DiskFullError as error:
        return error


def _finish(
    store: SnapshotStore | None, reception: Reception
) -> _Whole | CorruptLogError | DiskFullError:
    """Verify, publish and load (aside)."""
    assert store is not None  # noqa: S101  # for the type checker
    try:
        snapshot = reception.finish()
        return _Whole(snapshot, store.load(snapshot))
    except (CorruptLogError, DiskFullError) as error:
        return error
