"""What `submit` returns: a future that can also be run as a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any, Protocol, TypeVar

from copycat.errors import ConfigurationError

__all__ = ["OperationFuture", "SubmissionOwner"]

R_co = TypeVar("R_co", covariant=True)


class SubmissionOwner(Protocol):
    """Who wants to hear that a caller gave up."""

    def abandon(self, ticket: Any) -> None:
        """`ticket` is what the session gave for the submission."""
        ...


# Covariant, though `Future` is not: results of several types make one list of awaitables.
class OperationFuture(asyncio.Future[R_co], Coroutine[Any, Any, R_co]):  # type: ignore[type-var]
    """The result of one submission. What was submitted has its place from the call on.

    Await it, any number of times; or give it to `asyncio.create_task`, `TaskGroup.create_task`,
    `wait_for`, `gather` or `shield`. Cancelled before it was sent, a command is dropped;
    cancelled later, its outcome is unknown.
    """

    # Many are under way at a time, and few are run as coroutines: no dictionary for each.
    # None has an `__init__` of its own, either: `submit` gives it owner and ticket.
    __slots__ = ("_runner", "_steps", "owner", "ticket")
    _runner: asyncio.Task[Any] | None
    _steps: Generator[Any, None, R_co]
    owner: SubmissionOwner
    ticket: Any
    """What the session gave for the submission."""

    def cancel(self, msg: Any | None = None) -> bool:
        """Give up: see the class. False when it was done."""
        is_cancelled = super().cancel(msg=msg)
        if is_cancelled:
            self.owner.abandon(self.ticket)
        return is_cancelled

    # --- as a coroutine: what a task calls ----------------------------------------------------

    def send(self, value: None, /) -> Any:
        """One step of the task that runs this."""
        if not hasattr(self, "_steps"):
            self._steps = self.__await__()
            self._runner = asyncio.current_task(self.get_loop())
        elif asyncio.current_task(self.get_loop()) is not self._runner:
            if self.done():
                raise StopIteration(self.result())
            raise ConfigurationError(
                "the result of one submission was given to two tasks",
                hint="await the first task, or the result itself, as often as you like",
            )
        return self._steps.send(value)

    def throw(
        self,
        kind: Any,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
        /,
    ) -> Any:
        """The task that runs this was cancelled, or its wait failed."""
        error = kind if isinstance(kind, BaseException) else kind()
        if isinstance(value, BaseException):
            error = value
        if isinstance(error, asyncio.CancelledError):
            self.cancel()
        raise error.with_traceback(traceback)

    def close(self) -> None:
        """The task that ran this is gone: so is the caller."""
        self.cancel()
