"""Two clocks of one machine: CLOCK_BOOTTIME that drifts, a wall clock that also jumps (F19)."""

from __future__ import annotations

from copycat.sim.world import MS, World

__all__ = ["EPOCH_MS", "HOUR_MS", "SimClock"]

EPOCH_MS = 1_767_225_600_000
"""2026-01-01: what the wall clocks of the world begin at."""
HOUR_MS = 3_600_000


class SimClock:
    """Boot time never goes back and never stops; the wall clock does what it likes."""

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
