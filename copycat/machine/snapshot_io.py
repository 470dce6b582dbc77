"""What a machine's own snapshot() writes to and install() reads from."""

from __future__ import annotations

from struct import Struct
from typing import Any, Protocol, TypeVar

import msgspec

from copycat.errors import CorruptLogError, SerializationError

__all__ = ["SnapshotReader", "SnapshotWriter", "Snapshottable", "own_install", "own_snapshot"]

T = TypeVar("T")

_LENGTH = Struct("<I")
_ERRORS = (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError)
_encode = msgspec.msgpack.Encoder().encode


class SnapshotWriter:
    """Collects bytes, in order."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Bytes as they are; the reader must know how many."""
        self._data += data

    def write_object(self, obj: object) -> None:
        """Any value that MessagePack can hold. SerializationError for others."""
        try:
            data = _encode(obj)
            self._data += _LENGTH.pack(len(data))
        except Exception as error:
            raise SerializationError(
                f"a snapshot cannot hold this {type(obj).__name__}: {error}",
                hint="write plain values, structs or dataclasses",
            ) from error
        self._data += data

    def finish(self) -> bytes:
        """All that was written."""
        return bytes(self._data)


class SnapshotReader:
    """Gives them back, in the same order. CorruptLogError where they do not fit."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    @property
    def left(self) -> int:
        """How many bytes were not read yet."""
        return len(self._data) - self._at

    def read(self, n: int = -1) -> bytes:
        """The next `n` bytes; all that are left when it is negative."""
        size = self.left if n < 0 else n
        if size > self.left:
            raise CorruptLogError(
                f"a snapshot ends early: {size} bytes are wanted at {self._at}, "
                f"{self.left} are left"
            )
        self._at += size
        return bytes(self._data[self._at - size : self._at])

    def read_object(self, type: type[T]) -> T:
        """The next object, as a value of this type."""
        (size,) = _LENGTH.unpack(self.read(_LENGTH.size))
        data = self.read(size)
        try:
            return msgspec.msgpack.decode(data, type=type)
        except _ERRORS as error:
            raise CorruptLogError(
                f"an object of {size} bytes in a snapshot is no {type!r}: {error}"
            ) from error


class Snapshottable(Protocol):
    """A machine that writes and reads its state itself."""

    def snapshot(self, writer: SnapshotWriter) -> None:
        """Write all of the state."""

    def install(self, reader: SnapshotReader) -> None:
        """Put what was written in place of all of the state, whatever it is now."""


def own_snapshot(machine: Any) -> bytes:
    """What the machine writes of itself."""
    writer = SnapshotWriter()
    machine.snapshot(writer)
    return writer.finish()


def own_install(machine: Any, data: bytes) -> None:
    """Let it read that. CorruptLogError when it leaves bytes unread."""
    reader = SnapshotReader(data)
    machine.install(reader)
    if reader.left:
        raise CorruptLogError(
            f"{type(machine).__name__}.install() left {reader.left} of {len(data)} bytes unread",
            hint="read in install() all that snapshot() wrote, in the same order",
        )
