"""Clusters whose members change under faults: what some seeds reach, and that they hold."""

from __future__ import annotations

from collections import Counter

import pytest

from copycat.raft.healing import HealingCause
from copycat.sim.draws import CHURN_FROM, draw_options
from copycat.sim.runner import run_seed

SEEDS = (1_000_029, 1_000_128, 1_000_227, 1_000_230)
"""Quick ones, of many hundreds."""
ZONE_SEEDS = (1_000_205, 1_000_229, 1_000_277, 1_000_481)
HEALED = {f"healing: {cause}" for cause in HealingCause if cause is not HealingCause.LONG_AWAY}
REACHED = {
    "newcomer started",
    "add done",
    "promote done",
    "demote done",
    "remove done",
    "log and state deleted",
    "configuration committed",
}


def test_smaller_seeds_never_change_their_members() -> None:
    changing = [seed for seed in range(300) if "change" in draw_options(seed).faults]
    assert changing == []
    fresh = [draw_options(seed) for seed in range(CHURN_FROM, CHURN_FROM + 300)]
    assert 60 < sum("change" in one.faults and not one.has_zones for one in fresh) <= 100
    assert sum(one.has_zones for one in fresh) == 25
    assert all(one.joiners > 0 for one in fresh if "change" in one.faults)
    assert any(one.workload.is_keyed for one in fresh if one.joiners)


@pytest.mark.slow
def test_leaders_heal_where_domains_come_and_go() -> None:
    marks: Counter[str] = Counter()
    for seed in ZONE_SEEDS:
        marks.update(run_seed(seed).marks)
    assert not {name for name in HEALED if not marks[name]}


@pytest.mark.slow
def test_members_change_under_faults() -> None:
    marks: Counter[str] = Counter()
    for seed in SEEDS:
        marks.update(run_seed(seed).marks)
    assert not {name for name in REACHED if not marks[name]}
