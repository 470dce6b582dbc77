"""C25: the law of log time fires, and seeds in which a wall clock is wrong hold it."""

from __future__ import annotations

import pytest

from copycat.errors import InvariantError
from copycat.replica import log_clock
from copycat.replica.log_clock import LogClock
from copycat.sim.checkers.log_time import ClockChecker
from copycat.sim.draws import draw_options
from copycat.sim.runner import SeedFailed, run_seed
from copycat.sim.world import EPOCH_MS, SECOND

WRONG = [seed for seed in range(1, 200) if "wrong_clock" in draw_options(seed).faults]


def test_log_time_is_never_ahead() -> None:
    checker = ClockChecker(0)
    checker.committed(1, EPOCH_MS + 1000, SECOND, 1)
    with pytest.raises(InvariantError, match=r"^C25: log time is ahead"):
        checker.committed(2, EPOCH_MS + 7_200_000, 2 * SECOND, 1)


def test_clocks_may_drift() -> None:
    checker = ClockChecker(100_000)
    checker.committed(1, EPOCH_MS + 11_000, 10 * SECOND, 1)
    with pytest.raises(InvariantError, match=r"^C25: log time is ahead"):
        checker.committed(2, EPOCH_MS + 13_000, 10 * SECOND, 1)


def test_time_in_which_nobody_ran_may_pass_or_be_lost() -> None:
    checker = ClockChecker(0)
    checker.committed(1, EPOCH_MS, 0, 1)
    checker.committed(2, EPOCH_MS + 9_500, 9 * SECOND + SECOND // 2, 2)
    checker.committed(3, EPOCH_MS + 9_600, 20 * SECOND, 3)
    checker.committed(4, EPOCH_MS + 19_600, 30 * SECOND, 3)


@pytest.mark.parametrize("lost_ms", [1_000, 3_600_000, EPOCH_MS])
def test_what_was_lost_does_not_come_back(lost_ms: int) -> None:
    """At the first election, or while nobody ran: leases that began since would end early."""
    checker = ClockChecker(0)
    checker.committed(1, EPOCH_MS - lost_ms, 0, 1)
    checker.committed(2, EPOCH_MS - lost_ms + 9_000, 9 * SECOND, 1)
    with pytest.raises(InvariantError, match=r"^C25: log time got back"):
        checker.committed(3, EPOCH_MS + 9_000, 9 * SECOND, 2)


@pytest.mark.slow
def test_seeds_with_a_wrong_clock_hold_it() -> None:
    assert len(WRONG) >= 10
    for seed in WRONG[:6]:
        run_seed(seed)


@pytest.mark.slow
def test_voters_that_say_what_their_wall_clocks_show_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One clock is behind at the first election, and all lose power later."""
    behind = [
        seed
        for seed in range(1, 200)
        if (options := draw_options(seed)).wrong_at_start_ms < 0 and "power_all" in options.faults
    ]
    monkeypatch.setattr(log_clock, "_time_of", lambda report, _: report.wall_ms)
    caught = next(seed for seed in behind if "C25: log time got back" in what_fails(seed))
    monkeypatch.undo()
    run_seed(caught)


def what_fails(seed: int) -> str:
    """What is said of a seed that fails; empty when it holds."""
    try:
        run_seed(seed)
    except SeedFailed as failed:
        return failed.message
    return ""


@pytest.mark.slow
def test_a_leader_that_believes_its_own_wall_clock_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def elected(self: LogClock, term: int, _last_term: int) -> None:
        self.leader_reported(max(self.peek_ms(), self.wall_ms), term)

    monkeypatch.setattr(LogClock, "elected", elected)
    assert any("C25: log time is ahead" in what_fails(seed) for seed in WRONG[:8])


def test_the_wrong_clock_is_that_of_a_member() -> None:
    """A seed that draws stale leaders as well draws its number of members again."""
    for seed in range(20_000):
        options = draw_options(seed)
        assert options.wrong_clock < options.members, seed
