"""Snapshot files on their way between members: as they lie, in chunks, verified whole.

The sender keeps a few chunks in flight and begins with a question, so that a transfer goes on
where it broke off; the receiver writes only what continues what it has. One transfer a peer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

from copycat.errors import CorruptLogError, DiskFullError, ProtocolError, ResourceError
from copycat.protocol.codec_peer import encode_install
from copycat.protocol.peer import InstallSnapshot
from copycat.raft.effects import EndShipping, ReceiveChunk, ShipChunks, ShipSnapshot
from copycat.raft.events import (
    SnapshotHeld,
    SnapshotInstalled,
    SnapshotShipping,
    Unreachable,
)
from copycat.replica.driver import Driver, ReplicaParts
from copycat.replica.host import Lane
from copycat.replica.snapshot_taker import SnapshotTaker
from copycat.storage.snapshot_store import Reception, Snapshot, SnapshotStore
from copycat.types import EntryId, MemberId

__all__ = ["CHUNK_NBYTES", "SnapshotReceiver", "SnapshotSender"]

log = logging.getLogger("copycat.replica")

CHUNK_NBYTES = 1 << 20
"""Bytes of the file in one message."""
WINDOW = 3
"""Chunks in flight to one peer: two hide the round trip, one more the disk's."""
SENDING_MAX = 2
"""Transfers under way at a time: they share disk and link with the entries."""
_NoRoom = DiskFullError | ResourceError
AGAIN_MS = 1000
"""A full disk takes no chunk for so long."""
STALLED_MS = 60_000
"""A transfer that brought its peer nothing new for so long makes room for whoever needs it: the
front of this log, or another peer. A peer that goes on later is sent the newest snapshot."""


_Bad: TypeAlias = CorruptLogError | FileNotFoundError
"""What a file that is not what it was read back as says of itself."""


class _Transfer:
    """One file on its way to one peer."""

    __slots__ = (
        "acked",
        "gained_ms",
        "is_active",
        "is_asking",
        "is_checked",
        "is_reading",
        "most",
        "request",
        "sent",
        "snapshot",
    )

    def __init__(self, snapshot: Snapshot, now_ms: int) -> None:
        self.snapshot = snapshot
        self.request = 0
        self.acked = 0
        """Bytes that the peer says it holds."""
        self.most = 0
        """The highest `acked` was."""
        self.gained_ms = now_ms
        """When `most` rose last."""
        self.sent = 0
        self.is_active = True
        self.is_asking = False
        """What is in flight counts as lost; the next answer says where to go on."""
        self.is_reading = False
        self.is_checked = False
        """The file is being read back, because the peer would not have it."""

    def answered(self, offset: int, now_ms: int) -> bool:
        """The peer holds `offset` bytes. False when it has to begin anew: it has lost what it
        held, or all was sent and it found that it is not good."""
        is_lost = self.is_asking and offset == 0
        if is_lost and (self.most or self.sent >= self.snapshot.nbytes):
            return False
        self.acked = min(offset, self.snapshot.nbytes)
        self.sent = self.acked if self.is_asking else max(self.sent, self.acked)
        self.is_asking = False
        if self.acked > self.most:
            self.most, self.gained_ms = self.acked, now_ms
        return True


