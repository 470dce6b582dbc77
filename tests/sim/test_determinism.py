"""One seed is one history, whatever the process and its hash seed (I20)."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from copycat.sim.draws import draw_options
from copycat.sim.runner import run_seed

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from copycat.sim.runner import run_seed
for seed in map(int, sys.argv[1:]):
    result = run_seed(seed)
    print(seed, result.steps, result.commands, result.digest, sorted(result.marks.items()))
"""
SEEDS = range(1, 13)
"""They are a part of the control of the seeded bugs, too, and run here alone: twice."""


def traces(hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, SEEDS)],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.mark.slow
def test_a_seed_is_one_history_under_any_hash_seed() -> None:
    with ThreadPoolExecutor() as pool:  # a process each
        first, second = pool.map(traces, ["1", "4242"])
    assert len(first.splitlines()) == len(SEEDS)
    assert first == second


def test_options_follow_from_the_seed_and_differ_between_seeds() -> None:
    assert draw_options(7) == draw_options(7)
    assert len({repr(draw_options(seed)) for seed in range(50)}) == 50


def test_another_seed_is_another_history() -> None:
    assert run_seed(2001).digest != run_seed(2002).digest
