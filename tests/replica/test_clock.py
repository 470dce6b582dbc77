"""C25: log time passes as the leader's monotonic clock does, and no one wall clock moves it."""

from __future__ import annotations

import pytest

from copycat.member.time_note import TimeNote
from copycat.raft.configuration import Configuration
from copycat.replica.log_clock import NOTE_MS, REPORT_MS_MAX, LogClock, TimeReport
from copycat.replica.members import MemberTable
from copycat.types import MemberId

A, B, C, D = (MemberId(number) for number in (2, 3, 4, 5))
HOUR = 3_600_000
NOW = 1_767_225_600_000
"""What right wall clocks show."""


TERM = 7
"""Of the last entry of every log here that has one."""


def restarted(
    last_ms: int, wall_ms: int = NOW, voters: int = 3, written_note: TimeNote | None = None
) -> LogClock:
    """The clock of a member that was just started, its boot time at 500."""
    ids = [MemberId(number) for number in range(1, voters + 1)]
    members = MemberTable(ids[0], Configuration.of(*ids))
    return LogClock(members, 500, wall_ms, last_ms, written_note=written_note)


def walls(wall_ms: int) -> TimeReport:
    """What a voter says that knows no log time."""
    return TimeReport(wall_ms, 0, 0)


def times(log_time_ms: int, term: int = TERM) -> TimeReport:
    """What a voter says that knows log time; its wall clock is wrong by years."""
    return TimeReport(5 * NOW, log_time_ms, term)


# ---- while somebody leads ------------------------------------------------------------


def test_it_passes_as_the_monotonic_clock_does_and_the_wall_clock_may_jump() -> None:
    clock = restarted(0, voters=1)
    clock.elected(1, 0)
    assert clock.stamp_ms() == NOW
    clock.advance(1500, NOW + 5 * HOUR)
    assert clock.stamp_ms() == NOW + 1000
    clock.advance(2500, NOW - 5 * HOUR)
    assert clock.stamp_ms() == NOW + 2000


def test_a_follower_goes_on_from_what_it_heard() -> None:
    clock = restarted(0, wall_ms=NOW + 2 * HOUR)
    clock.entry_appended(NOW)
    clock.advance(2500, NOW + 2 * HOUR)
    clock.leader_reported(NOW + 1990, TERM)
    clock.advance(4500, NOW + 2 * HOUR)
    for voter in (A, B):
        clock.reported(voter, times(NOW + 2 * HOUR))
    clock.elected(TERM + 1, TERM)
    assert clock.stamp_ms() == NOW + 3990, "no wall clock is asked, not those of all"


def test_what_a_leader_says_counts_even_if_it_is_less_than_was_expected() -> None:
    """Its clock is slower than ours; else the difference of years would be there at once."""
    clock = restarted(0)
    clock.leader_reported(NOW, TERM)
    clock.advance(100_500, NOW)
    assert clock.peek_ms() == NOW + 100_000
    clock.leader_reported(NOW + 99_000, TERM)
    assert clock.peek_ms() == NOW + 99_000


def test_the_end_of_the_log_counts_and_not_what_stood_there_before() -> None:
    """Entries of a leader whom nobody followed were cut off: log time was never confirmed."""
    clock = restarted(0)
    clock.entry_appended(NOW)
    clock.leader_reported(NOW, TERM)
    clock.entry_appended(NOW - HOUR)
    assert clock.peek_ms() == NOW - HOUR
    clock.leader_reported(NOW - HOUR + 5, TERM + 1)
    clock.advance(1500, NOW)
    assert clock.peek_ms() == NOW - HOUR + 1005


def test_without_heartbeats_an_entry_says_at_least_what_it_says() -> None:
    clock = restarted(0)
    clock.entry_appended(NOW)
    clock.advance(1500, 0)
    clock.entry_appended(NOW + 2000)
    clock.elected(TERM + 1, TERM)
    assert clock.stamp_ms() == NOW + 2000


def test_who_knows_entries_only_asks_when_it_leads() -> None:
    clock = restarted(NOW - HOUR, written_note=TimeNote(NOW - 2 * HOUR, NOW - 2 * HOUR, TERM - 1))
    clock.entry_appended(NOW - HOUR + 5)
    for voter in (A, B):
        clock.reported(voter, times(NOW))
    clock.elected(TERM + 1, TERM)
    assert clock.stamp_ms() == NOW


