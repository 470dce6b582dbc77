"""Bytes of the questions of a member that is fed, and of the answers of its feeder."""

from __future__ import annotations

from struct import Struct

from copycat.errors import ProtocolError
from copycat.protocol.feeding import (
    FedEntries,
    FedSnapshot,
    FeedAnswer,
    FeedAnswerKind,
    FeedRequest,
    FeedRequestKind,
)
from copycat.protocol.framing import Frame, encode_frame, frame_header
from copycat.protocol.wire import FrameType, exact, unknown_frame
from copycat.types import EntryId, Span

__all__ = [
    "decode_fed_entries",
    "decode_fed_snapshot",
    "decode_feed_answer",
    "decode_feed_request",
    "encode_fed_entries",
    "encode_fed_snapshot",
    "encode_feed_answer",
    "encode_feed_request",
]

_REQUEST = Struct("<BBB5x11Q")
"""kind, takes gaps, compresses, stream, number, last (term, index), configuration (term, index),
since, least index, snapshot (term, index), offset."""
_ENTRIES = Struct("<10Q")
"""term, stream, number, prev (term, index), span (term, first, end), commit_index, raw bytes."""
_ANSWER = Struct("<B7x5Q")
"""kind, term, stream, number, entry (term, index)."""
_SNAPSHOT = Struct("<6Q32sQ")
"""term, stream, number, entry (term, index), size of the file, digest, offset."""

_REQUEST_KINDS = {int(kind): kind for kind in FeedRequestKind}
_ANSWER_KINDS = {int(kind): kind for kind in FeedAnswerKind}


def encode_feed_request(message: FeedRequest) -> bytes:
    """A whole frame."""
    body = _REQUEST.pack(
        message.kind,
        message.takes_gaps,
        message.compresses,
        message.stream,
        message.number,
        *message.last,
        *message.configuration,
        message.since,
        message.min_index,
        *message.snapshot,
        message.offset,
    )
    return encode_frame(FrameType.FEED_REQUEST, body)


def decode_feed_request(frame: Frame) -> FeedRequest:
    """ProtocolError unless it is a whole and exact FeedRequest."""
    code, gaps, compresses, *words = exact(_REQUEST, frame, "FEED_REQUEST")
    kind = _REQUEST_KINDS.get(code)
    if kind is None or gaps > 1 or compresses > 1 or any(frame.body[3:8]):
        raise ProtocolError(f"FEED_REQUEST: {frame.body[:8].hex(' ')} is not known")
    stream, number, last_term, last_index, term, index, since, least, snap_term, snap, offset = (
        words
    )
    return FeedRequest(
        kind,
        stream,
        number,
        EntryId(last_term, last_index),
        EntryId(term, index),
        since,
        bool(gaps),
        bool(compresses),
        least,
        EntryId(snap_term, snap),
        offset,
    )


def encode_fed_entries(message: FedEntries, nbytes: int) -> bytes:
    """Frame header and message; `nbytes` of log frames, as they are or compressed, follow it."""
    return frame_header(FrameType.FED_ENTRIES, _ENTRIES.size + nbytes) + _ENTRIES.pack(
        message.term,
        message.stream,
        message.number,
        *message.prev,
        *message.span,
        message.commit_index,
        message.raw_nbytes,
    )


def decode_fed_entries(frame: Frame) -> tuple[FedEntries, memoryview]:
    """The message and what follows it, unverified and not copied. ProtocolError."""
    if frame.type != FrameType.FED_ENTRIES:
        raise unknown_frame(frame, "FED_ENTRIES")
    if len(frame.body) <= _ENTRIES.size:
        raise ProtocolError(f"FED_ENTRIES has {len(frame.body)} bytes, no room for entries")
    (term, stream, number, prev_term, prev_index, span_term, first, end, commit, raw) = (
        _ENTRIES.unpack_from(frame.body)
    )
    if not first < end <= commit + 1 or first != prev_index + 1:
        raise ProtocolError(
            f"FED_ENTRIES of [{first}, {end}) after {prev_index}, committed up to {commit}"
        )
    message = FedEntries(
        term,
        stream,
        number,
        EntryId(prev_term, prev_index),
        Span(span_term, first, end),
        commit,
        raw,
    )
    return message, frame.body[_ENTRIES.size :]


def encode_feed_answer(message: FeedAnswer) -> bytes:
    """A whole frame."""
    body = _ANSWER.pack(message.kind, message.term, message.stream, message.number, *message.entry)
    return encode_frame(FrameType.FEED_ANSWER, body)


def decode_feed_answer(frame: Frame) -> FeedAnswer:
    """ProtocolError unless it is a whole and exact FeedAnswer."""
    code, term, stream, number, entry_term, index = exact(_ANSWER, frame, "FEED_ANSWER")
    kind = _ANSWER_KINDS.get(code)
    if kind is None or any(frame.body[1:8]):
        raise ProtocolError(f"FEED_ANSWER: {frame.body[:8].hex(' ')} is not known")
    return FeedAnswer(term, stream, number, kind, EntryId(entry_term, index))


def encode_fed_snapshot(message: FedSnapshot, nbytes: int) -> bytes:
    """Frame header and message; `nbytes` of the snapshot file follow it."""
    return frame_header(FrameType.FED_SNAPSHOT, _SNAPSHOT.size + nbytes) + _SNAPSHOT.pack(
        message.term,
        message.stream,
        message.number,
        *message.entry,
        message.nbytes,
        message.digest,
        message.offset,
    )


def decode_fed_snapshot(frame: Frame) -> tuple[FedSnapshot, memoryview]:
    """The message and its bytes, not copied and not verified: only the whole file can be."""
    if frame.type != FrameType.FED_SNAPSHOT:
        raise unknown_frame(frame, "FED_SNAPSHOT")
    if len(frame.body) <= _SNAPSHOT.size:
        raise ProtocolError(f"FED_SNAPSHOT has {len(frame.body)} bytes, no room for a file's")
    term, stream, number, entry_term, index, nbytes, digest, offset = _SNAPSHOT.unpack_from(
        frame.body
    )
    data = frame.body[_SNAPSHOT.size :]
    if offset + len(data) > nbytes or not (1 <= entry_term <= term and index >= 1):
        raise ProtocolError(
            f"FED_SNAPSHOT of entry ({entry_term}, {index}) carries bytes {offset} to"
            f" {offset + len(data)} of {nbytes}"
        )
    entry = EntryId(entry_term, index)
    return FedSnapshot(term, stream, number, entry, nbytes, digest, offset), data
