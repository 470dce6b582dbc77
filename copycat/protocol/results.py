"""What the machine answers, as bytes: MessagePack, with exceptions as extension values.

A run's results are one array. An exception stands in it as extension `ERROR_EXT`, whose data is
the array `[code, type name, text]`: `code` is the stable name of a `copycat.errors` type. It
becomes that type again at the client, most often ApplicationError (F23).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec.msgpack import Ext

from copycat.errors import (
    ApplicationError,
    CommandError,
    ConfigurationError,
    CopycatError,
    EntryTooLargeError,
    IllegalMemberStateError,
    InternalError,
    MachineMismatchError,
    NoLeaderError,
    ProtocolError,
    QueryError,
    SerializationError,
    UnknownSessionError,
)
from copycat.protocol.client import Refusal
from copycat.protocol.framing import Buffer
from copycat.protocol.obstacles import INTEGERS, obstacles_in
from copycat.tracebacks import shortened

__all__ = [
    "ERROR_EXT",
    "PIECE_NBYTES",
    "PLAIN",
    "RAISED",
    "RESULT_MAX",
    "cut_results",
    "decode_result",
    "decode_results",
    "encode_pieces",
    "encode_result",
    "encode_results",
    "error_value",
    "failure_value",
    "freeze",
    "name_of",
    "refusal_error",
    "text_of",
    "textless_value",
]

ERROR_EXT: Final = 1
"""Extension type of an exception. No other extension is ever written."""
RESULT_MAX = 16 << 20
"""Bytes of one encoded result; a frame that no client takes would be asked for again for ever."""
PIECE_NBYTES = 4 << 20
"""Above this the results of a run are several arrays: one call of the encoder, one copy, one
frame never takes long."""
TEXT_MAX = 1024
"""Bytes of an exception's text."""
RAISED: Final = "the state machine raised it; it is this operation's result"
"""The text of what has none that is the same on every member."""

PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
"""Types whose values never change: they need no `freeze`."""
_SIZED = frozenset({str, bytes, msgspec.Raw})
"""Those that may be large, and say how large they are."""
_HEAD = 5
"""Bytes before the content of an array, a text or a byte string, at most."""
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
_ERRORS = (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError)

_encode = msgspec.msgpack.Encoder().encode
_decode_list = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_error = msgspec.msgpack.Decoder(tuple[str, str, str]).decode

_BY_CODE: dict[str, type[CopycatError]] = {
    kind.code: kind
    for kind in (ApplicationError, CommandError, MachineMismatchError, SerializationError)
}


# ---- at the executor ---------------------------------------------------------------------------


