"""C25: the law of log time fires, and seeds in which a wall clock is wrong hold it."""

from __future__ import annotations

import pytest

from copycat.errors import InvariantError
from copycat.replica.clock import LogClock
from copycat.sim.checkers_clock import ClockChecker
from copycat.sim.clocks import EPOCH_MS
from copycat.sim.options import draw_options
from copycat.sim.runner import SeedFailed, run_seed
from copycat.sim.world import SECOND

WRONG = [seed for seed in range(1, 200) if "wrong_clock" in draw_options(seed).faults]


def test_log_time_is_never_ahead() -> None:
    checker = ClockChecker(0)
    checker.committed(1, EPOCH_MS + 1000, SECOND)
    with pytest.raises(InvariantError, match=r"^C25: log time is ahead"):
        checker.committed(2, EPOCH_MS + 7_200_000, 2 * SECOND)


def test_clocks_may_drift() -> None:
    checker = ClockChecker(100_000)
    checker.committed(1, EPOCH_MS + 11_000, 10 * SECOND)
    with pytest.raises(InvariantError, match=r"^C25: log time is ahead"):
        checker.committed(2, EPOCH_MS + 13_000, 10 * SECOND)


def test_what_was_lost_while_nobody_ran_may_come_back() -> None:
    checker = ClockChecker(0)
    checker.committed(1, EPOCH_MS, 0)
    checker.committed(2, EPOCH_MS + 10, 9 * SECOND)
    checker.committed(3, EPOCH_MS + 9_500, 9 * SECOND + SECOND // 2)


def test_more_may_not() -> None:
    checker = ClockChecker(0)
    checker.committed(1, EPOCH_MS, 0)
    checker.committed(2, EPOCH_MS - 3_600_000, SECOND)
    with pytest.raises(InvariantError, match=r"^C25: log time got back"):
        checker.committed(3, EPOCH_MS + 9_000, 9 * SECOND)


def test_what_was_lost_at_the_first_election_may_come_back_and_no_more() -> None:
    """A bare majority elected the first leader, and one of its clocks was an hour behind."""
    checker = ClockChecker(0)
    checker.committed(1, EPOCH_MS - 3_600_000, 0)
    checker.committed(2, EPOCH_MS + 9_000, 9 * SECOND)
    checker = ClockChecker(0)
    checker.committed(1, EPOCH_MS - 3_600_000, 0)
    checker.committed(2, EPOCH_MS - 7_200_000, SECOND)
    checker.committed(3, EPOCH_MS - 3_600_000, 2 * SECOND)
    with pytest.raises(InvariantError, match=r"^C25: log time got back"):
        checker.committed(4, EPOCH_MS + 9_000, 9 * SECOND)


@pytest.mark.slow
def test_seeds_with_a_wrong_clock_hold_it() -> None:
    assert len(WRONG) >= 10
    for seed in WRONG[:6]:
        run_seed(seed)


@pytest.mark.slow
def test_a_leader_that_believes_its_own_wall_clock_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lead(clock: LogClock) -> None:
        clock.heard(max(clock.peek_ms(), clock.wall_ms))

    monkeypatch.setattr(LogClock, "lead", lead)
    found = []
    for seed in WRONG[:8]:
        try:
            run_seed(seed)
        except SeedFailed as failed:
            found.append(failed.message)
    assert any("C25: log time is ahead" in message for message in found), found
