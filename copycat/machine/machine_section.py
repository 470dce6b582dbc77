"""The machine section of a snapshot: what one `MachineRuntime` writes, and reads back.

The section holds the state of the machine (its attributes, or what its own snapshot() wrote), the
scheduled callbacks, the newest entry of each key, the released entries that are held back, and
the listeners of sessions. References between these parts are kept: a commit, a timer or a session
that two of them name is one object again after the snapshot was installed. So all parts share one
encoder, and the parts are encoded and decoded in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from copycat.errors import (
    ConfigurationError,
    CorruptLogError,
    MachineMismatchError,
    SerializationError,
)
from copycat.machine.aliases import Aliases
from copycat.machine.attributes import attributes_of, replace_attributes
from copycat.machine.class_schema import mismatch
from copycat.machine.commit import Commit, CommitState
from copycat.machine.handlers import Handlers
from copycat.machine.initial_attributes import InitialAttributes
from copycat.machine.keys import KeyEntry, KeyTable
from copycat.machine.machine import StateMachine, is_snapshottable
from copycat.machine.release_state import load_release_state, save_release_state
from copycat.machine.release_tracker import ReleaseTracker
from copycat.machine.sessions import (
    ServerSession,
    SessionRecord,
    SessionTable,
    listeners_of,
)
from copycat.machine.snapshot import DECODING_ERRORS, MachineSection
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
from copycat.machine.timers import Scheduled, Timer, Timers, timer_of
from copycat.protocol.results import text_of
from copycat.types import Release, SessionState

__all__ = ["MachineSections", "SectionWriter"]

_RELEASES = {release.value: release for release in Release}
"""By the number in a snapshot: `Release(number)` costs more, and there is one a key."""
_PLAIN_KEYS = LEAVES | {int}
"""Types of keys that have no code of the user's."""


