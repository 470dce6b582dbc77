"""Every way in which the disk may come back after a power loss, recovered and checked (I24).

An image is a disk after a crash at one boundary of a workload's operations. Images of equal
bytes are recovered once: what is counted is different disks, not draws.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial

from copycat.errors import DiskError
from copycat.log._native import FaultEnv, open_hard_state
from tests.log.crash.workloads import Workload, log_of
from tests.log.oracle import Oracle, Row
from tests.log.test_native import DIRECTORY

__all__ = ["Images", "Recover", "recovered", "run_until"]

Recover = Callable[[FaultEnv, Oracle], list[Row]]

SEEDS = 48
"""Draws of each boundary, every second of them with noise for what did not arrive."""

SUBSETS = 5
"""So many unsynced changes are tried in all their subsets; of more, all but one, and one."""

CUTS = 9
"""One image in so many is cut again at each boundary of its recovery."""

FOREVER = 1 << 63

PLENTY = 1 << 40


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
    """Opens the log; what it holds, after AssertionErrors for each promise that it breaks."""
    env.set_free_space(PLENTY)  # the log without a reserve asks for it (F12)
    log = log_of(env)
    found = oracle.check(log)
    if oracle.saved[0] or oracle.saving:
        hard_state = open_hard_state(env, DIRECTORY, create=True)
        oracle.check_hard_state(hard_state.current_term, hard_state.voted_for)
    return found


def subsets(count: int) -> Iterator[int]:
    """Which of `count` unsynced changes to keep whole, as bits."""
    everything = (1 << min(count, 64)) - 1
    if count <= SUBSETS:
        yield from range(everything + 1)
        return
    yield 0
    yield everything
    for bit in range(min(count, 64)):
        yield everything ^ (1 << bit)
        yield 1 << bit


def crashes(env: FaultEnv, boundary: int) -> Iterator[Callable[[FaultEnv], object]]:
    """What may happen to a disk, some of it to the same end: subsets, draws, and a kill alone."""
    for kept in subsets(env.unsynced):
        yield partial(FaultEnv.crash_keeping, kept=kept)
    for seed in range(SEEDS):
        yield partial(FaultEnv.crash, seed=1000 * boundary + seed, garbage=seed % 2 == 1)
    yield _killed


def _killed(image: FaultEnv) -> None:
    image.stop_after(FOREVER)
    image.crash_process()


class Images:
    """Crashes a workload at every boundary and recovers every image; counts them.

    every: of the crashes at a boundary, one in so many, and other ones at the next boundary.
    """

    def __init__(
        self, workload: Workload, recover: Recover = recovered, *, every: int = 1
    ) -> None:
        self.workload = workload
        self.recover = recover
        self.every = every
        self.boundaries = 0
        self.images = 0
        """Different disks that a recovery began from, at one boundary each."""
        self.recoveries = 0

    def __str__(self) -> str:
        return (
            f"{self.workload.__name__}: {self.boundaries} boundaries, {self.images} images, "
            f"{self.recoveries} recoveries"
        )

    def run(self) -> None:
        for boundary in itertools.count():
            env, oracle, ended = run_until(self.workload, boundary)
            self.boundaries += 1
            self._cut_at(env, oracle, boundary)
            if ended:
                return

    def _cut_at(self, env: FaultEnv, oracle: Oracle, boundary: int) -> None:
        seen: set[int] = set()
        first = -boundary % self.every
        chosen = itertools.islice(enumerate(crashes(env, boundary)), first, None, self.every)
        for number, crash in chosen:
            image = env.clone()
            crash(image)
            if image.digest in seen:
                continue
            seen.add(image.digest)
            fresh = image.clone()
            found = self.recover(image, oracle)
            # A recovery that ended is durable, and the next one finds the same.
            image.crash(number, garbage=number % 2 == 0)
            seen.add(image.digest)
            assert self.recover(image, oracle) == found, "a recovery is idempotent"
            self.recoveries += 2
            if (number + boundary) // self.every % CUTS == 0:
                self._cut_again(fresh, oracle, found, 77 * boundary, seen)
        self.images += len(seen)

    def _cut_again(
        self, crashed: FaultEnv, oracle: Oracle, found: list[Row], seed: int, seen: set[int]
    ) -> None:
        """Power is lost inside the recovery, at each of its boundaries; the next one agrees."""
        for boundary in itertools.count():
            env = crashed.clone()
            env.stop_after(boundary)
            try:
                self.recover(env, oracle)
                ended = True
            except DiskError:
                ended = False
            env.crash(seed + boundary, garbage=boundary % 2 == 1)
            seen.add(env.digest)
            again = self.recover(env, oracle)
            self.recoveries += 1
            if ended:
                assert again == found, "a recovery that ended is durable"
                return
