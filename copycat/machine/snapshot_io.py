"""What a machine's own snapshot() writes to and install() reads from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from operator import attrgetter, methodcaller
from struct import Struct
from typing import Any, Protocol, TypeVar

import msgspec

from copycat.errors import MachineMismatchError, SerializationError
from copycat.protocol.obstacles import INTEGERS, obstacles_in
from copycat.protocol.results import text_of

__all__ = [
    "SnapshotReader",
    "SnapshotWriter",
    "Snapshottable",
    "accepts_version",
    "install_custom",
    "write_custom",
]

T = TypeVar("T")

_LENGTH = Struct("<I")
_PIECE_NBYTES = 256 << 10
_ERRORS = (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError)
_encode = msgspec.msgpack.Encoder().encode


class SnapshotWriter:
    """Collects bytes, in order and in pieces: one that grows would be copied again and again."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._data = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Bytes as they are; the reader must know how many."""
        self._data += data
        if len(self._data) >= _PIECE_NBYTES:
            self._pieces.append(bytes(self._data))
            self._data.clear()

    def write_object(self, obj: object) -> None:
        """Any value that MessagePack can hold. SerializationError for others."""
        try:
            data = _encode(obj)
            self._data += _LENGTH.pack(len(data))
        except Exception as error:
            obstacles = obstacles_in(obj)
            problem = (
                f"{obstacles[0].problem} at object{obstacles[0].path}" if obstacles else str(error)
            )
            is_integer = bool(obstacles) and obstacles[0].is_integer
            raise SerializationError(
                f"a snapshot cannot hold this {type(obj).__name__}: {problem}",
                hint=INTEGERS if is_integer else "write plain values, structs or dataclasses",
            ) from error
        self.write(data)

    def finish(self) -> bytes:
        """All that was written, as one string."""
        return b"".join(_pieces_of(self))

    def _all_pieces(self) -> list[bytes]:
        return [*self._pieces, bytes(self._data)]


_pieces_of: Callable[[SnapshotWriter], list[bytes]] = methodcaller("_all_pieces")


class SnapshotReader:
    """Gives them back, in the same order. MachineMismatchError where they do not fit: the store
    has vouched for the bytes, so it was other code that wrote them."""

    def __init__(
        self, data: bytes, attributes: Mapping[str, Any] | None = None, *, machine: str = ""
    ) -> None:
        self._data = memoryview(data)
        self._at = 0
        self._attributes = attributes
        self._machine = machine
        self._attributes_were_read = False

    @property
    def attributes(self) -> Mapping[str, Any] | None:
        """The attributes of the machine by name, when it had no snapshot() of its own at the
        time; then there is nothing else to read. None when its snapshot() wrote this."""
        self._attributes_were_read = True
        return self._attributes

    @property
    def left(self) -> int:
        """How many bytes were not read yet."""
        return len(self._data) - self._at

    def read(self, n: int = -1) -> bytes:
        """The next `n` bytes; all that are left when it is negative."""
        size = self.left if n < 0 else n
        if size > self.left:
            raise self._mismatch(
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
            raise self._mismatch(
                f"an object of {size} bytes in a snapshot is no {type!r}: {error}"
            ) from error

    def _mismatch(self, problem: str) -> MachineMismatchError:
        hint = "read in install() what snapshot() wrote; install(self, reader, version) has the "
        hint += "version of the machine that did"
        if self._attributes is not None:
            problem += "; it was taken before the machine had a snapshot() of its own"
            hint = "read reader.attributes in install() when it is not None"
        return MachineMismatchError(problem, hint=hint, class_name=self._machine, field="install")


_attributes_were_read: Callable[[SnapshotReader], bool] = attrgetter("_attributes_were_read")


class Snapshottable(Protocol):
    """A machine that writes and reads its state itself."""

    def snapshot(self, writer: SnapshotWriter) -> None:
        """Write all of the state."""

    def install(self, reader: SnapshotReader) -> None:
        """Put what was written in place of all of the state, whatever it is now.

        With a second parameter `version` it gets the `version` of the machine that wrote it.
        """


def write_custom(machine: Any) -> list[bytes]:
    """What the machine writes of itself, in pieces."""
    writer = SnapshotWriter()
    machine.snapshot(writer)
    return _pieces_of(writer)


def accepts_version(machine: Any) -> bool:
    """Whether its install() has a second parameter."""
    return _version_by_name(machine) is not None


def _version_by_name(machine: Any) -> bool | None:
    """Whether install() takes the version by its name; None when it does not take it."""
    by_place = 0
    for parameter in inspect.signature(machine.install).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            return False
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.name == "version":
                return True
        elif parameter.kind is not parameter.VAR_KEYWORD:
            by_place += 1
    return False if by_place > 1 else None


def install_custom(
    machine: Any, data: bytes, version: int, attributes: Mapping[str, Any] | None
) -> None:
    """Let it read what it wrote when it had `version`, or the attributes that it had then.

    MachineMismatchError when it raises, leaves bytes unread, or does not look at attributes.
    """
    name = type(machine).__name__
    reader = SnapshotReader(data, attributes, machine=name)
    by_name = _version_by_name(machine)
    try:
        if by_name is None:
            machine.install(reader)
        elif by_name:
            machine.install(reader, version=version)
        else:
            machine.install(reader, version)
    except (MachineMismatchError, MemoryError):
        raise
    except Exception as error:
        raise MachineMismatchError(
            f"{name}.install() raised {text_of(error)}; it was given a snapshot "
            f"of version {version}",
            hint="let install() read what that version wrote",
            class_name=name,
            field="install",
        ) from error
    if reader.left:
        problem = f"left {reader.left} of {len(data)} bytes unread"
        hint = "read in install() all that snapshot() wrote, in the same order"
    elif attributes is not None and not _attributes_were_read(reader):
        problem = "did not read the attributes of a snapshot that the default encoder wrote"
        hint = "read reader.attributes in install() when it is not None"
    else:
        return
    raise MachineMismatchError(
        f"{name}.install() {problem}", hint=hint, class_name=name, field="install"
    )
