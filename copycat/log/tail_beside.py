"""Following a log that another process writes, from an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from copycat.log.entry import Entry
from copycat.log.inspect_follow import Follower
from copycat.log.tail import Tail

if TYPE_CHECKING:
    from copycat.log.tail import Source

__all__ = ["TailBeside"]

_POLL_S = 0.1


class TailBeside(Tail):
    """Entries from `start` on, for ever; ends when the log object that gave it is closed.

    What was there when the log was opened comes from it. Behind that, the files are looked at
    ten times a second, and an entry is shown once it is appended, durable or not. After a
    truncation it goes on behind the entry that was kept.
    """

    def __init__(self, log: Source, start: int, *, path: str, end: int) -> None:
        super().__init__(log, start)
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
            found = self._follower.poll().records
            self._ahead.extend(
                Entry(one.index, one.term, one.payload) for one in found if not one.is_hole
            )
            await asyncio.sleep(0 if found else _POLL_S)
        return self._ahead.popleft()
