"""Subscriptions: callbacks that a public object calls, and that can be closed."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from copycat.tracebacks import log_error

__all__ = ["Listener", "Listeners"]

T = TypeVar("T")

Start = Callable[[Coroutine[Any, Any, object], object], None]
"""Runs the coroutine of a listener that is `async def`, for the value that it was called with."""


class Listener:
    """What `on_...` returns: `close()` ends the subscription. Closing twice is fine."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close: Callable[[], None] | None = close

    def close(self) -> None:
        """No further call after this one returns."""
        if self._close is not None:
            self._close()
            self._close = None


class Listeners(Generic[T]):
    """Callbacks in order of subscription, never in hash order.

    start: runs those that are `async def`; without it nothing does, which is logged.
    """

    def __init__(self, log: logging.Logger, start: Start | None = None) -> None:
        self._log = log
        self._start = start
        self._callbacks: dict[int, Callable[[T], object]] = {}
        self._next = 0

    def add(self, callback: Callable[[T], object]) -> Listener:
        """Subscribe. The public method that gives it checks what it is given."""
        self._next += 1
        key = self._next
        self._callbacks[key] = callback
        return Listener(lambda: self._drop(key))

    def callbacks(self) -> list[Callable[[T], object]]:
        """All that are subscribed, in order."""
        return list(self._callbacks.values())

    def _drop(self, key: int) -> None:
        self._callbacks.pop(key, None)

    def fire(self, value: T) -> None:
        """Call all; one that raises is logged and does not stop the others.

        In the main thread SystemExit and KeyboardInterrupt are the process's own, and leave.
        """
        for callback in list(self._callbacks.values()):
            try:
                outcome = callback(value)
                if inspect.iscoroutine(outcome):
                    self._run(outcome, value)
            except BaseException as error:  # (user code; a CancelledError would end our task)
                is_exit = isinstance(error, SystemExit | KeyboardInterrupt)
                if is_exit and threading.current_thread() is threading.main_thread():
                    raise
                log_error(self._log, logging.ERROR, error, "a listener raised for %r", value)

    def _run(self, coroutine: Coroutine[Any, Any, object], value: T) -> None:
        if self._start is not None:
            self._start(coroutine, value)
            return
        coroutine.close()
        self._log.error(
            "a listener returned a coroutine for %r, and nothing awaits it here: give a plain"
            " function",
            value,
        )