def freeze(result: Any, operation: object = None) -> Any:
    """A result that a later command cannot change any more.

    operation: whose result it is; an error that takes its place names it. Plain
    immutable values pass; everything else is encoded at once, since replicas cut their runs
    differently and must still agree on every byte.
    """
    if type(result) in PLAIN:
        return result
    try:
        encoded = _encode(result)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  (a tzinfo of the user's may raise anything)
        return _without_encoding(result, operation)
    if len(encoded) > RESULT_MAX:
        return _too_large(result, encoded, operation)
    return msgspec.Raw(encoded)


def encode_results(results: list[Any], operations: Sequence[object] = ()) -> bytes:
    """One array of frozen results. A value that has no encoding becomes an error in its place.

    operations: whose results they are, in the same order, when that is known.
    """
    try:
        body = _encode(results)
    except _ERRORS:  # an integer beyond 64 bits, a lone surrogate
        body = b""
    if body and len(body) <= RESULT_MAX:
        return body
    of = operations or [None] * len(results)
    return _encode([_encodable(*each) for each in zip(results, of, strict=True)])


def encode_pieces(
    results: list[Any], operations: Sequence[object] = ()
) -> Iterable[tuple[int, bytes]]:
    """The same in pieces of about PIECE_NBYTES at most, or of one result: (count, array)."""
    count = len(results)
    if _HEAD * (count + 1) <= PIECE_NBYTES and _SIZED.isdisjoint(map(type, results)):
        return ((count, encode_results(results, operations)),)
    return _cut_pieces(results, operations)


def _cut_pieces(results: list[Any], operations: Sequence[object]) -> Iterator[tuple[int, bytes]]:
    """Each piece is encoded when it is asked for, since there may be no room for the next one."""
    sizes = [len(each) + _HEAD if type(each) in _SIZED else _HEAD for each in results]
    start, nbytes = 0, _HEAD
    if sum(sizes) + _HEAD > PIECE_NBYTES:
        for at, size in enumerate(sizes):
            nbytes += size
            if nbytes > PIECE_NBYTES and at > start:
                yield at - start, encode_results(results[start:at], operations[start:at])
                start, nbytes = at, _HEAD + size
    yield len(results) - start, encode_results(results[start:], operations[start:])


def cut_results(body: bytes, nbytes_max: int) -> Iterator[tuple[int, bytes]]:
    """The array cut into arrays of about `nbytes_max`: (count, body), at least one each. Each is
    made when it is asked for, since there may be no room for the next one. Nothing for an array
    that is small enough."""
    if len(body) <= nbytes_max:
        return
    part: list[msgspec.Raw] = []
    nbytes = 0
    for raw in _decode_list(body):
        nbytes += memoryview(raw).nbytes
        if nbytes > nbytes_max and part:
            yield len(part), _encode(part)
            part, nbytes = [], memoryview(raw).nbytes
        part.append(raw)
    yield len(part), _encode(part)


def encode_result(result: Any, operation: object = None) -> bytes:
    """One result, of a query."""
    return _encode(_encodable(freeze(result, operation), operation))


def _encodable(result: Any, operation: object) -> Any:
    try:
        encoded = _encode(result)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  (a tzinfo of the user's may raise anything)
        return _without_encoding(result, operation)
    return result if len(encoded) <= RESULT_MAX else _too_large(result, encoded, operation)


def _without_encoding(result: Any, operation: object) -> Ext:
    kind = type(result).__name__
    obstacles = obstacles_in(result)
    if obstacles:  # without its place: members may have their dicts in another order
        hint = f"; {INTEGERS}" if obstacles[0].is_integer else ""
        text = f"has no encoding: it is or contains {obstacles[0].problem}{hint}"
    else:
        text = f"is a {kind} that has no encoding"
    return failure_value(SerializationError.code, kind, f"{_result_of(operation)} {text}")


def _too_large(result: Any, encoded: bytes, operation: object) -> Ext:
    text = f"is {len(encoded)} bytes encoded; the limit is {RESULT_MAX}"
    text = f"{_result_of(operation)} {text}"
    return failure_value(SerializationError.code, type(result).__name__, text)


def _result_of(operation: object) -> str:
    name = getattr(operation, "__operation_name__", "")
    return f"the result of {name}" if name else "the result"


def error_value(error: BaseException) -> Ext:
    """An exception of the user's machine as a result: the same on every member (F23).

    Object addresses in its text would differ between members, so they are blotted out. What is
    no `Exception`, and what a limit of the interpreter raised, has a text of ours. A MemoryError
    that is raised while the text is made leaves.
    """
    kind = type(error)
    if issubclass(kind, RecursionError | MemoryError) or not issubclass(kind, Exception):
        return textless_value(error, RAISED)
    try:
        text = _ADDRESS.sub("at 0x...", str(error))
        ours = (MachineMismatchError, SerializationError)
        code = next((one.code for one in ours if issubclass(kind, one)), ApplicationError.code)
        return failure_value(code, str(kind.__qualname__), text)
    except MemoryError:
        raise
    except BaseException:  # noqa: BLE001  (the user's __str__ may do anything)
        return textless_value(error)


def textless_value(error: BaseException, text: str = "(its text could not be made)") -> Ext:
    """The same, without asking the exception for its text."""
    return failure_value(ApplicationError.code, name_of(error), text)


def name_of(error: BaseException) -> str:
    """The name of its class, whatever its metaclass has in place of that."""
    name: str = type.__dict__["__qualname__"].__get__(type(error))
    return name


def text_of(error: BaseException) -> str:
    """Name and text for a message about what the user's code raised, bounded, whatever __str__
    does."""
    try:
        text = shortened(str(error))
        return f"{name_of(error)}: {text}" if text else name_of(error)
    except BaseException:  # noqa: BLE001  (the user's __str__ may do anything)
        return f"{name_of(error)} (its text could not be made)"


def failure_value(code: str, name: str, text: str) -> Ext:
    """An error as a value in an array of results."""
    cut = text.encode("utf-8", "replace")[:TEXT_MAX].decode("utf-8", "ignore")
    name = name.encode("utf-8", "replace")[:255].decode("utf-8", "ignore")
    return Ext(ERROR_EXT, _encode((code, name, cut)))


# ---- at the client -----------------------------------------------------------------------------


def decode_results(body: Buffer, count: int, types: Sequence[Any]) -> list[Any]:
    """Results of a run, in order; where the machine raised, a CopycatError stands instead.

    types: the annotated result type of each operation. When all are one type, the whole array
    is decoded at once. ProtocolError when the body is not an array of `count` results.
    """
    first = types[0]
    if types.count(first) == len(types):
        try:
            results = _list_decoder(first)(body)
        except _ERRORS:
            results = None  # an error stands in it, or a result of another type
        if results is not None and len(results) == count == len(types):
            return results if first is not Any else [_unwrap(result) for result in results]
    raws = _split(body)
    if len(raws) != count or len(types) != count:
        raise ProtocolError(f"{len(raws)} results came where {count} were expected")
    return [decode_result(raw, kind) for raw, kind in zip(raws, types, strict=True)]


def decode_result(body: Buffer, result_type: Any) -> Any:
    """One result, or the CopycatError that stands in its place."""
    try:
        return _unwrap(_decoder(result_type)(body))
    except _ERRORS as error:
        return _misfit(body, result_type, error)


def _misfit(body: Buffer, result_type: Any, error: Exception) -> CopycatError:
    try:
        value = _decoder(Any)(body)
    except _ERRORS as broken:
        raise ProtocolError(f"a result of {len(body)} bytes is no MessagePack") from broken
    if isinstance(value, Ext):
        return _error_of(value)
    return SerializationError(
        f"the machine returned a {type(value).__name__} where `{result_type}` is annotated "
        f"({error})",
        hint="correct the annotation of the operation's result; the command took effect",
    )


def _split(body: Buffer) -> list[msgspec.Raw]:
    try:
        return _decode_list(body)
    except _ERRORS as error:
        raise ProtocolError(f"results of {len(body)} bytes are no array: {error}") from error


def _unwrap(value: Any) -> Any:
    return _error_of(value) if type(value) is Ext else value


def _error_of(value: Ext) -> CopycatError:
    try:
        code, name, text = _decode_error(value.data if value.code == ERROR_EXT else b"")
    except _ERRORS:
        return SerializationError(
            f"the machine returned extension {value.code} with {len(bytes(value.data))} bytes, "
            "which copycat does not know",
            hint="return plain values: extensions are copycat's own way to tell errors",
        )
    kind = _BY_CODE.get(code, ApplicationError)
    return kind(f"{name}: {text}" if text else name, type_name=name, text=text)


@lru_cache(maxsize=4096)
def _decoder(result_type: Any) -> Callable[[Buffer], Any]:
    return msgspec.msgpack.Decoder(result_type).decode


@lru_cache(maxsize=4096)
def _list_decoder(result_type: Any) -> Callable[[Buffer], list[Any]]:
    return msgspec.msgpack.Decoder(list[result_type]).decode


# ---- refusals ----------------------------------------------------------------------------------

_BY_REFUSAL: dict[int, type[CopycatError]] = {
    Refusal.NO_LEADER: NoLeaderError,
    Refusal.QUERY: QueryError,
    Refusal.COMMAND: CommandError,
    Refusal.APPLICATION: ApplicationError,
    Refusal.ILLEGAL_MEMBER_STATE: IllegalMemberStateError,
    Refusal.UNKNOWN_SESSION: UnknownSessionError,
    Refusal.INTERNAL: InternalError,
    Refusal.CONFIGURATION: ConfigurationError,
    Refusal.OVERLOADED: QueryError,
    Refusal.PROTOCOL: ProtocolError,
    Refusal.TOO_LARGE: EntryTooLargeError,
}
_HINTS = {Refusal.OVERLOADED: "the server has too much to do: ask again a little later"}


def refusal_error(code: int, reason: str, *, leader: str = "") -> CopycatError:
    """The exception for a refusal that the client does not handle by itself."""
    kind = _BY_REFUSAL.get(code, InternalError)
    text = reason or f"refused with code {code}"
    hint = _HINTS.get(code, kind.default_hint)  # type: ignore[call-overload]
    return kind(text, hint=hint, refusal=code, leader=leader)
