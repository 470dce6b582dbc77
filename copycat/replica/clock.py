"""Log time: the only time that entries carry and machines see (C25).

Replicas must agree on time, so it comes from the log: a leader stamps entries, and from the last
stamp on log time passes as the monotonic clock of its machine does. A follower knows log time as
well, by its leader's heartbeats and its own monotonic clock, so it can lead without asking any
wall clock. Only a member that knew no leader since it was started has to ask: then log time is
raised to what the wall clocks of a majority of the voters have come to, and no one wrong clock,
ahead or behind, moves it. Time in which no member ran passes in this way.
"""

from __future__ import annotations

from copycat.log.interface import ReplicaLog
from copycat.types import MemberId

__all__ = ["REPORT_MS_MAX", "LogClock", "last_time_ms"]

REPORT_MS_MAX = 60_000
"""What a voter said of its wall clock counts for so long: it may have been set since."""


class LogClock:
    """Stamps batches with milliseconds that never go back.

    now_ms: of CLOCK_BOOTTIME.  wall_ms: of this machine's wall clock.  last_entry_ms: log time of
    the last entry, 0 in an empty log.  voters: how many there are, this member included.
    """

    def __init__(self, now_ms: int, wall_ms: int, last_entry_ms: int, *, voters: int = 1) -> None:
        self.now_ms = now_ms
        self.wall_ms = wall_ms
        self.last_ms = last_entry_ms
        self._voters = voters
        self._base_ms = last_entry_ms
        self._base_now_ms = now_ms
        self._is_known = False
        """Log time was heard from a leader, or made here, since this process began: it passes
        with the monotonic clock, and no wall clock is asked."""
        self._reports: dict[MemberId, tuple[int, int]] = {}
        """By voter: its wall clock, and when it said so."""

    def advance(self, now_ms: int, wall_ms: int) -> int:
        """Take the host's clocks; milliseconds since the last call, never negative."""
        elapsed_ms = max(0, now_ms - self.now_ms)
        self.now_ms += elapsed_ms
        self.wall_ms = wall_ms
        return elapsed_ms

    # ---- what others say ---------------------------------------------------------------

    def reported(self, voter: MemberId, wall_ms: int) -> None:
        """Another voter said what its wall clock shows."""
        self._reports[voter] = (wall_ms, self.now_ms)

    def heard(self, log_time_ms: int) -> None:
        """The leader said what log time is. What was heard last counts, for it leads."""
        if log_time_ms >= self.last_ms:
            self._begin(log_time_ms)

    def saw(self, entry_ms: int) -> None:
        """An entry with this time was appended on behalf of another leader, now or long ago."""
        self.last_ms = max(self.last_ms, entry_ms)
        if entry_ms >= self._base_ms or not self._is_known:
            self._begin(self.last_ms)

    def _begin(self, base_ms: int) -> None:
        self._base_ms, self._base_now_ms, self._is_known = base_ms, self.now_ms, True

    # ---- as the leader -----------------------------------------------------------------

    @property
    def agreed_wall_ms(self) -> int:
        """The latest time that the wall clocks of a majority of all voters have reached.

        The lower median of what they said within the last minute; who said nothing has not come
        to any time. 0: fewer than a majority said something.
        """
        walls = [self.wall_ms]
        for wall_ms, at_ms in self._reports.values():
            age_ms = self.now_ms - at_ms
            if age_ms <= REPORT_MS_MAX:
                walls.append(wall_ms + age_ms)
        majority = self._voters // 2 + 1
        return max(0, sorted(walls, reverse=True)[majority - 1]) if len(walls) >= majority else 0

    def lead(self) -> None:
        """This member was elected: go on with log time as it knows it, or ask the wall clocks.

        Whoever was elected has the votes of a majority, and each came with a wall clock.
        """
        base_ms = self.peek_ms() if self._is_known else max(self.last_ms, self.agreed_wall_ms)
        self._begin(base_ms)

    def peek_ms(self) -> int:
        """What a batch would be stamped with now; on a follower, as far as it knows."""
        return max(self.last_ms, self._base_ms + self.now_ms - self._base_now_ms)

    def stamp_ms(self) -> int:
        """The time for a batch that is about to be appended."""
        self.last_ms = self.peek_ms()
        return self.last_ms


def last_time_ms(log: ReplicaLog) -> int:
    """Log time of the last entry; 0 in an empty log."""
    last = log.last_index
    return log.read(last, last + 1, 1).last_time_ms if last >= log.first_index else 0
