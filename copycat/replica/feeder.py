"""Answers the questions of members that are fed, from this member's log and snapshot files.

Any member that has a log may be asked, a leader too. It answers with what it has committed, and
remembers nothing that it could not lose: for each asker, for a while after its last question, from
where on it will need this log, and how far the stream of its questions has come.
"""

from __future__ import annotations

import logging
from functools import partial

from copycat.errors import CorruptLogError
from copycat.protocol.codec_feeding import (
    encode_fed_entries,
    encode_fed_snapshot,
    encode_feed_answer,
)
from copycat.protocol.feeding import (
    FedEntries,
    FedSnapshot,
    FeedAnswer,
    FeedAnswerKind,
    FeedRequest,
    FeedRequestKind,
)
from copycat.raft.core import Raft
from copycat.replica.host import Host, Inbox, Lane
from copycat.replica.log_clock import LogClock
from copycat.replica.snapshot_sender import (
    CHUNK_NBYTES,
    SENDING_MAX,
    SnapshotSender,
    check_file,
    read_chunk,
)
from copycat.storage.fed_bytes import compressed
from copycat.storage.interface import ReplicaLog
from copycat.storage.recent_batches import BatchReader
from copycat.storage.snapshot_store import Snapshot, SnapshotStore
from copycat.types import NO_ENTRY, EntryId, MemberId

__all__ = ["HOLD_MS", "Feeder"]

log = logging.getLogger("copycat.replica")

HOLD_MS = 60_000
"""For so long after the last question of a member its place in the log, and the file that it was
sent bytes of, are kept."""
ROOM_NBYTES = 8 << 20
"""A link on which so many bytes wait takes no more answers for now."""
NEVER_MS = 1 << 62


class _Hold:
    """What one asker will need next."""

    __slots__ = ("is_whole", "last", "snapshot", "stream", "until_ms")

    def __init__(self) -> None:
        self.stream = 0
        self.last = NO_ENTRY
        """The next question of the stream asks for what follows this entry."""
        self.until_ms = 0
        self.snapshot: Snapshot | None = None
        """The file of which bytes were sent last."""
        self.is_whole = False
        """Its end was sent: who then begins with it anew found it damaged."""


class _Parked:
    """A question that is answered later: at the next commit, when the asker has a link, or when
    its time is over."""

    __slots__ = ("peer", "request", "until_ms")

    def __init__(self, peer: MemberId, request: FeedRequest, until_ms: int) -> None:
        self.peer = peer
        self.request = request
        self.until_ms = until_ms


