"""Bytes for the wire: a `Replicate` effect becomes a header and a view of frames.

The batch that was just appended is nearly always the one that every peer wants next, and the
one that is applied next. So the newest batches are kept, bounded by bytes; the log is read
only for those that lag.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from copycat.errors import ProtocolError
from copycat.protocol.codec_peer import encode_append
from copycat.protocol.peer import AppendEntries
from copycat.raft.effects import Replicate
from copycat.replica.host import Host
from copycat.storage import Batch as FrameBatch
from copycat.storage.interface import Batch, ReplicaLog
from copycat.types import NO_ENTRY, EntryId, MemberId, Span

__all__ = ["EntrySender", "RecentBatches", "received_batch"]


def received_batch(body: memoryview, message: AppendEntries) -> FrameBatch:
    """The entries of a message, every frame verified. ProtocolError.

    C3: only what is committed is ever cleaned away, so a gap above leader_commit is forged.
    """
    batch = FrameBatch.from_wire(body, message.span)
    if batch.has_gaps:
        for first, end, _ in batch.gaps():
            if end > message.leader_commit + 1:
                raise ProtocolError(
                    f"a gap of [{first}, {end}) above the leader's commit index"
                    f" {message.leader_commit}"
                )
    return batch


class RecentBatches:
    """The newest batches of the log, in order; the log behind them for the rest."""

    def __init__(
        self, log: ReplicaLog, bytes_max: int, read_bytes_max: int, entries_max: int = 1024
    ) -> None:
        self._log = log
        self._bytes_max = bytes_max
        self._entries_max = entries_max
        self._entries = 0
        self.applied = 0
        """What is not applied yet is wanted soon: only the byte limit lets it go."""
        self._read_bytes_max = read_bytes_max
        self._firsts: list[int] = []
        self._batches: list[Batch] = []
        self._nbytes = 0
        self._last_read: Batch | None = None

    def add(self, batch: Batch) -> None:
        """Remember a batch that was appended; let the oldest go beyond the limits."""
        self._firsts.append(batch.span.first)
        self._batches.append(batch)
        self._nbytes += batch.nbytes
        self._entries += batch.span.length
        drop = 0
        while drop < len(self._batches) - 1 and self._is_over(self._batches[drop]):
            self._nbytes -= self._batches[drop].nbytes
            self._entries -= self._batches[drop].span.length
            drop += 1
        if drop:
            del self._firsts[:drop], self._batches[:drop]

    def _is_over(self, oldest: Batch) -> bool:
        many = self._entries - oldest.span.length >= self._entries_max
        return self._nbytes > self._bytes_max or (many and oldest.span.last <= self.applied)

    def applied_up_to(self, index: int) -> None:
        """Entries up to `index` are applied: the limit of entries counts for them again."""
        self.applied = index

    def truncate(self, after: int) -> None:
        """Forget every batch that reaches above `after`."""
        while self._batches and self._batches[-1].span.last > after:
            self._firsts.pop()
            removed = self._batches.pop()
            self._nbytes -= removed.nbytes
            self._entries -= removed.span.length
        if self._last_read is not None and self._last_read.span.last > after:
            self._last_read = None

    def read(self, first: int, end: int) -> Batch:
        """A batch that starts at `first` and ends at `end` or before; one entry at least."""
        at = bisect_right(self._firsts, first) - 1
        batch = self._batches[at] if at >= 0 else self._last_read
        if batch is None or not batch.span.first <= first < batch.span.end:
            batch = self._last_read = self._log.read(
                first, self._log.last_index + 1, self._read_bytes_max
            )
        if batch.span.first == first and batch.span.end <= end:
            return batch
        return batch.slice(first, min(end, batch.span.end))

    def gather(self, first: int, end: int) -> Batch:
        """As `read`, but over the borders of small batches: as much as one message takes.

        A peer that lags behind a stream of small batches would else be sent one of them a round
        trip, and never come nearer while its disk is the slower one.
        """
        batch = self.read(first, end)
        if batch.span.end < end and 2 * batch.nbytes <= self._read_bytes_max:
            return self._log.read(first, end, self._read_bytes_max)
        return batch

    def walk(self, first: int, end: int) -> Iterator[Batch]:
        """Batches that tile [first, end)."""
        while first < end:
            batch = self.read(first, end)
            yield batch
            first = batch.span.end


class EntrySender:
    """Carries out `Replicate`."""

    def __init__(self, recent: RecentBatches, host: Host) -> None:
        self._recent = recent
        self._host = host

    def ship(
        self,
        effect: Replicate,
        *,
        term: int,
        leader: MemberId,
        configuration: EntryId = NO_ENTRY,
        log_time_ms: int = 0,
    ) -> Span | None:
        """Send what one message takes; the span that went out, None when no link took it.

        leader: this member, which leads `term`.  configuration: the name of the one that the
        deletion floor is about.  log_time_ms: as this leader knows it (C25).

        What is in a gap was committed (C3), even if this leader started anew and does not know
        yet how far: it says so, or a peer that lags would refuse the gap, and without that
        peer there may be no majority for anything new.
        """
        span, batch, committed = effect.span, None, effect.leader_commit
        if span.first < span.end:
            batch = self._recent.gather(span.first, span.end)
            span = Span(span.term, span.first, batch.span.end)
            if committed < span.last and batch.has_gaps:
                committed = max(committed, batch.gaps()[-1][1] - 1)
        message = AppendEntries(
            term,
            leader,
            effect.request,
            effect.prev,
            span,
            committed,
            effect.deletion_floor,
            configuration,
            log_time_ms,
        )
        header = encode_append(message, 0 if batch is None else batch.nbytes)
        return span if self._host.send(effect.peer, header, batch) else None
