"""Coverage of the simulator is measured: a run that misses what it must reach fails."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from copycat.sim.__main__ import main
from copycat.sim.baseline import CHANCE_MAX, SEEDS_MAX, Baseline, least_rate, seeds_needed
from copycat.sim.marks import DECLARED, GROUPS, election_marks
from copycat.sim.options import SeedOptions
from copycat.sim.runner import run_seed
from copycat.sim.swarm import Summary, run_seeds
from copycat.sim.world import SECOND

SHORT = SeedOptions(duration_us=2 * SECOND, faults=("power", "pause"), fault_us=SECOND // 4)


def run_with(path: Path, needed: dict[str, int]) -> int:
    """One short run of the command against a list of its own."""
    Baseline(measured=1, needed=needed).save(path)
    return main(["--seeds", "1", "--from", "3", "--jobs", "1", "--marks", str(path)])


def test_no_run_must_give_up_a_search() -> None:
    """A history that is not decided is reported, and no run needs one."""
    assert "history undecided" not in Baseline.load().needed


@pytest.mark.slow
def test_a_mark_that_is_never_reached_fails_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "marks.json"
    assert run_with(path, {"a pig flies": 1, "election": 1}) == 1
    printed = capsys.readouterr().out
    assert "never reached in these seeds:" in printed
    assert printed.splitlines()[-1].endswith("no seed did: a pig flies")
    # Of two seeds it is required, of one it is not.
    assert run_with(path, {"a pig flies": 2, "election": 1}) == 0


@pytest.mark.slow
def test_the_list_is_written_from_what_a_run_reached(tmp_path: Path) -> None:
    path = tmp_path / "marks.json"
    measured = tmp_path / "measured.json"
    Baseline(measured=1, needed={}).save(path)
    arguments = ["--seeds", "2", "--from", "3", "--jobs", "1", "--marks", str(path)]
    assert main([*arguments, "--write-marks", str(measured)]) == 0
    assert Baseline.load(measured).measured == 2


@pytest.mark.slow
def test_processes_sum_their_marks() -> None:
    seeds = (3, 9, 10)  # short ones
    alone: Counter[str] = Counter()
    for seed in seeds:
        alone.update(run_seed(seed).marks)
    summary = run_seeds(seeds, jobs=2)
    assert +summary.marks == +alone
    assert max(summary.reached.values()) == len(seeds)


def test_a_run_that_failed_is_not_asked_for_marks() -> None:
    summary = Summary(failures=[], marks=Counter(), reached=Counter())
    baseline = Baseline(measured=1, needed={"a pig flies": 1})
    summary.add((1, "I16"))
    assert summary.missing(baseline) == []


def test_the_report_names_what_was_reached_and_what_never_was() -> None:
    summary = Summary(failures=[], marks=Counter(), reached=Counter())
    summary.add(run_seed(5, SHORT))
    lines = list(summary.lines(Baseline(measured=1, needed={"a pig flies": 1})))
    at = lines.index("never reached in these seeds:")
    assert any(line.strip().startswith("power while: ") for line in lines[:at])
    assert any(line.strip() == "a pig flies" for line in lines[at:])
    assert not any(line.strip() == "election" for line in lines[at:])


@pytest.mark.parametrize(("hit", "seeds"), [(1000, 1000), (500, 1000), (60, 1000), (9, 10)])
def test_a_required_mark_is_no_chance(hit: int, seeds: int) -> None:
    needed = seeds_needed(hit, seeds)
    assert needed is not None
    assert needed <= SEEDS_MAX
    assert (1 - hit / seeds) ** needed < CHANCE_MAX
    assert least_rate(hit, seeds) < hit / seeds


def test_what_is_rarer_needs_more_seeds_and_the_rarest_are_only_reported() -> None:
    needs = [seeds_needed(hit, 1000) for hit in (1000, 700, 300, 100, 50, 3, 1, 0)]
    known = [need for need in needs if need is not None]
    assert known == sorted(known)
    assert needs[-3:] == [None, None, None]


def test_a_longer_measurement_of_one_share_is_trusted_more() -> None:
    rates = [least_rate(seeds // 4, seeds) for seeds in (40, 400, 4_000, 40_000)]
    assert rates == sorted(rates)
    assert math.isclose(rates[-1], 0.25, rel_tol=0.1)


def test_only_marks_of_a_long_enough_run_are_missing() -> None:
    baseline = Baseline(measured=9, needed={"a": 100, "b": 300, "c": 2_000})
    assert baseline.missing(["a"], 100) == []
    assert baseline.missing(["a"], 300) == ["b"]
    assert baseline.missing([], 2_000) == ["a", "b", "c"]


def test_the_list_of_the_house_can_be_read_and_groups_are_spelled_as_declared() -> None:
    baseline = Baseline.load()
    assert baseline.needed
    assert all(1 <= needed <= SEEDS_MAX for needed in baseline.needed.values())
    heads = tuple(f"{head} " for head in GROUPS)
    assert {mark for mark in baseline.needed if mark.startswith(heads)} <= DECLARED


@pytest.mark.parametrize(
    ("votes", "leaders", "majority", "marks"),
    [
        # (member, term) -> candidate
        ({(0, 1): 0, (1, 1): 0}, {1: 0}, 2, {"election won by one vote": 1}),
        ({(0, 1): 0, (1, 1): 0, (2, 1): 0}, {1: 0}, 2, {}),
        (
            {(0, 1): 0, (1, 1): 1},
            {},
            2,
            {"split vote": 1, "term without a leader": 1, "election lost by one vote": 2},
        ),
        ({(0, 1): 0}, {1: 0}, 1, {}),
        (
            {(0, 4): 0, (1, 4): 0, (2, 4): 2, (3, 4): 2, (4, 4): 2},
            {4: 2},
            3,
            {"split vote": 1, "election lost by one vote": 1, "election won by one vote": 1},
        ),
    ],
)
def test_how_close_elections_were(
    votes: dict[tuple[int, int], int],
    leaders: dict[int, int],
    majority: int,
    marks: dict[str, int],
) -> None:
    assert +election_marks(votes, leaders, majority) == Counter(marks)


def test_a_state_is_seen_when_a_fault_meets_it() -> None:
    options = msgspec.structs.replace(SHORT, duration_us=8 * SECOND)
    marks = run_seed(9, options).marks
    assert marks["power while it follows"] > 0
    assert marks["power while it is down"] + marks["pause while it is down"] > 0
