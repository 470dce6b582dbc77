"""`python -m copycat.sim --seed N` replays one seed; `--seeds N` searches many fresh ones.

The run fails when a seed does, or when the seeds together miss a mark that so many must reach.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

from copycat.sim.baseline import BASELINE, Baseline
from copycat.sim.runner import SeedFailed, run_seed
from copycat.sim.swarm import Summary, run_seeds
from copycat.sim.world import SECOND

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """0 when every seed held, and together they reached what they must."""
    parser = argparse.ArgumentParser(prog="python -m copycat.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--seeds", type=int, default=200, help="how many fresh ones (200)")
    parser.add_argument("--from", type=int, dest="base", help="the first of them (drawn)")
    parser.add_argument("--jobs", type=int, default=0, help="processes (one a core)")
    parser.add_argument(
        "--marks", type=Path, default=BASELINE, help="which marks a run must reach (marks.json)"
    )
    parser.add_argument("--write-marks", type=Path, help="write that file, from what is reached")
    parser.add_argument("--stop-after", type=int, default=5, help="failures to stop after (5)")
    options = parser.parse_args(arguments)
    baseline = Baseline.load(options.marks)
    if options.seed is not None:
        return _one(options.seed, baseline)
    base = options.base
    if base is None:
        base = int.from_bytes(os.urandom(5), "little")
    print(f"{options.seeds} seeds from {base} (--seeds {options.seeds} --from {base})")
    summary = run_seeds(
        range(base, base + options.seeds),
        options.jobs,
        stop_after=options.stop_after,
        say=lambda report: print(f"{report}\n", file=sys.stderr, flush=True),
    )
    for line in summary.lines(baseline):
        print(line)
    if options.write_marks is not None and not summary.failures:
        Baseline.of(summary.reached, summary.seeds).save(options.write_marks)
        return 0
    return 1 if summary.failures or summary.missing(baseline) else 0


def _one(seed: int, baseline: Baseline) -> int:
    try:
        result = run_seed(seed)
    except SeedFailed as failed:
        print(failed.message, file=sys.stderr)
        return 1
    summary = Summary(failures=[], marks=Counter(), reached=Counter())
    summary.add(result)
    for line in summary.lines(baseline):
        print(line)
    print(f"seed {seed} held: {result.simulated_us / SECOND:.1f} s, trace {result.digest:08x}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
