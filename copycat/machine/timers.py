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
from operator import attrgetter
from typing import TypeAlias

from copycat.errors import ConfigurationError

__all__ = ["Scheduled", "Timer", "Timers", "duration_ms", "earliest", "timer_of"]

Delay: TypeAlias = float | timedelta
"""Seconds, or a timedelta."""


class Timer:
    """One scheduled callback, as `Timers` keeps it."""

    __slots__ = ("callback", "due_ms", "interval_ms", "is_cancelled", "number", "on_change")

    def __init__(
        self,
        due_ms: int,
        number: int,
        interval_ms: int,
        callback: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        self.due_ms = due_ms
        self.number = number
        self.interval_ms = interval_ms
        self.callback = callback
        self.on_change = on_change
        self.is_cancelled = False

    def __lt__(self, other: Timer) -> bool:
        return (self.due_ms, self.number) < (other.due_ms, other.number)


class Scheduled:
    """A callback to come; `cancel()` as often as you like."""

    __slots__ = ("_timer",)

    def __init__(self, timer: Timer) -> None:
        self._timer = timer

    @property
    def cancelled(self) -> bool:
        """True after `cancel()`; a callback that was called for the last time is not cancelled."""
        return self._timer.is_cancelled

    def cancel(self) -> None:
        """The callback will not be called any more."""
        if not self._timer.is_cancelled:
            self._timer.is_cancelled = True
            self._timer.on_change()


timer_of: Callable[[Scheduled], Timer] = attrgetter("_timer")
"""What stands behind a handle."""


class Timers:
    """All callbacks of one machine, by due time and then in order of scheduling.

    on_change: called whenever one is scheduled, cancelled or taken to be called: the entry that is
    being applied then is deleted by a snapshot alone (C20).
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self._on_change = on_change
        self._heap: list[Timer] = []
        self._count = 0

    def schedule(
        self, due_ms: int, callback: Callable[[], None], interval_ms: int = 0
    ) -> Scheduled:
        """Fire at the first log time above `due_ms`; then every interval unless that is 0."""
        self._count += 1
        timer = Timer(due_ms, self._count, interval_ms, callback, self._on_change)
        heappush(self._heap, timer)
        self._on_change()
        return Scheduled(timer)

    def reschedule(self, timer: Timer, now_ms: int) -> None:
        """Schedule a repeating timer again: one interval after this tick, so it never bursts."""
        if timer.interval_ms and not timer.is_cancelled:
            self._count += 1
            timer.number = self._count
            timer.due_ms = now_ms + timer.interval_ms
            heappush(self._heap, timer)

    def take_due(self, now_ms: int) -> list[Timer]:
        """Remove and return the timers that are due before `now_ms`, in order."""
        due: list[Timer] = []
        while self._heap and (self._heap[0].is_cancelled or self._heap[0].due_ms < now_ms):
            timer = heappop(self._heap)
            if not timer.is_cancelled:
                due.append(timer)
        if due:
            self._on_change()
        return due

    @property
    def next_ms(self) -> int:
        """The first log time at which something fires; 0 when nothing is scheduled."""
        while self._heap and self._heap[0].is_cancelled:
            heappop(self._heap)
        return self._heap[0].due_ms + 1 if self._heap else 0

    def live(self) -> list[Timer]:
        """All that may still fire, in order of firing."""
        return sorted(timer for timer in self._heap if not timer.is_cancelled)

    @property
    def count(self) -> int:
        """The number of the timer that was scheduled last."""
        return self._count

    def reset(self, count: int) -> None:
        """Forget all timers; the next one has the number `count` + 1."""
        self._heap.clear()
        self._count = count

    def handle(self, number: int, due_ms: int, interval_ms: int) -> Scheduled:
        """The handle of a timer that is over; `restore` gives the timer a callback again."""
        timer = Timer(due_ms, number, interval_ms, _nothing, self._on_change)
        timer.is_cancelled = True
        return Scheduled(timer)

    def restore(self, timer: Timer, callback: Callable[[], None]) -> None:
        """Schedule a timer as it was when a snapshot was taken."""
        timer.is_cancelled, timer.callback = False, callback
        heappush(self._heap, timer)

    def rows(self) -> list[tuple[int, int]]:
        """(due_ms, interval_ms) of all, in order of firing: part of the state digest."""
        return [(timer.due_ms, timer.interval_ms) for timer in self.live()]


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
