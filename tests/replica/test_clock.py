"""C25: log time passes as the leader's monotonic clock does, and no one wall clock moves it."""

from __future__ import annotations

import pytest

from copycat.replica.clock import REPORT_MS_MAX, LogClock
from copycat.types import MemberId

A, B, C, D = (MemberId(number) for number in (2, 3, 4, 5))
HOUR = 3_600_000
NOW = 1_767_225_600_000
"""What right wall clocks show."""


def restarted(last_ms: int, wall_ms: int = NOW, voters: int = 3) -> LogClock:
    """The clock of a member that was just started, its boot time at 500."""
    return LogClock(500, wall_ms, last_ms, voters=voters)


# ---- while somebody leads ------------------------------------------------------------


def test_it_passes_as_the_monotonic_clock_does_and_the_wall_clock_may_jump() -> None:
    clock = restarted(0, voters=1)
    clock.lead()
    assert clock.stamp_ms() == NOW
    clock.advance(1500, NOW + 5 * HOUR)
    assert clock.stamp_ms() == NOW + 1000
    clock.advance(2500, NOW - 5 * HOUR)
    assert clock.stamp_ms() == NOW + 2000


def test_a_follower_goes_on_from_what_it_heard() -> None:
    clock = restarted(0, wall_ms=NOW + 2 * HOUR)
    clock.saw(NOW)
    clock.advance(2500, NOW + 2 * HOUR)
    clock.heard(NOW + 1990)
    clock.advance(4500, NOW + 2 * HOUR)
    for voter in (A, B):
        clock.reported(voter, NOW + 2 * HOUR)
    clock.lead()
    assert clock.stamp_ms() == NOW + 3990, "no wall clock is asked, not those of all"


def test_what_a_leader_says_counts_even_if_it_is_less_than_was_expected() -> None:
    """Its clock is slower than ours; else the difference of years would be there at once."""
    clock = restarted(0)
    clock.heard(NOW)
    clock.advance(100_500, NOW)
    assert clock.peek_ms() == NOW + 100_000
    clock.heard(NOW + 99_000)
    assert clock.peek_ms() == NOW + 99_000


def test_old_entries_that_come_late_do_not_turn_it_back() -> None:
    clock = restarted(0)
    clock.heard(NOW)
    clock.saw(NOW - HOUR)
    clock.advance(1500, NOW)
    assert clock.peek_ms() == NOW + 1000


def test_without_heartbeats_an_entry_says_at_least_what_it_says() -> None:
    clock = restarted(0)
    clock.saw(NOW)
    clock.advance(1500, 0)
    clock.saw(NOW + 2000)
    clock.lead()
    assert clock.stamp_ms() == NOW + 2000


def test_it_never_goes_back() -> None:
    clock = restarted(NOW, wall_ms=NOW - HOUR)
    for voter in (A, B):
        clock.reported(voter, NOW - HOUR)
    clock.lead()
    assert clock.stamp_ms() == NOW
    clock.heard(NOW - 5)
    clock.saw(NOW - 5)
    assert clock.peek_ms() == NOW
    clock.advance(400, NOW)
    assert clock.stamp_ms() == NOW


# ---- when nobody knows: the wall clocks of a majority ------------------------------


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
    clock = restarted(last_ms, wall_ms=own)
    for voter, wall_ms in zip((A, B), reports, strict=False):
        clock.reported(voter, wall_ms)
    assert clock.agreed_wall_ms == agreed
    clock.lead()
    assert clock.stamp_ms() == max(last_ms, agreed)


@pytest.mark.parametrize(
    ("voters", "walls", "agreed"),
    [(1, [5], 5), (2, [5, 9], 5), (4, [9, 7, 5, 1], 5), (5, [9, 8, 5, 1, 1], 5)],
)
def test_the_lower_median_of_any_number(voters: int, walls: list[int], agreed: int) -> None:
    clock = restarted(0, wall_ms=walls[0], voters=voters)
    for voter, wall_ms in zip((A, B, C, D), walls[1:], strict=False):
        clock.reported(voter, wall_ms)
    assert clock.agreed_wall_ms == agreed


def test_what_was_said_goes_on_with_the_own_clock_and_is_forgotten() -> None:
    clock = restarted(0, wall_ms=NOW + HOUR)
    clock.reported(A, NOW)
    clock.advance(500 + 40_000, NOW + HOUR + 40_000)
    assert clock.agreed_wall_ms == NOW + 40_000
    clock.advance(501 + REPORT_MS_MAX, NOW + HOUR)
    assert clock.agreed_wall_ms == 0


def test_what_a_voter_said_last_counts() -> None:
    clock = restarted(0, wall_ms=NOW + HOUR)
    clock.reported(A, NOW + HOUR)
    clock.reported(A, NOW)
    assert clock.agreed_wall_ms == NOW


def test_it_is_asked_once_and_not_while_this_member_leads_or_again_later() -> None:
    clock = restarted(NOW - HOUR)
    clock.reported(A, NOW - HOUR + 5)
    clock.lead()
    assert clock.stamp_ms() == NOW - HOUR + 5
    clock.reported(B, NOW)
    assert clock.peek_ms() == NOW - HOUR + 5, "a lease that began since must not end early"
    clock.lead()
    assert clock.peek_ms() == NOW - HOUR + 5
