"""F16, I24: power is cut at every operation boundary of a rewrite and its installation.

An image must come back as exactly the old segments or exactly the new ones, with every entry
that was acknowledged and not released. And every byte of a compacted segment and of its index is
flipped once.
"""

from __future__ import annotations

import pytest

from copycat.errors import CorruptLogError, FormatVersionError
from copycat.storage._native import FaultEnv, encode_gap
from copycat.types import Release
from tests.log.contract import contents, durable, expected, grow
from tests.log.contract_compaction import limits, sealed
from tests.log.crash.compactions import (
    COMPACTION_WORKLOADS,
    Compaction,
    Image,
    PackedPromises,
    Promises,
    Workload,
    before_a_roll,
    compaction_recovered,
    filled,
    major,
    minor,
    twice,
)
from tests.log.crash.images import Images
from tests.log.oracle import EntryRow
from tests.log.test_native import DIRECTORY, open_small

FLOORS: dict[Workload, int] = {minor: 6000, major: 5000, twice: 5000, before_a_roll: 7500}
"""At least so many images of each; with --every=N, an Nth of it."""
THIRD = 3
"""These have many boundaries, and one of each three crashes there is enough."""


def test_every_workload_has_its_floor() -> None:
    assert tuple(FLOORS) == COMPACTION_WORKLOADS


@pytest.mark.slow
@pytest.mark.parametrize("promises", [Promises, PackedPromises], ids=["plain", "packed"])
@pytest.mark.parametrize("workload", FLOORS, ids=lambda workload: workload.__name__)
def test_f16_every_crash_image_is_the_old_set_or_the_new(
    workload: Workload, promises: type[Promises], every: int
) -> None:
    sizes: set[int] = set()

    def recovered(env: FaultEnv, promises: Promises) -> Image:
        outcome = compaction_recovered(env, promises)
        sizes.add(len(outcome[1]))
        return outcome

    images = Images(workload, promises, recovered, every=THIRD * every)
    images.run()
    print(images)  # noqa: T201 - pytest shows it with -s
    assert images.images >= FLOORS[workload] // every
    assert len(sizes) > 3


def compacted(promises: type[Promises] = Promises) -> tuple[FaultEnv, str, list[EntryRow]]:
    """A closed log whose first segment was compacted, that segment's path, and the entries."""
    env = FaultEnv(2)
    env.make_directory(DIRECTORY)
    log = filled(env, promises())
    Compaction(log, {2, 3, 5, 6, 8}, merge=2)()
    rows = contents(log)
    log.close()
    return env, f"{DIRECTORY}/1-2", rows


def test_f16_leftovers_of_an_unfinished_rewrite_are_obsolete() -> None:
    env = FaultEnv(2)
    env.make_directory(DIRECTORY)
    log = filled(env, Promises())
    rows = contents(log)
    log.release(range(1, 10), Release.ANY)
    log.rewrite([sealed(log)[:2]], limits(20), major=False).run()
    rewrite = log.rewrite([sealed(log)[2:]], limits(20), major=False)
    rewrite.run()
    names = env.list(DIRECTORY)
    assert any(name.endswith("-2.log") for name in names)
    env.crash(1)
    log = open_small(env, entries=5)
    assert contents(log) == rows
    assert not [name for name in env.list(DIRECTORY) if "-2." in name]


@pytest.mark.slow
def test_f2_each_byte_of_a_compacted_segment_is_flipped_once() -> None:
    env, path, _ = compacted()
    for at in (*range(64), *range(4096, env.size(f"{path}.log"))):
        flipped = env.clone()
        flipped.corrupt(f"{path}.log", at, 1 << (at % 8))
        damage = FormatVersionError if 8 <= at < 12 else CorruptLogError
        with pytest.raises(damage, match=r"1-2\.log"):
            read_all(flipped)
        if at >= 4096 + 32:  # behind the mark: the index is good, so reading finds it too
            with pytest.raises(CorruptLogError):
                contents(open_small(flipped.clone(), entries=5))


@pytest.mark.slow
def test_f2_each_byte_of_a_packed_segment_is_flipped_once() -> None:
    """Header, blocks and table: all of it is found when the log is opened or read."""
    env, path, _ = compacted(PackedPromises)
    assert env.read_file(f"{path}.log").startswith(b"COPYPAK")
    for at in range(env.size(f"{path}.log")):
        flipped = env.clone()
        flipped.corrupt(f"{path}.log", at, 1 << (at % 8))
        damage = FormatVersionError if 8 <= at < 12 else CorruptLogError
        with pytest.raises(damage, match=r"1-2\.log"):
            contents(open_small(flipped, entries=5))


def read_all(env: FaultEnv) -> None:
    """Open, and read the first segment as a compaction does."""
    log = open_small(env, entries=5)
    log.rewrite([sealed(log)[:1]], limits(20), major=False).run()


@pytest.mark.slow
def test_f14_each_byte_of_a_compacted_index_is_flipped_once() -> None:
    env, path, rows = compacted()
    for at in range(env.size(f"{path}.idx")):
        flipped = env.clone()
        flipped.corrupt(f"{path}.idx", at, 1 << (at % 8))
        log = open_small(flipped, entries=5)
        assert contents(log) == rows
        assert log.report.rebuilt_indexes == 1


def test_f3_a_segment_that_lacks_a_gap_is_refused() -> None:
    """A compacted segment in whose place lies the uncompacted one's sibling is no gap."""
    env, path, _ = compacted()
    env.remove(f"{path}.log")
    with pytest.raises(CorruptLogError, match="missing"):
        open_small(env, entries=5)


def test_f3_a_rewrite_that_misses_a_file_of_the_log_says_so() -> None:
    """What was trimmed away is no damage; what the log still names is."""
    env = FaultEnv(2)
    env.make_directory(DIRECTORY)
    log = filled(env, Promises())
    log.release(range(1, 10), Release.ANY)
    rewrite = log.rewrite([sealed(log)[:2], sealed(log)[2:]], limits(20), major=False)
    env.remove(f"{DIRECTORY}/2-1.log")
    rewrite.run()
    before = contents(log)
    with pytest.raises(CorruptLogError, match=r"2-1\.log is missing"):
        log.install(rewrite)
    assert contents(log) == before


def test_f1_a_torn_tail_that_begins_with_a_gap_is_dropped() -> None:
    lost = whole = 0
    for seed in range(40):
        env = FaultEnv(2)
        env.make_directory(DIRECTORY)
        log = open_small(env, entries=50)
        grow(log, 3)
        durable(log)
        log.append(encode_gap(1, 4, 1000, 9, 900))
        grow(log, 1)
        env.crash(seed)
        log = open_small(env, entries=50)
        assert contents(log)[:3] == expected(1, 4)
        assert log.last_index in (3, 999, 1000)
        lost += log.last_index == 3
        whole += log.last_index == 1000
    assert lost
    assert whole
