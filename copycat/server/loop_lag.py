"""An event loop that was blocked is named in the log, with for how long."""

from __future__ import annotations

import asyncio
import logging
import threading

__all__ = ["LoopLag"]

log = logging.getLogger("copycat.server")

CHECKS_PER_LIMIT = 4
"""Looks within the limit: what is measured is less than the block by one of them at most."""


class LoopLag:
    """Wakes up regularly in the running loop, and says when it was woken late.

    limit_s: from this on it is a warning; from half of it on it is logged at all. text: what
    follows from it.
    """

    def __init__(self, name: str, limit_s: float, text: str) -> None:
        self._name = name
        self._limit_s = limit_s
        self._text = text
        self._loop = asyncio.get_running_loop()
        self._thread = threading.current_thread().name
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look."""
        self._due_s = self._loop.time() + self._limit_s / CHECKS_PER_LIMIT
        self._timer = self._loop.call_at(self._due_s, self._check)

    def close(self) -> None:
        """Look no more. Any thread, for a loop that has ended too."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        late_s = self._loop.time() - self._due_s
        if late_s >= self._limit_s / 2:
            log.log(
                logging.WARNING if late_s >= self._limit_s else logging.INFO,
                "%s: the event loop in thread %s was blocked for %.1f s; %s",
                self._name,
                self._thread,
                late_s,
                self._text,
            )
        self.start()
