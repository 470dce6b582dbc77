"""A state as MessagePack, piece by piece: the bytes that `StateEncoder.tree` would become.

No tree of the whole is built and no call takes long, so the loop's thread has its turns while a
large state is written, and memory holds one piece. What is encoded together is a flat list whose
own head is cut off; heads of containers stand in it as bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from struct import Struct
from typing import Any

import msgspec

from copycat.errors import SerializationError
from copycat.machine.state_codec import DEPTH_MAX, LEAVES, StateEncoder, is_small

__all__ = ["PIECE_NBYTES", "PieceWriter", "StateStream"]

PieceWriter = Callable[[bytes | memoryview], None]
"""Is given the bytes of a snapshot, in order."""

PIECE_NBYTES = 256 << 10
"""About so many bytes are encoded at once."""
_BLOB_NBYTES = 1 << 20
"""A longer string leaves in parts."""
_COUNT_MAX = 1024
_SMALL_COUNT = 64
_CONTAINERS = frozenset({list, tuple, set, frozenset, dict})
_TEXTS = frozenset({str, bytes})
_NUMBERS = frozenset({int})
_ERRORS = (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError)

_encode = msgspec.msgpack.Encoder().encode
_U16, _U32 = Struct(">BH").pack, Struct(">BI").pack


def _head(count: int) -> bytes:
    """Of an array of so many parts."""
    if count < 16:
        return bytes([0x90 | count])
    return _U16(0xDC, count) if count < 1 << 16 else _U32(0xDD, count)


_HEADS = [msgspec.Raw(_head(count)) for count in range(16)]


class StateStream:
    """Writes values one after the other. write_piece: is given the bytes, in order."""

    def __init__(self, encoder: StateEncoder, write_piece: PieceWriter) -> None:
        self._encoder = encoder
        self._write_piece = write_piece
        self._pending: list[Any] = []
        self._nbytes = 0
        """About what `_pending` will be."""

    def head(self, count: int) -> None:
        """An array of so many values follows."""
        self._pending.append(_HEADS[count] if count < 16 else msgspec.Raw(_head(count)))

    def plain(self, value: Any, nbytes: int = 16) -> None:
        """One value that MessagePack has as it is, of about so many bytes."""
        self._pending.append(value)
        self._nbytes += nbytes
        if self._nbytes >= PIECE_NBYTES or len(self._pending) >= _COUNT_MAX:
            self.write_pending()

    def write_pending(self) -> None:
        """Give `write_piece` what was collected."""
        pending = self._pending
        if pending:
            count = len(pending)
            cut = 1 if count < 16 else 3 if count < 1 << 16 else 5
            self._nbytes = 0
            data = _encode(pending)
            pending.clear()
            self._write_piece(memoryview(data)[cut:])

    def named(self, what: str, value: Any) -> None:
        """One value of the state; SerializationError names it where it has no encoding."""
        try:
            self.value(value)
            self.write_pending()
        except SerializationError as error:
            raise SerializationError(f"{what}: {error.message}", hint=error.hint) from error
        except _ERRORS as error:
            raise SerializationError(f"{what}: a snapshot has no encoding: {error}") from error

    def value(self, value: Any, depth: int = 0) -> None:
        """One value. SerializationError with its type where it has no encoding."""
        kind = type(value)
        if kind in LEAVES:
            self._leaf(value, kind)
            return
        if kind is int:
            self.plain(value if is_small(value) else ["int", hex(value)])
            return
        encoder = self._encoder
        if kind in _CONTAINERS and len(value) <= _SMALL_COUNT and depth <= DEPTH_MAX:
            small = encoder.small(value, kind)
            if small is not None:
                self.plain(*small)
                return
        opened = encoder.opened(value, kind, depth)
        if opened.row is not None:
            self.plain(opened.row, 64)
            return
        self.head(len(opened.head) + opened.count)
        for part in opened.head:
            self.plain(part)
        if opened.blob is not None:
            self._long([opened.blob], 0xC6)
        else:
            self._many(opened.parts, depth + 1)
        encoder.close(value)

    def _leaf(self, value: Any, kind: type[Any]) -> None:
        if kind not in _TEXTS:
            self.plain(value, 9)
        elif len(value) <= _BLOB_NBYTES:
            self.plain(value, len(value) + 5)
        elif kind is bytes:
            self._long([value], 0xC6)
        else:
            self._long([value.encode()], 0xDB)

    def blob(self, pieces: Sequence[bytes]) -> None:
        """One byte string, of these pieces."""
        self._long(pieces, 0xC6)

    def _long(self, pieces: Sequence[bytes | bytearray], tag: int) -> None:
        self.write_pending()
        self._write_piece(_U32(tag, sum(map(len, pieces))))
        for piece in pieces:
            with memoryview(piece) as view:
                for first in range(0, len(piece), _BLOB_NBYTES):
                    self._write_piece(view[first : first + _BLOB_NBYTES])

    def _many(self, values: Iterable[Any], depth: int) -> None:
        source = iter(values)
        pending = self._pending
        while chunk := list(islice(source, 256)):
            kinds = set(map(type, chunk))
            nbytes = PIECE_NBYTES
            if kinds <= _TEXTS:
                nbytes = sum(map(len, chunk))
            elif kinds <= _NUMBERS and min(chunk) >= -(1 << 63) and max(chunk) < 1 << 64:
                nbytes = 9 * len(chunk)
            if nbytes < PIECE_NBYTES:
                pending += chunk
                self._nbytes += nbytes
                if self._nbytes >= PIECE_NBYTES or len(pending) >= _COUNT_MAX:
                    self.write_pending()
                continue
            for value in chunk:
                self.value(value, depth)
