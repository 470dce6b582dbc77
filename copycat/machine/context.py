"""Where the machine stands in the log: index, log time, random numbers, sessions.

The executor moves an `ApplyContext` along; a machine sees it through `StateMachineContext`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Self

from copycat.errors import ApplicationError, ConfigurationError
from copycat.machine.commit import Commit, CommitState, commit_state, log_datetime
from copycat.machine.release_tracker import ReleaseTracker
from copycat.machine.sessions import ServerSession, Sessions
from copycat.machine.timers import Delay, Scheduled, Timers, duration_ms
from copycat.protocol.operations import Operation
from copycat.seeded_random import SeededRandom

__all__ = ["ApplyContext", "Clock", "StateMachineContext", "StateMachineExecutor"]


class ApplyContext:
    """The entry being applied; written by the executor before each command."""

    __slots__ = (
        "_commit",
        "entry_ms",
        "index",
        "operation",
        "release_tracker",
        "session",
        "time_ms",
        "writable",
    )

    def __init__(self, release_tracker: ReleaseTracker) -> None:
        self.release_tracker = release_tracker
        self._commit: Commit[Any] | None = None
        self.index = 0
        self.time_ms = 0
        """What the machine's clock shows: log time; in a scheduled callback, when it was due."""
        self.entry_ms = 0
        """Log time of the entry."""
        self.session: ServerSession | None = None
        self.operation: Operation[Any] | None = None
        self.writable = False
        """True while an entry is applied: then callbacks may be scheduled."""

    def commit(self) -> Commit[Any]:
        """The operation being applied, as a value."""
        if self.session is None or self.operation is None:
            raise ApplicationError(
                "there is no commit: no command or query is being applied",
                hint="use self.commit inside a @command or @query method",
            )
        if not self.writable:
            return Commit(CommitState(self.index, self.time_ms, self.session, self.operation))
        commit = self._commit
        if commit is None or commit.index != self.index:  # one for the entry: it counts references
            state = CommitState(
                self.index, self.time_ms, self.session, self.operation, self.release_tracker
            )
            state.is_snapshot_only = self.release_tracker.snapshot_only_index == self.index
            commit = self._commit = Commit(state)
        return commit

    def restart(self, index: int, time_ms: int) -> None:
        """A snapshot of this index is installed: no commit of an earlier entry is current."""
        self._commit = None
        self.index, self.time_ms, self.entry_ms = index, time_ms, time_ms

    def mark_timer_change(self) -> None:
        """A timer was scheduled, cancelled or called: the entry needs a snapshot (C20)."""
        if self.writable:
            self.release_tracker.snapshot_only_index = self.index
            self.release_tracker.snapshot_only_indexes.add(self.index)
            if self._commit is not None and self._commit.index == self.index:
                commit_state(self._commit).is_snapshot_only = True


class Clock:
    """Log time. The same on every member; moves only when an entry is applied."""

    __slots__ = ("_apply_context",)

    def __init__(self, apply_context: ApplyContext) -> None:
        self._apply_context = apply_context

    def now(self) -> datetime:
        """In UTC."""
        return log_datetime(self._apply_context.time_ms)

    def time(self) -> float:
        """Seconds since 1970."""
        return self._apply_context.time_ms / 1000


class StateMachineContext:
    """What a machine may know besides its state and the operation."""

    __slots__ = ("_apply_context", "_clock", "_random", "_random_index", "_sessions")

    def __init__(self, apply_context: ApplyContext, sessions: Sessions) -> None:
        self._apply_context = apply_context
        self._clock = Clock(apply_context)
        self._sessions = sessions
        self._random = SeededRandom(0)
        self._random_index = 0

    @property
    def index(self) -> int:
        """Index of the entry being applied; the newest applied one in a query."""
        return self._apply_context.index

    @property
    def clock(self) -> Clock:
        """Log time."""
        return self._clock

    @property
    def random(self) -> SeededRandom:
        """Random numbers, the same on every member: seeded by the index of each entry.

        A query gets a generator of its own, so that asking changes nothing.
        """
        if not self._apply_context.writable:
            return SeededRandom(self._apply_context.index)
        if self._random_index != self._apply_context.index:
            self._random_index = self._apply_context.index
            self._random = SeededRandom(self._random_index)
        return self._random

    @property
    def sessions(self) -> Sessions:
        """Open sessions, in the order of their registration."""
        return self._sessions


class StateMachineExecutor:
    """What `configure` gets, and `self.executor`: registers handlers, schedules callbacks."""

    __slots__ = ("_apply_context", "_register", "_timers")

    def __init__(
        self,
        apply_context: ApplyContext,
        timers: Timers,
        register: Callable[[type[Operation[Any]], Callable[[Commit[Any]], Any]], None],
    ) -> None:
        self._apply_context = apply_context
        self._timers = timers
        self._register = register

    def register(
        self, operation: type[Operation[Any]], handler: Callable[[Commit[Any]], Any]
    ) -> Self:
        """Let `handler` answer operations of this class. Inside `configure` only."""
        self._register(operation, handler)
        return self

    def schedule(
        self, delay: Delay, callback: Callable[[], None], *, interval: Delay | None = None
    ) -> Scheduled:
        """Call back at the first entry after log time now + `delay` seconds.

        interval: then again and again, so many seconds after the entry that it fired at.
        Only while a command, a session's change or a callback is being applied. A call of an
        `async def` or of a generator runs nothing: that is logged when it is called.
        """
        if not self._apply_context.writable:
            raise ApplicationError(
                "schedule() was called while no entry is applied (from a query or configure)",
                hint="schedule from a @command, a session callback or a scheduled callback",
            )
        if not callable(callback):
            raise ConfigurationError(f"schedule() needs a callable, got {callback!r}")
        delay_ms = duration_ms("delay", delay, 0)
        interval_ms = 0 if interval is None else duration_ms("interval", interval, 1)
        # From the entry's time, not the callback's: nothing becomes due in the tick it is
        # scheduled in, however entries are cut into runs.
        return self._timers.schedule(
            self._apply_context.entry_ms + delay_ms, callback, interval_ms
        )
