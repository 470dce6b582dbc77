"""One user's machine at work: handlers, keys, timers, queries, its part of a snapshot.

`SessionExecutor` decides which commands take effect and at which entry; a runtime carries them
out. It knows sessions only as far as a machine may see them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Mapping

from copycat.errors import MachineMismatchError
from copycat.machine.apply_result import MachineQuery, QueryAnswer
from copycat.machine.context import ApplyContext, StateMachineContext, StateMachineExecutor
from copycat.machine.handlers import Handlers
from copycat.machine.keys import KeyTable
from copycat.machine.machine import Binding, StateMachine, bind, is_snapshottable
from copycat.machine.machine_section import MachineSections, SectionWriter
from copycat.machine.performer import Performer
from copycat.machine.query_executor import QueryExecutor
from copycat.machine.reading import OperationReader
from copycat.machine.release_tracker import ReleaseTracker
from copycat.machine.sessions import ServerSession, SessionsView, SessionTable, listeners_of
from copycat.machine.snapshot import MachineSection
from copycat.machine.state_stream import PieceWriter
from copycat.machine.timers import Timers, earliest
from copycat.machine.user_code import Refusals, UserCode, no_refusals
from copycat.protocol.operations import Command
from copycat.types import Release

__all__ = ["MachineRuntime", "command_decoder"]


class MachineRuntime:
    """What a machine needs around it. Methods are called by one thread at a time."""

    def __init__(
        self,
        machine: StateMachine,
        sessions: SessionTable,
        *,
        refusals: Refusals = no_refusals,
        in_main_thread: bool = True,
        machine_id: int = 0,
    ) -> None:
        """refusals, in_main_thread: as `UserCode` has them. machine_id: what the tags of
        operations and the section of a snapshot name this machine by."""
        self.machine_id = machine_id
        self.machine = machine
        self._user = UserCode(refusals, in_main_thread=in_main_thread)
        self.release_tracker = ReleaseTracker(
            sessions, self._entry_index, snapshottable=is_snapshottable(machine)
        )
        self.keys = KeyTable(self.release_tracker, self._entry_ms, self._user.log_error)
        self.apply_context = ApplyContext(self.release_tracker)
        self.timers = Timers(self.apply_context.mark_timer_change)
        self.handlers = Handlers(machine, self.apply_context, machine_id)
        context = StateMachineContext(self.apply_context, SessionsView(sessions))
        facade = StateMachineExecutor(self.apply_context, self.timers, self.handlers.register)
        bind(machine, Binding(self.apply_context, context, facade))
        self.handlers.configure(facade)
        self._sections = MachineSections(
            machine, sessions, self.keys, self.timers, self.release_tracker
        )
        self.commands: OperationReader = self.handlers.reader(Command)
        self._performer = Performer(
            self.handlers, self.commands, self.keys, self.apply_context, self._user
        )
        self.perform = self._performer.perform
        """Calls the machine for each command of a run."""
        self._sections.bind_handlers(self.handlers, self.commands.read)
        self._query_executor = QueryExecutor(
            self.handlers, self.apply_context, sessions, self._user
        )

    def _entry_index(self) -> int:
        return self.apply_context.index

    def _entry_ms(self) -> int:
        return self.apply_context.entry_ms

    # ---- a slice of entries ----------------------------------------------------------------

    def begin_slice(self) -> None:
        """Entries are applied from here on: callbacks may be scheduled, commits released."""
        self.apply_context.writable = self.release_tracker.is_open = True
        self._user.begin()

    def check_memory(self) -> None:
        """All entries of the slice are applied. MemoryShortageError when memory was short."""
        self._user.finish()

    def end_slice(self) -> None:
        """No entry is applied until the next slice begins."""
        self.apply_context.writable = self.release_tracker.is_open = False
        self.clear_operation()

    def shortage(self, error: MemoryError) -> Exception:
        """The error that stops the member when memory was refused inside an entry (F23)."""
        return self._user.shortage(error)

    def reraise_signal(self, error: BaseException) -> None:
        """Raise what must leave the executor although the user's code raised it."""
        self._user.reraise_signal(error)

    # ---- one entry -------------------------------------------------------------------------

    def begin_entry(self, index: int, *, is_skipped: bool) -> None:
        """Entries from `index` on are applied next. is_skipped: without the user's code."""
        self.apply_context.index = self._user.index = index
        self._user.skips = is_skipped

    def advance_time(self, time_ms: int) -> None:
        """Log time moves on: keys and callbacks that are due by then come first, each at its
        own time."""
        context = self.apply_context
        self.clear_operation()
        context.entry_ms = time_ms
        while (expired := self.keys.next_expired(time_ms)) is not None:
            context.time_ms, key = expired
            self._user.call(self.machine.on_key_expired, key)
        for timer in self.timers.take_due(time_ms):
            if not timer.is_cancelled:
                context.time_ms = timer.due_ms
                self._user.call(timer.callback)
                self.timers.reschedule(timer, time_ms)
        context.time_ms = context.entry_ms = time_ms

    def clear_operation(self) -> None:
        """No command is applied: there is no `self.commit`."""
        self.apply_context.session = self.apply_context.operation = None

    def session_opened(self, session: ServerSession) -> None:
        """Tell the machine."""
        self.apply_context.session = session
        self._user.call(self.machine.on_register, session)

    def session_ended(self, session: ServerSession, *, expired: bool) -> None:
        """Tell the session's listeners, then the machine."""
        self.apply_context.session = session
        for listener in listeners_of(session):
            self._user.call(listener, session.state)
        machine = self.machine
        self._user.call(machine.on_expire if expired else machine.on_unregister, session)
        self._user.call(machine.on_close, session)

    def end_entry(self) -> None:
        """The sessions are up to date: give what was released in the entry to the tracker."""
        self.keys.end_entry()
        self.release_tracker.end_entry()

    def take_releases(self) -> list[tuple[Release, array[int]]]:
        """The releases since the last call that the log may be told of, by policy."""
        return self.release_tracker.take_releases()

    @property
    def next_due_ms(self) -> int:
        """Log time of the next callback or expiring key; 0 for none."""
        return earliest(self.timers.next_ms, self.keys.next_ms)

    def begin_check(self) -> None:
        """Commands are read, and not applied, from here on."""
        self._user.begin()

    def check(self, index: int, payloads: list[bytes], skips: Collection[int]) -> None:
        """MachineMismatchError for the first command that the machine cannot read."""
        self._performer.check(index, payloads, skips)

    # ---- queries, snapshots, the end ---------------------------------------------------------

    def query(self, queries: list[MachineQuery], index: int, time_ms: int) -> list[QueryAnswer]:
        """Answer queries from the state as it is, which is that of entry `index`."""
        context = self.apply_context
        context.index, context.writable = index, False
        context.time_ms = context.entry_ms = time_ms
        return self._query_executor.answer(queries)

    def section_writer(self, write_piece: PieceWriter) -> SectionWriter:
        """Writes this machine's section of a snapshot of the state as it is."""
        return self._sections.writer(write_piece)

    def take_snapshot(self, write: Callable[[], None]) -> None:
        """Have a snapshot written that contains this machine's section."""
        self._user.save(self.machine, write)
        self.keys.drop_dependents()

    def prepare_section(
        self, section: MachineSection, sessions: Mapping[int, ServerSession]
    ) -> Callable[[], None]:
        """Decode this machine's section; the function that is returned installs it. As
        `MachineSections.prepare`."""
        if section.machine_id != self.machine_id:
            raise MachineMismatchError(
                f"a snapshot has a section of machine {section.machine_id} ({section.machine}), "
                "which this member does not have; nothing was changed",
                hint="start the member with all machines of its cluster",
                class_name=section.machine,
                field="machine_id",
            )
        return self._sections.prepare(section, sessions)

    def restart(self, index: int, time_ms: int) -> None:
        """A snapshot of this index is installed: nothing is known of the entry before it."""
        self.apply_context.restart(index, time_ms)

    def close(self) -> None:
        """The member stops: tell the machine. What it raises does not keep a file open."""
        self._user.close(self.machine.close)


def command_decoder(machine: StateMachine) -> Callable[[bytes | memoryview], Command[object]]:
    """Reads a log's commands and never applies them: for tools that show a log.

    What comes back takes the bytes behind an entry's envelope, where `stand_in_of` sees none;
    MachineMismatchError when the machine cannot read them.
    """
    commands = MachineRuntime(machine, SessionTable()).commands

    def decode(operation: bytes | memoryview) -> Command[object]:
        command: Command[object] = commands.read(bytes(operation))
        return command

    return decode
