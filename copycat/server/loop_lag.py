"""Logs an event loop that was blocked, and for how long."""

from __future__ import annotations

import asyncio
import logging
import threading

__all__ = ["LoopLag"]

log = logging.getLogger("copycat.server")

CHECKS_PER_LIMIT = 4
"""How often the loop is checked within the limit. Of a block, at most one interval is not seen."""


class LoopLag:
    """A timer in the running loop that logs when it is called late.

    name: of the member. limit_s: a block of so many seconds is a warning; one of half as many is
    logged at level INFO; a shorter one is not logged. text: what the block means for the member.
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
        """Begin to measure."""
        self._due_s = self._loop.time() + self._limit_s / CHECKS_PER_LIMIT
        self._timer = self._loop.call_at(self._due_s, self._check)

    def close(self) -> None:
        """Stop measuring. From any thread, also after the loop has ended."""
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
