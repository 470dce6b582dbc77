"""Following a log while it grows, from an event loop. The only asyncio in this room."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from copycat.log.log import Entry, Log

__all__ = ["Tail"]


class Tail:
    """Entries from `start` on, for ever; ends when the log is closed.

    With durability "fsync" an entry appears when it is durable, else when it is appended.
    After a truncation the iterator goes on behind the entry that was kept; what was trimmed or
    let go before it was read is skipped.
    """

    def __init__(self, log: Log, start: int) -> None:
        self._log = log
        self.position = start
        """The next entry that the log is asked for."""
        self._ahead: deque[Entry] = deque()
        self._loop = asyncio.get_running_loop()
        self._grown = asyncio.Event()

    def __aiter__(self) -> Tail:
        return self

    async def __anext__(self) -> Entry:
        while not self._ahead:
            self._grown.clear()
            if self._log.closed:
                raise StopAsyncIteration
            if self._fill():
                await asyncio.sleep(0)  # a long tail must not starve the loop
                continue
            await self._grown.wait()
        return self._ahead.popleft()

    def _fill(self) -> bool:
        """Whether it got on: entries, or a hole that ends here."""
        before = self.position
        self._log.feed(self)
        return bool(self._ahead) or self.position > before

    def take(self, entries: Iterable[Entry], position: int) -> None:
        """What comes next, and where it ends (under the log's lock)."""
        self._ahead.extend(entries)
        self.position = position

    def wake(self) -> None:
        """Something was appended, synced or closed. Any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._grown.set)

    def rewind(self, after: int) -> None:
        """The log was truncated: forget entries above `after` that nobody saw yet (under its
        lock)."""
        while self._ahead and self._ahead[-1].index > after:
            self._ahead.pop()
        self.position = min(self.position, after + 1)
