"""Bytes of what clients and servers say to each other."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct, pack
from typing import assert_never

from copycat.errors import ProtocolError
from copycat.protocol.client import (
    ChangeRefused,
    ChangeRequest,
    ClientMessage,
    CloseSession,
    ClusterView,
    Commands,
    CommandsRefused,
    Failure,
    KeepAlive,
    KeptAlive,
    QueryRequest,
    QueryResult,
    Refusal,
    Register,
    Registered,
    Results,
    ServerMessage,
    SessionClosed,
    TransferRequest,
    ViewRequest,
)
from copycat.protocol.codec_cluster import (
    decode_cluster_answer,
    decode_cluster_request,
    encode_cluster_answer,
    encode_cluster_request,
)
from copycat.protocol.framing import Buffer, Frame, encode_frame, frame_header
from copycat.protocol.wire import (
    REASON_MAX,
    FrameType,
    Reader,
    exact,
    pack_text,
    pack_texts,
    unknown_frame,
)
from copycat.types import ConsistencyLevel

__all__ = [
    "RUN_MAX",
    "decode_client",
    "decode_commands",
    "decode_results_frame",
    "decode_server",
    "encode_client",
    "encode_commands",
    "encode_server",
    "split_operations",
]

RUN_MAX = 65536
"""Commands in one frame: as many as one session may have in flight."""

_REGISTER_NUMBERS = Struct("<QIQ")
_REGISTER = Struct("<QIQ16s")
_KEEP_ALIVE_NUMBERS = Struct("<QQQ")
_KEEP_ALIVE = Struct("<QQQ16s")
_CLOSE_SESSION = Struct("<QQ")
_COMMANDS = Struct("<QQQI")
_QUERY = Struct("<QQQQB")
_REGISTERED_NUMBERS = Struct("<QQI")
_REGISTERED = Struct("<QQI16s")
_REQUEST = Struct("<Q")
_RESULTS = Struct("<QQQQI")
_REFUSED = Struct("<QQBI")
_QUERY_RESULT = Struct("<QQ")
_FAILURE = Struct("<QBI")

_U32_MAX = (1 << 32) - 1

_LEVELS = {0: ConsistencyLevel.SEQUENTIAL, 2: ConsistencyLevel.LINEARIZABLE}
_LEVEL_NUMBERS = {level: number for number, level in _LEVELS.items()}
_REFUSALS = frozenset(int(code) for code in Refusal)


# ---- commands: the hot ones --------------------------------------------------------------------


def encode_commands(
    session: int, first_sequence: int, acked_sequence: int, operations: Sequence[bytes]
) -> bytes:
    """One frame for a run of encoded operations, sequences from `first_sequence` on."""
    count = len(operations)
    lengths = pack(f"<{count}I", *map(len, operations))
    body = b"".join((lengths, *operations))
    head = frame_header(FrameType.COMMANDS, _COMMANDS.size + len(body))
    return b"".join((head, _COMMANDS.pack(session, first_sequence, acked_sequence, count), body))


def decode_commands(frame: Frame) -> Commands:
    """The run, its operations neither copied nor decoded; lengths tile the body exactly."""
    if frame.type != FrameType.COMMANDS:
        raise unknown_frame(frame, "COMMANDS")
    if len(frame.body) < _COMMANDS.size:
        raise ProtocolError(f"COMMANDS has {len(frame.body)} bytes, under {_COMMANDS.size}")
    session, first_sequence, acked_sequence, count = _COMMANDS.unpack_from(frame.body)
    body = frame.body[_COMMANDS.size :]
    if not 1 <= count <= RUN_MAX or 4 * count > len(body):
        raise ProtocolError(
            f"COMMANDS says {count} commands (1 to {RUN_MAX}) in {len(body)} bytes"
        )
    if not acked_sequence < first_sequence:
        raise ProtocolError(
            f"COMMANDS from sequence {first_sequence} ({count} of them) acknowledges replies up "
            f"to {acked_sequence}"
        )
    total = 4 * count + sum(Struct(f"<{count}I").unpack_from(body))
    if total != len(body):
        raise ProtocolError(
            f"COMMANDS: {count} lengths and operations make {total} bytes, {len(body)} are here"
        )
    return Commands(session, first_sequence, acked_sequence, count, body)


def split_operations(count: int, body: Buffer) -> list[bytes]:
    """The operations of a run, one by one: for tests and tools, not for the hot path."""
    view = memoryview(body)
    operations, at = [], 4 * count
    for length in Struct(f"<{count}I").unpack_from(view):
        operations.append(bytes(view[at : at + length]))
        at += length
    return operations


def decode_results_frame(frame: Frame) -> Results:
    """The replies to a run; the body stays encoded (`operations.decode_results`)."""
    if frame.type != FrameType.RESULTS:
        raise unknown_frame(frame, "RESULTS")
    if len(frame.body) < _RESULTS.size:
        raise ProtocolError(f"RESULTS has {len(frame.body)} bytes, under {_RESULTS.size}")
    session, first_sequence, first_index, last_index, count = _RESULTS.unpack_from(frame.body)
    if not 1 <= count <= RUN_MAX or first_index > last_index:
        raise ProtocolError(
            f"RESULTS says {count} replies (1 to {RUN_MAX}) of entries {first_index} to "
            f"{last_index}"
        )
    body = frame.body[_RESULTS.size :]
    return Results(session, first_sequence, count, first_index, last_index, body)


# ---- from clients ------------------------------------------------------------------------------


def encode_client(message: ClientMessage) -> bytes:
    """A whole frame."""
    match message:
        case Commands(session, first_sequence, acked_sequence, count, body):
            head = frame_header(FrameType.COMMANDS, _COMMANDS.size + len(body))
            fixed = _COMMANDS.pack(session, first_sequence, acked_sequence, count)
            return b"".join((head, fixed, body))
        case Register(request, client_id, timeout_ms, cluster, instance, incarnation):
            fixed = _REGISTER.pack(request, timeout_ms, instance, _wide(incarnation))
            texts = pack_text(client_id) + pack_text(cluster)
            return encode_frame(FrameType.REGISTER, fixed + texts)
        case KeepAlive(request, session, acked_sequence, cluster, incarnation):
            fixed = _KEEP_ALIVE.pack(request, session, acked_sequence, _wide(incarnation))
            return encode_frame(FrameType.KEEP_ALIVE, fixed + pack_text(cluster))
        case CloseSession(request, session):
            return encode_frame(FrameType.CLOSE_SESSION, _CLOSE_SESSION.pack(request, session))
        case QueryRequest(request, session, sequence, index, consistency, operation):
            level = _LEVEL_NUMBERS[consistency]
            fixed = _QUERY.pack(request, session, sequence, index, level)
            head = frame_header(FrameType.QUERY, _QUERY.size + len(operation))
            return b"".join((head, fixed, operation))
        case ViewRequest() | ChangeRequest() | TransferRequest():
            return encode_cluster_request(message)
        case _:
            assert_never(message)


def decode_client(frame: Frame) -> ClientMessage:
    """Any message of a client."""
    match frame.type:
        case FrameType.COMMANDS:
            return decode_commands(frame)
        case FrameType.REGISTER:
            reader = Reader(frame.body, "REGISTER")
            request, timeout_ms, instance = reader.unpack(_REGISTER_NUMBERS)
            incarnation, client_id, cluster = reader.wide(), reader.text(), reader.text()
            reader.end()
            return Register(request, client_id, timeout_ms, cluster, instance, incarnation)
        case FrameType.KEEP_ALIVE:
            reader = Reader(frame.body, "KEEP_ALIVE")
            request, session, acked_sequence = reader.unpack(_KEEP_ALIVE_NUMBERS)
            incarnation, cluster = reader.wide(), reader.text()
            reader.end()
            return KeepAlive(request, session, acked_sequence, cluster, incarnation)
        case FrameType.CLOSE_SESSION:
            return CloseSession(*exact(_CLOSE_SESSION, frame, "CLOSE_SESSION"))
        case FrameType.QUERY:
            reader = Reader(frame.body, "QUERY")
            request, session, sequence, index, level = reader.unpack(_QUERY)
            if level not in _LEVELS:
                raise ProtocolError(f"QUERY: consistency level {level} is unknown")
            return QueryRequest(request, session, sequence, index, _LEVELS[level], reader.rest())
        case FrameType.VIEW | FrameType.CHANGE | FrameType.TRANSFER:
            return decode_cluster_request(frame)
        case _:
            raise unknown_frame(frame, "a message of a client")


# ---- to clients --------------------------------------------------------------------------------


def encode_server(message: ServerMessage) -> bytes:
    """A whole frame."""
    match message:
        case Results(session, first_sequence, count, first_index, last_index, body):
            head = frame_header(FrameType.RESULTS, _RESULTS.size + len(body))
            fixed = _RESULTS.pack(session, first_sequence, first_index, last_index, count)
            return b"".join((head, fixed, body))
        case QueryResult(request, index, body):
            head = frame_header(FrameType.QUERY_RESULT, _QUERY_RESULT.size + len(body))
            return b"".join((head, _QUERY_RESULT.pack(request, index), body))
        case Registered(request, session, timeout_ms, leader, members, cluster, incarnation):
            fixed = _REGISTERED.pack(request, session, timeout_ms, _wide(incarnation))
            texts = pack_text(leader) + pack_texts(members) + pack_text(cluster)
            return encode_frame(FrameType.REGISTERED, fixed + texts)
        case KeptAlive(request, leader, members, incarnation):
            fixed = _REQUEST.pack(request) + _wide(incarnation)
            return encode_frame(
                FrameType.KEPT_ALIVE, fixed + pack_text(leader) + pack_texts(members)
            )
        case SessionClosed(request):
            return encode_frame(FrameType.SESSION_CLOSED, _REQUEST.pack(request))
        case CommandsRefused(session, next_sequence, code, leader, reason, missing, since_ms):
            fixed = _REFUSED.pack(session, next_sequence, code, min(since_ms, _U32_MAX))
            why = _pack_why(leader, reason, missing)
            return encode_frame(FrameType.COMMANDS_REFUSED, fixed + why)
        case Failure(request, code, leader, reason, missing, since_ms):
            fixed = _FAILURE.pack(request, code, min(since_ms, _U32_MAX))
            return encode_frame(FrameType.FAILURE, fixed + _pack_why(leader, reason, missing))
        case ClusterView() | ChangeRefused():
            return encode_cluster_answer(message)
        case _:
            assert_never(message)


def _wide(value: int) -> bytes:
    return value.to_bytes(16, "little")


def _pack_why(leader: str, reason: str, missing: tuple[str, ...]) -> bytes:
    return pack_text(leader) + pack_text(reason, REASON_MAX, cut=True) + pack_texts(missing)


def decode_server(frame: Frame) -> ServerMessage:
    """Any message of a server."""
    match frame.type:
        case FrameType.RESULTS:
            return decode_results_frame(frame)
        case FrameType.QUERY_RESULT:
            reader = Reader(frame.body, "QUERY_RESULT")
            request, index = reader.unpack(_QUERY_RESULT)
            return QueryResult(request, index, reader.rest())
        case FrameType.SESSION_CLOSED:
            return SessionClosed(*exact(_REQUEST, frame, "SESSION_CLOSED"))
        case FrameType.CLUSTER_VIEW | FrameType.CHANGE_REFUSED:
            return decode_cluster_answer(frame)
        case _:
            return _decode_cold_server(frame)


def _decode_cold_server(frame: Frame) -> ServerMessage:
    message: ServerMessage
    match frame.type:
        case FrameType.REGISTERED:
            reader = Reader(frame.body, "REGISTERED")
            request, session, timeout_ms = reader.unpack(_REGISTERED_NUMBERS)
            incarnation = reader.wide()
            named = reader.text(), reader.texts(), reader.text()
            message = Registered(request, session, timeout_ms, *named, incarnation)
        case FrameType.KEPT_ALIVE:
            reader = Reader(frame.body, "KEPT_ALIVE")
            (request,) = reader.unpack(_REQUEST)
            incarnation = reader.wide()
            message = KeptAlive(request, reader.text(), reader.texts(), incarnation)
        case FrameType.COMMANDS_REFUSED:
            reader = Reader(frame.body, "COMMANDS_REFUSED")
            session, next_sequence, code, since_ms = reader.unpack(_REFUSED)
            why = reader.text(), reader.text(REASON_MAX), reader.texts()
            message = CommandsRefused(session, next_sequence, _refusal(code), *why, since_ms)
        case FrameType.FAILURE:
            reader = Reader(frame.body, "FAILURE")
            request, code, since_ms = reader.unpack(_FAILURE)
            why = reader.text(), reader.text(REASON_MAX), reader.texts()
            message = Failure(request, _refusal(code), *why, since_ms)
        case _:
            raise unknown_frame(frame, "a message of a server")
    reader.end()
    return message


def _refusal(code: int) -> int:
    if code not in _REFUSALS:
        raise ProtocolError(f"refusal code {code} is unknown")
    return code