class MachineSections:
    """Makes and installs the snapshot sections of one machine."""

    def __init__(
        self,
        machine: StateMachine,
        sessions: SessionTable,
        keys: KeyTable,
        timers: Timers,
        tracker: ReleaseTracker,
    ) -> None:
        self.machine = machine
        self.sessions = sessions
        self.keys = keys
        self.timers = timers
        self.release_tracker = tracker
        self.is_custom = is_snapshottable(machine)
        """The machine's own snapshot() and install() write and read the state."""
        self.initial: InitialAttributes | None = None
        self._observed: list[type[Any]] = []
        self._operations: list[type[Any]] = []
        self._decode: Any = None

    def bind_handlers(self, handlers: Handlers, decode: Callable[[bytes], Any]) -> None:
        """The machine is new and whole: what it shows now are the classes that it may name."""
        version: object = self.machine.version
        if type(version) is not int or not 0 <= version < 1 << 63:
            raise ConfigurationError(
                f"{type(self.machine).__name__}.version must be an int of 0 or more,"
                f" not {version!r}",
                hint="begin with 1, and raise it when snapshot() writes another form",
            )
        aliases = Aliases(type(self.machine))
        self._observed = [*classes_in(self.machine), *aliases.classes.values()]
        self.initial = None if self.is_custom else InitialAttributes(self.machine, aliases)
        self._operations = [kind for kind in handlers.table if hasattr(kind, "__operation_name__")]
        self._decode = decode

    @cached_property
    def nameable(self) -> dict[str, type[Any]]:
        """Classes that a snapshot may name, listed when the first one is made or read."""
        return nameable_classes(type(self.machine), self._observed, self._operations)

    def writer(self, write_piece: PieceWriter) -> SectionWriter:
        """Begin a section of the state as it is: calls the machine's snapshot(), if it has one."""
        pieces = write_custom(self.machine) if self.is_custom else []
        return SectionWriter(self, pieces, write_piece)

    # ---- installing ------------------------------------------------------------------------

    def prepare(
        self, section: MachineSection, sessions: Mapping[int, ServerSession]
    ) -> Callable[[], None]:
        """Decode a section; the function that is returned puts it in place of everything.

        sessions: those of the same snapshot, which will be open by then. CorruptLogError,
        MachineMismatchError: then nothing has changed. The function raises MachineMismatchError
        when the machine's install() raises.
        """
        self._check_version(section)
        try:
            return self._read(section, sessions)
        except (*DECODING_ERRORS, LookupError) as error:
            raise CorruptLogError(f"a snapshot cannot be read: {error}") from error

    def _read(
        self, section: MachineSection, sessions: Mapping[int, ServerSession]
    ) -> Callable[[], None]:
        links = _SnapshotLinks(self.timers, self.release_tracker, self._decode, sessions)
        decoder = StateDecoder(self.machine, self.nameable, links.links(), section.classes)
        state = None if section.state is None else _attributes(decoder, section.state)
        timers = [(*row[:3], decoder.value(row[3])) for row in section.timers]
        keys = [
            (KeyEntry(index, _RELEASES[policy], session, decoder.value(key)), due_ms)
            for key, index, policy, session, due_ms in section.keys
        ]
        if not _PLAIN_KEYS.issuperset({type(entry.key) for entry, _ in keys}):
            decoder.table([(entry.key, entry) for entry, _ in keys])  # they can be hashed
        for session, callbacks in section.listeners:
            for callback in callbacks:
                sessions[session].on_state_change(decoder.value(callback))
        load = load_release_state(section.releases, decoder)
        if state is not None and self.initial is not None:
            state = self._merged(self.initial, state, section.initial_kinds)

        def finish() -> None:
            self.timers.reset(section.timer_count)
            for number, due_ms, interval_ms, callback in timers:
                # The same handle as the one in the machine's state.
                self.timers.restore(
                    timer_of(links.scheduled(number, due_ms, interval_ms)), callback
                )
            self.keys.restore(keys)
            load(self.release_tracker, self.keys, self.sessions)
            if state is None or self.is_custom:
                install_custom(self.machine, section.custom or b"", section.version, state)
            else:
                replace_attributes(self.machine, state)

        return finish

    def _merged(
        self, initial: InitialAttributes, state: dict[str, Any], kinds: dict[str, str]
    ) -> dict[str, Any]:
        try:
            return initial.merged(state, kinds)
        except (MachineMismatchError, MemoryError):
            raise
        except Exception as error:  # the code of a value: its __bool__, its __eq__
            problem = f"its attributes cannot be compared with a new one's: {text_of(error)}"
            hint = "keep the attributes as they were, or define snapshot() and install()"
            raise mismatch(type(self.machine).__name__, "", problem, hint, error) from error

    def _check_version(self, section: MachineSection) -> None:
        machine, now = type(self.machine), self.machine.version
        hint = ""
        if section.version > now:
            hint = "start the member with the version of the machine that took the snapshot"
        elif section.custom is not None and not self.is_custom:
            hint = (
                f"keep install() in {machine.__qualname__}: nothing else can read what its "
                "snapshot() wrote"
            )
        elif (
            section.custom is not None
            and section.version != now
            and not accepts_version(self.machine)
        ):
            hint = "define install(self, reader, version), and let it read the older versions"
        if hint:
            raise MachineMismatchError(
                f"a snapshot of {section.machine} version {section.version} cannot be installed "
                f"in {machine.__qualname__} version {now}; nothing was changed",
                hint=hint,
                class_name=machine.__qualname__,
                field="version" if section.version != now else "install",
            )


