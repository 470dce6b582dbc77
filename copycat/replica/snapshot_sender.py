"""Snapshot files that are sent to other members: unchanged, in chunks.

The core says to whom a snapshot is sent, and when that is over. Between the two this sender and
the receiver at the other member (`copycat/replica/snapshot_receiver.py:SnapshotReceiver`) count
the bytes between themselves. The sender offers the file with a message without bytes, which also
asks how many of them the peer has already; so a transfer continues where it broke off. Then it
keeps a few chunks in flight, and when nothing was heard of a transfer for a heartbeat, it asks
again.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TypeAlias

from copycat.errors import CorruptLogError
from copycat.protocol.codec_peer import encode_install
from copycat.protocol.peer import InstallReply, InstallSnapshot
from copycat.raft.core import Raft
from copycat.raft.effects import EndShipping, ShipSnapshot
from copycat.raft.events import PeerHeard, SnapshotShipping, Unreachable
from copycat.replica.driver import Driver
from copycat.replica.host import Host, Inbox, Lane
from copycat.replica.log_clock import LogClock
from copycat.storage.snapshot_store import Snapshot, SnapshotStore
from copycat.types import MemberId

__all__ = [
    "CHUNK_NBYTES",
    "SENDING_MAX",
    "STALLED_MS",
    "SnapshotSender",
    "check_file",
    "read_chunk",
]

log = logging.getLogger("copycat.replica")

CHUNK_NBYTES = 1 << 20
"""Bytes of the file in one message."""
WINDOW = 3
"""Chunks in flight to one peer: two hide the round trip, one more the disk's."""
SENDING_MAX = 2
"""Transfers under way at a time: they share disk and link with the entries."""
STALLED_MS = 60_000
"""A transfer that brought its peer nothing new for so long is ended when its place is needed: to
trim the front of this log, or for another peer. A peer that answers later is sent the newest
snapshot."""
NEVER_MS = 1 << 62
"""The deadline of a timer that does not run."""

_Unreadable: TypeAlias = CorruptLogError | FileNotFoundError
"""Why a file cannot be sent any more: its content changed, or it was deleted."""


class _Transfer:
    """The transfer of one file to one peer."""

    __slots__ = (
        "acked",
        "is_asking",
        "is_checked",
        "is_heard",
        "is_reading",
        "most_acked",
        "progress_ms",
        "request",
        "sent",
        "snapshot",
    )

    def __init__(self, snapshot: Snapshot, now_ms: int) -> None:
        self.snapshot = snapshot
        self.request = 0
        """The core's number of what it asked for; 0 until the core knows which file it is."""
        self.acked = 0
        """Bytes that the peer says it has."""
        self.most_acked = 0
        """The highest that `acked` ever was."""
        self.progress_ms = now_ms
        """When `most_acked` rose last."""
        self.sent = 0
        self.is_heard = False
        """The peer answered since the sender last looked whether it has to ask again."""
        self.is_asking = False
        """What is in flight counts as lost; the next answer says where to continue."""
        self.is_reading = False
        self.is_checked = False
        """The file is being read back, because the peer received all of it and refuses it."""

    def acknowledge(self, offset: int, now_ms: int) -> bool:
        """The peer has `offset` bytes. False when it has to begin anew: it lost what it had, or
        all was sent and it found that the file is not good."""
        is_lost = self.is_asking and offset == 0
        if is_lost and (self.most_acked or self.sent >= self.snapshot.nbytes):
            return False
        self.acked = min(offset, self.snapshot.nbytes)
        self.sent = self.acked if self.is_asking else max(self.sent, self.acked)
        self.is_asking = False
        if self.acked > self.most_acked:
            self.most_acked, self.progress_ms = self.acked, now_ms
        return True