class Feeder:
    """Serves facts (C26), to members that may have them (C31)."""

    def __init__(
        self,
        raft: Raft,
        replica_log: ReplicaLog,
        clock: LogClock,
        host: Host,
        inbox: Inbox,
        reader: BatchReader,
        store: SnapshotStore | None,
        sender: SnapshotSender,
    ) -> None:
        self._raft = raft
        self._log = replica_log
        self._clock = clock
        self._host = host
        self._inbox = inbox
        self._reader = reader
        self._store = store
        self._sender = sender
        self._holds: dict[MemberId, _Hold] = {}
        self._parked: list[_Parked] = []
        self.due_ms = NEVER_MS
        """When `advance` next has something to do, beside a commit."""

    # ---- questions -----------------------------------------------------------------------------

    def on_request(self, peer: MemberId, request: FeedRequest) -> None:
        """A question arrived. It waits while the term that the answer names is not on the disk, or
        while this member has no link to write the answer on."""
        hold = self._holds.get(peer)
        if hold is None:
            hold = self._holds[peer] = _Hold()
        hold.until_ms = self._clock.now_ms + HOLD_MS
        self.due_ms = min(self.due_ms, hold.until_ms)
        if request.kind is FeedRequestKind.STILL_HERE:
            if not hold.stream and self._may_be_fed(peer, request):
                # This process was started meanwhile, or the asker left another feeder.
                hold.stream, hold.last = request.stream, request.last
            return
        if self._raft.is_saving:
            self._park(peer, request)
        elif not self._may_be_fed(peer, request):
            self._answer(peer, request, FeedAnswerKind.NOT_YET)
        elif peer not in self._raft.links:  # it has just dialled this member, which dials it back
            self._park(peer, request, self._raft.options.election_timeout_ms)
        elif request.kind is FeedRequestKind.SNAPSHOT:
            self._serve_snapshot(peer, request, hold)
        else:
            self._serve_entries(peer, request, hold)

    def _may_be_fed(self, peer: MemberId, request: FeedRequest) -> bool:
        """C31: whether the newest committed configuration that this member knows gives `peer` a
        log, and the same one that it has itself."""
        raft = self._raft
        record = raft.known_configuration.record(peer)
        is_known = record is not None and record.is_stateful and record.since == request.since
        return is_known and not raft.is_reserve

    def _park(self, peer: MemberId, request: FeedRequest, wait_ms: int = 0) -> None:
        until_ms = self._clock.now_ms + (wait_ms or self._raft.options.heartbeat_interval_ms)
        self._parked.append(_Parked(peer, request, until_ms))
        self.due_ms = min(self.due_ms, until_ms)

    def advance(self, now_ms: int) -> None:
        """End of a turn: more may be committed, or a question has waited long enough."""
        if self._parked and not self._raft.is_saving:
            parked, self._parked = self._parked, []
            commit_index = self._raft.commit_index
            for each in parked:
                hold = self._holds.get(each.peer)
                if hold is None:
                    continue
                last = hold.last if hold.stream == each.request.stream else each.request.last
                is_snapshot = each.request.kind is FeedRequestKind.SNAPSHOT
                is_linked = each.peer in self._raft.links
                if is_linked and (commit_index > last.index or is_snapshot):
                    self.on_request(each.peer, each.request)
                elif now_ms >= each.until_ms:
                    self._say_nothing_newer(each.peer, each.request)
                else:
                    self._parked.append(each)
                    self.due_ms = min(self.due_ms, each.until_ms)
        if now_ms >= self.due_ms:
            for peer in [each for each, hold in self._holds.items() if hold.until_ms <= now_ms]:
                self._end_hold(peer)
            # What waits for a save waits for no time: the end of the save is a turn.
            parked = [] if self._raft.is_saving else self._parked
            self.due_ms = min(
                [NEVER_MS]
                + [hold.until_ms for hold in self._holds.values()]
                + [each.until_ms for each in parked]
            )

    # ---- entries -------------------------------------------------------------------------------

    def _serve_entries(self, peer: MemberId, request: FeedRequest, hold: _Hold) -> None:
        raft, terms = self._raft, self._raft.terms
        self._let_go(hold)
        if hold.stream != request.stream or request.number == 1:
            # An asker that was started again counts its streams from 1 again, too.
            hold.stream, hold.last = request.stream, request.last
        prev, commit_index = hold.last, raft.commit_index
        first = prev.next
        is_below = first < terms.first_index
        is_same = not is_below and terms.term_at(prev.index) == prev.term
        if prev.index > commit_index or not (is_below or is_same):
            newest = terms.last_at_or_below(EntryId(prev.term, min(prev.index, commit_index)))
            is_below = newest.next < terms.first_index
            if not is_below:
                self._answer(peer, request, FeedAnswerKind.ASK_FROM, newest)
                return
        elif first > commit_index:
            self._park(peer, request)
            return
        if is_below or (request.takes_gaps and first <= raft.cluster_deletion_floor):
            self._say_snapshot_needed(peer, request)
        else:
            self._send_entries(peer, request, hold)

    def _send_entries(self, peer: MemberId, request: FeedRequest, hold: _Hold) -> None:
        raft, prev = self._raft, hold.last
        if not self._host.has_room(peer, 0, ROOM_NBYTES):
            self._answer(peer, request, FeedAnswerKind.BUSY)
            return
        span = raft.terms.span_from(prev.next, raft.commit_index + 1)
        batch = self._reader.gather(span.first, span.end)
        if batch.has_gaps and not request.takes_gaps:
            self._say_snapshot_needed(peer, request)
            return
        span = batch.span
        body = compressed(batch) if request.compresses else None
        message = FedEntries(
            raft.current_term,
            request.stream,
            request.number,
            prev,
            span,
            raft.commit_index,
            0 if body is None else batch.nbytes,
        )
        header = encode_fed_entries(message, batch.nbytes if body is None else len(body))
        if self._host.send(peer, header, batch if body is None else body):
            hold.last = EntryId(span.term, span.last)

    def _say_snapshot_needed(self, peer: MemberId, request: FeedRequest) -> None:
        self._answer(
            peer, request, FeedAnswerKind.SNAPSHOT_NEEDED, EntryId(0, self._least_index(request))
        )

    def _least_index(self, request: FeedRequest) -> int:
        """What a snapshot must cover: where this log begins, the deletion floor, and for who takes
        no gaps all that gaps of this log stand for (C27, C30)."""
        raft = self._raft
        least = max(raft.cluster_deletion_floor, raft.terms.first_index - 1, 1)
        if not request.takes_gaps:
            least = max(least, request.since, self._log.valid_from)
        return least

    def _say_nothing_newer(self, peer: MemberId, request: FeedRequest) -> None:
        raft = self._raft
        last = raft.terms.entry_at(raft.commit_index)
        self._answer(peer, request, FeedAnswerKind.NOTHING_NEWER, last)

    # ---- snapshots -----------------------------------------------------------------------------

    def _serve_snapshot(self, peer: MemberId, request: FeedRequest, hold: _Hold) -> None:
        store = self._store
        if store is None:
            self._answer(peer, request, FeedAnswerKind.NOT_YET)
            return
        snapshot, offset = self._choose(store, request, hold), request.offset
        if snapshot is None:
            may_come = self._raft.commit_index >= self._needed_index(request)
            kind = FeedAnswerKind.BUSY if may_come else FeedAnswerKind.NOT_YET
            self._answer(peer, request, kind)
            return
        if hold.snapshot is not snapshot:
            self._let_go(hold)
            store.begin_read(snapshot.entry)
            hold.snapshot = snapshot
        elif hold.is_whole and request.snapshot == NO_ENTRY:
            hold.is_whole = False
            check = partial(check_file, store, snapshot)
            self._inbox.run(Lane.ASIDE, check, partial(self._checked, peer, request, snapshot))
            return
        if snapshot.entry != request.snapshot or offset >= snapshot.nbytes:
            offset = 0
        size = min(CHUNK_NBYTES, snapshot.nbytes - offset)
        work = partial(read_chunk, store, snapshot, offset, size)
        self._inbox.run(Lane.ASIDE, work, partial(self._was_read, peer, request, snapshot, offset))

    def _choose(self, store: SnapshotStore, request: FeedRequest, hold: _Hold) -> Snapshot | None:
        """The file of which the asker has bytes, if it is here; else the newest, if it is new
        enough and not too many are sent at a time. One is taken if none is new enough."""
        begun = hold.snapshot
        if begun is not None and begun.entry == request.snapshot:
            # Gaps that were made since do not count: a transfer that lasts longer than a
            # compaction takes to come would never end.
            least = max(request.min_index, request.since, self._raft.cluster_deletion_floor)
            if begun.entry.index >= max(least, self._raft.terms.first_index - 1):
                return begun
        least = self._needed_index(request)
        newest = store.newest
        if newest is None or newest.entry.index < least:
            self._sender.needs_newer |= self._raft.commit_index >= least
            return None
        sending = [each for each in self._holds.values() if each.snapshot is not None]
        return newest if begun is not None or len(sending) < SENDING_MAX else None

    def _needed_index(self, request: FeedRequest) -> int:
        """What a file that the asker begins with must cover."""
        return max(request.min_index, self._least_index(request))

    def _was_read(
        self,
        peer: MemberId,
        request: FeedRequest,
        snapshot: Snapshot,
        offset: int,
        data: bytes | CorruptLogError | FileNotFoundError,
    ) -> None:
        if self._raft.is_saving:
            self._park(peer, request)  # and it is read again
            return
        hold = self._holds.get(peer)
        if hold is None or hold.snapshot is not snapshot:
            self._answer(peer, request, FeedAnswerKind.BUSY)
            return
        if not isinstance(data, bytes):
            self._reject(snapshot, data)
            self._answer(peer, request, FeedAnswerKind.BUSY)
            return
        message = FedSnapshot(
            self._raft.current_term,
            request.stream,
            request.number,
            snapshot.entry,
            snapshot.nbytes,
            snapshot.digest,
            offset,
        )
        self._host.send(peer, encode_fed_snapshot(message, len(data)), data)
        hold.is_whole |= offset + len(data) == snapshot.nbytes

    def _checked(
        self,
        peer: MemberId,
        request: FeedRequest,
        snapshot: Snapshot,
        error: CorruptLogError | FileNotFoundError | None,
    ) -> None:
        """All of the file was sent, and the asker begins anew: it was read back here."""
        if error is not None:
            self._reject(snapshot, error)
        self.on_request(peer, request)

    def _reject(self, snapshot: Snapshot, error: CorruptLogError | FileNotFoundError) -> None:
        """F17: a damaged file does not count as a snapshot any more, and a good one is taken."""
        for hold in self._holds.values():
            if hold.snapshot is snapshot:
                self._let_go(hold)
        if self._store is not None and self._store.reject(snapshot):
            log.warning(
                "a snapshot of this member is damaged, another one is fed: %s (F17)", error
            )
            self._sender.needs_newer = True

    # ---- what is kept --------------------------------------------------------------------------

    def indexes_in_use(self) -> list[int]:
        """Entries above each of these are needed by some asker: the front of the log stays, but
        not on a disk that is short of room (F12)."""
        holds = [hold for hold in self._holds.values() if hold.stream or hold.snapshot]
        if not holds or not self._log.has_room(4 * CHUNK_NBYTES, in_new_segment=True):
            return []
        return [
            hold.last.index if hold.snapshot is None else hold.snapshot.entry.index
            for hold in holds
        ]

    def link_ended(self, peer: MemberId) -> None:
        """What was sent and not received is asked for again, in another stream."""
        self._parked = [each for each in self._parked if each.peer != peer]

    def _end_hold(self, peer: MemberId) -> None:
        hold = self._holds.pop(peer)
        self._let_go(hold)

    def _let_go(self, hold: _Hold) -> None:
        if hold.snapshot is not None and self._store is not None:
            self._store.end_read(hold.snapshot.entry)
        hold.snapshot, hold.is_whole = None, False

    def _answer(
        self,
        peer: MemberId,
        request: FeedRequest,
        kind: FeedAnswerKind,
        entry: EntryId = NO_ENTRY,
    ) -> None:
        message = FeedAnswer(self._raft.current_term, request.stream, request.number, kind, entry)
        self._host.send(peer, encode_feed_answer(message), None)
