"""A small generator in the core's own state: equal seeds give equal elections, everywhere."""

from __future__ import annotations

__all__ = ["SeededRandom"]

_MASK = (1 << 64) - 1


class SeededRandom:
    """splitmix64 (Steele, Lea, Flood 2014). `state` is all there is, so a pickle is enough."""

    __slots__ = ("state",)

    def __init__(self, seed: int) -> None:
        self.state = seed & _MASK

    def next(self) -> int:
        """64 uniform bits."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & _MASK
        mixed = self.state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return mixed ^ (mixed >> 31)

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high); `low` when the range is empty.

        The modulo's bias is below 2^-50 for the ranges of timers.
        """
        width = high - low
        return low + self.next() % width if width > 0 else low
