"""Subscriptions: callbacks that a public object calls, and that can be closed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Listener", "Listeners"]

T = TypeVar("T")


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
    """Callbacks in order of subscription, never in hash order."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._callbacks: dict[int, Callable[[T], None]] = {}
        self._next = 0

    def add(self, callback: Callable[[T], None]) -> Listener:
        """Subscribe."""
        self._next += 1
        key = self._next
        self._callbacks[key] = callback
        return Listener(lambda: self._drop(key))

    def callbacks(self) -> list[Callable[[T], None]]:
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
                callback(value)
            except BaseException as error:  # (user code; a CancelledError would end our task)
                is_exit = isinstance(error, SystemExit | KeyboardInterrupt)
                if is_exit and threading.current_thread() is threading.main_thread():
                    raise
                self._log.exception("a listener raised for %r", value)
