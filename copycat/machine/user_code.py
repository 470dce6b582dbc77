"""What the user's code raises: a result, a line in the log, or the end of this member (F23).

Whatever it raises is the same on every member, because all of them call the same code with the
same state. A MemoryError is the exception: another member may have had the memory. It counts
only when no member could have had it (decision 0022).
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any

from msgspec.msgpack import Ext

from copycat.errors import (
    ApplicationError,
    MemoryShortageError,
    SerializationError,
    StorageError,
)
from copycat.protocol.results import (
    error_value,
    failure_value,
    name_of,
    text_of,
    textless_value,
)
from copycat.tracebacks import log_error

__all__ = ["Refusals", "UserCode", "no_refusals", "result_of_query"]

_LOG = logging.getLogger("copycat.machine")

Refusals = Callable[[], tuple[int, int]]
"""(possible, impossible): how many allocations this thread was refused so far, of sizes that
some machine may grant, and of sizes that none can."""

LOGGED_MAX = 256
"""Kinds of errors whose tracebacks are logged; a machine may raise any number of them."""


_SKIPPED = "the operator had every member skip this entry; it changed nothing"


def no_refusals() -> tuple[int, int]:
    """For a host that does not watch allocations: then no MemoryError is known to be alike."""
    return 0, 0


class UserCode:
    """Calls the user's code, and decides what becomes of what it raises.

    in_main_thread: signals arrive in the thread that applies (the simulator, a test): a
    KeyboardInterrupt may be the process's own, and leaves. In another thread only user code
    raises it.
    """

    __slots__ = (
        "_impossible",
        "_in_main_thread",
        "_logged",
        "_possible",
        "_refusals",
        "index",
        "skips",
    )

    def __init__(self, refusals: Refusals, *, in_main_thread: bool) -> None:
        self._refusals = refusals
        self._in_main_thread = in_main_thread
        self._possible, self._impossible = refusals()
        self._logged: set[tuple[str, str, int]] = set()
        """(kind, file, line) of errors whose traceback is in the log."""
        self.index = 0
        """The entry being applied."""
        self.skips = False
        """The operator had it skipped: the user's code is not called."""

    def begin(self) -> None:
        """A slice of entries begins."""
        self._possible, self._impossible = self._refusals()

    def finish(self) -> None:
        """The slice ended. MemoryShortageError when memory was short, even if the user's code
        caught that error, since it may then have done something else than on the other members."""
        if self._refusals()[0] != self._possible:
            raise self.shortage(None)

    def call(self, callback: Callable[..., object], *arguments: object) -> None:
        """Code that nobody waits for a result of: what it raises is only logged."""
        if self.skips:
            return
        try:
            _check_outcome(callback(*arguments))
        except BaseException as error:  # noqa: BLE001  (the user's code may raise anything)
            self.log_error(callback, error)

    def close(self, callback: Callable[[], None]) -> None:
        """The same at the end, in any thread; memory does not matter any more."""
        try:
            callback()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  (the user's code may raise anything)
            log_raised(callback, self.index, error)

    def save(self, machine: object, write: Callable[[], None]) -> None:
        """Have a snapshot of the machine written. SerializationError when its code raises."""
        try:
            write()
        except (SerializationError, StorageError):
            raise
        except BaseException as error:
            self.reraise_signal(error)
            raise SerializationError(
                f"{type(machine).__name__} raised {text_of(error)} while a snapshot of it"
                " was taken; the member continues without this snapshot"
            ) from error

    def log_error(self, what: object, error: BaseException) -> None:
        """Log what such code raised. Leaves by MemoryShortageError or a signal."""
        self._check(error)
        log_raised(what, self.index, error)

    def result(self, error: BaseException) -> Ext:
        """What a command's handler raised, as its result."""
        self._check(error)
        self.log_once(error)
        try:
            return error_value(error)
        except MemoryError as another:  # its __str__ needed too much
            self._check(another)
            return textless_value(error)

    def log_once(self, error: BaseException) -> None:
        """The traceback of what a handler raised; of one kind at one place it is logged once."""
        step, place = _traceback_of(error), ("", 0)
        while step is not None:
            place, step = (step.tb_frame.f_code.co_filename, step.tb_lineno), step.tb_next
        kind = (name_of(error), *place)
        if kind not in self._logged and len(self._logged) < LOGGED_MAX:
            self._logged.add(kind)
            log_raised("a handler", self.index, error, logging.WARNING)

    def skipped(self) -> Ext:
        """The result of a command that the operator had skipped."""
        return failure_value(ApplicationError.code, "Skipped", _SKIPPED)

    def _check(self, error: BaseException) -> None:
        kind = type(error)
        if issubclass(kind, MemoryError):
            possible, impossible = self._refusals()
            if possible != self._possible or impossible == self._impossible:
                raise self.shortage(error) from error
        else:
            self.reraise_signal(error)

    def reraise_signal(self, error: BaseException) -> None:
        """Raise it again when it may be a signal of this process."""
        if self._in_main_thread and issubclass(type(error), KeyboardInterrupt):
            raise error

    def shortage(self, error: BaseException | None) -> MemoryShortageError:
        """What this member stops with."""
        if isinstance(error, MemoryShortageError):
            return error
        return MemoryShortageError(
            f"memory was refused to the state machine while entry {self.index} was applied; this"
            " member stops, since it cannot know whether the other members got the same result",
            hint=f"give the process more memory and start it again: entry {self.index} is applied"
            " again\nif the entry stops every member, stop all of them and let each skip it:"
            f" copycat recover --skip-entry {self.index} DIRECTORY",
            index=self.index,
        )


def log_raised(what: object, index: int, error: BaseException, level: int = logging.ERROR) -> None:
    """One line and the traceback, bounded, whatever the user's __repr__ and __str__ do."""
    try:
        log_error(_LOG, level, error, "%s raised at entry %d", what, index)
    except BaseException:  # noqa: BLE001  (their own code is asked for texts)
        name = name_of(error)
        _LOG.error("a callback raised %s at entry %d; it has no text", name, index)


def _traceback_of(error: BaseException) -> TracebackType | None:
    """Where it was raised, whatever its __getattribute__ does."""
    traceback: TracebackType | None = BaseException.__dict__["__traceback__"].__get__(error)
    return traceback


def _check_outcome(outcome: object) -> None:
    """SerializationError for a coroutine or a generator, of which nothing ran."""
    if inspect.iscoroutine(outcome):
        outcome.close()
    elif not (inspect.isgenerator(outcome) or inspect.isasyncgen(outcome)):
        return
    kind = type(outcome).__name__.replace("_", " ")
    name = getattr(outcome, "__qualname__", "it")
    raise SerializationError(
        f"{name} did nothing: it returned {'an' if kind[0] == 'a' else 'a'} {kind}, and nothing"
        " runs that in a state machine",
        hint="give a plain function: `def` without `async` and without `yield`",
    )


def result_of_query(error: BaseException) -> Any:
    """What a query raised, as its answer. It changed nothing, so any member may be alone in it."""
    try:
        return error_value(error)
    except MemoryError:  # its __str__ needed too much
        return textless_value(error)
