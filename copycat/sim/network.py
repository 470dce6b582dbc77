"""Messages in flight: delay, loss, duplication, reordering, partitions, broken links.

A place is a small number: members first, clients after them. Everything is per directed pair.
A message that meets a partition is lost, and nobody is notified; when a link *breaks*, its owner
is notified (`links.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from copycat.seeded_random import SimRandom
from copycat.sim.world import Trace, World

__all__ = ["Network", "NetworkOptions"]


class NetworkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Rates are per million messages, delays in microseconds."""

    delay_us: int = 1_000
    loss: int = 0
    duplication: int = 0
    reordering: int = 0
    straggling: int = 0
    """A message that is held back for up to a few seconds, and then delivered."""


CALM = NetworkOptions()


class Network:
    """Carries callbacks from place to place."""

    def __init__(
        self, world: World, random: SimRandom, options: NetworkOptions, trace: Trace
    ) -> None:
        self._world = world
        self._random = random
        self._options = options
        self._trace = trace
        self._blocked: set[tuple[int, int]] = set()
        self._slow_us: dict[tuple[int, int], int] = {}
        self._last_at: dict[tuple[int, int], int] = {}

    # --- faults -------------------------------------------------------------------------

    def calm(self) -> None:
        """No faults from now on; what is in flight still arrives."""
        self._options = CALM
        self.heal()

    def heal(self) -> None:
        """End every partition and every delay of a slow link."""
        self._blocked.clear()
        self._slow_us.clear()

    def block(self, sources: Iterable[int], targets: Iterable[int]) -> None:
        """One way: nothing sent from `sources` reaches `targets`."""
        to = list(targets)
        self._blocked.update((a, b) for a in sources for b in to if a != b)

    def slow(self, source: int, target: int, delay_us: int) -> None:
        """This direction takes `delay_us` longer than it did."""
        self._slow_us[(source, target)] = delay_us

    def is_blocked(self, source: int, target: int) -> bool:
        return (source, target) in self._blocked

    # --- traffic ------------------------------------------------------------------------

    def transmit(
        self, source: int, target: int, deliver: Callable[..., None], *args: object
    ) -> None:
        """Call `deliver(*args)` later: once, twice or never."""
        pair = (source, target)
        random, options, trace = self._random, self._options, self._trace
        if pair in self._blocked:
            trace.mark("message lost to a partition")
            return
        if random.chance(options.loss):
            trace.mark("message lost")
            return
        world = self._world
        arrival = world.now_us + random.around(options.delay_us) + self._slow_us.get(pair, 0)
        last = self._last_at.get(pair, 0)
        if random.chance(options.straggling):
            trace.mark("message held back")
            arrival += random.between(100_000, 3_000_000)
        elif random.chance(options.reordering):
            trace.mark("message reordered", arrival < last)
        else:
            arrival = max(arrival, last)
            self._last_at[pair] = arrival
        world.at(arrival, deliver, *args)
        if random.chance(options.duplication):
            trace.mark("message duplicated")
            world.at(arrival + random.around(4 * options.delay_us), deliver, *args)