class SnapshotSender:
    """The leader's side. Effects come in from the carrier; events go back through `queue`."""

    def __init__(
        self,
        parts: ReplicaParts,
        driver: Driver,
        store: SnapshotStore | None,
    ) -> None:
        self._parts = parts
        self._store = store
        self._driver = driver
        self._ships: dict[MemberId, _Transfer] = {}
        self.snapshotting: SnapshotTaker | None = None

    def shipped(self) -> list[int]:
        """Indexes of the snapshots under way: their receivers go on with the log from there.

        Asked by whom they stand in the way of, so those that stall are given up here. One whose
        link is broken counts for the log no more, but its file would stay for ever.
        """
        now_ms = self._parts.clock.now_ms
        for peer, ship in list(self._ships.items()):
            if now_ms - ship.gained_ms >= STALLED_MS:
                log.warning(
                    "the snapshot of %d entries brought a peer nothing new for %d s: what it"
                    " holds back is let go, and the peer gets the newest when it goes on",
                    ship.snapshot.entry.index,
                    STALLED_MS // 1000,
                )
                self._drop(peer)
        return [ship.snapshot.entry.index for ship in self._ships.values() if ship.is_active]

    def ship(self, effect: ShipSnapshot) -> None:
        """Begin, take up again, or ask how far it is."""
        store, peer = self._store, effect.peer
        if store is None:
            return
        least = max(effect.min_index, self._parts.raft.terms.first_index - 1)
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
        self._driver.queue(SnapshotShipping(peer, effect.request, ship.snapshot.entry))
        self._write(peer, ship, 0, b"")

    def _choose(self, store: SnapshotStore, least: int) -> _Transfer | None:
        if len(self.shipped()) >= SENDING_MAX:
            return None
        newest = store.newest
        if newest is not None and newest.entry.index >= max(least, 1):
            return _Transfer(newest, self._parts.clock.now_ms)
        if self.snapshotting is not None:
            self.snapshotting.take()
        return None

    def go_on(self, effect: ShipChunks) -> None:
        """The peer holds `offset` bytes."""
        ship = self._ships.get(effect.peer)
        if ship is None or ship.request != effect.request or ship.is_checked:
            return
        if ship.answered(effect.offset, self._parts.clock.now_ms):
            self._pump(effect.peer, ship)
        elif ship.sent >= ship.snapshot.nbytes:
            self._check(effect.peer, ship)
        else:
            self._drop(effect.peer)  # nothing is lost by beginning with the newest

    def _check(self, peer: MemberId, ship: _Transfer) -> None:
        """The whole of it arrived, and is not held: was it bad here? Then on with the newest."""
        store, snapshot = self._store, ship.snapshot
        if store is None:
            return
        ship.is_checked = True
        work = partial(_check, store, snapshot)
        self._parts.inbox.run(Lane.ASIDE, work, partial(self._checked, store, peer, ship))

    def _checked(
        self, store: SnapshotStore, peer: MemberId, ship: _Transfer, error: _Bad | None
    ) -> None:
        if error is not None:
            self._reject(store, ship.snapshot, error)
        elif self._ships.get(peer) is ship:
            self._drop(peer)

    def _reject(self, store: SnapshotStore, snapshot: Snapshot, error: _Bad) -> None:
        """F17: a bad file is nobody's snapshot any more, and a good one takes its place."""
        for peer, ship in list(self._ships.items()):
            if ship.snapshot is snapshot:
                self._drop(peer)
        if store.reject(snapshot):
            log.warning("a snapshot of this member is bad, another one is sent: %s (F17)", error)
            if self.snapshotting is not None:
                self.snapshotting.take()

    def _pump(self, peer: MemberId, ship: _Transfer) -> None:
        """Read the next chunk aside, unless the window is full or one is being read."""
        store, at = self._store, ship.sent
        size = min(CHUNK_NBYTES, ship.snapshot.nbytes - at)
        is_full = at - ship.acked >= WINDOW * CHUNK_NBYTES
        if store is None or ship.is_reading or is_full or size <= 0:
            return
        ship.is_reading = True
        work = partial(_read, store, ship.snapshot, at, size)
        self._parts.inbox.run(Lane.ASIDE, work, partial(self._was_read, peer, ship, at))

    def _was_read(self, peer: MemberId, ship: _Transfer, at: int, data: bytes | _Bad) -> None:
        ship.is_reading = False
        if self._ships.get(peer) is not ship or not ship.is_active or ship.is_asking:
            return
        if not isinstance(data, bytes):
            if self._store is not None:
                self._reject(self._store, ship.snapshot, data)
            return
        if at == ship.sent:
            ship.sent += len(data)
            self._write(peer, ship, at, data)
        self._pump(peer, ship)

    def _write(self, peer: MemberId, ship: _Transfer, offset: int, data: bytes) -> None:
        snapshot = ship.snapshot
        message = InstallSnapshot(
            self._parts.raft.current_term,
            self._parts.raft.member,
            ship.request,
            snapshot.entry,
            snapshot.nbytes,
            snapshot.digest,
            offset,
        )
        header = encode_install(message, len(data))
        if not self._parts.host.send(peer, header, data or None):
            ship.is_asking = True
            self._driver.queue(Unreachable(peer))

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


def _read(store: SnapshotStore, snapshot: Snapshot, at: int, size: int) -> bytes | _Bad:
    try:
        return store.read(snapshot, at, size)
    except (CorruptLogError, FileNotFoundError) as error:
        return error


