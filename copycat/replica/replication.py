"""Bytes for the wire: a `Replicate` effect becomes a header and a view of frames."""

from __future__ import annotations

from copycat.errors import ProtocolError
from copycat.protocol.codec_peer import encode_append
from copycat.protocol.peer import AppendEntries
from copycat.raft.effects import Replicate
from copycat.replica.host import Host
from copycat.storage import Batch as FrameBatch
from copycat.storage.recent_batches import BatchReader
from copycat.types import NO_ENTRY, EntryId, MemberId, Span

__all__ = ["EntrySender", "received_batch"]


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


class EntrySender:
    """Carries out `Replicate`."""

    def __init__(self, batch_reader: BatchReader, host: Host) -> None:
        self._batch_reader = batch_reader
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
            batch = self._batch_reader.gather(span.first, span.end)
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
