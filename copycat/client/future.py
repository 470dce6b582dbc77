"""`OperationFuture`, which `submit` returns: a future that can also be run as a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any, Protocol, TypeVar

from copycat.errors import ConfigurationError

__all__ = ["OperationFuture", "SubmissionOwner"]

R_co = TypeVar("R_co", covariant=True)


class SubmissionOwner(Protocol):
    """What is called when the caller of a submission was cancelled (`SessionDriver`)."""

    def abandon(self, ticket: Any) -> None:
        """ticket: the call, or the number of the query, that the session returned."""
        ...


# Covariant, though `Future` is not: results of several types make one list of awaitables.
class OperationFuture(asyncio.Future[R_co], Coroutine[Any, Any, R_co]):  # type: ignore[type-var]
    """The result of one submission.

    Await it, any number of times; or give it to `asyncio.create_task`, `TaskGroup.create_task`,
    `wait_for`, `gather` or `shield`. If it is cancelled before its command was sent, the command
    is dropped; if later, the outcome of the command is unknown.
    """

    # There may be very many futures at a time, so they have no dictionary and no `__init__`:
    # `submit` sets `owner` and `ticket`.
    __slots__ = ("_runner", "_steps", "owner", "ticket")
    _runner: asyncio.Task[Any] | None
    _steps: Generator[Any, None, R_co]
    owner: SubmissionOwner
    ticket: Any
    """The call, or the number of the query, that the session returned."""

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the submission: see the class. False when it was done already."""
        is_cancelled = super().cancel(msg=msg)
        if is_cancelled:
            self.owner.abandon(self.ticket)
        return is_cancelled

    # --- as a coroutine: what a task calls ----------------------------------------------------

    def send(self, value: None, /) -> Any:
        """Run one step; called by the task that runs this as a coroutine."""
        if not hasattr(self, "_steps"):
            self._steps = self.__await__()
            self._runner = asyncio.current_task(self.get_loop())
        elif asyncio.current_task(self.get_loop()) is not self._runner:
            if self.done():
                raise StopIteration(self.result())
            raise ConfigurationError(
                "the result of one submission was given to two tasks",
                hint="await the first task, or this future itself; both may be awaited repeatedly",
            )
        return self._steps.send(value)

    def throw(
        self,
        kind: Any,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
        /,
    ) -> Any:
        """Raise an error at the `await`; called by the task when it was cancelled."""
        error = kind if isinstance(kind, BaseException) else kind()
        if isinstance(value, BaseException):
            error = value
        if isinstance(error, asyncio.CancelledError):
            self.cancel()
        raise error.with_traceback(traceback)

    def close(self) -> None:
        """Cancel the submission; called when the task that ran this was deleted."""
        self.cancel()
