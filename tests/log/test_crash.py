"""G5, I24: power is cut at every operation boundary of every workload, then recovered.

An image is one way in which the disk may come back: which unsynced writes, renames, creates
and unlinks were kept, dropped or torn. Each is recovered, checked against what was promised,
and some are cut again inside the recovery.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from copycat.errors import DiskError
from copycat.log._native import FaultEnv, NativeLog, open_hard_state
from copycat.log.directory import MemberDirectory
from copycat.types import MemberId
from tests.log.oracle import Oracle, Row
from tests.log.test_directory import open_member
from tests.log.test_native import DIRECTORY, open_small

Workload = Callable[[FaultEnv, Oracle], None]

SEEDS = 24
"""Images of each boundary."""

FIRST_START_SEEDS = 30

MEMBER = "/disk/member"


def log_of(env: FaultEnv) -> NativeLog:
    return open_small(env, entries=5)


def appends(env: FaultEnv, oracle: Oracle) -> None:
    log = log_of(env)
    for size in (10, 600, 0, 2000):
        oracle.append(log, size, term=1)
        oracle.sync(log)


def batches(env: FaultEnv, oracle: Oracle) -> None:
    log = log_of(env)
    for term in (1, 1, 2):
        oracle.append(log, 30, 900, term=term)
        oracle.append(log, 500, term=term)
        oracle.sync(log)
        log.mark_idle()
    oracle.append(log, 700, 700, term=2)


def rolls(env: FaultEnv, oracle: Oracle) -> None:
    log = log_of(env)
    for step in range(6):
        oracle.append(log, 40, 3000, 10, term=1 + step // 3)
        if log.wants_spare():
            log.prepare_spare()
        if step % 2:
            oracle.sync(log)
    oracle.sync(log)


def truncations(env: FaultEnv, oracle: Oracle) -> None:
    log = log_of(env)
    oracle.append(log, 100, 100, 100, 100, term=1)
    oracle.sync(log)
    oracle.truncate(log, 2)
    oracle.append(log, 900, term=2)
    oracle.sync(log)
    oracle.append(log, *([50] * 8), term=2)
    oracle.sync(log)
    oracle.truncate(log, 4)
    oracle.append(log, 60, 60, term=3)
    oracle.truncate(log, 5)
    oracle.append(log, 61, 61, term=4)
    oracle.sync(log)


def overtaken_sync(env: FaultEnv, oracle: Oracle) -> None:
    log = log_of(env)
    oracle.append(log, 100, 100, 100, 100, term=1)
    ticket = log.begin_sync()
    oracle.truncate(log, 2)
    oracle.append(log, 900, 900, term=2)
    ticket.run()
    oracle.synced(log.end_sync(ticket))
    oracle.sync(log)


def trims(env: FaultEnv, oracle: Oracle) -> None:
    log = log_of(env)
    for _ in range(5):
        oracle.append(log, 100, 100, 100, term=1)
        oracle.sync(log)
    oracle.trim(log, 7)
    oracle.append(log, 100, 100, term=2)
    oracle.sync(log)
    oracle.trim(log, 14)
    oracle.append(log, 100, term=2)
    oracle.sync(log)


def restarts(env: FaultEnv, oracle: Oracle) -> None:
    for term in (1, 2, 3):
        log = log_of(env)
        oracle.append(log, 100, 1000, term=term)
        oracle.sync(log)
        oracle.append(log, 20, term=term)
        log.close()
        oracle.synced(oracle.last_index)


def recoveries(env: FaultEnv, oracle: Oracle) -> None:
    """C7: what a killed process left readable is copied and synced before it counts."""
    for term in (1, 2, 3):
        log = log_of(env)
        oracle.adopt(oracle.check(log), log.last_index)
        oracle.append(log, 100, 1000, term=term)
        oracle.sync(log)
        oracle.append(log, 300, term=term)
        env.crash_process()
    log = log_of(env)
    oracle.adopt(oracle.check(log), log.last_index)


def votes(env: FaultEnv, oracle: Oracle) -> None:
    log = log_of(env)
    hard_state = open_hard_state(env, DIRECTORY, create=True)
    for term, vote in ((1, 5), (2, 0), (2, 7), (9, 2**100)):
        oracle.saving = (term, MemberId(vote))
        ticket = hard_state.begin_save(term, MemberId(vote))
        ticket.run()
        hard_state.end_save(ticket)
        oracle.saved = oracle.saving
        oracle.append(log, 30, term=term)
        oracle.sync(log)


WORKLOADS: tuple[Workload, ...] = (
    appends, batches, rolls, truncations, overtaken_sync, trims, restarts, recoveries, votes,
)  # fmt: skip


def run_until(workload: Workload, operations: int) -> tuple[FaultEnv, Oracle, bool]:
    """The disk and the promises when power is cut after so many operations."""
    env = FaultEnv(3)
    env.make_directory(DIRECTORY)
    oracle = Oracle()
    env.stop_after(operations)
    try:
        workload(env, oracle)
    except DiskError:
        return env, oracle, False
    return env, oracle, True


def recovered(env: FaultEnv, oracle: Oracle) -> list[Row]:
    log = log_of(env)
    found = oracle.check(log)
    if oracle.saved[0] or oracle.saving:
        hard_state = open_hard_state(env, DIRECTORY, create=True)
        oracle.check_hard_state(hard_state.current_term, hard_state.voted_for)
    return found


def cut_again(
    crashed: FaultEnv,
    oracle: Oracle,
    found: list[Row],
    seed: int,
    recover: Callable[[FaultEnv, Oracle], list[Row]] = recovered,
) -> int:
    """Power is lost inside the recovery, at each of its boundaries; the next one agrees."""
    for boundary in itertools.count():
        env = crashed.clone()
        env.stop_after(boundary)
        try:
            recover(env, oracle)
            ended = True
        except DiskError:
            ended = False
        env.crash(seed + boundary)
        again = recover(env, oracle)
        if ended:
            assert again == found, "a recovery that ended is durable"
            return boundary + 1
    raise AssertionError


def images_of(env: FaultEnv, oracle: Oracle, boundary: int) -> int:
    """Crash this disk in many ways, recover each; how many images that were."""
    cuts: list[int] = []
    for seed in range(SEEDS):
        crashed = env.clone()
        crashed.crash(1000 * boundary + seed)
        fresh = crashed.clone()
        found = recovered(crashed, oracle)
        crashed.crash(seed)
        assert recovered(crashed, oracle) == found, "a recovery is idempotent"
        if seed % 8 == boundary % 8:
            cuts.append(cut_again(fresh, oracle, found, 77 * boundary))
    return 2 * SEEDS + sum(cuts)


@pytest.mark.slow
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.__name__)
def test_i24_every_crash_image_recovers_what_was_promised(workload: Workload) -> None:
    images = 0
    for boundary in itertools.count():
        env, oracle, ended = run_until(workload, boundary)
        images += images_of(env, oracle, boundary)
        if ended:
            break
    assert images > 1000
    print(f"{workload.__name__}: {images} images")  # noqa: T201 - pytest shows it with -s


def test_the_oracle_sees_a_lost_entry_and_an_invented_one() -> None:
    env, oracle, ended = run_until(appends, 10_000)
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


def first_start(env: FaultEnv, oracle: Oracle) -> MemberDirectory:
    directory = open_member(env, MEMBER)
    hard_state = directory.hard_state
    oracle.saving = (1, directory.identity.member)
    ticket = hard_state.begin_save(*oracle.saving)
    ticket.run()
    hard_state.end_save(ticket)
    oracle.saved = oracle.saving
    oracle.append(directory.native, 10, 20, term=1)
    oracle.sync(directory.native)
    return directory


def member_recovered(env: FaultEnv, oracle: Oracle) -> list[Row]:
    directory = open_member(env, MEMBER)
    if directory.fresh:
        assert oracle.saved[0] == 0, "a directory that promised something is not fresh"
    else:
        oracle.check_hard_state(directory.current_term, directory.voted_for)
    return oracle.check(directory.native)


@pytest.mark.slow
def test_f27_a_first_start_may_be_cut_anywhere() -> None:
    for boundary in itertools.count():
        env, oracle = FaultEnv(5), Oracle()
        env.stop_after(boundary)
        try:
            first_start(env, oracle)
            ended = True
        except DiskError:
            ended = False
        for seed in range(FIRST_START_SEEDS):
            crashed = env.clone()
            crashed.crash(100 * boundary + seed)
            fresh = crashed.clone()
            found = member_recovered(crashed, oracle)
            if seed % 8 == boundary % 8:
                cut_again(fresh, oracle, found, 77 * boundary, member_recovered)
        if ended:
            break
    assert boundary > 20


def test_the_images_lose_and_tear_what_was_not_synced() -> None:
    """The nets catch fish: without a sync, some images lose an entry and some keep it."""

    def careless(env: FaultEnv, oracle: Oracle) -> None:
        log = log_of(env)
        for size in (10, 600, 3000):
            oracle.append(log, size, term=1)
            oracle.synced(oracle.last_index)

    env, oracle, _ = run_until(careless, 10_000)
    lost = kept = torn = 0
    for seed in range(60):
        crashed = env.clone()
        crashed.crash(seed)
        log = log_of(crashed)
        lost += log.last_index < 3
        kept += log.last_index == 3
        torn += log.report.dropped_bytes > 0
        try:
            oracle.check(log)
        except AssertionError:
            assert log.last_index < 3
    assert min(lost, kept, torn) > 3, (lost, kept, torn)
