"""Callbacks at a log time. They fire before an entry is applied, never by a clock.

A callback that is due at T fires at the first entry whose time is above T. What a callback
schedules or cancels never disturbs the tick that it runs in: due ones are taken first, and
new ones are at or after the time of the entry, so they wait for a later time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from heapq import heappop, heappush
from typing import TypeAlias

from copycat.errors import ConfigurationError

__all__ = ["Scheduled", "Timers", "duration_ms", "earliest"]

Delay: TypeAlias = float | timedelta
"""Seconds, or a timedelta."""


class Scheduled:
    """A callback to come; `cancel()` as often as you like."""

    __slots__ = ("_on_change", "callback", "cancelled", "due_ms", "interval_ms", "number")

    def __init__(
        self,
        due_ms: int,
        number: int,
        interval_ms: int,
        callback: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        self._on_change = on_change
        self.due_ms = due_ms
        self.number = number
        self.interval_ms = interval_ms
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """It will not fire (again)."""
        if not self.cancelled:
            self.cancelled = True
            self._on_change()

    def __lt__(self, other: Scheduled) -> bool:
        return (self.due_ms, self.number) < (other.due_ms, other.number)


class Timers:
    """All callbacks of one machine, by due time and then in order of scheduling.

    on_change: called whenever one is scheduled, cancelled or taken to fire: the entry that is
    being applied then is pinned (C20).
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self._on_change = on_change
        self._heap: list[Scheduled] = []
        self._count = 0

    def schedule(
        self, due_ms: int, callback: Callable[[], None], interval_ms: int = 0
    ) -> Scheduled:
        """Fire at the first log time above `due_ms`; then every interval unless that is 0."""
        self._count += 1
        scheduled = Scheduled(due_ms, self._count, interval_ms, callback, self._on_change)
        heappush(self._heap, scheduled)
        self._on_change()
        return scheduled

    def reschedule(self, scheduled: Scheduled, now_ms: int) -> None:
        """Put a repeating one back: an interval after this tick, so it never bursts."""
        if scheduled.interval_ms and not scheduled.cancelled:
            self._count += 1
            scheduled.number = self._count
            scheduled.due_ms = now_ms + scheduled.interval_ms
            heappush(self._heap, scheduled)

    def take_due(self, now_ms: int) -> list[Scheduled]:
        """Everything due before `now_ms`, taken out, in order."""
        due: list[Scheduled] = []
        while self._heap and (self._heap[0].cancelled or self._heap[0].due_ms < now_ms):
            scheduled = heappop(self._heap)
            if not scheduled.cancelled:
                due.append(scheduled)
        if due:
            self._on_change()
        return due

    @property
    def next_ms(self) -> int:
        """The first log time at which something fires; 0 when nothing is scheduled."""
        while self._heap and self._heap[0].cancelled:
            heappop(self._heap)
        return self._heap[0].due_ms + 1 if self._heap else 0

    def live(self) -> list[Scheduled]:
        """All that may still fire, in order of firing."""
        return sorted(scheduled for scheduled in self._heap if not scheduled.cancelled)

    @property
    def count(self) -> int:
        """The newest number given."""
        return self._count

    def reset(self, count: int) -> None:
        """Nothing is scheduled any more; numbers go on after `count`."""
        self._heap.clear()
        self._count = count

    def handle(self, number: int, due_ms: int, interval_ms: int) -> Scheduled:
        """One that is over; `restore` gives it a callback again."""
        scheduled = Scheduled(due_ms, number, interval_ms, _nothing, self._on_change)
        scheduled.cancelled = True
        return scheduled

    def restore(self, scheduled: Scheduled, callback: Callable[[], None]) -> None:
        """Put one back as it was when a snapshot was taken."""
        scheduled.cancelled, scheduled.callback = False, callback
        heappush(self._heap, scheduled)

    def rows(self) -> list[tuple[int, int]]:
        """(due_ms, interval_ms) of all, in order of firing: part of the state digest."""
        return [(scheduled.due_ms, scheduled.interval_ms) for scheduled in self.live()]


def _nothing() -> None:
    """The callback of a handle whose timer is over."""


def earliest(one_ms: int, other_ms: int) -> int:
    """The smaller of two log times; 0 says that there is none."""
    return min(one_ms, other_ms) if one_ms and other_ms else one_ms or other_ms


def duration_ms(what: str, value: Delay, least_ms: int) -> int:
    """Seconds or a timedelta as whole milliseconds, rounded up."""
    number = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not math.isfinite(number) or number > 1e10:
        raise ConfigurationError(f"{what} ({value!r}) must be a number of seconds below 1e10")
    result = math.ceil(number * 1000)
    if result < least_ms:
        raise ConfigurationError(f"{what} ({value!r}) must be at least {least_ms / 1000} s")
    return result