def _check(store: SnapshotStore, snapshot: Snapshot) -> _Bad | None:
    try:
        store.check(snapshot)
    except (CorruptLogError, FileNotFoundError) as error:
        return error
    return None


class _Whole(NamedTuple):
    """A file that arrived whole, was verified and published."""

    snapshot: Snapshot
    data: bytes


class SnapshotReceiver:
    """The follower's side: one snapshot at a time, whoever sends it.

    install: makes a verified snapshot the member's state; `done` is called in a turn.
    """

    def __init__(
        self,
        parts: ReplicaParts,
        driver: Driver,
        store: SnapshotStore | None,
        *,
        install: Callable[[Snapshot, bytes, Callable[[], None]], None],
    ) -> None:
        self._parts = parts
        self._store = store
        self._driver = driver
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
            work = partial(_write, reception, message.offset, body)
            self._parts.inbox.run(Lane.ASIDE, work, partial(self._written, reception, effect))
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
            self._parts.inbox.run(Lane.ASIDE, older.drop, _ignore)
        return self._reception

    def _written(self, reception: Reception, effect: ReceiveChunk, held: int | _NoRoom) -> None:
        self._writing -= 1
        if reception is not self._reception or self._is_finishing:
            return
        if isinstance(held, DiskFullError | ResourceError):
            log.warning("a snapshot of the leader has no room: %s (F13)", held)
            self._again_ms = self._parts.clock.now_ms + AGAIN_MS
            self._reception = None
        elif held < reception.nbytes:
            self._held(effect, held)
        elif self._parts.raft.commit_index >= reception.entry.index:
            # Entries were quicker, and may have been cleaned since: it must not be kept (C23).
            self._reception = None
            self._parts.inbox.run(Lane.ASIDE, reception.drop, _ignore)
        else:
            self._is_finishing = True
            self.publishing = reception.entry.index
            work = partial(_finish, self._store, reception)
            self._parts.inbox.run(Lane.ASIDE, work, partial(self._finished, effect))

    def _held(self, effect: ReceiveChunk, offset: int) -> None:
        message = effect.message
        self._driver.step(
            SnapshotHeld(effect.sender, message.term, message.request, message.entry, offset)
        )

    def _finished(self, effect: ReceiveChunk, whole: _Whole | CorruptLogError | _NoRoom) -> None:
        self._reception = None
        self._is_finishing = False
        if not isinstance(whole, _Whole):
            self.publishing = 0
            log.warning("a snapshot that arrived is not good, it is asked for anew: %s", whole)
            self._again_ms = self._parts.clock.now_ms + AGAIN_MS
            return
        self._is_finishing = True  # nothing else is taken until it is installed
        self._install(whole.snapshot, whole.data, partial(self._installed, effect))

    def postpone(self, snapshot: Snapshot) -> None:
        """No room to install what arrived: asked for anew, when there may be (F13).

        Its file goes: left behind, a restart would begin with it, whatever was cleaned since.
        """
        store = self._store
        assert store is not None  # noqa: S101  # for the type checker
        log.warning("a snapshot of the leader has no room to be installed (F13)")
        work = partial(store.discard, [snapshot.entry])
        self._parts.inbox.run(Lane.ASIDE, work, self._postponed)

    def _postponed(self, _: list[EntryId]) -> None:
        self._is_finishing = False
        self.publishing = 0
        self._again_ms = self._parts.clock.now_ms + AGAIN_MS

    def _installed(self, effect: ReceiveChunk) -> None:
        self._is_finishing = False
        self.publishing = 0
        message = effect.message
        self._driver.step(SnapshotInstalled(effect.sender, message.request, message.entry))


def _ignore(_: None) -> None:
    """Nobody waits for it."""


def _write(reception: Reception, offset: int, body: bytes) -> int | _NoRoom:
    try:
        return reception.write(offset, body)
    except (DiskFullError, ResourceError) as error:
        return error


def _finish(
    store: SnapshotStore | None, reception: Reception
) -> _Whole | CorruptLogError | _NoRoom:
    """Verify, publish and load (aside)."""
    assert store is not None  # noqa: S101  # for the type checker
    try:
        snapshot = reception.finish()
        return _Whole(snapshot, store.load(snapshot))
    except (CorruptLogError, DiskFullError, ResourceError) as error:
        return error
