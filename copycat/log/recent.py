"""The newest entries of a log, kept in memory as they were appended (`entry_buffer_size`)."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from copycat.log._native import Batch

__all__ = ["RecentEntries"]

_NONE = 1 << 64
"""Above every index."""


class RecentEntries:
    """At most `entries_max` entries in whole batches; a longer batch is not kept at all."""

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._firsts: list[int] = []
        self._batches: list[Batch] = []
        self._entries = 0
        self._dropped = 0
        self.first_index = _NONE
        """The lowest index that may be here: most reads are of older ones, and need no search."""

    def add(self, batch: Batch) -> None:
        """Remember what was just appended; the oldest go."""
        self._firsts.append(batch.span.first)
        self._batches.append(batch)
        self._entries += batch.span.length
        while self._entries > self._entries_max:
            self._entries -= self._batches[self._dropped].span.length
            self._dropped += 1
        if 2 * self._dropped > len(self._batches):  # now and then, not once an append
            del self._firsts[: self._dropped], self._batches[: self._dropped]
            self._dropped = 0
        self._look()

    def truncate(self, after: int) -> None:
        """Forget every batch that reaches above `after`."""
        while len(self._batches) > self._dropped and self._batches[-1].span.last > after:
            self._entries -= self._batches.pop().span.length
            self._firsts.pop()
        self._look()

    def _look(self) -> None:
        kept = len(self._firsts) > self._dropped
        self.first_index = self._firsts[self._dropped] if kept else _NONE

    def find(self, index: int) -> Batch | None:
        """The batch that holds entry `index`, if it is kept."""
        at = bisect_right(self._firsts, index, self._dropped) - 1
        if at < self._dropped:
            return None
        batch = self._batches[at]
        return batch if index < batch.span.end else None
