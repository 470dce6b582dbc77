"""F16, G5, I24: power is cut at every operation boundary of a rewrite and its installation.

An image must come back as exactly the old segments or exactly the new ones, with every entry
that was acknowledged and not let go. And every byte of a compacted segment and of its index is
flipped once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from copycat.errors import CorruptLogError, DiskError, FormatVersionError
from copycat.log._native import FaultEnv, NativeLog, encode_gap
from copycat.types import EntryKind, Release
from tests.log.contract import batch, contents, durable, expected, grow
from tests.log.contract_cleaning import shape
from tests.log.contract_compaction import compact, limits, sealed
from tests.log.oracle import Row
from tests.log.test_native import DIRECTORY, open_small

SEEDS = 12
"""Images of each boundary."""

Image = tuple[int, list[Row]]


class Promises:
    """Which whole states a crash may leave behind: (first_index, entries)."""

    def __init__(self) -> None:
        self.allowed: list[Image] = []
        self.minimum: list[Row] = []
        """Acknowledged and not released: in every state."""

    def between(self, *states: Image) -> None:
        self.allowed = list(states)
        kept = [set(rows) for _, rows in states]
        self.minimum = sorted(set.intersection(*kept))


Workload = Callable[[FaultEnv, Promises, bool], None]
"""The last one: whether rewritten segments are packed."""


def state(log: NativeLog) -> Image:
    return log.first_index, contents(log)


def step(log: NativeLog, promises: Promises, change: Compaction) -> None:
    """`change` from one durable state to the next; a crash inside may leave either."""
    old = state(log)
    twin = _twin(old, change)
    promises.between(old, twin)
    change()
    durable(log)
    assert state(log) == twin
    promises.between(twin)


def _twin(old: Image, change: Compaction) -> Image:
    """What the entries are after a compaction that drops what `change.gone` names."""
    first, rows = old
    return first, [row for row in rows if row[0] not in change.gone]


class Compaction:
    """Release, rewrite and install; `gone` is what it drops."""

    def __init__(
        self, log: NativeLog, gone: set[int], *, major: bool = False, merge: int = 1
    ) -> None:
        self.log = log
        self.gone = gone
        self._major = major
        self._merge = merge

    def __call__(self) -> None:
        how = Release.SEQUENTIAL if self._major else Release.ANY
        self.log.release(sorted(self.gone), how)
        ids = sealed(self.log)
        groups = [ids[at : at + self._merge] for at in range(0, len(ids), self._merge)]
        compact(self.log, limits(self.log.last_index), major=self._major, groups=groups)


def filled(env: FaultEnv, promises: Promises, packs: bool = False, count: int = 22) -> NativeLog:
    """Entries of two terms, durable; until then any prefix is allowed, so nothing is checked."""
    log = open_small(env, entries=5, compress=packs)
    grow(log, count - 8)
    log.append(batch(log.last_index + 1, b"members", kind=EntryKind.CONFIGURATION))
    grow(log, 7, term=2)
    durable(log)
    promises.between(state(log))
    return log


def minor(env: FaultEnv, promises: Promises, packs: bool) -> None:
    log = filled(env, promises, packs)
    step(log, promises, Compaction(log, {1, 2, 4, 6, 7, 8, 9, 10}))
    grow(log, 1, term=2)


def major(env: FaultEnv, promises: Promises, packs: bool) -> None:
    log = filled(env, promises, packs)
    step(log, promises, Compaction(log, set(range(2, 14)), major=True, merge=3))


def twice(env: FaultEnv, promises: Promises, packs: bool) -> None:
    """A compacted segment is compacted again, and what became one is merged with more."""
    log = filled(env, promises, packs)
    step(log, promises, Compaction(log, {1, 3, 5, 7, 9}, merge=2))
    step(log, promises, Compaction(log, {2, 4, 6, 8}, merge=2))


def before_a_roll(env: FaultEnv, promises: Promises, packs: bool) -> None:
    """The installed shape goes into a pending manifest first, by a roll that follows."""
    log = filled(env, promises, packs)
    old = state(log)
    gone = {1, 2, 3, 6, 7}
    rows = [row for row in old[1] if row[0] not in gone]
    new = [(index, 2, b"2:%d" % index) for index in range(23, 30)]
    states = [(1, kept + new[:count]) for kept in (old[1], rows) for count in range(8)]
    promises.between(*states)
    Compaction(log, gone)()
    grow(log, 7, term=2)
    durable(log)
    promises.between((1, rows + new))


WORKLOADS: tuple[Workload, ...] = (minor, major, twice, before_a_roll)


def run_until(workload: Workload, operations: int, packs: bool) -> tuple[FaultEnv, Promises, bool]:
    env = FaultEnv(3)
    env.make_directory(DIRECTORY)
    promises = Promises()
    env.stop_after(operations)
    try:
        workload(env, promises, packs)
    except DiskError:
        return env, promises, False
    return env, promises, True


def check(env: FaultEnv, promises: Promises) -> Image:
    log = open_small(env, entries=5)
    found = state(log)
    covered = shape(log)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(covered))
    assert log.durable_index == log.last_index
    if not promises.allowed:
        return found
    first, rows = found
    if len(promises.allowed) == 1:
        wanted = promises.allowed[0][1]
        assert rows[: len(wanted)] == wanted, "what was durable is gone"
    else:
        assert found in promises.allowed, "neither the old segments nor the new ones"
    assert first == 1
    return found


@pytest.mark.slow
@pytest.mark.parametrize("packs", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.__name__)
def test_f16_every_crash_image_is_the_old_set_or_the_new(workload: Workload, packs: bool) -> None:
    images = 0
    seen: set[int] = set()
    for boundary in itertools.count():
        env, promises, ended = run_until(workload, boundary, packs)
        for seed in range(SEEDS):
            crashed = env.clone()
            crashed.crash(1000 * boundary + seed)
            fresh = crashed.clone()
            found = check(crashed, promises)
            seen.add(len(found[1]))
            crashed.crash(seed)
            assert check(crashed, promises) == found, "a recovery is idempotent"
            images += 2 + (cut_again(fresh, promises, found, boundary) if seed == 0 else 0)
        killed = env.clone()
        killed.crash_process()
        killed.stop_after(1 << 60)  # a SIGKILL: the power stays on
        check(killed, promises)
        if ended:
            break
    assert images > 500
    assert len(seen) > 3
    print(f"{workload.__name__}: {images} images")  # noqa: T201 - pytest shows it with -s


def cut_again(crashed: FaultEnv, promises: Promises, found: Image, seed: int) -> int:
    """Power is lost inside the recovery, at each of its boundaries; the next one agrees."""
    for boundary in itertools.count():
        env = crashed.clone()
        env.stop_after(boundary)
        try:
            check(env, promises)
            ended = True
        except DiskError:
            ended = False
        env.crash(seed + boundary)
        again = check(env, promises)
        if ended:
            assert again == found, "a recovery that ended is durable"
            return boundary + 1
    raise AssertionError


def compacted(*, packs: bool = False) -> tuple[FaultEnv, str, list[Row]]:
    """A closed log whose first segment was compacted, that segment's path, and the entries."""
    env = FaultEnv(2)
    env.make_directory(DIRECTORY)
    log = filled(env, Promises(), packs)
    Compaction(log, {2, 3, 5, 6, 8}, merge=2)()
    rows = contents(log)
    log.close()
    return env, f"{DIRECTORY}/1-2", rows


def test_f16_leftovers_of_an_unfinished_rewrite_are_orphans() -> None:
    env = FaultEnv(2)
    env.make_directory(DIRECTORY)
    log = filled(env, Promises())
    rows = contents(log)
    log.release(range(1, 10), Release.ANY)
    log.rewrite([sealed(log)[:2]], limits(20), major=False).run()
    kept = log.rewrite([sealed(log)[2:]], limits(20), major=False)
    kept.run()
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
    env, path, _ = compacted(packs=True)
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
    """A compacted segment in whose place lies the uncompacted one's sibling is no hole."""
    env, path, _ = compacted()
    env.remove(f"{path}.log")
    with pytest.raises(CorruptLogError, match="missing"):
        open_small(env, entries=5)


def test_f1_a_torn_tail_that_begins_with_a_gap_is_dropped() -> None:
    lost = kept = 0
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
        kept += log.last_index == 1000
    assert lost
    assert kept