class SnapshotSender:
    """The leader's side. The core calls `begin` and `end`; peers acknowledge bytes."""

    def __init__(
        self,
        raft: Raft,
        clock: LogClock,
        host: Host,
        inbox: Inbox,
        driver: Driver,
        store: SnapshotStore | None,
    ) -> None:
        self._raft = raft
        self._clock = clock
        self._host = host
        self._inbox = inbox
        self._driver = driver
        self._store = store
        self._requests: dict[MemberId, ShipSnapshot] = {}
        """What the core asked for and did not end. Without a transfer of the same peer, it waits
        for a file that is new enough, or for one of the places."""
        self._transfers: dict[MemberId, _Transfer] = {}
        """Files that were begun. Without a request of the same peer, the link to that broke: the
        same file continues when the core asks again."""
        self.due_ms = NEVER_MS
        """When `advance` next has something to do: never while the core asks for nothing."""
        self.needs_newer = False
        """Whether `take_need_for_newer` would return True."""

    def indexes_in_use(self) -> list[int]:
        """Indexes of the snapshots under way: their receivers continue with the log from there.

        One whose link is broken does not count for the log.
        """
        return [
            transfer.snapshot.entry.index
            for peer, transfer in self._transfers.items()
            if peer in self._requests
        ]

    def end_stalled(self) -> None:
        """End the transfers that brought their peers nothing new for STALLED_MS, those with a
        broken link too: the log or another transfer needs the room that they take."""
        now_ms = self._clock.now_ms
        for peer, transfer in list(self._transfers.items()):
            if now_ms - transfer.progress_ms >= STALLED_MS:
                log.warning(
                    "a peer received nothing new of the snapshot of %d entries for %d s: the file"
                    " and the log after it may be deleted; the peer gets the newest snapshot when"
                    " it answers again",
                    transfer.snapshot.entry.index,
                    STALLED_MS // 1000,
                )
                self._drop(peer)

    def take_need_for_newer(self) -> bool:
        """Whether a peer waits for a snapshot and no file here is new enough, or is good. The
        need counts as met from then on: True once for each offer that found none."""
        is_needed, self.needs_newer = self.needs_newer, False
        return is_needed

    # ---- the core's decisions ------------------------------------------------------------

    def begin(self, effect: ShipSnapshot) -> None:
        """Send a snapshot to a peer until the core ends that."""
        if self._store is None:
            return
        if not self._requests:
            self._schedule()
        self._requests[effect.peer] = effect
        self._offer(self._store, effect)

    def end(self, effect: EndShipping) -> None:
        """The peer has it; or the link broke, and the same file continues when it is back."""
        self._requests.pop(effect.peer, None)
        if not self._requests:
            self.due_ms = NEVER_MS
        if effect.done and effect.peer in self._transfers:
            self._drop(effect.peer)

    def end_all(self) -> None:
        """This member does not lead any more: end all transfers."""
        self._requests.clear()
        self.due_ms = NEVER_MS
        self.needs_newer = False
        for peer in list(self._transfers):
            self._drop(peer)

    # ---- offers --------------------------------------------------------------------------

    def advance(self, now_ms: int) -> None:
        """Offer again what nothing was heard of since the last time; a heartbeat later at most."""
        if self._store is None or now_ms < self.due_ms:
            return
        self._schedule()
        for peer, request in list(self._requests.items()):
            transfer = self._transfers.get(peer)
            if transfer is None or not transfer.is_heard:
                self._offer(self._store, request)
            else:
                transfer.is_heard = False
        self._driver.step_queued()

    def _schedule(self) -> None:
        interval_ms = self._raft.options.heartbeat_interval_ms
        self.due_ms = self._clock.now_ms + interval_ms

    def _offer(self, store: SnapshotStore, request: ShipSnapshot) -> None:
        """Begin, continue, or ask how far it is."""
        raft, peer = self._raft, request.peer
        least = max(request.min_index, raft.cluster_deletion_floor, raft.terms.first_index - 1)
        transfer = self._transfers.get(peer)
        if transfer is not None and transfer.snapshot.entry.index < least:
            self._drop(peer)
            transfer = None
        if transfer is None:
            transfer = self._choose(store, least)
            if transfer is None:
                return  # the next `advance` tries again
            store.begin_read(transfer.snapshot.entry)
            self._transfers[peer] = transfer
        if transfer.request != request.request:
            transfer.request = request.request
            entry = transfer.snapshot.entry
            self._driver.queue(SnapshotShipping(peer, request.request, entry))
        transfer.is_asking, transfer.is_heard = True, False
        self._write(peer, transfer, 0, b"")

    def _choose(self, store: SnapshotStore, least: int) -> _Transfer | None:
        self.end_stalled()
        if len(self.indexes_in_use()) >= SENDING_MAX:
            return None
        newest = store.newest
        if newest is not None and newest.entry.index >= max(least, 1):
            return _Transfer(newest, self._clock.now_ms)
        self.needs_newer = True
        return None

    # ---- bytes ---------------------------------------------------------------------------

    def on_acknowledged(self, peer: MemberId, message: InstallReply) -> None:
        """The peer says how many bytes it has."""
        self._driver.step(PeerHeard(peer, message.term))
        transfer = self._transfers.get(peer)
        if (
            transfer is None
            or peer not in self._requests
            or message.term != self._raft.current_term
            or (message.request, message.entry) != (transfer.request, transfer.snapshot.entry)
        ):
            return  # of a transfer that is over
        transfer.is_heard = True
        if transfer.is_checked:
            return
        if transfer.acknowledge(message.offset, self._clock.now_ms):
            self._read_next(peer, transfer)
        elif transfer.sent >= transfer.snapshot.nbytes:
            self._check(peer, transfer)
        else:
            self._drop(peer)  # nothing is lost by beginning with the newest

    def _check(self, peer: MemberId, transfer: _Transfer) -> None:
        """All of it arrived, and the peer has nothing: was it bad here? Then send the newest."""
        store, snapshot = self._store, transfer.snapshot
        if store is None:
            return
        transfer.is_checked = True
        work = partial(check_file, store, snapshot)
        self._inbox.run(Lane.ASIDE, work, partial(self._checked, store, peer, transfer))

    def _checked(
        self, store: SnapshotStore, peer: MemberId, transfer: _Transfer, error: _Unreadable | None
    ) -> None:
        if error is not None:
            self._reject(store, transfer.snapshot, error)
        elif self._transfers.get(peer) is transfer:
            self._drop(peer)

    def _reject(self, store: SnapshotStore, snapshot: Snapshot, error: _Unreadable) -> None:
        """F17: a damaged file does not count as a snapshot any more, and a good one is sent
        instead."""
        for peer, transfer in list(self._transfers.items()):
            if transfer.snapshot is snapshot:
                self._drop(peer)
        if store.reject(snapshot):
            log.warning(
                "a snapshot of this member is damaged, another one is sent: %s (F17)", error
            )
            self.needs_newer = True

    def _read_next(self, peer: MemberId, transfer: _Transfer) -> None:
        """Read the next chunk aside, unless the window is full or one is being read."""
        store, offset = self._store, transfer.sent
        size = min(CHUNK_NBYTES, transfer.snapshot.nbytes - offset)
        is_full = offset - transfer.acked >= WINDOW * CHUNK_NBYTES
        if store is None or transfer.is_reading or is_full or size <= 0:
            return
        transfer.is_reading = True
        work = partial(read_chunk, store, transfer.snapshot, offset, size)
        self._inbox.run(Lane.ASIDE, work, partial(self._was_read, peer, transfer, offset))

    def _was_read(
        self, peer: MemberId, transfer: _Transfer, offset: int, data: bytes | _Unreadable
    ) -> None:
        transfer.is_reading = False
        is_current = self._transfers.get(peer) is transfer and peer in self._requests
        if not is_current or transfer.is_asking:
            return
        if not isinstance(data, bytes):
            if self._store is not None:
                self._reject(self._store, transfer.snapshot, data)
            return
        if offset == transfer.sent:
            transfer.sent += len(data)
            self._write(peer, transfer, offset, data)
        self._read_next(peer, transfer)
        self._driver.step_queued()

    def _write(self, peer: MemberId, transfer: _Transfer, offset: int, data: bytes) -> None:
        snapshot = transfer.snapshot
        message = InstallSnapshot(
            self._raft.current_term,
            self._raft.member,
            transfer.request,
            snapshot.entry,
            snapshot.nbytes,
            snapshot.digest,
            offset,
        )
        header = encode_install(message, len(data))
        if not self._host.send(peer, header, data or None):
            transfer.is_asking = True
            self._driver.queue(Unreachable(peer))

    def _drop(self, peer: MemberId) -> None:
        transfer = self._transfers.pop(peer)
        if self._store is not None:
            self._store.end_read(transfer.snapshot.entry)


def read_chunk(
    store: SnapshotStore, snapshot: Snapshot, offset: int, size: int
) -> bytes | _Unreadable:
    """Bytes of a file, or why it cannot be read any more (aside)."""
    try:
        return store.read(snapshot, offset, size)
    except (CorruptLogError, FileNotFoundError) as error:
        return error


def check_file(store: SnapshotStore, snapshot: Snapshot) -> _Unreadable | None:
    """Why the file is not what was written, or None when it is (aside)."""
    try:
        store.check(snapshot)
    except (CorruptLogError, FileNotFoundError) as error:
        return error
    return None
