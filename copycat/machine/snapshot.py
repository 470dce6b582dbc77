"""All that followed from the log, as bytes, and back (I12): the machine, its sessions, its keys.

A byte string: magic, version of the format, then one MessagePack array, decoded strictly. It is
made between two applies, piece by piece, so it has one index. What belongs to the log and the
cluster (terms, configuration, checksums) is the store's: bytes that come here are whole, so a
class or field that does not fit is the code's, a MachineMismatchError.

Format 1 lacked the last two fields of the image, and so the names of fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import msgspec

from copycat.errors import (
    ConfigurationError,
    CorruptLogError,
    FormatVersionError,
    MachineMismatchError,
    SerializationError,
)
from copycat.machine.aliases import Aliases
from copycat.machine.apply_result import RunReply
from copycat.machine.attributes import attributes_of, replace_attributes
from copycat.machine.class_schema import ClassSchema
from copycat.machine.commit import Commit
from copycat.machine.context import ApplyContext
from copycat.machine.handlers import Handlers
from copycat.machine.initial_attributes import InitialAttributes
from copycat.machine.keys import KeyTable
from copycat.machine.machine import StateMachine, is_snapshottable
from copycat.machine.release_state import ReleaseState, load_release_state, save_release_state
from copycat.machine.release_tracker import ReleaseTracker
from copycat.machine.sessions import ServerSession, SessionRecord, SessionTable
from copycat.machine.snapshot_io import accepts_version, install_custom, write_custom
from copycat.machine.state_codec import (
    LEAVES,
    Links,
    StateEncoder,
    classes_in,
    nameable_classes,
)
from copycat.machine.state_decoder import StateDecoder
from copycat.machine.state_stream import PieceWriter, StateStream
from copycat.machine.timers import Scheduled, Timers
from copycat.protocol.operations import encode_operation
from copycat.types import SessionState

__all__ = ["Position", "Snapshots", "pack_incarnations", "unpack_incarnations"]

_MAGIC = b"CCST"
_FORMAT = 2
_FORMATS = (1, 2)
_split = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_ERRORS = (msgspec.MsgspecError, TypeError, ValueError, RecursionError)


class Position(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """Where the executor stands."""

    last_applied: int
    time_ms: int
    incarnations: list[tuple[bytes, bytes]]


class _Session(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
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


class _Image(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    machine: str
    version: int
    position: Position
    own: bytes | None
    """What the machine wrote itself; None for the tree of its attributes."""
    state: list[Any] | None
    sessions: list[_Session]
    timer_count: int
    timers: list[tuple[int, int, int, Any]]
    """(number, due_ms, interval_ms, callback)"""
    keys: list[tuple[Any, int, int, int, int]]
    """(key, index, class, session, due_ms or -1)"""
    release_tracker: ReleaseState
    classes: dict[str, ClassSchema] = {}
    """How the classes that `state` and the others name looked."""
    initial_kinds: dict[str, str] = {}
    """Type of each attribute of a new machine (`InitialAttributes.kinds`)."""


class Snapshots:
    """Makes and installs the snapshots of one executor."""

    def __init__(
        self,
        machine: StateMachine,
        sessions: SessionTable,
        keys: KeyTable,
        timers: Timers,
        apply_context: ApplyContext,
    ) -> None:
        self._machine = machine
        self._sessions = sessions
        self._keys = keys
        self._timers = timers
        self._release_tracker: ReleaseTracker = apply_context.release_tracker
        self._is_snapshottable = is_snapshottable(machine)
        self._observed: list[type[Any]] = []
        self._operations: list[type[Any]] = []
        self._decode: Any = None
        self._initial: InitialAttributes | None = None
        self._ended_sessions: dict[int, ServerSession] = {}
        self._scheduled: dict[int, Scheduled] = {}

    def bind_handlers(self, handlers: Handlers, decode: Callable[[bytes], Any]) -> None:
        """The machine is new and whole: what it shows now are the classes that it may name."""
        version: object = self._machine.version
        if type(version) is not int or not 0 <= version < 1 << 63:
            raise ConfigurationError(
                f"{type(self._machine).__name__}.version is {version!r}, and no number",
                hint="give it 1, and a larger number with each change of the form",
            )
        aliases = Aliases(type(self._machine))
        self._observed = [*classes_in(self._machine), *aliases.classes.values()]
        self._initial = (
            None if self._is_snapshottable else InitialAttributes(self._machine, aliases)
        )
        self._operations = [kind for kind in handlers.table if hasattr(kind, "__operation_name__")]
        self._decode = decode

    @cached_property
    def known(self) -> dict[str, type[Any]]:
        """Classes that a snapshot may name. Found when the first one is made or read."""
        return nameable_classes(type(self._machine), self._observed, self._operations)

    # ---- making ----------------------------------------------------------------------------

    def obstacle(self) -> str:
        """Why no snapshot can be made of this state; "" when one can."""
        try:
            self.write(Position(0, 0, []), _ignore)
        except SerializationError as error:
            return error.message
        return ""

    def write(self, position: Position, write_piece: PieceWriter) -> None:
        """Give the sink the snapshot piece by piece.

        SerializationError with the name of the attribute, session or timer in the way.
        """
        own = write_custom(self._machine) if self._is_snapshottable else []
        write_piece(_MAGIC + bytes([_FORMAT]))
        encoder = StateEncoder(self._machine, self.known, self._links())
        stream = StateStream(encoder, write_piece)
        stream.head(len(_Image.__struct_fields__))
        stream.plain(type(self._machine).__qualname__)
        stream.plain(self._machine.version)
        stream.plain(position)
        if self._is_snapshottable:
            stream.blob(own)
            stream.plain(None)
        else:
            stream.plain(None)
            self._attributes(stream)
        # In the order in which `_read` decodes them: what is shared is named by its place.
        timers = [self._timer(encoder, scheduled) for scheduled in self._timers.live()]
        keys = self._key_rows(encoder)
        try:
            self._sessions_of(stream, encoder)
            stream.plain(self._timers.count)
            stream.head(len(timers))
            for timer in timers:
                stream.plain(timer)
            stream.head(len(self._keys.latest))
            for key in keys:
                stream.plain(key, 64)
            stream.plain(
                save_release_state(self._release_tracker, self._keys, self._sessions, encoder)
            )
            stream.plain(encoder.classes)
            stream.plain({} if self._initial is None else self._initial.kinds)
            stream.write_pending()
        except _ERRORS as error:
            raise SerializationError(f"a snapshot has no encoding: {error}") from error

    def _attributes(self, stream: StateStream) -> None:
        state = attributes_of(self._machine)
        stream.head(2 * len(state))
        for name, value in state.items():
            stream.plain(name)
            stream.named(f"{type(self._machine).__name__}.{name}", value)

    def _key_rows(self, encoder: StateEncoder) -> Iterable[tuple[Any, int, int, int, int]]:
        latest, expiries = self._keys.latest, self._keys.expiries
        rows = (
            (self._key(encoder, key), index, policy, session, expiries.get(key, (-1, 0))[0])
            for key, (index, policy, session, _) in latest.items()
        )
        # Keys that are leaves are not numbered, so theirs need not be made before they leave.
        return rows if LEAVES.issuperset(map(type, latest)) else list(rows)

    def _sessions_of(self, stream: StateStream, encoder: StateEncoder) -> None:
        stream.head(len(self._sessions))
        for record in self._sessions:
            stream.plain(self._session(encoder, record), 64 + record.unacked_nbytes)

    def _key(self, encoder: StateEncoder, key: Any) -> Any:
        if type(key) in LEAVES:
            return key
        return _named(f"the key {key!r}", encoder, key)

    def _timer(
        self, encoder: StateEncoder, scheduled: Scheduled
    ) -> tuple[int, int, int, list[Any]]:
        what = f"the callback scheduled for log time {scheduled.due_ms} ms"
        callback = _named(what, encoder, scheduled.callback)
        return scheduled.number, scheduled.due_ms, scheduled.interval_ms, callback

    def _session(self, encoder: StateEncoder, record: SessionRecord) -> _Session:
        what = f"a listener of session {record.session}"
        return _Session(
            record.session,
            record.client_id,
            record.timeout_ms,
            record.time_ms,
            record.active_index,
            record.sequence,
            record.newest_index,
            record.claimed,
            record.claim_index,
            record.acked_sequence,
            list(record.replies),
            [_named(what, encoder, callback) for callback in record.server_session.listening()],
        )

    # ---- installing ------------------------------------------------------------------------

    def prepare(self, data: bytes) -> tuple[Position, Callable[[], None]]:
        """Read a snapshot; what comes back second puts it in place of everything.

        CorruptLogError for bytes that are no snapshot, MachineMismatchError for one that this
        machine cannot read: then nothing has changed. The second raises MachineMismatchError
        when the machine's install() raises.
        """
        image = self._checked(data)
        before = list(self._sessions)
        self._ended_sessions, self._scheduled = {}, {}
        self._sessions.clear()
        try:
            finish = self._read(image)
        except BaseException as error:
            self._sessions.clear()
            for record in before:
                self._sessions.open(record)
            if isinstance(error, (*_ERRORS, LookupError)):
                raise CorruptLogError(f"a snapshot cannot be read: {error}") from error
            raise
        return image.position, finish

    def _read(self, image: _Image) -> Callable[[], None]:
        records = [_record(row) for row in image.sessions]
        for record in records:
            self._sessions.open(record)
        decoder = StateDecoder(self._machine, self.known, self._links(), image.classes)
        state = None if image.state is None else _attributes(decoder, image.state)
        timers = [(*row[:3], decoder.value(row[3])) for row in image.timers]
        keys = [(decoder.value(row[0]), *row[1:]) for row in image.keys]
        for record, row in zip(records, image.sessions, strict=True):
            for callback in row.listeners:
                record.server_session.on_state_change(decoder.value(callback))
        load = load_release_state(image.release_tracker, decoder)
        if state is not None and self._initial is not None:
            state = self._initial.merged(state, image.initial_kinds)

        def finish() -> None:
            self._timers.reset(image.timer_count)
            for number, due_ms, interval_ms, callback in timers:
                handle = self._handle(number, due_ms, interval_ms)  # one with the machine's
                self._timers.restore(handle, callback)
            self._keys.restore(keys)
            load(self._release_tracker, self._keys, self._sessions)
            if state is None or self._is_snapshottable:
                install_custom(self._machine, image.own or b"", image.version, state)
                return
            replace_attributes(self._machine, state)

        return finish

    def _checked(self, data: bytes) -> _Image:
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
        except _ERRORS as error:
            raise CorruptLogError(f"a snapshot cannot be read: {error}") from error
        self._check_version(image)
        return image

    def _check_version(self, image: _Image) -> None:
        machine, now = type(self._machine), self._machine.version
        hint = ""
        if image.version > now:
            hint = "start the member with the version of the machine that took the snapshot"
        elif image.own is not None and not self._is_snapshottable:
            hint = (
                f"keep install() in {machine.__qualname__}: what its snapshot() wrote, nothing "
                "else can read"
            )
        elif image.own is not None and image.version != now and not accepts_version(self._machine):
            hint = "let it be install(self, reader, version), which reads older versions too"
        if hint:
            raise MachineMismatchError(
                f"a snapshot of {image.machine} version {image.version} cannot be installed in "
                f"{machine.__qualname__} version {now}; nothing was changed",
                hint=hint,
                class_name=machine.__qualname__,
                field="version" if image.version != now else "install",
            )

    # ---- what belongs to the executor --------------------------------------------------------

    def _links(self) -> Links:
        return Links(self._visible, self._handle, self._commit_row, self._commit)

    def _visible(self, session: int, client_id: str, state: str) -> ServerSession:
        record = self._sessions.get(session)
        if record is not None:
            return record.server_session
        ended = self._ended_sessions.get(session)
        if ended is None:
            ended = self._ended_sessions[session] = ServerSession(session, client_id)
            ended.end(SessionState(state))
        return ended

    def _handle(self, number: int, due_ms: int, interval_ms: int) -> Scheduled:
        scheduled = self._scheduled.get(number)
        if scheduled is None:
            scheduled = self._scheduled[number] = self._timers.handle(number, due_ms, interval_ms)
        return scheduled

    def _commit_row(self, commit: Commit[Any]) -> list[Any]:
        session = commit.session
        return [
            commit.index,
            commit.time_ms,
            [session.id, session.client_id, session.state.value],
            encode_operation(commit.operation),
            commit.references,
            commit.is_snapshot_only,
        ]

    def _commit(
        self,
        index: int,
        time_ms: int,
        session: ServerSession,
        operation: bytes,
        references: int,
        is_snapshot_only: bool,
    ) -> Commit[Any]:
        command = self._decode(operation)
        commit: Commit[Any] = Commit(index, time_ms, session, command, self._release_tracker)
        commit.restore(references, is_snapshot_only=is_snapshot_only)
        return commit


def _ignore(piece: bytes | memoryview) -> None:
    """Only whether it can be written is wanted."""


def pack_incarnations(incarnations: dict[int, int]) -> list[tuple[bytes, bytes]]:
    """Numbers of 128 bits, as bytes."""
    return [
        (member.to_bytes(16, "little"), number.to_bytes(16, "little"))
        for member, number in incarnations.items()
    ]


def unpack_incarnations(rows: list[tuple[bytes, bytes]]) -> dict[int, int]:
    """And back."""
    return {int.from_bytes(one, "little"): int.from_bytes(two, "little") for one, two in rows}


def _named(what: str, encoder: StateEncoder, value: Any) -> Any:
    try:
        return encoder.tree(value)
    except SerializationError as error:
        raise SerializationError(f"{what}: {error.message}", hint=error.hint) from error


def _attributes(decoder: StateDecoder, flat: list[Any]) -> dict[str, Any]:
    return {name: decoder.value(tree) for name, tree in zip(flat[::2], flat[1::2], strict=True)}


def _record(row: _Session) -> SessionRecord:
    record = SessionRecord(row.session, row.client_id, row.timeout_ms, row.time_ms)
    record.active_index = row.active_index
    record.sequence = row.sequence
    record.newest_index = row.newest_index
    record.claimed = row.claimed
    record.claim_index = row.claim_index
    record.acked_sequence = row.acked_sequence
    for reply in row.replies:
        if len(_split(reply.body)) != reply.count:
            raise CorruptLogError(f"replies of session {row.session} in a snapshot are cut")
    record.store_replies(row.replies)
    return record
