"""A seed draws the same faults each time, and every kind of them."""

from __future__ import annotations

from tests.chaos.faults import KINDS, draw_rounds, summary_of


def test_a_seed_draws_the_same_faults() -> None:
    assert draw_rounds(5, 40, 10.0) == draw_rounds(5, 40, 10.0)
    assert draw_rounds(5, 40, 10.0) != draw_rounds(6, 40, 10.0)


def test_a_run_has_as_many_faults_as_it_is_told_and_every_kind() -> None:
    for count in (1, len(KINDS), 15, 200):
        rounds = draw_rounds(count, count, 10.0)
        faults = [fault for one in rounds for fault in one]
        assert [fault.number for fault in faults] == list(range(1, count + 1))
        if count >= len(KINDS):
            assert {fault.kind for fault in faults} == set(KINDS)
        assert all(fault.seconds == 10.0 for fault in faults if fault.kind == "pause")


def test_the_summary_counts_each_kind() -> None:
    rounds = draw_rounds(3, len(KINDS), 1.0)
    assert summary_of(rounds) == ", ".join(f"1 {kind}" for kind in KINDS)