def test_a_snapshot_says_at_least_what_it_says() -> None:
    clock = restarted(0)
    clock.installed(NOW)
    assert clock.peek_ms() == NOW
    clock.installed(NOW - HOUR)
    assert clock.peek_ms() == NOW


def test_it_never_goes_back() -> None:
    clock = restarted(NOW, wall_ms=NOW - HOUR)
    for voter in (A, B):
        clock.reported(voter, times(NOW - HOUR))
    clock.elected(TERM + 1, TERM)
    assert clock.stamp_ms() == NOW
    clock.leader_reported(NOW - 5, TERM + 2)
    assert clock.peek_ms() == NOW
    clock.advance(400, NOW)
    assert clock.stamp_ms() == NOW


# ---- when nobody knows: what a majority has come to ---------------------------------


@pytest.mark.parametrize(
    ("own", "reports", "agreed"),
    [
        # One of three is wrong: ahead or behind, this one or another, it moves nothing.
        (NOW + 2 * HOUR, [NOW, NOW], NOW),
        (NOW, [NOW + 2 * HOUR, NOW], NOW),
        (NOW - 2 * HOUR, [NOW, NOW], NOW),
        (NOW, [NOW, NOW - 2 * HOUR], NOW),
        # One of three did not say anything.
        (NOW + 2 * HOUR, [NOW], NOW),
        (NOW, [NOW + 2 * HOUR], NOW),
        (NOW, [NOW - HOUR], NOW - HOUR),
        # No majority.
        (NOW, [], 0),
    ],
)
def test_log_time_is_raised_to_the_lower_median(own: int, reports: list[int], agreed: int) -> None:
    last_ms = NOW - 3 * HOUR
    clock = restarted(last_ms, wall_ms=own, written_note=TimeNote(last_ms, last_ms, TERM))
    for voter, time_ms in zip((A, B), reports, strict=False):
        clock.reported(voter, times(time_ms))
    assert clock.agreed_ms(TERM) == agreed
    clock.elected(TERM + 1, TERM)
    assert clock.stamp_ms() == max(last_ms, agreed)


@pytest.mark.parametrize(
    ("voters", "shown", "agreed"),
    [(1, [5], 5), (2, [5, 9], 5), (4, [9, 7, 5, 1], 5), (5, [9, 8, 5, 1, 1], 5)],
)
def test_wall_clocks_count_in_an_empty_log(voters: int, shown: list[int], agreed: int) -> None:
    clock = restarted(0, wall_ms=shown[0], voters=voters)
    for voter, wall_ms in zip((A, B, C, D), shown[1:], strict=False):
        clock.reported(voter, walls(wall_ms))
    assert clock.agreed_ms(0) == agreed
    clock.elected(1, 0)
    assert clock.stamp_ms() == agreed


def test_what_was_said_goes_on_with_the_own_clock_and_is_forgotten() -> None:
    clock = restarted(0, wall_ms=NOW + HOUR)
    clock.reported(A, walls(NOW))
    clock.advance(500 + 40_000, NOW + HOUR + 40_000)
    assert clock.agreed_ms(0) == NOW + 40_000
    clock.advance(501 + REPORT_MS_MAX, NOW + HOUR)
    assert clock.agreed_ms(0) == 0


def test_what_a_voter_said_last_counts() -> None:
    clock = restarted(0, wall_ms=NOW + HOUR)
    clock.reported(A, walls(NOW + HOUR))
    clock.reported(A, walls(NOW))
    assert clock.agreed_ms(0) == NOW


def test_it_is_asked_once_and_not_while_this_member_leads_or_again_later() -> None:
    clock = restarted(NOW - HOUR, written_note=TimeNote(NOW - HOUR, NOW - HOUR, TERM))
    clock.reported(A, times(NOW - HOUR + 5))
    clock.elected(TERM + 1, TERM)
    assert clock.stamp_ms() == NOW - HOUR + 5
    clock.reported(B, times(NOW))
    assert clock.peek_ms() == NOW - HOUR + 5, "a lease that began since must not end early"
    clock.elected(TERM + 2, TERM + 1)
    assert clock.peek_ms() == NOW - HOUR + 5


