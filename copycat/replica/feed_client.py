"""What a member does that is fed: it asks, and takes what it is told (C27).

The leader names a feeder in its heartbeats. This member asks it for entries after its own last
one, with a few questions in flight, or for bytes of a snapshot. It stays with a feeder that works,
whatever is named meanwhile, unless that is the leader. It leaves one that is silent, that sent
damaged bytes, or that brings nothing although the leader has committed more, and tells the leader,
who names another one.
"""

from __future__ import annotations

import logging
from functools import partial

from copycat.protocol.codec_feeding import encode_feed_request
from copycat.protocol.feeding import (
    FedEntries,
    FedSnapshot,
    FeedAnswer,
    FeedAnswerKind,
    FeedRequest,
    FeedRequestKind,
)
from copycat.protocol.member_record import ConfigurationRecord
from copycat.raft.core import Raft
from copycat.raft.events import EntriesFed
from copycat.replica.applier import Applier
from copycat.replica.compression_choice import CompressionChoice
from copycat.replica.disk_space import DiskSpace
from copycat.replica.driver import Driver, Payload
from copycat.replica.host import Host
from copycat.replica.known_configurations import configuration_of
from copycat.replica.log_clock import LogClock
from copycat.replica.snapshot_receiver import SnapshotReceiver
from copycat.replica.snapshot_sender import CHUNK_NBYTES
from copycat.storage import Batch
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState, Span

__all__ = ["FeedClient"]

log = logging.getLogger("copycat.replica")

WINDOW = 3
"""Questions in flight: two hide the round trip, one more the disks."""
WAITING_MAX = 1 << 16
"""With so many committed entries to apply a member asks for no more."""
BUSY_TIMEOUTS = 60
"""A feeder that says that it is busy is left after so many election timeouts: it may be taking a
snapshot, which helps others too."""
NOBODY = MemberId(0)
NEVER_MS = 1 << 62


class _SnapshotProgress:
    """Which snapshot is asked for, and how much of it."""

    __slots__ = ("asked", "entry", "min_index", "nbytes", "written")

    def __init__(self, min_index: int) -> None:
        self.min_index = min_index
        self.begin(NO_ENTRY, 0, 0)

    def begin(self, entry: EntryId, nbytes: int, written: int) -> None:
        """From here on it is this file, of which `written` bytes are here."""
        self.entry = entry
        """NO_ENTRY: whatever the feeder has."""
        self.nbytes = nbytes
        self.written = written
        self.asked = written
        """Bytes up to here were asked for."""


