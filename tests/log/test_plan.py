"""What a compaction takes: tables of segments, and laws that hold for all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from copycat.log.plan import MERGE_FANIN, Shape, plan_major, plan_minor
from copycat.types import CompactionLimits, SegmentStats

SHAPE = Shape(max_segment_size=1000, max_entries_per_segment=100)
ALL = CompactionLimits(horizon=1 << 40, floor=1 << 40, snapshot_index=0)


def segment(number: int, removable: int, *, version: int = 1, nbytes: int = 1000) -> SegmentStats:
    """The `number`th segment: ten entries, of which so many would go."""
    first = number * 10 - 9
    return SegmentStats(
        number, version, first, first + 9, nbytes, 10, removable, removable, removable, True
    )


def tail(number: int) -> SegmentStats:
    return segment(number, 10)._replace(is_sealed=False)


def test_minor_takes_what_reaches_the_threshold() -> None:
    stats = [segment(1, 4), segment(2, 5), segment(3, 10), segment(4, 3), tail(5)]
    assert plan_minor(stats, ALL, SHAPE, 0.5) == [[2, 3]]


def test_minor_is_generational_z10() -> None:
    stats = [segment(1, 3), segment(2, 3, version=2), segment(3, 2, version=2), tail(4)]
    assert plan_minor(stats, ALL, SHAPE, 0.5) == [[2]]


def test_minor_merges_neighbours_of_one_generation_that_fit() -> None:
    stats = [segment(1, 9), segment(2, 9), segment(3, 9, version=2), segment(4, 9), tail(5)]
    assert plan_minor(stats, ALL, SHAPE, 0.5) == [[1, 2], [3], [4]]
    halves = [segment(number, 5) for number in (1, 2, 3)]
    assert plan_minor(halves, ALL, SHAPE, 0.5) == [[1, 2], [3]]


def test_minor_merges_many_small_ones_that_it_would_not_touch() -> None:
    small = [segment(n, 0, version=2, nbytes=100) for n in range(1, MERGE_FANIN + 1)]
    assert plan_minor(small, ALL, SHAPE, 0.5) == [[1, 2, 3, 4]]
    assert plan_minor(small[1:], ALL, SHAPE, 0.5) == []


def test_nothing_above_the_horizon_or_in_the_tail_is_taken() -> None:
    stats = [segment(1, 10), segment(2, 10), tail(3)]
    limits = ALL._replace(horizon=19)
    assert plan_minor(stats, limits, SHAPE, 0.5) == [[1]]
    assert plan_major(stats, limits, SHAPE) == [[1]]


def test_major_takes_a_prefix_in_order_and_merges_what_fits() -> None:
    stats = [segment(1, 5), segment(2, 5), segment(3, 0), segment(4, 1), tail(5)]
    assert plan_major(stats, ALL, SHAPE) == [[1, 2], [4]]


def test_major_leaves_a_clean_log_alone() -> None:
    assert plan_major([segment(1, 0), segment(2, 0), tail(3)], ALL, SHAPE) == []


def test_the_count_of_entries_bounds_a_merge_too() -> None:
    stats = [segment(n, 1, nbytes=10) for n in range(1, 16)]
    shape = SHAPE._replace(max_entries_per_segment=20)
    assert [len(group) for group in plan_major(stats, ALL, shape)] == [2] * 7 + [1]


SEGMENTS = st.lists(
    st.tuples(st.integers(0, 10), st.integers(1, 3), st.integers(1, 1200)), max_size=12
).map(
    lambda rows: [
        segment(number, removable, version=version, nbytes=nbytes)
        for number, (removable, version, nbytes) in enumerate(rows, 1)
    ]
)


@given(SEGMENTS, st.integers(0, 130), st.floats(0.1, 2))
def test_laws_of_every_plan(stats: list[SegmentStats], horizon: int, threshold: float) -> None:
    limits = ALL._replace(horizon=horizon)
    by_id = {each.id: each for each in stats}
    for groups in (
        plan_minor(stats, limits, SHAPE, threshold),
        plan_major(stats, limits, SHAPE),
    ):
        flat = [number for group in groups for number in group]
        assert flat == sorted(set(flat)), "in order, none twice"
        for group in groups:
            assert group == list(range(group[0], group[0] + len(group))), "neighbours"
            assert all(by_id[number].last_index <= horizon for number in group)
    assert all(
        len({by_id[number].version for number in group}) == 1
        for group in plan_minor(stats, limits, SHAPE, threshold)
    )


@given(SEGMENTS)
def test_a_major_passes_over_no_segment_that_has_something_to_drop(
    stats: list[SegmentStats],
) -> None:
    taken = {number for group in plan_major(stats, ALL, SHAPE) for number in group}
    assert taken >= {each.id for each in stats if each.removable_major}
