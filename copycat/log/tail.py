"""Following a log while it grows, from an event loop. The only asyncio in this package."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from copycat.log.entries import Entry
from copycat.storage.follow import Follower

if TYPE_CHECKING:
    from copycat.log.entries import Entry

__all__ = ["Source", "Tail", "TailBeside"]

_LOOK_S = 1.0
"""How long a wake-up that was lost is waited for: whoever appended may have been interrupted
before it woke anybody."""


class Source(Protocol):
    """What a tail needs of its log."""

    @property
    def closed(self) -> bool: ...


class Tail:
    """Entries from `start` on, for ever; ends when the log is closed.

    With durability "fsync" an entry appears when it is durable, else when it is appended.
    After a truncation the iterator continues behind the last entry that stayed; what was trimmed
    or deleted before it was read is skipped.
    """

    def __init__(self, log: Source, start: int, feed: Callable[[Tail], None]) -> None:
        self._log = log
        self._feed = feed
        """Has the log call `take`."""
        self._state: tuple[deque[Entry], int] = (deque(), start)
        """What was read and not shown, and the next entry that the log is asked for: they change
        in one step, so that an exception loses none and doubles none."""
        self._doubt: tuple[int, int] | None = None
        """(truncations before, after) of one that was begun; whether it was done, the log says."""
        self._loop = asyncio.get_running_loop()
        self._grown = asyncio.Event()

    @property
    def position(self) -> int:
        """The next entry that the log is asked for."""
        return self._state[1]

    @property
    def _ahead(self) -> deque[Entry]:
        return self._state[0]

    def __aiter__(self) -> Tail:
        return self

    async def __anext__(self) -> Entry:
        while not self._ahead or self._doubt is not None:
            self._grown.clear()
            if self._log.closed:
                raise StopAsyncIteration
            if self._fill():
                await asyncio.sleep(0)  # a long tail must not starve the loop
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(self._grown.wait(), _LOOK_S)
        return self._ahead.popleft()

    def _fill(self) -> bool:
        """Whether there was anything: entries, or a gap that ends here."""
        before = self.position
        self._feed(self)
        return bool(self._ahead) or self.position > before

    def take(self, entries: Iterable[Entry], position: int) -> None:
        """What comes next, and where it ends (under the log's lock)."""
        self._state = (deque(entries), position)

    def wake(self) -> None:
        """Something was appended, synced or closed. Any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._grown.set)

    def expect(self, truncations: int, after: int) -> None:
        """A truncation begins (under the log's lock, all along)."""
        self.confirm_truncation(truncations)
        self._doubt = (truncations, after)

    def confirm_truncation(self, truncations: int) -> bool:
        """So many were done: if the one that was begun is, forget entries above it that nobody
        saw yet (under the log's lock). Whether others are there to be shown."""
        if self._doubt is not None:
            before, after = self._doubt
            if truncations > before:
                ahead, position = self._state
                while ahead and ahead[-1].index > after:
                    ahead.pop()
                self._state = (ahead, min(position, after + 1))
            self._doubt = None
        return bool(self._ahead)


_POLL_S = 0.1


class TailBeside(Tail):
    """Entries from `start` on, for ever; ends when the log object that gave it is closed.

    What was there when the log was opened comes from it. Behind that, the files are looked at
    ten times a second, and an entry is shown once it is appended, durable or not. After a
    truncation it continues behind the last entry that stayed.
    """

    def __init__(
        self, log: Source, start: int, feed: Callable[[Tail], None], *, path: str, end: int
    ) -> None:
        super().__init__(log, start, feed)
        self._end = end
        self._follower = Follower(path, max(start, end))

    async def __anext__(self) -> Entry:
        while not self._ahead:
            if self._log.closed:
                raise StopAsyncIteration
            if self.position < self._end:
                self._fill()
                await asyncio.sleep(0)
                continue
            records = self._follower.poll().records
            self._ahead.extend(
                Entry(one.index, one.term, one.payload) for one in records if not one.is_gap
            )
            await asyncio.sleep(0 if records else _POLL_S)
        return self._ahead.popleft()
