"""Virtual time: a clock, and a heap of events. Nothing here knows what a member is.

Two events at one instant run in the order in which they were scheduled, so one seed is one
history, whatever the hash seed of the process (I20).
"""

from __future__ import annotations

import heapq
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from copycat.errors import require

__all__ = ["EPOCH_MS", "HOUR_MS", "MS", "SECOND", "SimClock", "Trace", "World"]

T = TypeVar("T")

MS = 1_000
"""One millisecond in the world's unit, microseconds."""
SECOND = 1_000_000


class World:
    """The clock and what is still to come. Times are microseconds since the world began."""

    def __init__(self) -> None:
        self.now_us = 0
        self.steps = 0
        self._scheduled = 0
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, time_us: int, callback: Callable[..., None], *args: object) -> None:
        """Run `callback(*args)` at `time_us`. The past is refused: time never decreases."""
        require(time_us >= self.now_us, "an event in the past", time=time_us, now=self.now_us)
        self._scheduled += 1
        heapq.heappush(self._heap, (time_us, self._scheduled, callback, args))

    def after(self, delay_us: int, callback: Callable[..., None], *args: object) -> None:
        """Run `callback(*args)` `delay_us` from now."""
        self.at(self.now_us + delay_us, callback, *args)

    @property
    def pending(self) -> int:
        """How many events are still to come."""
        return len(self._heap)

    def step(self) -> bool:
        """Run the next event. False when there is none."""
        if not self._heap:
            return False
        self.now_us, _, callback, args = heapq.heappop(self._heap)
        self.steps += 1
        callback(*args)
        return True

    def run_until(self, time_us: int, steps_max: int = 1 << 60) -> None:
        """Run every event up to and including `time_us`; then it is `time_us`.

        `steps_max` bounds a world whose events never end: InvariantError beyond it.
        """
        heap = self._heap
        stop_at = self.steps + steps_max
        while heap and heap[0][0] <= time_us:
            require(self.steps < stop_at, "the world spins", steps=self.steps, now=self.now_us)
            self.step()
        self.now_us = max(self.now_us, time_us)


EPOCH_MS = 1_767_225_600_000
"""2026-01-01: what the wall clocks of the world begin at."""
HOUR_MS = 3_600_000


class SimClock:
    """The clocks of one member: boot time never decreases and never stops; the wall clock may be
    set."""

    def __init__(self, world: World, *, boot_ms: int, drift_ppm: int) -> None:
        self._world = world
        self._boot_ms = boot_ms
        self._rate_ppm = 1_000_000 + drift_ppm
        self._wall_offset_ms = 0

    def boot_ms(self) -> int:
        """Milliseconds of CLOCK_BOOTTIME."""
        return self._boot_ms + self._world.now_us * self._rate_ppm // (1_000_000 * MS)

    def wall_ms(self) -> int:
        """Milliseconds since the epoch, as this machine believes."""
        return EPOCH_MS + self.boot_ms() - self._boot_ms + self._wall_offset_ms

    def jump(self, by_ms: int) -> None:
        """The wall clock is set."""
        self._wall_offset_ms += by_ms

    def steady(self) -> None:
        """The wall clock is right again."""
        self._wall_offset_ms = 0

    def world_us(self, boot_ms: int) -> int:
        """The first moment of the world, from now on, at which `boot_ms` is reached."""
        ahead_ms = boot_ms - self._boot_ms
        at = -(-ahead_ms * 1_000_000 * MS // self._rate_ppm)
        return max(at, self._world.now_us + 1)


class Trace:
    """Records of (time in µs, who, what, values). Values must have a `repr` without addresses.

    `digest` covers every record since the start, so two runs of one seed can be compared
    although only the last `keep` records are held. `marks` counts what happened by
    name: the "sometimes" assertions of a run of many seeds.
    """

    def __init__(self, keep: int = 400) -> None:
        self.digest = 0
        self.count = 0
        self.marks: Counter[str] = Counter()
        self._last: deque[tuple[object, ...]] = deque(maxlen=keep)

    def record(self, time_us: int, who: object, what: str, *values: object) -> None:
        """Add one record."""
        record = (time_us, who, what, *values)
        self._last.append(record)
        self.digest = zlib.crc32(repr(record).encode(), self.digest)
        self.count += 1

    def mark(self, name: str, times: int = 1) -> None:
        """Count that `name` happened."""
        self.marks[name] += times

    def lines(self, last: int = 60) -> Iterator[str]:
        """The newest records, oldest first, one line each."""
        records = list(self._last)[-last:]
        for time_us, who, what, *values in records:
            detail = " ".join(str(value) for value in values)
            yield f"{_seconds(time_us)} {who!s:>4} {what:<12} {detail}"


def _seconds(time_us: object) -> str:
    return f"{time_us / 1_000_000:>12.6f}" if isinstance(time_us, int) else str(time_us)
