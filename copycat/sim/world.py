"""Virtual time: a clock, a heap of events and the dice. Nothing here knows what a member is.

Two events at one instant run in the order in which they were scheduled, so one seed is one
history, whatever the hash seed of the process (faults.md, I20 and G11).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from copycat.errors import require

__all__ = ["MS", "SECOND", "Dice", "World"]

T = TypeVar("T")

MS = 1_000
"""One millisecond in the world's unit, microseconds."""
SECOND = 1_000_000

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class Dice:
    """splitmix64: one word of state, equal on every platform and Python version."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def word(self) -> int:
        """The next 64 bits."""
        self._state = state = (self._state + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        return state ^ (state >> 31)

    def below(self, end: int) -> int:
        """0 .. end - 1. The bias of the modulus is far below what a fault rate means."""
        return self.word() % end

    def between(self, low: int, high: int) -> int:
        """One of low .. high, both included."""
        return low + self.word() % (high - low + 1)

    def chance(self, per_million: int) -> bool:
        """True `per_million` times in a million; takes no word when it cannot happen."""
        return per_million > 0 and self.word() % 1_000_000 < per_million

    def pick(self, choices: Sequence[T]) -> T:
        """One of `choices`, evenly."""
        return choices[self.word() % len(choices)]

    def around(self, mean: int) -> int:
        """A delay with this mean and a long tail: mostly near it, 1 in 64 up to 10 times it."""
        word = self.word()
        if word & 63 == 0:
            return mean + (word >> 8) % (18 * mean + 1)
        return mean // 2 + (word >> 8) % (mean + 1)

    def shuffled(self, values: Sequence[T]) -> list[T]:
        """A copy in random order (Fisher and Yates)."""
        result = list(values)
        for last in range(len(result) - 1, 0, -1):
            other = self.below(last + 1)
            result[last], result[other] = result[other], result[last]
        return result

    def fork(self) -> Dice:
        """Independent dice: what one part draws does not move what another part sees."""
        return Dice(self.word())


class World:
    """The clock and what is still to come. Times are microseconds since the world began."""

    def __init__(self) -> None:
        self.now_us = 0
        self.steps = 0
        self._scheduled = 0
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, time_us: int, callback: Callable[..., None], *args: object) -> None:
        """Run `callback(*args)` at `time_us`. The past is refused: time never goes back."""
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

        `steps_max` bounds a world that has come to spin: InvariantError beyond it.
        """
        heap = self._heap
        stop_at = self.steps + steps_max
        while heap and heap[0][0] <= time_us:
            require(self.steps < stop_at, "the world spins", steps=self.steps, now=self.now_us)
            self.step()
        self.now_us = max(self.now_us, time_us)
