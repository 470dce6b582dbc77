"""The layout of a snapshot's bytes: which fields there are, in which order, and whose they are.

A snapshot is all that followed from the log up to one index (I12): a magic, the version of the
format, then one MessagePack array, decoded strictly. Its fields belong to two sections. The
session section is `SessionExecutor`'s: its position in the log and every open session. The
machine section is `MachineRuntime`'s: the state of one machine, its timers, keys and releases.
Formats 1 and 2 have one machine section, that of machine 0, and its fields stand around those of
the session section; nothing but this file knows that order.

What belongs to the log and the cluster (terms, configuration, checksums) is the store's: bytes
that come here are whole, so a class or a field that does not fit is due to other code of the
machine, which is a MachineMismatchError. Format 1 lacked the last two fields of the array, and
so the names of fields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from copycat.errors import CorruptLogError, FormatVersionError, SerializationError
from copycat.machine.apply_result import RunReply
from copycat.machine.availability import SavedRow
from copycat.machine.class_schema import ClassSchema
from copycat.machine.release_state import ReleaseState
from copycat.machine.state_stream import PieceWriter, StateStream

__all__ = [
    "DECODING_ERRORS",
    "MachineSection",
    "MachineSectionWriter",
    "Position",
    "SavedSession",
    "SessionSection",
    "read_snapshot",
    "write_snapshot",
]

_MAGIC = b"CCST"
_FORMAT = 2
_FORMATS = (1, 2)
DECODING_ERRORS = (msgspec.MsgspecError, TypeError, ValueError, RecursionError)


class Position(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """Where in the log the snapshot was taken, and what is known of members: the incarnations of
    their directories (C16), and whether leaders hear them."""

    last_applied: int
    time_ms: int
    incarnations: list[tuple[bytes, bytes]]
    availability: list[SavedRow] = []
    """See `AvailabilityTable` (C38)."""


class SavedSession(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """One open session, as `SessionRecord` has it."""

    session: int
    client_id: str
    timeout_ms: int
    time_ms: int
    active_index: int
    sequence: int
    newest_index: int
    claimed: int
    claim_index: int
    acked_sequence: int
    replies: list[RunReply]
    listeners: list[Any]
    """The machine's callbacks for the end of this session: encoded and read by the machine."""


class _Image(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The array itself."""

    machine: str
    version: int
    position: Position
    custom: bytes | None
    state: list[Any] | None
    sessions: list[SavedSession]
    timer_count: int
    timers: list[tuple[int, int, int, Any]]
    keys: list[tuple[Any, int, int, int, int]]
    releases: ReleaseState
    classes: dict[str, ClassSchema] = {}
    initial_kinds: dict[str, str] = {}


class SessionSection(msgspec.Struct, frozen=True):
    """What `SessionExecutor` reads from a snapshot."""

    position: Position
    sessions: list[SavedSession]


class MachineSection(msgspec.Struct, frozen=True):
    """What one `MachineRuntime` reads from a snapshot."""

    machine_id: int
    machine: str
    version: int
    custom: bytes | None
    """What the machine's own snapshot() wrote; None when there is a tree of its attributes."""
    state: list[Any] | None
    """Names and values of the attributes, in turns."""
    timer_count: int
    timers: list[tuple[int, int, int, Any]]
    """(number, due_ms, interval_ms, callback)"""
    keys: list[tuple[Any, int, int, int, int]]
    """(key, index, release policy, session, due_ms or -1)"""
    releases: ReleaseState
    classes: dict[str, ClassSchema]
    """The fields of the classes that the state names, as they were."""
    initial_kinds: dict[str, str]
    """Type of each attribute of a new machine (`InitialAttributes.kinds`)."""
    listeners: list[tuple[int, list[Any]]]
    """(session, its listeners)"""


class MachineSectionWriter(Protocol):
    """Writes the section of one machine, in the parts that the layout has."""

    @property
    def stream(self) -> StateStream:
        """What the whole snapshot is written to."""
        ...

    def write_identity(self) -> None:
        """Name and version of the machine."""
        ...

    def write_state(self) -> None:
        """The state; timers and keys are encoded, and not yet written."""
        ...

    def write_rest(self) -> None:
        """Timers, keys, releases, classes."""
        ...


def write_snapshot(
    position: Position,
    sessions: Callable[[StateStream], None],
    section: MachineSectionWriter,
    write_piece: PieceWriter,
) -> None:
    """Write a whole snapshot, piece by piece. sessions: writes the array of `SavedSession`.

    SerializationError with the name of the attribute, session or timer in the way.
    """
    write_piece(_MAGIC + bytes([_FORMAT]))
    stream = section.stream
    stream.head(len(_Image.__struct_fields__))
    section.write_identity()
    stream.plain(position)
    section.write_state()
    try:
        sessions(stream)
        section.write_rest()
        stream.write_pending()
    except DECODING_ERRORS as error:
        raise SerializationError(f"a snapshot has no encoding: {error}") from error


def read_snapshot(data: bytes) -> tuple[SessionSection, MachineSection]:
    """The two sections of these bytes. CorruptLogError when they are no snapshot."""
    start = len(_MAGIC) + 1
    if data[: len(_MAGIC)] != _MAGIC or len(data) < start:
        raise CorruptLogError(
            f"{len(data)} bytes are no snapshot of a state machine: they begin with "
            f"{bytes(data[:start]).hex()}"
        )
    if data[start - 1] not in _FORMATS:
        raise FormatVersionError(
            f"a snapshot of a state machine has format {data[start - 1]}; this version of "
            f"copycat reads formats {_FORMATS[0]} to {_FORMATS[-1]}"
        )
    try:
        image = msgspec.msgpack.decode(memoryview(data)[start:], type=_Image)
    except DECODING_ERRORS as error:
        raise CorruptLogError(f"a snapshot cannot be read: {error}") from error
    machine = MachineSection(
        0,
        image.machine,
        image.version,
        image.custom,
        image.state,
        image.timer_count,
        image.timers,
        image.keys,
        image.releases,
        image.classes,
        image.initial_kinds,
        [(row.session, row.listeners) for row in image.sessions if row.listeners],
    )
    return SessionSection(image.position, image.sessions), machine