@pytest.mark.parametrize(
    "ignorant",
    [
        walls(NOW),  # a new member, a lost file, a directory from before there was one
        times(NOW, TERM - 1),  # was not there when log time became late
        times(NOW, TERM + 1),  # followed a leader whose entries this log has not
    ],
)
def test_who_knows_no_log_time_of_the_last_entrys_leader_has_come_to_no_time(
    ignorant: TimeReport,
) -> None:
    last_ms = NOW - HOUR
    clock = restarted(last_ms, written_note=TimeNote(last_ms, NOW - HOUR, TERM))
    clock.reported(A, ignorant)
    clock.elected(TERM + 1, TERM)
    assert clock.stamp_ms() == last_ms, "late, not early"
    clock = restarted(last_ms, written_note=TimeNote(last_ms, NOW - HOUR, TERM))
    clock.reported(A, ignorant)
    clock.reported(B, times(NOW - 5))
    clock.elected(TERM + 1, TERM)
    assert clock.stamp_ms() == NOW - 5


def test_own_ignorance_is_late_too() -> None:
    clock = restarted(NOW - HOUR)
    clock.reported(A, times(NOW))
    clock.elected(TERM + 1, TERM)
    assert clock.stamp_ms() == NOW - HOUR


# ---- what a voter remembers ----------------------------------------------------------------


@pytest.mark.parametrize("wrong_by", [0, HOUR, -HOUR, -NOW])
def test_a_voter_says_what_log_time_is_by_now_and_not_what_its_wall_clock_shows(
    wrong_by: int,
) -> None:
    late_ms = NOW - 50 * HOUR
    written_note = TimeNote(late_ms, NOW + wrong_by, TERM)
    clock = restarted(late_ms - 1, wall_ms=NOW + wrong_by + HOUR, written_note=written_note)
    assert clock.report == TimeReport(NOW + wrong_by + HOUR, late_ms + HOUR, TERM)


def test_one_that_runs_says_what_its_leader_says() -> None:
    clock = restarted(0, written_note=TimeNote(NOW - HOUR, NOW, TERM))
    clock.entry_appended(NOW - 5)
    assert clock.report == TimeReport(NOW, NOW - HOUR, TERM)
    clock.leader_reported(NOW, TERM + 1)
    clock.advance(1500, -5)
    assert clock.report == TimeReport(0, NOW + 1000, TERM + 1)


def test_what_it_knows_is_noted_once_for_each_leader_and_when_a_wall_clock_was_set() -> None:
    clock = restarted(0)
    assert clock.note_to_write is None
    clock.entry_appended(NOW)
    assert clock.note_to_write is None, "time may have passed since that entry"
    clock.leader_reported(NOW + 10, TERM)
    clock.written_note = clock.note_to_write
    assert clock.written_note == TimeNote(NOW + 10, NOW, TERM)
    clock.advance(HOUR, NOW + HOUR - 500)
    assert clock.note_to_write is None
    clock.advance(HOUR, NOW + HOUR - 500 - NOTE_MS - 1)
    assert clock.note_to_write == TimeNote(NOW + HOUR - 490, NOW + HOUR - 501 - NOTE_MS, TERM)
    clock.advance(HOUR, NOW + HOUR - 500 + NOTE_MS)
    assert clock.note_to_write is None
    clock.elected(TERM + 1, TERM)
    assert clock.note_to_write == TimeNote(NOW + HOUR - 490, NOW + HOUR - 500 + NOTE_MS, TERM + 1)


def test_the_clocks_of_those_count_that_are_voters_now() -> None:
    """A change of members reaches the clock, although the clock was there before."""
    members = MemberTable(A, Configuration.of(A, B, C))
    clock = LogClock(members, 500, NOW, 0)
    for voter in (B, C):
        clock.reported(voter, walls(NOW + HOUR))
    assert clock.agreed_ms(0) == NOW + HOUR
    members.adopt(Configuration.of(A, non_voters=(B, C)))
    assert clock.agreed_ms(0) == NOW
