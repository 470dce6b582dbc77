"""Log time against the time of the world (C25): no key and no session ends early.

A lease of so many seconds ends early when more log time than time of the world passed since it
began. Log time follows monotonic clocks, which drift. It may fall behind the world, by what
passed while no member ran or at the first election; it never catches up, since leases that began
in between would end early. The law holds where a minority of the wall clocks is wrong, by however
much.
"""

from __future__ import annotations

from copycat.sim.checkers.log_history import violated
from copycat.sim.world import EPOCH_MS, MS

__all__ = ["ClockChecker"]

TOLERANCE_MS = 5
"""Clocks are read in whole milliseconds."""
HANDOVER_MS = 2
"""The same of each term: who leads next knows log time in whole milliseconds, by its own clock."""


class ClockChecker:
    """drift_ppm: how fast or slow any clock runs at most."""

    def __init__(self, drift_ppm: int) -> None:
        self._drift_ppm = drift_ppm
        self._least_ms = 0
        """How far log time was behind the world at most when an entry was stamped; negative."""

    def committed(self, index: int, time_ms: int, stamped_us: int, term: int) -> None:
        """Entry `index` of `term` was stamped with log time `time_ms` when the world was at
        `stamped_us`."""
        world_ms = stamped_us // MS
        drift_ms = 2 * self._drift_ppm * world_ms // 1_000_000 + TOLERANCE_MS
        ahead_ms = time_ms - EPOCH_MS - world_ms
        if ahead_ms > drift_ms:
            raise violated(
                "C25",
                "log time is ahead of the right time: a key or a session ends early",
                index=index,
                ahead_ms=ahead_ms,
                drift_ms=drift_ms,
            )
        if ahead_ms - self._least_ms > drift_ms + HANDOVER_MS * term:
            raise violated(
                "C25",
                "log time got back what it had lost: a key or a session ends early",
                index=index,
                ahead_ms=ahead_ms,
                least_ms=self._least_ms,
            )
        self._least_ms = min(self._least_ms, ahead_ms)
