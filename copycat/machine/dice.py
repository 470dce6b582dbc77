"""Random numbers that every member draws alike: seeded by the index of the entry applied."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import TypeVar

from copycat.errors import ConfigurationError

__all__ = ["SeededRandom"]

T = TypeVar("T")

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15


class SeededRandom:
    """A SplitMix64 generator. Deterministic, not secret: never make keys or tokens with it."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def _next(self) -> int:
        self._state = (self._state + _STEP) & _MASK
        word = self._state
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
        return word ^ (word >> 31)

    def random(self) -> float:
        """In [0, 1)."""
        return (self._next() >> 11) * 2.0**-53

    def uniform(self, low: float, high: float) -> float:
        """In [low, high)."""
        return low + (high - low) * self.random()

    def getrandbits(self, count: int) -> int:
        """An integer of at most `count` bits."""
        value, have = 0, 0
        while have < count:
            value |= self._next() << have
            have += 64
        return value & ((1 << count) - 1)

    def randbytes(self, count: int) -> bytes:
        """`count` bytes."""
        return self.getrandbits(8 * count).to_bytes(count, "little")

    def randrange(self, start: int, stop: int | None = None) -> int:
        """In [start, stop), or [0, start)."""
        low, high = (0, start) if stop is None else (start, stop)
        width = high - low
        if width <= 0:
            raise ConfigurationError(f"randrange({low}, {high}) is empty")
        bits = width.bit_length()
        while (draw := self.getrandbits(bits)) >= width:
            pass  # under one more draw on average
        return low + draw

    def randint(self, low: int, high: int) -> int:
        """In [low, high], both included."""
        return self.randrange(low, high + 1)

    def choice(self, items: Sequence[T]) -> T:
        """One of `items`; IndexError when there is none."""
        if not items:
            raise IndexError("nothing to choose from")
        return items[self.randrange(len(items))]

    def shuffle(self, items: MutableSequence[T]) -> None:
        """Put `items` in another order, in place."""
        for last in range(len(items) - 1, 0, -1):
            other = self.randrange(last + 1)
            items[last], items[other] = items[other], items[last]
