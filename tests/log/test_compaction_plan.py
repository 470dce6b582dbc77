"""What a compaction takes: tables of segments, and laws that hold for all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from copycat.storage.compaction import (
    GENERATIONS,
    MERGE_FANIN,
    NBYTES_MAX,
    SPAN_MAX,
    CompactionTrigger,
    SegmentLimits,
    plan_major,
    plan_minor,
)
from copycat.types import CompactionLimits, SegmentStats

SIZES = SegmentLimits(max_segment_size=1000, max_entries_per_segment=100)
ALL = CompactionLimits(horizon=1 << 40, deletion_floor=1 << 40, snapshot_index=0)


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
    assert plan_minor(stats, ALL, SIZES, 0.5) == [[2, 3]]


def test_minor_is_generational() -> None:
    stats = [segment(1, 3), segment(2, 3, version=2), segment(3, 2, version=2), tail(4)]
    assert plan_minor(stats, ALL, SIZES, 0.5) == [[2]]


def test_minor_counts_generations_up_to_a_point() -> None:
    """Else an old segment would be written again for every entry that it loses."""
    old = segment(1, 1, version=GENERATIONS + 50)
    assert plan_minor([old], ALL, SIZES, 0.1 * GENERATIONS) == [[1]]
    assert plan_minor([old], ALL, SIZES, 0.1 * GENERATIONS + 0.01) == []


def test_minor_does_not_rewrite_for_a_few_bytes() -> None:
    stats = [segment(1, 9, nbytes=16), segment(2, 9, nbytes=18), segment(3, 0)]
    assert plan_minor(stats, ALL, SIZES, 0.5) == [[2]]
    assert plan_minor(stats[:2], ALL, SIZES, 0.5) == [[1, 2]]


def test_minor_merges_neighbours_of_one_generation_that_fit() -> None:
    stats = [segment(1, 9), segment(2, 9), segment(3, 9, version=2), segment(4, 9), tail(5)]
    assert plan_minor(stats, ALL, SIZES, 0.5) == [[1, 2], [3], [4]]
    halves = [segment(number, 5) for number in (1, 2, 3)]
    assert plan_minor(halves, ALL, SIZES, 0.5) == [[1, 2], [3]]


def test_minor_merges_many_small_ones_that_it_would_not_touch() -> None:
    small = [segment(n, 0, version=2, nbytes=100) for n in range(1, MERGE_FANIN + 1)]
    assert plan_minor(small, ALL, SIZES, 0.5) == [[1, 2, 3, 4]]
    assert plan_minor(small[1:], ALL, SIZES, 0.5) == []


def test_minor_merges_small_ones_of_any_generation_above_the_first() -> None:
    small = [segment(n, 0, version=n + 1, nbytes=100) for n in range(1, MERGE_FANIN + 1)]
    assert plan_minor(small, ALL, SIZES, 0.5) == [[1, 2, 3, 4]]
    fresh = [each._replace(version=1) for each in small]
    assert plan_minor(fresh, ALL, SIZES, 0.5) == []


def test_minor_merges_none_that_the_others_do_not_double() -> None:
    """What grows by a tenth with each merge would be written ten times over."""
    small = [segment(n, 0, version=2, nbytes=20) for n in range(1, 7)]
    large = segment(4, 0, version=2, nbytes=400)
    assert plan_minor([*small[:3], large, *small[4:]], ALL, SIZES, 0.5) == []
    ahead = [*small[:4], segment(5, 0, version=2, nbytes=400)]
    assert plan_minor(ahead, ALL, SIZES, 0.5) == [[1, 2, 3, 4]]


def test_a_group_spans_no_more_than_an_index_can_tell() -> None:
    gaps = [
        segment(n, 0)._replace(first_index=n << 29, last_index=((n + 1) << 29) - 1, nbytes=1)
        for n in range(1, 9)
    ]
    assert plan_major(gaps, ALL, SIZES) == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert SPAN_MAX == 4 << 29


def test_a_group_is_no_larger_before_its_rewrite_than_one_file_may_be() -> None:
    """Garbage of more than 4 GiB was planned as one group, since little was left of it; the log
    refuses such a one, and neither a member nor the thread of a bare log survived that."""
    largest = SegmentLimits(max_segment_size=32 << 20, max_entries_per_segment=1 << 20)
    stats = [segment(n, 10, nbytes=32 << 20) for n in range(1, 141)]
    small = [segment(n, 0, version=2, nbytes=15 << 20) for n in range(1, 281)]
    wide = largest._replace(max_segment_size=0xFFFFFFFF)
    for table, plan in (
        (stats, plan_major(stats, ALL, largest)),
        (stats, plan_minor(stats, ALL, largest, 0.5)),
        (small, plan_minor(small, ALL, wide, 0.5)),
    ):
        nbytes = {each.id: each.nbytes for each in table}
        sizes = [sum(nbytes[number] for number in group) for group in plan]
        assert len(sizes) > 1
        assert max(sizes) <= NBYTES_MAX < 1 << 32
        assert max(sizes) > NBYTES_MAX - (64 << 20), "as much as fits"


def test_a_segment_above_that_is_a_group_by_itself() -> None:
    large = segment(2, 10, nbytes=NBYTES_MAX + 1)
    assert plan_major([segment(1, 10), large, segment(3, 10)], ALL, SIZES) == [[1], [2], [3]]


def test_a_run_is_worth_it_when_a_segments_threshold_was_released() -> None:
    trigger = CompactionTrigger(0.5, 1 << 20)
    assert trigger.threshold(10) == 1024
    assert trigger.threshold(100_000) == 50_000
    assert trigger.threshold(10 << 20) == 1 << 19
    stats = [segment(n, 0)._replace(entries=8000, last_index=n * 10_000) for n in range(1, 4)]
    trigger.observe([each._replace(first_index=each.last_index - 9999) for each in stats])
    assert trigger.threshold(30_000) == 4000
    assert trigger.threshold(30_000 + 1_000_000) == (24_000 + 1_000_000) / 32


def test_before_the_first_run_a_segment_is_as_large_as_those_that_are_sealed() -> None:
    """Else a log of small segments would wait for the threshold of all its entries."""
    trigger, asked = CompactionTrigger(0.9, 1 << 20), list[int]()

    def stats(sealed: int) -> list[SegmentStats]:
        asked.append(sealed)
        rows = [segment(n, 0)._replace(entries=8000, last_index=n * 8000) for n in range(1, 4)]
        return [*rows[:sealed], tail(4)]

    trigger.observe_first(1023, lambda: stats(3))
    trigger.observe_first(1024, lambda: stats(0))
    assert trigger.threshold(100_000) == 90_000, "nothing is sealed yet"
    for _ in range(2):
        trigger.observe_first(2000, lambda: stats(3))
    assert trigger.threshold(100_000) == 7200
    assert asked == [0, 3], "once there is something to see it is seen"


def test_nothing_above_the_horizon_or_in_the_tail_is_taken() -> None:
    stats = [segment(1, 10), segment(2, 10), tail(3)]
    limits = ALL._replace(horizon=19)
    assert plan_minor(stats, limits, SIZES, 0.5) == [[1]]
    assert plan_major(stats, limits, SIZES) == [[1]]


def test_major_takes_a_prefix_in_order_and_merges_what_fits() -> None:
    stats = [segment(1, 5), segment(2, 5), segment(3, 0), segment(4, 1), tail(5)]
    assert plan_major(stats, ALL, SIZES) == [[1, 2], [4]]


def test_major_leaves_a_clean_log_alone() -> None:
    assert plan_major([segment(1, 0), segment(2, 0), tail(3)], ALL, SIZES) == []


def test_the_count_of_entries_bounds_a_merge_too() -> None:
    stats = [segment(n, 1, nbytes=10) for n in range(1, 16)]
    smaller = SIZES._replace(max_entries_per_segment=20)
    assert [len(group) for group in plan_major(stats, ALL, smaller)] == [2] * 7 + [1]


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
        plan_minor(stats, limits, SIZES, threshold),
        plan_major(stats, limits, SIZES),
    ):
        flat = [number for group in groups for number in group]
        assert flat == sorted(set(flat)), "in order, none twice"
        for group in groups:
            assert group == list(range(group[0], group[0] + len(group))), "neighbours"
            assert all(by_id[number].last_index <= horizon for number in group)
    for group in plan_minor(stats, limits, SIZES, threshold):
        members = [by_id[number] for number in group]
        if len({each.version for each in members}) > 1:
            assert len(group) >= MERGE_FANIN
            assert min(each.version for each in members) > 1


@given(SEGMENTS)
def test_a_major_passes_over_no_segment_that_has_something_to_drop(
    stats: list[SegmentStats],
) -> None:
    planned = {number for group in plan_major(stats, ALL, SIZES) for number in group}
    assert planned >= {each.id for each in stats if each.removable_major}
