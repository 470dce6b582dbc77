"""Snapshot files that are received: written chunk by chunk, verified whole, then installed.

A snapshot comes in one of two ways. A member that is fed asks for the bytes of one
(`copycat/replica/feed_client.py:FeedClient`). Where nobody can feed it, the leader sends one: what
the leader offers is passed by the core to this receiver. From there on the
receiver and the sender at the leader (`copycat/replica/snapshot_sender.py:SnapshotSender`) count
the bytes between themselves: the receiver writes only what continues what it has, and each answer
says how much that is. When the receiver is silent, because its disk is full or because it installs
what it has, the sender asks again after a while.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from copycat.errors import (
    CorruptLogError,
    DiskFullError,
    ProtocolError,
    ResourceError,
    require,
)
from copycat.machine.session_executor import SessionExecutor
from copycat.machine.sessions import SessionRow
from copycat.protocol.codec_configuration import decode_configuration
from copycat.protocol.feeding import FedSnapshot
from copycat.protocol.peer import InstallReply, InstallSnapshot
from copycat.raft.core import Raft
from copycat.raft.effects import ReceiveSnapshot
from copycat.raft.events import LeaderHeard, SnapshotInstalled
from copycat.replica.applier import Applier
from copycat.replica.configuration_store import ConfigurationStore
from copycat.replica.driver import Driver
from copycat.replica.host import Inbox, Lane
from copycat.replica.known_configurations import configuration_of
from copycat.replica.log_clock import LogClock
from copycat.replica.restore import SnapshotSource, source_of
from copycat.replica.session_index import SessionIndex
from copycat.replica.snapshot_taker import SnapshotTaker
from copycat.storage.interface import ReplicaLog
from copycat.storage.snapshot_store import Reception, Snapshot, SnapshotStore
from copycat.types import EntryId, MemberId, ServerState

__all__ = ["IncarnationRecorder", "SnapshotReceiver"]

log = logging.getLogger("copycat.replica")

RETRY_MS = 1000
"""A full disk takes no chunk for so long."""

_NoRoom = DiskFullError | ResourceError


class IncarnationRecorder(Protocol):
    """Who remembers what the state says of members: the replica."""

    def record_incarnation(self, member: int, incarnation: int) -> None:
        """The state that is applied here knows this incarnation of `member` (C16)."""
        ...

    def load_availability(self) -> None:
        """The state that is applied here is another one, and says who is heard (C38)."""
        ...


Written = Callable[[int | None], None]
"""Called with how many bytes of the file are here; None: the whole of it was no good."""


class _Offer(NamedTuple):
    """Which member sends a snapshot, which one, and in which term."""

    sender: MemberId
    entry: EntryId
    term: int
    request: int
    """Of the leader; 0: a feeder answers a question."""
    written: Written | None = None
    """Who asked a feeder for it; None: the leader sends it, and is answered."""

    def tell(self, end: int | None) -> None:
        """Say to who asked how much is here."""
        if self.written is not None:
            self.written(end)


def _offer_of(sender: MemberId, message: InstallSnapshot) -> _Offer:
    return _Offer(sender, message.entry, message.term, message.request)


class _Whole(NamedTuple):
    """A file that arrived whole, was verified and published."""

    snapshot: Snapshot
    data: bytes


class SnapshotReceiver:
    """The follower's side: one snapshot at a time, from any leader.

    store: None when the member keeps no snapshots.
    """

    def __init__(
        self,
        raft: Raft,
        log: ReplicaLog,
        clock: LogClock,
        inbox: Inbox,
        applier: Applier,
        sessions: SessionIndex,
        driver: Driver,
        store: SnapshotStore | None,
        executor: SessionExecutor,
        taker: SnapshotTaker,
        incarnations: IncarnationRecorder,
        configurations: ConfigurationStore,
    ) -> None:
        self._raft = raft
        self._log = log
        self._clock = clock
        self._inbox = inbox
        self._applier = applier
        self._sessions = sessions
        self._driver = driver
        self._store = store
        self._executor = executor
        self._source = source_of(executor)
        self._taker = taker
        self._incarnations = incarnations
        self._configurations = configurations
        self._reception: Reception | None = None
        self._writes = 0
        """Chunks that are being written."""
        self._is_finishing = False
        self._publishing_index = 0
        """Index of the snapshot that is being published; 0: none is."""
        self._retry_ms = 0
        self._has_warned = False

    @property
    def pending_index(self) -> int:
        """Index of the snapshot that is being published here; above all indexes when none is.

        A restart may begin with that snapshot and replay the log from there, so no deletion above
        it may be deleted from the log (C23, decision 0014).
        """
        return self._publishing_index or sys.maxsize

    # ---- bytes ---------------------------------------------------------------------------

    def receive(self, effect: ReceiveSnapshot) -> None:
        """The leader offers a snapshot, and the core wants it: say how much of it is here.

        Silence makes the sender ask again.
        """
        store = self._store
        if store is None or self._source is None:
            self._warn_once()
            return
        if not self._is_ready():
            return
        message = effect.message
        reception = self._reception_of(store, message)
        if reception is not None and not self._writes:
            self._acknowledge(_offer_of(effect.sender, message), reception.end)

    def _reception_of(
        self, store: SnapshotStore, message: InstallSnapshot | FedSnapshot
    ) -> Reception | None:
        """Where the bytes of this file go; None while a chunk of another one is being written."""
        reception = self._reception
        if reception is not None and _is_of(reception, message):
            return reception
        return None if self._writes else self._begin(store, message)

    def on_fed_chunk(
        self, sender: MemberId, message: FedSnapshot, data: bytes, written: Written
    ) -> int | None:
        """Bytes of a snapshot that this member asked a feeder for.

        How many bytes of that file were here before; None when it cannot be taken now. Else
        `written` is called, in a turn, once these bytes are here, and again when the whole file
        is installed, or has turned out to be no good.
        """
        store = self._store
        if store is None or self._source is None:
            self._warn_once()
            return None
        reception = self._reception_of(store, message) if self._is_ready() else None
        if reception is None:
            return None
        end = reception.end
        self._writes += 1
        offer = _Offer(sender, message.entry, message.term, 0, written)
        work = partial(_write, reception, message.offset, data)
        self._inbox.run(Lane.ASIDE, work, partial(self._written, reception, offer))
        return end

    @property
    def is_finishing(self) -> bool:
        """All bytes of a snapshot are here: it is verified, or installed."""
        return self._is_finishing

    def on_chunk(self, sender: MemberId, message: InstallSnapshot, data: bytes) -> None:
        """Bytes of a snapshot arrived. Those of a file that is not being received are dropped."""
        self._driver.step(LeaderHeard(sender, message.term, message.leader))
        raft = self._raft
        if message.term < raft.current_term:
            self._answer(_offer_of(sender, message), 0)  # which says the newer term
            return
        if raft.leader != sender or message.leader != sender or message.term > raft.current_term:
            return  # nobody who leads sent it
        if raft.commit_index >= message.entry.index or not self._is_ready():
            return
        reception = self._reception
        if reception is None or not _is_of(reception, message):
            return
        self._writes += 1
        work = partial(_write, reception, message.offset, data)
        offer = _offer_of(sender, message)
        self._inbox.run(Lane.ASIDE, work, partial(self._written, reception, offer))

    def _is_ready(self) -> bool:
        return not self._is_finishing and self._clock.now_ms >= self._retry_ms

    def _warn_once(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "the leader sends a snapshot, and this member cannot take one: its state machine"
                " or its storage has none"
            )

    def _begin(
        self, store: SnapshotStore, message: InstallSnapshot | FedSnapshot
    ) -> Reception | None:
        older = self._reception
        try:
            self._reception = store.receive(message.entry, message.nbytes, message.digest)
        except ProtocolError as error:
            log.warning("a snapshot is refused: %s", error)
            return None
        if older is not None:
            self._inbox.run(Lane.ASIDE, older.drop, _ignore)
        return self._reception

    def _written(self, reception: Reception, offer: _Offer, written: int | _NoRoom) -> None:
        self._writes -= 1
        if reception is not self._reception or self._is_finishing:
            offer.tell(0)
            return
        if isinstance(written, DiskFullError | ResourceError):
            log.warning("there is no room for a snapshot of another member: %s (F13)", written)
            self._reception = None
            self._retry_later()
            offer.tell(0)
        elif written < reception.nbytes:
            self._acknowledge(offer, written)
        elif self._raft.commit_index >= reception.entry.index:
            # Entries arrived first, and may have been cleaned since: the snapshot must not be kept
            # (C23).
            self._reception = None
            self._inbox.run(Lane.ASIDE, reception.drop, _ignore)
            offer.tell(0)
        else:
            self._is_finishing = True
            self._publishing_index = reception.entry.index
            work = partial(_finish, self._store, reception)
            self._inbox.run(Lane.ASIDE, work, partial(self._finished, offer))

    def _retry_later(self) -> None:
        self._retry_ms = self._clock.now_ms + RETRY_MS

    def _acknowledge(self, offer: _Offer, nbytes: int) -> None:
        """Say how much is here: to who asked for it, or to who sends it if that still leads."""
        raft = self._raft
        if offer.written is not None:
            offer.tell(nbytes)
        elif offer.term == raft.current_term and offer.sender == raft.leader:
            self._answer(offer, nbytes)

    def _answer(self, offer: _Offer, nbytes: int) -> None:
        term = self._raft.current_term
        reply = InstallReply(term, offer.request, offer.entry, nbytes, done=False)
        self._driver.answer(offer.sender, reply)

    # ---- the whole of it -----------------------------------------------------------------

    def _finished(self, offer: _Offer, whole: _Whole | CorruptLogError | _NoRoom) -> None:
        self._reception = None
        if isinstance(whole, _Whole):
            self._install(offer, whole)  # nothing else is received until it is installed
            return
        log.warning("a snapshot that arrived is damaged, and is requested again: %s", whole)
        self._end()
        self._retry_later()
        offer.tell(None)

    def _end(self) -> None:
        self._is_finishing = False
        self._publishing_index = 0

    def _has_room(self, entry: EntryId) -> bool:
        """A log that must begin anew needs a segment: asked before the state changes (F13)."""
        terms, replica_log = self._raft.terms, self._log
        if terms.term_at(entry.index) == entry.term:
            return True
        return replica_log.has_room(0, entries=0, in_new_segment=True)

    def _install(self, offer: _Offer, whole: _Whole) -> None:
        """I12: never over newer state; between two slices; then the log is made to fit."""
        store, source, applier = self._store, self._source, self._applier
        require(store is not None and source is not None, "nothing to install into")
        assert store is not None and source is not None  # noqa: S101,PT018  # for the type checker
        snapshot = whole.snapshot
        if self._raft.commit_index >= snapshot.entry.index:
            # Entries arrived first. The snapshot is as good as one that was taken here.
            self._tell(offer, snapshot)
            self._taker.keep(store.admit(snapshot))
            return
        is_dropped = offer.written is not None and self._raft.state is not ServerState.FOLLOWER
        if is_dropped or not self._has_room(snapshot.entry):
            # Asked for anew, when there may be room, or when this member follows again (C26). Its
            # file is deleted: left behind, a restart would begin with it, whatever was deleted
            # from the log since.
            if not is_dropped:
                log.warning("there is no room to install a snapshot of another member (F13)")
            work = partial(store.discard, [snapshot.entry])
            self._inbox.run(Lane.ASIDE, work, partial(self._not_installed, offer))
            return
        applier.pause()
        self._inbox.run(
            Lane.APPLY,
            partial(_install, source, whole.data, self._executor),
            partial(self._installed, store, offer, snapshot),
        )

    def _not_installed(self, offer: _Offer, _: list[EntryId]) -> None:
        self._end()
        self._retry_later()
        offer.tell(0)

    def _installed(
        self,
        store: SnapshotStore,
        offer: _Offer,
        snapshot: Snapshot,
        rows: list[SessionRow],
    ) -> None:
        self._applier.installed(snapshot.entry.index)
        self._clock.installed(snapshot.time_ms)
        self._sessions.load(rows)
        stale = store.supersede(snapshot)
        self._tell(offer, snapshot)
        for member, incarnation in self._executor.incarnations.items():
            self._incarnations.record_incarnation(member, incarnation)
        self._incarnations.load_availability()
        self._taker.keep(stale)
        log.info("a snapshot of another member was installed: %d entries", snapshot.entry.index)

    def _tell(self, offer: _Offer, snapshot: Snapshot) -> None:
        """The core makes the log fit, and answers the leader if that sent it."""
        self._end()
        configuration = None
        if snapshot.configuration:
            what = f"the configuration in a snapshot of {snapshot.entry.index} entries"
            record = decode_configuration(snapshot.configuration, what)
            self._configurations.announced(record)
            configuration = configuration_of(record)
        term = offer.term if offer.written is not None else 0
        self._driver.step(
            SnapshotInstalled(offer.sender, offer.request, offer.entry, configuration, term)
        )
        offer.tell(snapshot.nbytes)


def _ignore(_: None) -> None:
    """For work that has no result."""


def _is_of(reception: Reception, message: InstallSnapshot | FedSnapshot) -> bool:
    return reception.is_of(message.entry, message.nbytes, message.digest)


def _write(reception: Reception, offset: int, data: bytes) -> int | _NoRoom:
    try:
        return reception.write(offset, data)
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


def _install(source: SnapshotSource, data: bytes, executor: SessionExecutor) -> list[SessionRow]:
    """In the apply thread, between two slices: the sessions of the state that is there now."""
    source.install(data)
    return executor.session_rows()
