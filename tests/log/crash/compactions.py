"""Rewrites and their installation as workloads (F16): the old segments, or the new ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from copycat.storage._native import FaultEnv, NativeLog
from copycat.types import EntryKind, Release
from tests.log.contract import batch, contents, durable, grow
from tests.log.contract_cleaning import layout
from tests.log.contract_compaction import compact, limits, sealed
from tests.log.oracle import EntryRow
from tests.log.test_native import open_small

__all__ = [
    "COMPACTION_WORKLOADS",
    "Compaction",
    "Image",
    "PackedPromises",
    "Promises",
    "compaction_recovered",
]

Image = tuple[int, list[EntryRow]]


class Promises:
    """Which whole states a crash may leave behind: (first_index, entries)."""

    packs = False

    def __init__(self) -> None:
        self.allowed: list[Image] = []
        self.minimum: list[EntryRow] = []
        """Acknowledged and not released: in every state."""

    def between(self, *states: Image) -> None:
        self.allowed = list(states)
        indexes = [set(rows) for _, rows in states]
        self.minimum = sorted(set.intersection(*indexes))


class PackedPromises(Promises):
    """Of a workload whose rewrites are packed."""

    packs = True


Workload = Callable[[FaultEnv, Promises], None]


def state(log: NativeLog) -> Image:
    return log.first_index, contents(log)


def step(log: NativeLog, promises: Promises, change: Compaction) -> None:
    """`change` from one durable state to the next; a crash inside may leave either."""
    old = state(log)
    duplicate = _duplicate(old, change)
    promises.between(old, duplicate)
    change()
    durable(log)
    assert state(log) == duplicate
    promises.between(duplicate)


def _duplicate(old: Image, change: Compaction) -> Image:
    """What the entries are after a compaction that drops what `change.drops` names."""
    first, rows = old
    return first, [row for row in rows if row[0] not in change.drops]


class Compaction:
    """Release, rewrite and install; `drops` is what it drops."""

    def __init__(
        self, log: NativeLog, drops: set[int], *, major: bool = False, merge: int = 1
    ) -> None:
        self.log = log
        self.drops = drops
        self._major = major
        self._merge = merge

    def __call__(self) -> None:
        policy = Release.SEQUENTIAL if self._major else Release.ANY
        self.log.release(sorted(self.drops), policy)
        ids = sealed(self.log)
        groups = [ids[at : at + self._merge] for at in range(0, len(ids), self._merge)]
        compact(self.log, limits(self.log.last_index), major=self._major, groups=groups)


def filled(env: FaultEnv, promises: Promises, count: int = 22) -> NativeLog:
    """Entries of two terms, durable; until then any prefix is allowed, so nothing is checked."""
    log = open_small(env, entries=5, compress=promises.packs)
    grow(log, count - 8)
    log.append(batch(log.last_index + 1, b"members", kind=EntryKind.CONFIGURATION))
    grow(log, 7, term=2)
    durable(log)
    promises.between(state(log))
    return log


def minor(env: FaultEnv, promises: Promises) -> None:
    log = filled(env, promises)
    step(log, promises, Compaction(log, {1, 2, 4, 6, 7, 8, 9, 10}))
    grow(log, 1, term=2)


def major(env: FaultEnv, promises: Promises) -> None:
    log = filled(env, promises)
    step(log, promises, Compaction(log, set(range(2, 14)), major=True, merge=3))


def twice(env: FaultEnv, promises: Promises) -> None:
    """A compacted segment is compacted again, and what became one is merged with more."""
    log = filled(env, promises)
    step(log, promises, Compaction(log, {1, 3, 5, 7, 9}, merge=2))
    step(log, promises, Compaction(log, {2, 4, 6, 8}, merge=2))


def before_a_roll(env: FaultEnv, promises: Promises) -> None:
    """The installed shape goes into a pending manifest first, by a roll that follows."""
    log = filled(env, promises)
    old = state(log)
    drops = {1, 2, 3, 6, 7}
    rows = [row for row in old[1] if row[0] not in drops]
    new = [(index, 2, b"2:%d" % index) for index in range(23, 30)]
    states = [(1, left + new[:count]) for left in (old[1], rows) for count in range(8)]
    promises.between(*states)
    Compaction(log, drops)()
    grow(log, 7, term=2)
    durable(log)
    promises.between((1, rows + new))


COMPACTION_WORKLOADS: tuple[Workload, ...] = (minor, major, twice, before_a_roll)


def compaction_recovered(env: FaultEnv, promises: Promises) -> Image:
    log = open_small(env, entries=5)
    recovery = state(log)
    covered = layout(log)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(covered))
    assert log.durable_index == log.last_index
    if not promises.allowed:
        return recovery
    first, rows = recovery
    if len(promises.allowed) == 1:
        promise = promises.allowed[0][1]
        assert rows[: len(promise)] == promise, "what was durable is gone"
    else:
        assert recovery in promises.allowed, "neither the old segments nor the new ones"
    assert first == 1
    return recovery
