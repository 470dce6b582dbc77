"""A log that is meant to be in memory (storage level "memory"): `MemoryLog` as `Log` needs it.

The same code as the verified fake, and a few verbs more that only the public log asks for.
Nothing of it outlives the process.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Never, TypeVar

from copycat.errors import ConfigurationError
from copycat.storage._native import Batch, ReentrantLock, run_locked
from copycat.storage.memory import MemoryLog, MemoryTicket

__all__ = ["InMemoryLog"]

_SCAN_BYTES = 1 << 20


_Entry = TypeVar("_Entry", bound=tuple[int, int, bytes])


class InMemoryLog(MemoryLog):
    """`ReplicaLog` without a disk, and the reading verbs of `NativeLog`."""

    @property
    def size(self) -> int:
        """Bytes of frames."""
        return sum(batch.nbytes for batch in self._batches())

    @property
    def disk_usage(self) -> int:
        """Nothing of it is on a disk: as `size`, which it takes in memory."""
        return self.size

    @property
    def free_space(self) -> int:
        """As much as there may be: no disk can be full of it."""
        return sys.maxsize

    @property
    def entries(self) -> int:
        """How many there are, gaps left out."""
        self._check()
        return sum(segment.count for segment in self._segments)

    def segments(self) -> list[tuple[int, int, int, int, int, bool]]:
        """(id, version, first_index, last_index, bytes, sealed), oldest first.

        A segment's id is its first index: there is no file that could be named otherwise.
        """
        last = self._segments[-1]
        return [
            (each.first, 1, each.first, each.end - 1, each.nbytes, each is not last)
            for each in self._segments
        ]

    def get(self, index: int) -> tuple[int, int, int, bytes] | None:
        """(term, kind, time_ms, payload) of one entry; None in a gap. IndexError."""
        batch = self.read(index, index + 1, 1)
        if batch.has_gaps:
            return None
        ((_, kind, time_ms, payload),) = batch.entries()
        return batch.span.term, kind, time_ms, payload

    def entry(self, index: int, as_type: type[_Entry]) -> _Entry | None:
        """(index, term, payload) as `as_type`, a tuple's subclass without fields of its own."""
        batch = self.read(index, index + 1, 1)
        if batch.has_gaps:
            return None
        return tuple.__new__(as_type, (index, batch.span.term, batch.payloads()[0]))

    def entry_locked(
        self, lock: ReentrantLock, index: int, as_type: type[_Entry]
    ) -> _Entry | None:
        """The same while `lock` is held."""
        return run_locked(lock, self.entry, index, as_type)

    def scan(self, first: int, end: int) -> Iterator[Batch]:
        """Batches of about 1 MiB over [first, end), which lies in the log."""
        while first < end:
            batch = self.read(first, end, _SCAN_BYTES)
            first = batch.span.end
            yield batch

    def sync_in_flight(self) -> MemoryTicket | None:
        """The ticket that was begun and not ended, or None: an interrupted caller's."""
        return self._in_flight

    def index_array(self, segment_id: int) -> Never:
        """ConfigurationError: offsets are of files, and there are none."""
        raise ConfigurationError(
            f"segment {segment_id} is in memory: there is no file whose offsets could be shown",
            hint='open the log with level="disk"',
        )
