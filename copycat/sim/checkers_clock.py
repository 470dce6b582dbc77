"""Log time against the time of the world (C25): no key and no session ends early.

A lease of so many seconds ends early when more log time than time of the world passed since it
began. Log time follows monotonic clocks, which drift; and it is raised to what a majority of the
wall clocks shows when no member ran, so that it may get back what it had lost, but no more.
The law holds where a minority of the wall clocks is wrong, by however much, but for one thing
that the guide names: where a bare majority elects the first leader, and one of its clocks is
behind, log time begins late by that, and gets it back when all members have been down.
"""

from __future__ import annotations

from copycat.sim.checkers_log import violated
from copycat.sim.clocks import EPOCH_MS
from copycat.sim.world import MS

__all__ = ["ClockChecker"]

TOLERANCE_MS = 5
"""Clocks are read in whole milliseconds."""


class ClockChecker:
    """drift_ppm: how fast or slow any clock runs at most."""

    def __init__(self, drift_ppm: int) -> None:
        self._drift_ppm = drift_ppm
        self._least_ms: int | None = None
        """How far log time lagged most behind the world when an entry was stamped, negative."""
        self._begin_ms = 0
        """The same of the first entry: what it lagged from the beginning."""

    def committed(self, index: int, time_ms: int, stamped_us: int) -> None:
        """Entry `index` was stamped with log time `time_ms` when the world was at `stamped_us`."""
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
        if self._least_ms is None:
            self._begin_ms = self._least_ms = min(0, ahead_ms)
        if ahead_ms - self._least_ms > world_ms + drift_ms - self._begin_ms:
            raise violated(
                "C25",
                "log time got back more than it can have lost: a key or a session ends early",
                index=index,
                ahead_ms=ahead_ms,
                least_ms=self._least_ms,
            )
        self._least_ms = min(self._least_ms, ahead_ms)
