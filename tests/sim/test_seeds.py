"""Fresh seeds of the whole house: `--seeds N` of them, the base printed in pytest's header."""

from __future__ import annotations

import pytest

from copycat.sim.swarm import SEEDS_FOR_MARKS, run_seeds


@pytest.mark.slow
def test_fresh_seeds_hold(seeds: range) -> None:
    """I1 to I10, I12, I14, I16 to I20 and I24 in every one of them."""
    summary = run_seeds(seeds)
    assert not summary.failures, "\n\n".join(report for _, report in summary.failures)
    assert summary.seeds == len(seeds)
    if len(seeds) >= SEEDS_FOR_MARKS:
        assert not summary.never(), f"no seed from {seeds} on ever did {summary.never()}"
    assert list(summary.lines())
