"""A fault that waits until a member is in a certain state, for most states are brief.

A fault that comes at any moment meets a member while a segment is rewritten or a read round is
open about once in a thousand seeds. A fault that waits for the
state meets the member in it each time.
"""

from __future__ import annotations

from copycat.seeded_random import SimRandom
from copycat.sim.host import SimHost
from copycat.sim.marks import states_of
from copycat.sim.options import SeedOptions

__all__ = ["FaultTrigger"]

WAIT_INTERVALS_MAX = 4
"""So many times the mean time between two faults."""


def _possible(options: SeedOptions) -> list[str]:
    """Brief states that members of such a seed come into. One that lasts is met at random."""
    faults = options.faults
    states = ["it campaigns", "a sync runs", "a save runs", "a slice is applied"]
    states += ["a file is written", "entries wait for a majority", "a read round is open"]
    if "transfer" in faults or "slow_disk" in faults:
        states.append("leadership is handed over")
    if options.limits.snapshot_threshold:
        states += 2 * ["a snapshot goes out", "a snapshot comes in"]
    if options.workload.is_keyed:
        states += ["a segment is rewritten", "gaps are replayed"]
    if "no_space" in faults:
        states.append("its disk is full")
    if "rot" in faults:
        states += ["entries are missing", "it may not vote"]
    return states


class FaultTrigger:
    """Waits for any member to come into one state."""

    def __init__(self, kind: str, options: SeedOptions, random: SimRandom) -> None:
        self.kind = kind
        self._state = random.pick(_possible(options))
        self._intervals_left = WAIT_INTERVALS_MAX

    def meets(self, host: SimHost) -> bool:
        """Whether this member is in that state now."""
        return self._state in states_of(host)

    def keep_waiting(self) -> bool:
        """Another fault is due: False when the wait has been long enough."""
        self._intervals_left -= 1
        return self._intervals_left > 0
