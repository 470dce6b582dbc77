"""Each benchmark once, tiny, and the report of that run: so that they cannot rot."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.goals import GOALS, judge
from bench.report import compact, goal_table, table
from bench.sweep import plot
from tests.tidy.tree import ROOT

_FUNCTION = re.compile(r"^def (bench_\w+)\(", re.MULTILINE)


def functions() -> set[str]:
    """The benchmarks of all files whose peers are installed with the tests."""
    files = [path for path in (ROOT / "bench").glob("bench_*.py") if "pysyncobj" not in path.name]
    return {name for path in files for name in _FUNCTION.findall(path.read_text("utf-8"))}


def unmeasured(rows: list[dict[str, Any]]) -> list[str]:
    """Goals that name a benchmark or a column which no row of the run has."""
    return [
        goal.what
        for goal in GOALS
        if not any(one["name"].startswith(stem(goal.row)) and goal.column in one for one in rows)
    ]


def stem(name: str) -> str:
    """A row's name without its parameters, of which a smoke test takes one each."""
    return name.partition("[")[0].partition(" ")[0]


def implausible(rows: list[dict[str, Any]]) -> list[str]:
    """What cannot be true of the rows of clusters, at whatever scale."""
    problems: list[str] = []
    for row in rows:
        name = row["name"]
        if not name.startswith(("catchup", "failover", "promotion", "leader_load")):
            continue
        numbers = {key: value for key, value in row.items() if isinstance(value, int | float)}
        problems += [f"{name}: {key} is negative" for key in numbers if numbers[key] < 0]
        parts = ("_per_s", "_ratio", "ratio_", "p50", "p99", "ratio", "of_copy", "first_entry")
        measured = [key for key in numbers if any(part in key for part in parts)]
        problems += [f"{name}: {key} is zero" for key in measured if not numbers[key]]
        if not measured:
            problems.append(f"{name}: nothing was measured")
        for low in (key for key in numbers if "p50" in key):
            high = numbers.get(low.replace("p50", "p99"), numbers[low])
            problems += [f"{name}: {low} is above the p99"] if numbers[low] > high else []
        if "pysyncobj" not in name and numbers.get("failed_commands"):
            problems.append(f"{name}: {numbers['failed_commands']} commands failed")
        if numbers.get("applied_entries_per_s", 0) > numbers.get("entries_per_s", float("inf")):
            problems.append(f"{name}: applied before it was stored")
    return problems


@pytest.mark.slow
def test_each_benchmark_runs_once_and_is_reported(tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "bench", "-q", f"--benchmark-json={target}"],
        cwd=ROOT,
        env={**os.environ, "BENCH_SCALE": "0.001", "BENCH_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    full = json.loads(target.read_text())
    ran = {one["fullname"].rpartition("::")[2].partition("[")[0] for one in full["benchmarks"]}
    assert functions() <= ran
    small = compact(full)
    assert all(row["durability"] for row in small["results"])
    assert "copycat-" in table(small)
    assert not unmeasured(small["results"])
    assert not implausible(small["results"])
    assert goal_table(small).count("\n") == len(GOALS) + 2


def test_what_cannot_be_true_of_a_cluster_is_noticed() -> None:
    good = row("failover[copycat]", p50_ms=1.0, p99_ms=2.0, failed_commands=0)
    assert not implausible([good, row("append[copycat]")])
    assert implausible([good | {"p50_ms": 3.0}])
    assert implausible([good | {"p99_ms": 0.0}])
    assert implausible([good | {"failed_commands": 1}])
    assert implausible([row("leader_load[w=1]", durability=1)])
    assert implausible([row("catchup[1 at once]", entries_per_s=1.0, applied_entries_per_s=2.0)])


def row(name: str, **facts: float) -> dict[str, Any]:
    return {"group": "g", "name": name, **facts}


def test_a_goal_is_reached_landed_missed_or_not_run() -> None:
    rows = [
        row("append[copycat-1-256-fsync]", entries_per_s=9000),
        row("append[zeroed file-1-256-fsync]", entries_per_s=10000),
        row("random_read[copycat]", entries_per_s=100),
        row("open[copycat-clean]", open_ms=1.5),
    ]
    says = {one.goal.what: one.says for one in judge(rows)}
    assert says["... of a bare pwrite + fdatasync"] == "landed"
    assert says["random read, entries/s"] == "missed"
    assert says["open 1 M entries after a clean stop, ms"] == "reached"
    assert says["scan as batches, entries/s"] == "not run"


def test_a_sweep_draws_its_points(tmp_path: Path) -> None:
    points = [{"value": value, "rate": 10.0 * value} for value in (1.0, 2.0, 4.0)]
    plot(tmp_path / "sweep.svg", points, "size, MiB", {"rate": "entries/s"})
    drawn = (tmp_path / "sweep.svg").read_text("utf-8")
    assert "size, MiB" in drawn
    assert "entries/s" in drawn
