"""Log time: the only time that entries carry and machines see (C25).

Replicas must agree on time, so it comes from the log: a leader goes on from the last entry's
time with its own monotonic clock. The wall clock can only raise it, once, at the election,
and never by more than `RAISE_MS_MAX`: a member whose wall clock is a year ahead must not
expire every session of the cluster.
"""

from __future__ import annotations

from copycat.log.interface import ReplicaLog

__all__ = ["RAISE_MS_MAX", "LogClock", "last_time_ms"]

RAISE_MS_MAX = 24 * 3600 * 1000
"""A cluster that slept for longer than a day wakes with log time that lags the wall."""


class LogClock:
    """Stamps batches with milliseconds that never go back."""

    def __init__(self, now_ms: int, wall_ms: int, last_entry_ms: int) -> None:
        self.now_ms = now_ms
        self.wall_ms = wall_ms
        self.last_ms = last_entry_ms
        self._base_ms = last_entry_ms
        self._base_now_ms = now_ms

    def advance(self, now_ms: int, wall_ms: int) -> int:
        """Take the host's clocks; milliseconds since the last call, never negative."""
        elapsed_ms = max(0, now_ms - self.now_ms)
        self.now_ms += elapsed_ms
        self.wall_ms = wall_ms
        return elapsed_ms

    def lead(self) -> None:
        """This member was elected: go on from the last entry, or from the wall if ahead."""
        base_ms = self.last_ms
        if self.wall_ms > base_ms:
            # The first entry of a new cluster has nothing to be compared with.
            bound_ms = self.wall_ms if base_ms == 0 else base_ms + RAISE_MS_MAX
            base_ms = min(self.wall_ms, bound_ms)
        self._base_ms, self._base_now_ms = base_ms, self.now_ms

    def peek_ms(self) -> int:
        """What a batch would be stamped with now. Meaningful on a leader only."""
        return max(self.last_ms, self._base_ms + self.now_ms - self._base_now_ms)

    def stamp_ms(self) -> int:
        """The time for a batch that is about to be appended."""
        self.last_ms = self.peek_ms()
        return self.last_ms

    def saw(self, entry_ms: int) -> None:
        """An entry with this time was appended on behalf of another leader."""
        self.last_ms = max(self.last_ms, entry_ms)


def last_time_ms(log: ReplicaLog) -> int:
    """Log time of the last entry; 0 in an empty log."""
    last = log.last_index
    return log.read(last, last + 1, 1).last_time_ms if last >= log.first_index else 0
