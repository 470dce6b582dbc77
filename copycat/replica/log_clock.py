"""Log time: the only time that entries carry and machines see (C25).

Replicas must agree on time, so it comes from the log: a leader stamps entries, and from the last
stamp on log time passes as the monotonic clock of its machine does. A follower knows log time as
well, by its leader's heartbeats and its own monotonic clock, so it can lead without asking any
wall clock. Only a member that knew no leader since it was started has to ask, and what it asks
for is no wall clock either: each voter remembers by how much its wall clock differs from log
time, and says what log time must be by now. The latest that a majority has reached counts, so
that no one clock that is wrong or was set, ahead or behind, moves it. Time in which no member
ran passes in this way. What wall clocks show counts once, in a log without any entry.

A voter that remembers log time of other leaders than the last entry's counts as one that has
come to no time: log time may have been late since, and a majority of such voters would give it
back at once. So in any log the time of a leader is never ahead of what it would have been by the
leaders before it, but for drift, and nothing that is to end by it ends early.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from copycat.member.time_note import TimeNote
from copycat.raft.configuration import Configuration
from copycat.storage.interface import ReplicaLog
from copycat.types import MemberId

__all__ = ["REPORT_MS_MAX", "ConfigurationSource", "LogClock", "TimeReport", "last_time_ms"]

REPORT_MS_MAX = 60_000
"""A voter's report of its clocks counts for so long, since the clocks may be set later."""
NOTE_MS = 1000
"""A wall clock that differs from log time by so much more or less than was written is noted.

With a smaller limit, clocks that run at slightly different speeds would cause writes all the time.
So after all members were down, log time can be ahead by so much, if the clocks of a majority were
set ahead.
"""


class TimeReport(NamedTuple):
    """What a voter says of time when it answers a candidate.

    wall_ms: its wall clock; 0 is unknown.  log_time_ms: what log time is by now, as far as it
    knows; 0 is unknown.  term: of the leader from whom it knows log time.
    """

    wall_ms: int
    log_time_ms: int
    term: int


class ConfigurationSource(Protocol):
    """Which member this is, and whose clocks count, as of now: `Raft` knows both."""

    @property
    def member(self) -> MemberId: ...
    @property
    def configuration(self) -> Configuration: ...


