"""I24: power is cut at every operation boundary of every workload, then recovered.

An image is one way in which the disk may come back: which unsynced writes, renames, creates
and unlinks were kept, dropped or torn. Each is recovered, checked against what was promised,
and some are cut again inside the recovery.
"""

from __future__ import annotations

import pytest

from copycat.storage._native import FaultEnv, NativeLog
from copycat.types import CompactionLimits, EntryId, Release
from tests.log.crash.images import Images, run_until, subsets
from tests.log.crash.members import first_start, member_recovered, member_restarts
from tests.log.crash.workloads import (
    WORKLOADS,
    Workload,
    appends,
    batches,
    full_disks,
    index_rebuilds,
    large_entries,
    large_recoveries,
    log_of,
    overlapping_syncs,
    overtaken_syncs,
    overtaken_trims,
    power_losses,
    recovered,
    recoveries,
    restarts,
    rolls,
    spares,
    trims,
    truncations,
    truncations_across_segments,
    truncations_to_nothing,
    votes,
)
from tests.log.oracle import EntryRow, Layout, Oracle
from tests.log.test_native import DIRECTORY

FLOORS: dict[Workload, int] = {
    appends: 200,
    batches: 2500,
    large_entries: 5000,
    rolls: 9500,
    spares: 10_000,
    truncations: 7500,
    truncations_across_segments: 11_000,
    truncations_to_nothing: 4000,
    overtaken_syncs: 1300,
    overlapping_syncs: 8500,
    trims: 10_000,
    overtaken_trims: 5500,
    restarts: 2200,
    recoveries: 5500,
    large_recoveries: 15_000,
    power_losses: 3500,
    index_rebuilds: 3500,
    full_disks: 2500,
    votes: 800,
}
"""At least so many images of each: a workload that shrank, or a net with gaps, is noticed.

With --every=N, an Nth of it.
"""

MEMBER_FLOORS: dict[Workload, int] = {first_start: 550, member_restarts: 6000}


def test_there_are_enough_workloads_and_images() -> None:
    assert tuple(FLOORS) == WORKLOADS
    assert len(FLOORS) + len(MEMBER_FLOORS) >= 14
    assert sum(FLOORS.values()) + sum(MEMBER_FLOORS.values()) >= 100_000


def check(images: Images[Oracle, list[EntryRow]], images_min: int) -> None:
    images.run()
    print(images)  # noqa: T201 - pytest shows it with -s
    assert images.images >= images_min // images.every
    assert images.recoveries > images.images


@pytest.mark.slow
@pytest.mark.parametrize("workload", FLOORS, ids=lambda workload: workload.__name__)
def test_i24_every_crash_image_recovers_what_was_promised(workload: Workload, every: int) -> None:
    check(Images(workload, Oracle, recovered, every=every), FLOORS[workload])


@pytest.mark.slow
@pytest.mark.parametrize("workload", MEMBER_FLOORS, ids=lambda workload: workload.__name__)
def test_f27_a_member_may_be_cut_anywhere(workload: Workload, every: int) -> None:
    check(Images(workload, Oracle, member_recovered, every=every), MEMBER_FLOORS[workload])


# --- the nets catch fish -----------------------------------------------------------------------


def test_the_oracle_sees_a_lost_entry_and_an_invented_one() -> None:
    env, oracle, ended = run_until(appends, Oracle, 10_000)
    assert ended
    log = log_of(env)
    assert oracle.check(log)
    log.truncate(2)
    with pytest.raises(AssertionError, match="acknowledged"):
        oracle.check(log)
    oracle.must.clear()
    oracle.rows[0] = (1, 1, b"else")
    with pytest.raises(AssertionError, match="invented"):
        oracle.check(log)


def compacted() -> tuple[NativeLog, Oracle]:
    """A log that dropped 2 to 7, durably, and what the oracle knows of it."""
    env, oracle = FaultEnv(3), Oracle()
    env.make_directory(DIRECTORY)
    log = log_of(env)
    oracle.append(log, *([50] * 20), term=1)
    oracle.sync(log)
    oracle.release(log, range(2, 8), Release.ANY)
    limits = CompactionLimits(20, 20, 0)
    oracle.rewrite(log, [[row.id] for row in log.segment_stats(limits)[:-1]], limits, major=False)
    assert oracle.pending is not None
    oracle.pending.run()
    assert oracle.install(log) == {2, 3, 4, 5, 6, 7}
    oracle.sync(log)
    assert len(oracle.check(log)) == 14
    return log, oracle


def test_the_oracle_sees_an_entry_that_went_too_early_and_one_that_came_back() -> None:
    log, oracle = compacted()
    oracle.layouts = [Layout(1, frozenset(range(2, 7)))]
    with pytest.raises(AssertionError, match="invented"):
        oracle.check(log)
    oracle.must[7] = oracle.rows[6]
    with pytest.raises(AssertionError, match="acknowledged"):
        oracle.check(log)
    del oracle.must[7]
    oracle.layouts = [Layout(1, frozenset(range(2, 9)))]
    with pytest.raises(AssertionError, match="invented"):
        oracle.check(log)


def test_the_oracle_sees_a_log_that_began_elsewhere() -> None:
    log, oracle = compacted()
    oracle.before = EntryId(1, 20)
    with pytest.raises(AssertionError, match="invented"):
        oracle.check(log)


def test_the_oracle_sees_a_vote_that_was_forgotten() -> None:
    _, oracle, _ = run_until(votes, Oracle, 10_000)
    oracle.check_hard_state(*oracle.saved)
    with pytest.raises(AssertionError, match="not"):
        oracle.check_hard_state(2, oracle.saved[1])


@pytest.mark.parametrize("garbage", [False, True])
def test_the_images_lose_and_tear_what_was_not_synced(garbage: bool) -> None:
    """Without a sync, some images lose an entry, some keep it, and some have half of it."""
    env, oracle, _ = run_until(appends_without_syncs, Oracle, 10_000)
    lost = whole = torn = 0
    for seed in range(60):
        crashed = env.clone()
        crashed.crash(seed, garbage=garbage)
        log = log_of(crashed)
        lost += log.last_index < 3
        whole += log.last_index == 3
        torn += log.report.dropped_bytes > 0
        try:
            oracle.check(log)
        except AssertionError:
            assert log.last_index < 3
    assert min(lost, whole, torn) > 3, (lost, whole, torn)


def appends_without_syncs(env: FaultEnv, oracle: Oracle) -> None:
    log = log_of(env)
    for size in (10, 600, 3000):
        oracle.append(log, size, term=1)
        oracle.synced(oracle.last_index)


@pytest.mark.slow
def test_a_promise_without_its_sync_is_found() -> None:
    with pytest.raises(AssertionError, match="acknowledged entries lost"):
        Images(appends_without_syncs, Oracle, recovered).run()


def test_few_unsynced_changes_are_tried_in_all_their_subsets() -> None:
    assert sorted(subsets(0)) == [0]
    assert sorted(subsets(3)) == list(range(8))
    many = list(subsets(7))
    assert sorted(kept_bits.bit_count() for kept_bits in many) == [0] + [1] * 7 + [6] * 7 + [7]
    assert len(set(many)) == len(many)
