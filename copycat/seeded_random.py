"""Random numbers from a seed, the same on every platform and every version of Python.

There is one generator, `SplitMix64`, and what is built on it for two users: `SeededRandom` for
state machines (with the methods of `random.Random`) and `SimRandom` for the simulator. A seed of
the simulator, a member's election timeouts and a machine's results depend on the exact stream,
so no method may ever draw more or fewer words than it does today.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import TypeVar

from copycat.errors import ConfigurationError

__all__ = ["SeededRandom", "SimRandom", "SplitMix64"]

T = TypeVar("T")

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15


class SplitMix64:
    """The generator of Steele, Lea and Flood (2014). `state` is all there is to copy or pickle."""

    __slots__ = ("state",)

    def __init__(self, seed: int) -> None:
        self.state = seed & _MASK

    def next(self) -> int:
        """64 uniform bits."""
        self.state = word = (self.state + _STEP) & _MASK
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
        return word ^ (word >> 31)

    def below(self, end: int) -> int:
        """An integer in [0, end); 0, and nothing is drawn, when the range is empty.

        The modulo's bias is below 2^-40 for the ranges of timers and fault rates.
        """
        return self.next() % end if end > 0 else 0


class SeededRandom(SplitMix64):
    """What a machine draws from: `ctx.random`, seeded by the index of the entry applied.

    Every member draws the same. Not secret: never make keys or tokens with it.
    """

    __slots__ = ()

    def random(self) -> float:
        """In [0, 1)."""
        return (self.next() >> 11) * 2.0**-53

    def uniform(self, low: float, high: float) -> float:
        """In [low, high)."""
        return low + (high - low) * self.random()

    def getrandbits(self, count: int) -> int:
        """An integer of at most `count` bits."""
        value, have = 0, 0
        while have < count:
            value |= self.next() << have
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


class SimRandom(SplitMix64):
    """What the simulator draws from: delays, faults and who is hit by them."""

    __slots__ = ()

    def between(self, low: int, high: int) -> int:
        """One of low .. high, both included."""
        return low + self.below(high - low + 1)

    def chance(self, per_million: int) -> bool:
        """True `per_million` times in a million; draws nothing when it cannot happen."""
        return per_million > 0 and self.below(1_000_000) < per_million

    def pick(self, choices: Sequence[T]) -> T:
        """One of `choices`, evenly; IndexError when there is none."""
        return choices[self.below(len(choices))]

    def around(self, mean: int) -> int:
        """A delay with this mean and a long tail: mostly near it, 1 in 64 up to 10 times it."""
        word = self.next()
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

    def fork(self) -> SimRandom:
        """An independent generator: what one part draws does not move what another part sees."""
        return SimRandom(self.next())