class FeedClient:
    """Asks while a leader names a feeder. Called in turns."""

    def __init__(
        self,
        raft: Raft,
        clock: LogClock,
        host: Host,
        driver: Driver,
        applier: Applier,
        disk_space: DiskSpace,
        receiver: SnapshotReceiver,
    ) -> None:
        self._raft = raft
        self._clock = clock
        self._host = host
        self._driver = driver
        self._applier = applier
        self._disk_space = disk_space
        self._receiver = receiver
        self.feeder = NOBODY
        """Whom this member asks now; 0: nobody."""
        self.left = 0
        """How many feeders it has left so far."""
        self._left_until_ms = 0
        """Until then the feeder that was left is not asked again."""
        self._stream = 0
        self._number = 0
        self._in_flight = 0
        self._last = NO_ENTRY
        """The stream began after this entry."""
        self._compression = CompressionChoice()
        self._is_flowing = False
        """The stream has brought entries, so the next question of it will bring more."""
        self._is_at_head = False
        """This member has all that the feeder had committed."""
        self._snapshot: _SnapshotProgress | None = None
        self._writing = 0
        """Chunks that are being written."""
        self._bad_files = 0
        """How many whole files of this feeder turned out to be no good."""
        self._heard_ms = 0
        self._gained_ms = 0
        self._is_busy = False
        """The last answer was that the feeder is busy."""
        self._ask_ms = 0
        """Not before this time is the next question asked."""
        self._still_ms = 0
        """When the feeder is told next that this member is still here."""
        self.due_ms = NEVER_MS
        """When `advance` next has something to do; never while nobody is named or asked."""

    # ---- whom to ask ---------------------------------------------------------------------------

    def advance(self, now_ms: int) -> None:
        """End of a turn: ask what may be asked, or leave a feeder that does not work."""
        raft = self._raft
        if not raft.feeder and self.due_ms == NEVER_MS:
            return  # nearly always
        is_fed = raft.state is ServerState.FOLLOWER and not raft.is_reserve
        if not raft.feeder or not is_fed:
            self._stop()
            return
        if self.feeder == raft.leader != raft.feeder and self._snapshot is None:
            self.feeder = NOBODY  # another one is there now, and spares the leader
        if self.feeder == NOBODY and not self._begin(now_ms):
            return
        if self._is_hindered():
            self._say_still_here(now_ms)
            return
        timeout_ms = raft.options.election_timeout_ms
        patience_ms = BUSY_TIMEOUTS * timeout_ms if self._is_busy else timeout_ms
        has_more = raft.leader_commit > raft.commit_index
        if now_ms - self._heard_ms > timeout_ms:
            self._leave("it is silent")
        elif has_more and now_ms - self._gained_ms > patience_ms:
            self._leave("it brings nothing")
        else:
            if not has_more:
                self._gained_ms = now_ms
            self._ask(now_ms)
            deadline_ms = self._heard_ms + timeout_ms + 1
            if has_more:
                deadline_ms = min(deadline_ms, self._gained_ms + patience_ms + 1)
            if self._ask_ms > now_ms:
                deadline_ms = min(deadline_ms, self._ask_ms)
            self.due_ms = deadline_ms

    def _begin(self, now_ms: int) -> bool:
        """Ask the member that the leader names, unless that one was left a moment ago."""
        named = self._raft.feeder
        if named == self._driver.left_feeder and now_ms < self._left_until_ms:
            self.due_ms = self._left_until_ms
            return False
        self.feeder = named
        self._heard_ms = self._gained_ms = self._ask_ms = now_ms
        self._is_busy = False
        self._bad_files = 0
        self._still_ms = now_ms
        if self._snapshot is not None:
            self._snapshot.asked = self._snapshot.written
        self._begin_stream(self._raft.last)
        return True

    def _begin_stream(self, last: EntryId) -> None:
        """Nothing that was asked before counts as being on its way."""
        self._stream += 1
        self._number = self._in_flight = 0
        self._last = max(last, self._raft.terms.entry_at(self._raft.commit_index))
        self._is_at_head = self._is_flowing = False
        self._compression.interrupted()

    def _stop(self) -> None:
        """The leader's own stream serves this member, or it is no follower."""
        self.feeder = self._driver.left_feeder = NOBODY
        self._snapshot = None
        self._begin_stream(self._raft.last)
        self.due_ms = NEVER_MS

    def _leave(self, why: str) -> None:
        """Another feeder is to be named. What is here of a snapshot stays for it."""
        log.info("member %032x feeds this member no more: %s", self.feeder, why)
        self.left += 1
        now_ms = self._clock.now_ms
        self._driver.left_feeder = self.feeder
        self._left_until_ms = now_ms + self._raft.options.election_timeout_ms
        self.feeder = NOBODY
        self.due_ms = self._left_until_ms

    def link_opened(self, peer: MemberId) -> None:
        """This member can write to `peer`: what waited for the link is asked at once."""
        if peer == self.feeder:
            self._ask_ms = self._clock.now_ms

    def link_ended(self, peer: MemberId) -> None:
        """The link to `peer` broke: what was asked is lost. It is asked again when the link is
        back, unless it is left before."""
        if peer == self.feeder:
            self._begin_again()

    # ---- asking --------------------------------------------------------------------------------

    def _is_hindered(self) -> bool:
        """Whether this member takes nothing now: its disk is full, much is to be applied, or a
        snapshot is being installed. Then it does not ask."""
        waiting = self._applier.commit_index - self._applier.last_applied
        return self._disk_space.is_full or waiting > WAITING_MAX or self._receiver.is_finishing

    def _say_still_here(self, now_ms: int) -> None:
        """The feeder keeps what this member will need (C27)."""
        self._heard_ms = self._gained_ms = now_ms
        if now_ms >= self._still_ms:
            self._still_ms = now_ms + self._raft.options.election_timeout_ms
            self._write(self._request(FeedRequestKind.STILL_HERE, 0))
        self.due_ms = self._still_ms

    def _ask(self, now_ms: int) -> None:
        if now_ms < self._ask_ms:
            return
        snapshot = self._snapshot
        if snapshot is not None:
            self._ask_bytes(snapshot, now_ms)
            return
        window = WINDOW if self._is_flowing and not self._is_at_head else 1
        while self._in_flight < window and now_ms >= self._ask_ms:
            self._number += 1
            self._in_flight += 1
            self._write(self._request(FeedRequestKind.ENTRIES, self._number))

    def _ask_bytes(self, snapshot: _SnapshotProgress, now_ms: int) -> None:
        """The next bytes: of whatever file the feeder has at first, and then a few at a time."""
        window = 1 if snapshot.entry == NO_ENTRY else WINDOW
        while self._in_flight < window and now_ms >= self._ask_ms:
            if snapshot.entry != NO_ENTRY and snapshot.asked >= snapshot.nbytes:
                return
            if snapshot.asked - snapshot.written >= WINDOW * CHUNK_NBYTES:
                return
            self._number += 1
            self._in_flight += 1
            request = self._request(FeedRequestKind.SNAPSHOT, self._number, snapshot)
            snapshot.asked += CHUNK_NBYTES
            self._write(request)

    def _request(
        self, kind: FeedRequestKind, number: int, snapshot: _SnapshotProgress | None = None
    ) -> FeedRequest:
        raft = self._raft
        orders = raft.own_record
        return FeedRequest(
            kind,
            self._stream,
            number,
            self._last,
            orders.configuration,
            orders.since,
            raft.eligibility.accepts_gaps,
            self._compression.compresses and self._is_flowing and not self._is_at_head,
            0 if snapshot is None else snapshot.min_index,
            NO_ENTRY if snapshot is None else snapshot.entry,
            0 if snapshot is None else snapshot.asked,
        )

    def _write(self, request: FeedRequest) -> None:
        if not self._host.send(self.feeder, encode_feed_request(request), None):
            self._begin_again()

    def _begin_again(self) -> None:
        """What is in flight counts as lost: ask again after a while."""
        if self._snapshot is not None:
            self._snapshot.asked = self._snapshot.written
        self._begin_stream(self._raft.last)
        self._pause(self._clock.now_ms)

    # ---- answers -------------------------------------------------------------------------------

    def _is_expected(self, peer: MemberId, stream: int) -> bool:
        """Note an answer; False when it is of another stream than the present one."""
        if peer != self.feeder:
            return False
        self._heard_ms = self._clock.now_ms
        if stream != self._stream:
            return False
        self._in_flight = max(0, self._in_flight - 1)
        self._is_busy = False
        return True

    def damaged(self, peer: MemberId, why: str) -> None:
        """What `peer` sent is no good: another one may have it whole."""
        log.warning("a feeder sent damaged bytes: %s", why)
        if peer == self.feeder:
            self._leave("it sent damaged bytes")

    def on_entries(
        self,
        peer: MemberId,
        message: FedEntries,
        batch: Batch,
        record: ConfigurationRecord | None,
    ) -> None:
        """Entries arrived, every frame verified. They are facts, whoever sent them, and are taken
        even if this member asks another one by now."""
        is_expected = self._is_expected(peer, message.stream)
        span, raft = message.span, self._raft
        if raft.state is not ServerState.FOLLOWER:
            return
        if not self._disk_space.admit_span(span, batch.nbytes):
            self._begin_stream(raft.last)
            return
        configuration = None if record is None else configuration_of(record)
        before = raft.last
        event = EntriesFed(peer, message.term, message.prev, span, batch.has_gaps, configuration)
        self._driver.step(event, Payload(batch=batch, record=record))
        is_here = span.last <= raft.commit_index or raft.terms.term_at(span.last) == span.term
        if not is_expected:
            return
        if not is_here:
            self._begin_stream(before)
        elif raft.last != before or span.last > raft.commit_index:
            self._gained_ms = self._clock.now_ms
        self._is_at_head = span.last >= message.commit_index
        if self._is_at_head:
            self._compression.interrupted()
        else:
            self._compression.batch_arrived(batch.nbytes, self._clock.now_ms)
        self._is_flowing = self._number > 0

    def on_answer(self, peer: MemberId, message: FeedAnswer) -> None:
        """An answer without entries."""
        if not self._is_expected(peer, message.stream):
            return
        raft, now_ms, entry = self._raft, self._clock.now_ms, message.entry
        match message.kind:
            case FeedAnswerKind.NOTHING_NEWER:
                self._is_at_head = True
                self._take_commit(peer, message)
            case FeedAnswerKind.ASK_FROM:
                if entry.index <= raft.commit_index and self._last.index <= raft.commit_index:
                    self._pause(now_ms)  # it is behind
                self._begin_stream(raft.terms.last_at_or_below(entry))
            case FeedAnswerKind.SNAPSHOT_NEEDED:
                if self._snapshot is None:
                    self._snapshot = _SnapshotProgress(entry.index)
                self._begin_stream(raft.last)
            case FeedAnswerKind.BUSY | FeedAnswerKind.NOT_YET:
                self._is_busy = message.kind is FeedAnswerKind.BUSY
                self._begin_again()

    def _pause(self, now_ms: int) -> None:
        self._ask_ms = now_ms + self._raft.options.heartbeat_interval_ms

    def _take_commit(self, peer: MemberId, message: FeedAnswer) -> None:
        """The feeder's last committed entry: it is committed here too, if it is here."""
        entry, raft = message.entry, self._raft
        before = raft.commit_index
        empty = Span(max(message.term, entry.term), entry.next, entry.next)
        self._driver.step(EntriesFed(peer, message.term, entry, empty))
        if raft.commit_index > before:
            self._gained_ms = self._clock.now_ms

    # ---- snapshots -----------------------------------------------------------------------------

    def on_chunk(self, peer: MemberId, message: FedSnapshot, data: bytes) -> None:
        """Bytes of a snapshot arrived."""
        is_expected = self._is_expected(peer, message.stream)
        raft, snapshot = self._raft, self._snapshot
        if not is_expected or snapshot is None or raft.state is not ServerState.FOLLOWER:
            return
        if raft.commit_index >= message.entry.index:
            self._end_snapshot()
            return
        written = self._receiver.on_fed_chunk(
            peer, message, data, partial(self._written, peer, message.entry)
        )
        if written is not None:
            self._writing += 1
        if written is None:
            self._begin_again()
        elif (snapshot.entry, snapshot.nbytes) != (message.entry, message.nbytes):
            snapshot.begin(message.entry, message.nbytes, written)
            if message.offset == written:
                snapshot.asked = message.offset + len(data)
            else:
                self._begin_stream(raft.last)

    def _written(self, peer: MemberId, entry: EntryId, end: int | None) -> None:
        """So many bytes of the file are on the disk here; None: it was whole, and no good."""
        self._writing = max(0, self._writing - 1)
        snapshot = self._snapshot
        if snapshot is None:
            return
        if self._raft.commit_index >= entry.index:
            self._end_snapshot()
        elif end is None:
            self._snapshot = _SnapshotProgress(snapshot.min_index)
            self._bad_files += 1
            if self._bad_files > 1:
                self.damaged(peer, "snapshots that it sent cannot be used")
            else:
                self._begin_again()  # which makes the feeder read its file back
        elif snapshot.entry == entry:
            if end > snapshot.written:
                self._gained_ms = self._clock.now_ms
            snapshot.written = end
            if not self._writing and not self._in_flight:
                snapshot.asked = end  # a chunk that did not continue the file is asked for again

    def _end_snapshot(self) -> None:
        """It is installed, or entries came first: go on with the log."""
        self._snapshot = None
        self._gained_ms = self._clock.now_ms
        self._begin_stream(self._raft.last)
