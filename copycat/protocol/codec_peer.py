"""Bytes of what members say to each other, and of client frames relayed between them."""

from __future__ import annotations

from struct import Struct
from typing import assert_never

from copycat.errors import ProtocolError, VersionMismatchError
from copycat.protocol.codec_configuration import decode_configuration, encode_configuration
from copycat.protocol.framing import (
    HEADER_SIZE,
    Frame,
    encode_frame,
    frame_header,
    join_frame,
    split_frame,
)
from copycat.protocol.peer import (
    AppendEntries,
    AppendReply,
    ConfigurationNotice,
    InstallReply,
    InstallSnapshot,
    LogPosition,
    LogRegressed,
    PeerMessage,
    PreVote,
    PreVoteReply,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from copycat.protocol.wire import (
    CLIENT_TYPES,
    MEMBER_TYPE_CODES,
    MEMBER_TYPES_BY_CODE,
    SERVER_TYPES,
    FrameType,
    Reader,
    exact,
    unknown_frame,
)
from copycat.types import NO_ENTRY, EntryId, MemberId, Span

__all__ = [
    "decode_append",
    "decode_append_reply",
    "decode_forward",
    "decode_install",
    "decode_peer",
    "decode_return",
    "encode_append",
    "encode_append_reply",
    "encode_forward",
    "encode_install",
    "encode_peer",
    "encode_return",
]

_APPEND = Struct("<Q16s13Q16s")
"""term, leader, request, prev (term, index), span (term, first, end), leader_commit,
deletion_floor, configuration (term, index), log time, since, type of the receiver, feeder."""
_APPEND_REPLY = Struct("<14Q")
"""term, request, answer, match_index, hint (term, index), stable_index, configuration (term,
index), last (term, index), commit_index, feeder that was left."""
_LOW_WORD = (1 << 64) - 1
_ANSWERS = {
    outcome + 4 * is_full + 8 * is_replaying: (outcome == 1, outcome == 2, is_full, is_replaying)
    for outcome in range(3)
    for is_full in (False, True)
    for is_replaying in (False, True)
}
"""The number of each answer -> accepted, wants_snapshot, storage_full, is_replaying."""
_ANSWER_NUMBERS = {flags: number for number, flags in _ANSWERS.items()}
_INSTALL = Struct("<Q16s4Q32sQ")
"""term, leader, request, entry (term, index), size of the file, digest, offset."""
_INSTALL_REPLY = Struct("<5QB7x")
_PRE_VOTE = Struct("<4Q")
_PRE_VOTE_REPLY = Struct("<QQB7xQQQ")
_REQUEST_VOTE = Struct("<3QB7x")
_VOTE_REPLY = Struct("<QB7xQQQ")
_TERM = Struct("<Q")
"""All of TIMEOUT_NOW; in CONFIGURATION_NOTICE the leader and a configuration follow."""
_LOG_POSITION = Struct("<3Q")
"""term, and an entry (term, index)."""
_LOG_REGRESSED = Struct("<3QB")
"""The same, and whether it is the leader's final word."""
_TOKEN = Struct("<Q")


# ---- AppendEntries: fixed numbers, then frames that pass untouched ---------------------------


def encode_append(message: AppendEntries, nbytes: int) -> bytes:
    """Frame header and message; `nbytes` of log frames must follow it on the link."""
    prev, span, configuration = message.prev, message.span, message.configuration
    return frame_header(FrameType.APPEND_ENTRIES, _APPEND.size + nbytes) + _APPEND.pack(
        message.term,
        message.leader.to_bytes(16, "little"),
        message.request,
        prev.term,
        prev.index,
        span.term,
        span.first,
        span.end,
        message.leader_commit,
        message.deletion_floor,
        configuration.term,
        configuration.index,
        message.log_time_ms,
        message.since,
        MEMBER_TYPE_CODES[message.member_type],
        message.feeder.to_bytes(16, "little"),
    )


def decode_append(frame: Frame) -> tuple[AppendEntries, memoryview]:
    """The message and its log frames, unverified and not copied (`Batch.from_wire` checks)."""
    if frame.type != FrameType.APPEND_ENTRIES:
        raise unknown_frame(frame, "APPEND_ENTRIES")
    if len(frame.body) < _APPEND.size:
        raise ProtocolError(f"APPEND_ENTRIES has {len(frame.body)} bytes, under {_APPEND.size}")
    (
        term,
        leader,
        request,
        prev_term,
        prev_index,
        span_term,
        first,
        end,
        commit,
        deletion_floor,
        configuration_term,
        configuration_index,
        log_time_ms,
        since,
        type_code,
        feeder,
    ) = _APPEND.unpack_from(frame.body)
    if first > end or (first == end) != (len(frame.body) == _APPEND.size):
        raise ProtocolError(
            f"APPEND_ENTRIES of [{first}, {end}) carries {len(frame.body) - _APPEND.size} bytes"
        )
    member_type = MEMBER_TYPES_BY_CODE.get(type_code)
    if member_type is None:
        raise ProtocolError(f"APPEND_ENTRIES: type {type_code} of a member is not known")
    message = AppendEntries(
        term,
        MemberId(int.from_bytes(leader, "little")),
        request,
        EntryId(prev_term, prev_index),
        Span(span_term, first, end),
        commit,
        deletion_floor,
        EntryId(configuration_term, configuration_index),
        log_time_ms,
        member_type,
        since,
        MemberId(int.from_bytes(feeder, "little")),
    )
    return message, frame.body[_APPEND.size :]


# ---- InstallSnapshot: the same, with bytes of a snapshot file -----------------------------------


def encode_install(message: InstallSnapshot, nbytes: int) -> bytes:
    """Frame header and message; `nbytes` of the snapshot file must follow it on the link."""
    entry = message.entry
    return frame_header(FrameType.INSTALL_SNAPSHOT, _INSTALL.size + nbytes) + _INSTALL.pack(
        message.term,
        message.leader.to_bytes(16, "little"),
        message.request,
        entry.term,
        entry.index,
        message.nbytes,
        message.digest,
        message.offset,
    )


def decode_install(frame: Frame) -> tuple[InstallSnapshot, memoryview]:
    """The message and its bytes, not copied and not verified: only the whole file can be."""
    if frame.type != FrameType.INSTALL_SNAPSHOT:
        raise unknown_frame(frame, "INSTALL_SNAPSHOT")
    if len(frame.body) < _INSTALL.size:
        raise ProtocolError(f"INSTALL_SNAPSHOT has {len(frame.body)} bytes, under {_INSTALL.size}")
    term, leader, request, entry_term, index, nbytes, digest, offset = _INSTALL.unpack_from(
        frame.body
    )
    data = frame.body[_INSTALL.size :]
    if offset + len(data) > nbytes:
        raise ProtocolError(
            f"INSTALL_SNAPSHOT carries bytes {offset} to {offset + len(data)} of {nbytes}"
        )
    message = InstallSnapshot(
        term,
        MemberId(int.from_bytes(leader, "little")),
        request,
        EntryId(entry_term, index),
        nbytes,
        digest,
        offset,
    )
    return message, data


# ---- AppendReply: one for each AppendEntries, and one when the entries are durable --------------


def encode_append_reply(reply: AppendReply) -> bytes:
    """A whole frame."""
    flags = reply.accepted, reply.wants_snapshot, reply.storage_full, reply.is_replaying
    hint, configuration, last = reply.hint, reply.configuration, reply.last
    body = _APPEND_REPLY.pack(
        reply.term,
        reply.request,
        _ANSWER_NUMBERS[flags],
        reply.match_index,
        hint.term,
        hint.index,
        reply.stable_index,
        configuration.term,
        configuration.index,
        last.term,
        last.index,
        reply.commit_index,
        reply.left_feeder & _LOW_WORD,
        reply.left_feeder >> 64,
    )
    return encode_frame(FrameType.APPEND_REPLY, body)


def decode_append_reply(frame: Frame) -> AppendReply:
    """ProtocolError unless it is a whole and exact AppendReply."""
    (
        term,
        request,
        number,
        match_index,
        hint_term,
        hint_index,
        stable_index,
        configuration_term,
        configuration_index,
        last_term,
        last_index,
        commit_index,
        left_low,
        left_high,
    ) = exact(_APPEND_REPLY, frame, "APPEND_REPLY")
    flags = _ANSWERS.get(number)
    if flags is None:
        raise ProtocolError(f"APPEND_REPLY: answer {number:#x} is not known")
    accepted, wants_snapshot, is_full, is_replaying = flags
    return AppendReply(
        term,
        request,
        accepted,
        match_index,
        EntryId(hint_term, hint_index) if hint_term or hint_index else NO_ENTRY,
        stable_index,
        wants_snapshot,
        is_full,
        EntryId(configuration_term, configuration_index),
        is_replaying,
        EntryId(last_term, last_index),
        commit_index,
        MemberId(left_high << 64 | left_low),
    )


# ---- everything else between members ----------------------------------------------------------


def encode_peer(message: PeerMessage) -> bytes:
    """A whole frame of any message; without entries or bytes of a snapshot."""
    match message:
        case AppendEntries():
            return encode_append(message, 0)
        case InstallSnapshot():
            return encode_install(message, 0)
        case AppendReply():
            return encode_append_reply(message)
        case InstallReply(term, request, entry, offset, done):
            kind = FrameType.INSTALL_REPLY
            body = _INSTALL_REPLY.pack(term, request, entry.term, entry.index, offset, done)
        case PreVote(term, number, last):
            kind = FrameType.PRE_VOTE
            body = _PRE_VOTE.pack(term, number, last.term, last.index)
        case PreVoteReply(term, number, granted, wall_ms, time_ms, time_term):
            kind = FrameType.PRE_VOTE_REPLY
            body = _PRE_VOTE_REPLY.pack(term, number, granted, wall_ms, time_ms, time_term)
        case RequestVote(term, last, transfer):
            kind = FrameType.REQUEST_VOTE
            body = _REQUEST_VOTE.pack(term, last.term, last.index, transfer)
        case VoteReply(term, granted, wall_ms, time_ms, time_term):
            kind = FrameType.VOTE_REPLY
            body = _VOTE_REPLY.pack(term, granted, wall_ms, time_ms, time_term)
        case TimeoutNow(term):
            kind = FrameType.TIMEOUT_NOW
            body = _TERM.pack(term)
        case LogPosition(term, entry):
            kind = FrameType.LOG_POSITION
            body = _LOG_POSITION.pack(term, entry.term, entry.index)
        case LogRegressed(term, entry, is_final):
            kind = FrameType.LOG_REGRESSED
            body = _LOG_REGRESSED.pack(term, entry.term, entry.index, is_final)
        case ConfigurationNotice(term, leader, configuration):
            kind = FrameType.CONFIGURATION_NOTICE
            body = _TERM.pack(term) + leader.to_bytes(16, "little")
            body += encode_configuration(configuration)
        case _:
            assert_never(message)
    return encode_frame(kind, body)


def decode_peer(frame: Frame) -> PeerMessage:
    """Any message; one that carries entries needs `decode_append`, a snapshot's
    bytes need `decode_install`."""
    match frame.type:
        case FrameType.APPEND_ENTRIES:
            message, frames = decode_append(frame)
            if frames:
                raise ProtocolError(f"APPEND_ENTRIES with {len(frames)} bytes of entries here")
            return message
        case FrameType.APPEND_REPLY:
            return decode_append_reply(frame)
        case FrameType.INSTALL_SNAPSHOT:
            install, data = decode_install(frame)
            if data:
                raise ProtocolError(f"INSTALL_SNAPSHOT with {len(data)} bytes of a file here")
            return install
        case FrameType.INSTALL_REPLY:
            term, request, entry_term, index, offset, flag = exact(
                _INSTALL_REPLY, frame, "INSTALL_REPLY"
            )
            entry = EntryId(entry_term, index)
            return InstallReply(term, request, entry, offset, _flag(frame, flag, 40))
        case FrameType.PRE_VOTE:
            term, number, last_term, last_index = exact(_PRE_VOTE, frame, "PRE_VOTE")
            return PreVote(term, number, EntryId(last_term, last_index))
        case FrameType.PRE_VOTE_REPLY:
            term, number, flag, *times = exact(_PRE_VOTE_REPLY, frame, "PRE_VOTE_REPLY")
            return PreVoteReply(term, number, _flag(frame, flag, 16), *times)
        case FrameType.REQUEST_VOTE:
            term, last_term, last_index, flag = exact(_REQUEST_VOTE, frame, "REQUEST_VOTE")
            return RequestVote(term, EntryId(last_term, last_index), _flag(frame, flag, 24))
        case FrameType.VOTE_REPLY:
            term, flag, *times = exact(_VOTE_REPLY, frame, "VOTE_REPLY")
            return VoteReply(term, _flag(frame, flag, 8), *times)
        case FrameType.TIMEOUT_NOW:
            (term,) = exact(_TERM, frame, "TIMEOUT_NOW")
            return TimeoutNow(term)
        case FrameType.LOG_POSITION:
            term, last_term, last_index = exact(_LOG_POSITION, frame, "LOG_POSITION")
            return LogPosition(term, EntryId(last_term, last_index))
        case FrameType.LOG_REGRESSED:
            term, held_term, index, flag = exact(_LOG_REGRESSED, frame, "LOG_REGRESSED")
            return LogRegressed(term, EntryId(held_term, index), _flag(frame, flag, 24))
        case FrameType.CONFIGURATION_NOTICE:
            return _read_notice(frame)
        case _:
            raise unknown_frame(frame, "a message of a peer")


def _read_notice(frame: Frame) -> ConfigurationNotice:
    reader = Reader(frame.body, "CONFIGURATION_NOTICE")
    (term,) = reader.unpack(_TERM)
    leader = MemberId(reader.wide())
    try:
        configuration = decode_configuration(reader.rest(), "CONFIGURATION_NOTICE")
    except VersionMismatchError as error:
        raise ProtocolError(error.message) from error
    return ConfigurationNotice(term, leader, configuration)


def _flag(frame: Frame, value: int, at: int) -> bool:
    """A flag byte at `at`: 0 or 1, and the seven bytes of padding after it zero."""
    if value > 1 or any(frame.body[at + 1 : at + 8]):
        raise ProtocolError(
            f"{FrameType(frame.type).name}: a flag and its padding are "
            f"{frame.body[at : at + 8].hex(' ')}, not 0 or 1 and zeros"
        )
    return bool(value)


# ---- client frames on the way to the leader and back -----------------------------------------


def encode_forward(token: int, frame: Frame) -> bytes:
    """A client's frame, untouched, for the leader; `token` names its connection here."""
    return _wrap(FrameType.FORWARD, token, join_frame(frame))


def decode_forward(frame: Frame) -> tuple[int, Frame]:
    """(token, the client's frame), not copied."""
    if frame.type != FrameType.FORWARD:
        raise unknown_frame(frame, "FORWARD")
    token, inner = _unwrap(frame, "FORWARD")
    client = split_frame(inner)
    if client.type not in CLIENT_TYPES:
        raise unknown_frame(client, "a client's frame inside FORWARD")
    return token, client


def encode_return(token: int, frame: bytes) -> bytes:
    """The leader's answer, a whole frame, for the connection that `token` names there."""
    return _wrap(FrameType.RETURN, token, frame)


def decode_return(frame: Frame) -> tuple[int, bytes]:
    """(token, the answer as a whole frame): the bytes to write to the client."""
    if frame.type != FrameType.RETURN:
        raise unknown_frame(frame, "RETURN")
    token, inner = _unwrap(frame, "RETURN")
    server = split_frame(inner)
    if server.type not in SERVER_TYPES:
        raise unknown_frame(server, "a server's frame inside RETURN")
    return token, bytes(inner)


def _wrap(kind: FrameType, token: int, inner: bytes) -> bytes:
    head = frame_header(kind, _TOKEN.size + len(inner))
    return b"".join((head, _TOKEN.pack(token), inner))


def _unwrap(frame: Frame, what: str) -> tuple[int, memoryview]:
    if len(frame.body) < _TOKEN.size + HEADER_SIZE:
        raise ProtocolError(f"{what} has {len(frame.body)} bytes, no room for a frame")
    (token,) = _TOKEN.unpack_from(frame.body)
    return token, frame.body[_TOKEN.size :]