class LogClock:
    """Stamps batches with milliseconds that never decrease.

    source: which member this is, and whose clocks count when it asks.  now_ms: of CLOCK_BOOTTIME.
    wall_ms: of this machine's wall clock.  last_entry_ms: log time of the last entry, 0 in an
    empty log.  written_note: what an earlier process wrote down.
    """

    def __init__(
        self,
        source: ConfigurationSource,
        now_ms: int,
        wall_ms: int,
        last_entry_ms: int,
        *,
        written_note: TimeNote | None = None,
    ) -> None:
        self.now_ms = now_ms
        self.wall_ms = wall_ms
        self.last_ms = last_entry_ms
        self.written_note = written_note
        """What is written down durably; None: nothing."""
        self._source = source
        self._base_ms = last_entry_ms
        self._base_now_ms = now_ms
        self._term = 0
        """Of the leader from whom log time is known, since this process began; 0: it is not.
        While it is, it passes with the monotonic clock, and no wall clock is asked."""
        self._reports: dict[MemberId, tuple[TimeReport, int]] = {}
        """By voter: what it said, and when."""

    def advance(self, now_ms: int, wall_ms: int) -> int:
        """Take the host's clocks; milliseconds since the last call, never negative."""
        elapsed_ms = max(0, now_ms - self.now_ms)
        self.now_ms += elapsed_ms
        self.wall_ms = wall_ms
        return elapsed_ms

    # ---- what others say ---------------------------------------------------------------

    def reported(self, voter: MemberId, report: TimeReport) -> None:
        """Another voter said what it knows of time."""
        oldest_ms = self.now_ms - REPORT_MS_MAX
        recent = {each: known for each, known in self._reports.items() if known[1] >= oldest_ms}
        self._reports = recent | {voter: (report, self.now_ms)}

    def leader_reported(self, log_time_ms: int, term: int) -> None:
        """The leader of `term` said what log time is, and the last entry here is of that term.

        What was heard last counts, for it leads.
        """
        if log_time_ms >= self.last_ms:
            self._begin(log_time_ms, term)

    def entry_appended(self, entry_ms: int) -> None:
        """The last entry, which another leader wrote, now or long ago, has this time. A later
        heartbeat says what log time is by now, once all entries are here."""
        self.last_ms = entry_ms
        self._begin(entry_ms, 0)

    def installed(self, snapshot_ms: int) -> None:
        """A snapshot that covers entries up to this time takes the place of what was here."""
        self.last_ms = max(self.last_ms, snapshot_ms)

    def _begin(self, base_ms: int, term: int) -> None:
        self._base_ms, self._base_now_ms, self._term = base_ms, self.now_ms, term

    # ---- what this member says ---------------------------------------------------------

    @property
    def report(self) -> TimeReport:
        """What this member knows of time now."""
        log_time_ms, term = 0, 0
        if self._term:
            log_time_ms, term = self.peek_ms(), self._term
        elif self.written_note is not None:
            passed_ms = self.wall_ms - self.written_note.wall_ms
            log_time_ms, term = self.written_note.log_time_ms + passed_ms, self.written_note.term
        return TimeReport(max(0, self.wall_ms), max(0, log_time_ms), term)

    @property
    def note_to_write(self) -> TimeNote | None:
        """What should be written down now; None while what is written holds."""
        if not self._term:
            return None
        note = TimeNote(self.peek_ms(), self.wall_ms, self._term)
        if self.written_note is None or self.written_note.term != note.term:
            return note
        noted_ms = self.written_note.log_time_ms - self.written_note.wall_ms
        moved_ms = note.log_time_ms - note.wall_ms - noted_ms
        return note if abs(moved_ms) > NOTE_MS else None

    def note_written(self, note: TimeNote) -> None:
        """`note_to_write` is on the disk now."""
        self.written_note = note

    # ---- as the leader -----------------------------------------------------------------

    def agreed_ms(self, last_term: int) -> int:
        """The latest time that a majority of all voters have reached. last_term: of the log's
        last entry; 0 in an empty log, where wall clocks count.

        The lower median of what they reported within the last minute; a voter that reported
        nothing counts as one at time 0. 0: fewer than a majority reported something.
        """
        times = {self._source.member: _time_of(self.report, last_term)}
        for voter, (report, at_ms) in self._reports.items():
            age_ms = self.now_ms - at_ms
            time_ms = _time_of(report, last_term)
            if age_ms <= REPORT_MS_MAX and time_ms:
                times[voter] = time_ms + age_ms
        return self._source.configuration.agreed_index(times)

    def elected(self, term: int, last_term: int) -> None:
        """This member was elected for `term`: continue with log time as it knows it, or ask.

        Whoever was elected has the votes of a majority, and each came with a report.
        """
        is_known = self._term != 0
        base_ms = self.peek_ms() if is_known else max(self.last_ms, self.agreed_ms(last_term))
        self._begin(base_ms, term)

    def peek_ms(self) -> int:
        """What a batch would be stamped with now; on a follower, as far as it knows."""
        return max(self.last_ms, self._base_ms + self.now_ms - self._base_now_ms)

    def stamp_ms(self) -> int:
        """The time for a batch that is about to be appended."""
        self.last_ms = self.peek_ms()
        return self.last_ms


def _time_of(report: TimeReport, last_term: int) -> int:
    """What a report is worth to a candidate whose last entry is of `last_term`; 0: nothing."""
    if last_term == 0:
        return report.wall_ms
    return report.log_time_ms if report.term == last_term else 0


def last_time_ms(log: ReplicaLog) -> int:
    """Log time of the last entry; 0 in an empty log."""
    last = log.last_index
    return log.read(last, last + 1, 1).last_time_ms if last >= log.first_index else 0
