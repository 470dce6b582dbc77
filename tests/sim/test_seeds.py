"""Fresh seeds of the whole house: `--seeds N` of them, the base printed in pytest's header."""

from __future__ import annotations

import pytest

from copycat.sim.baseline import Baseline
from copycat.sim.swarm import run_seeds


@pytest.mark.slow
def test_fresh_seeds_hold(seeds: range) -> None:
    """I1 to I10, I12, I14, I16 to I20 and I24 in every one of them."""
    baseline = Baseline.load()
    summary = run_seeds(seeds)
    assert not summary.failures, "\n\n".join(report for _, report in summary.failures)
    assert summary.seeds == len(seeds)
    missing = summary.missing(baseline)
    assert not missing, f"no seed from {seeds} on ever did {missing}"
    assert list(summary.lines(baseline))