class SectionWriter:
    """Writes one section: identity, state, then the rest; between them stand the sessions."""

    def __init__(
        self, sections: MachineSections, custom: list[bytes], write_piece: PieceWriter
    ) -> None:
        self._sections = sections
        self._custom = custom
        self._encoder = StateEncoder(sections.machine, sections.nameable)
        self.stream = StateStream(self._encoder, write_piece)
        self._timers: list[tuple[int, int, int, Any]] = []
        self._keys: Iterable[tuple[Any, int, int, int, int]] = ()

    def write_identity(self) -> None:
        """Name and version of the machine."""
        machine = self._sections.machine
        self.stream.plain(type(machine).__qualname__)
        self.stream.plain(machine.version)

    def write_state(self) -> None:
        """The state. Timers and keys are encoded after it, as `prepare` decodes them, and are
        written by `write_rest`."""
        if self._sections.is_custom:
            self.stream.blob(self._custom)
            self.stream.plain(None)
        else:
            self.stream.plain(None)
            self._write_attributes()
        self._timers = [self._timer(timer) for timer in self._sections.timers.live()]
        self._keys = self._key_rows()

    def listeners(self, record: SessionRecord) -> list[Any]:
        """The listeners of one session."""
        what = f"a listener of session {record.session}"
        callbacks = listeners_of(record.server_session)
        return [_named(what, self._encoder, callback) for callback in callbacks]

    def write_rest(self) -> None:
        """Timers, keys, releases, and the classes that were named."""
        stream, sections = self.stream, self._sections
        stream.plain(sections.timers.count)
        stream.head(len(self._timers))
        for timer in self._timers:
            stream.plain(timer)
        stream.head(len(sections.keys.latest))
        for key in self._keys:
            stream.plain(key, 64)
        stream.plain(
            save_release_state(
                sections.release_tracker, sections.keys, sections.sessions, self._encoder
            )
        )
        stream.plain(self._encoder.classes)
        stream.plain({} if sections.initial is None else sections.initial.kinds)

    def _write_attributes(self) -> None:
        machine = self._sections.machine
        state = attributes_of(machine)
        self.stream.head(2 * len(state))
        for name, value in state.items():
            self.stream.plain(name)
            self.stream.named(f"{type(machine).__name__}.{name}", value)

    def _timer(self, timer: Timer) -> tuple[int, int, int, list[Any]]:
        what = f"the callback scheduled for log time {timer.due_ms} ms"
        callback = _named(what, self._encoder, timer.callback)
        return timer.number, timer.due_ms, timer.interval_ms, callback

    def _key_rows(self) -> Iterable[tuple[Any, int, int, int, int]]:
        latest, expiries = self._sections.keys.latest, self._sections.keys.expiries
        rows = (
            (
                self._key(key),
                entry.index,
                int(entry.policy),
                entry.session,
                expiries.get(key, (-1, 0))[0],
            )
            for key, entry in latest.items()
        )
        # Keys that are leaves are not numbered, so they need not be encoded before they leave.
        return rows if LEAVES.issuperset(map(type, latest)) else list(rows)

    def _key(self, key: Any) -> Any:
        if type(key) in LEAVES:
            return key
        return _named(f"the key {key!r}", self._encoder, key)


class _SnapshotLinks:
    """The sessions, timers and commits that a section names, each made once."""

    def __init__(
        self,
        timers: Timers,
        tracker: ReleaseTracker,
        decode: Callable[[bytes], Any],
        sessions: Mapping[int, ServerSession],
    ) -> None:
        self._timers = timers
        self._release_tracker = tracker
        self._decode = decode
        self._sessions = sessions
        self._ended_sessions: dict[int, ServerSession] = {}
        self._scheduled: dict[int, Scheduled] = {}

    def links(self) -> Links:
        return Links(self._session, self.scheduled, self._commit)

    def _session(self, session: int, client_id: str, state: str) -> ServerSession:
        is_open = self._sessions.get(session)
        if is_open is not None:
            return is_open
        ended = self._ended_sessions.get(session)
        if ended is None:
            ended = ServerSession(session, client_id, SessionState(state))
            self._ended_sessions[session] = ended
        return ended

    def scheduled(self, number: int, due_ms: int, interval_ms: int) -> Scheduled:
        """The handle of one timer."""
        scheduled = self._scheduled.get(number)
        if scheduled is None:
            scheduled = self._timers.handle(number, due_ms, interval_ms)
            self._scheduled[number] = scheduled
        return scheduled

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
        state = CommitState(index, time_ms, session, command, self._release_tracker)
        state.references, state.is_snapshot_only = references, is_snapshot_only
        return Commit(state)


def _named(what: str, encoder: StateEncoder, value: Any) -> Any:
    try:
        return encoder.tree(value)
    except SerializationError as error:
        raise SerializationError(f"{what}: {error.message}", hint=error.hint) from error


def _attributes(decoder: StateDecoder, flat: list[Any]) -> dict[str, Any]:
    return {name: decoder.value(tree) for name, tree in zip(flat[::2], flat[1::2], strict=True)}
