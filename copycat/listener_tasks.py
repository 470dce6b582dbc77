"""Tasks for the listeners that are `async def`, in the event loop that calls them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from copycat.tracebacks import log_error

__all__ = ["ListenerTasks"]


class ListenerTasks:
    """Has each a reference, without which asyncio may drop it half way."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, object], value: object) -> None:
        """Run it in the running loop; what it raises is logged."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._ended(task, value))

    def _ended(self, task: asyncio.Task[Any], value: object) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log_error(self._log, logging.ERROR, error, "a listener raised for %r", value)
