"""The laws over random schedules in which members join, change and leave."""

from __future__ import annotations

import pytest

from tests.raft.churn import run_churn, run_memory_churn


@pytest.mark.slow
@pytest.mark.parametrize("block", range(8))
def test_laws_hold_while_members_join_and_leave(block: int) -> None:
    for seed in range(15 * block, 15 * block + 15):
        try:
            run_churn(seed)
        except Exception as error:
            error.add_note(f"replay: tests.raft.churn.run_churn({seed})")
            raise


@pytest.mark.parametrize("seed", [26, 29, 39, 41])
def test_c35_laws_hold_when_all_logs_are_lost(seed: int) -> None:
    run_memory_churn(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(4))
def test_c35_laws_hold_while_all_logs_are_lost_again_and_again(block: int) -> None:
    for seed in range(15 * block, 15 * block + 15):
        try:
            run_memory_churn(seed)
        except Exception as error:
            error.add_note(f"replay: tests.raft.churn.run_memory_churn({seed})")
            raise


@pytest.mark.slow
def test_same_seed_same_history() -> None:
    assert run_churn(7, 200).effects == run_churn(7, 200).effects
