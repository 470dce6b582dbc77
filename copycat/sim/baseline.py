"""Which marks a run of so many seeds must have reached, and how that was found.

`marks.json` names each mark and the least number of seeds in which missing it is no chance. It
is measured: a run of N seeds met the mark in k of them, so it is safe to say that a seed meets
it with at least a certain probability p, and n seeds all miss it with (1 - p)^n. A mark is
required of n seeds when that is below one in 10^9, and never when more than `SEEDS_MAX` seeds
are needed: such a mark is only reported.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

__all__ = ["BASELINE", "SEEDS_MAX", "Baseline", "seeds_needed"]

BASELINE = Path(__file__).with_name("marks.json")

SEEDS_MAX = 2_000
CHANCE_MAX = 1e-9
"""A required mark is missed by chance less often than this."""
DOUBT = 1e-6
"""The measured rate is taken to be so low that what was measured had this probability."""
MARGIN = 2
"""And then as much lower again, since what a seed draws changes with the simulator."""


def least_rate(hit: int, seeds: int) -> float:
    """How rare a mark may be at most of which `hit` of `seeds` seeds had one (Chernoff)."""
    share = hit / seeds
    low, high = 0.0, share
    for _ in range(60):
        rate = (low + high) / 2
        if rate <= 0.0:
            break
        divergence = share * math.log(share / rate)
        if share < 1.0:
            divergence += (1 - share) * math.log((1 - share) / (1 - rate))
        if math.exp(-seeds * divergence) < DOUBT:
            low = rate
        else:
            high = rate
    return low


def seeds_needed(hit: int, seeds: int) -> int | None:
    """How many seeds surely meet a mark that `hit` of `seeds` had; None above `SEEDS_MAX`."""
    rate = least_rate(hit, seeds) / MARGIN if hit else 0.0
    if rate <= 0.0:
        return None
    needed = math.ceil(math.log(CHANCE_MAX) / math.log1p(-rate))
    return needed if needed <= SEEDS_MAX else None


class Baseline(msgspec.Struct, frozen=True):
    """measured: of so many seeds.  needed: by mark, of how many seeds it is required."""

    measured: int
    needed: dict[str, int]

    @classmethod
    def load(cls, path: Path = BASELINE) -> Baseline:
        """Read it."""
        return msgspec.json.decode(path.read_bytes(), type=cls)

    @classmethod
    def of(cls, reached: Mapping[str, int], seeds: int) -> Baseline:
        """From a run of `seeds` seeds, of which `reached` had each mark."""
        needed = {mark: seeds_needed(hit, seeds) for mark, hit in sorted(reached.items())}
        return cls(seeds, {mark: count for mark, count in needed.items() if count is not None})

    def save(self, path: Path) -> None:
        """Write it, one mark a line."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    def missing(self, reached: Iterable[str], seeds: int) -> list[str]:
        """Marks that a run of `seeds` seeds had to reach and did not."""
        there = set(reached)
        return [
            mark for mark, needed in self.needed.items() if needed <= seeds and mark not in there
        ]
