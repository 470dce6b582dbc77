"""I1 to I10, I14 and I16 over random schedules; the simulator proper does it with real bytes."""

from __future__ import annotations

import pytest

from tests.raft.schedule import run_schedule


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_laws_hold_in_every_schedule(block: int) -> None:
    for seed in range(20 * block, 20 * block + 20):
        try:
            run_schedule(seed)
        except Exception as error:
            error.add_note(f"replay: tests.raft.schedule.run_schedule({seed})")
            raise


def test_same_seed_same_history() -> None:
    first, second = run_schedule(7, 200), run_schedule(7, 200)
    assert first.effects == second.effects
