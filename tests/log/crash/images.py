"""Every way in which the disk may come back after a power loss, recovered and checked (I24).

An image is a disk after a crash at one boundary of a workload's operations. Images of equal
bytes are recovered once: what is counted is different disks, not draws.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Generic, TypeVar

from copycat.errors import DiskError
from copycat.storage._native import FaultEnv
from tests.log.test_native import DIRECTORY

__all__ = ["Images", "run_until", "subsets"]

P = TypeVar("P")
"""What a workload promised so far."""

F = TypeVar("F")
"""What a recovery finds; equal when it is the same."""

SEEDS = 48
"""Draws of each boundary, every second of them with noise for what did not arrive."""

SUBSETS = 5
"""So many unsynced changes are tried in all their subsets; of more, all but one, and one."""

CUTS = 9
"""One image in so many is cut again at each boundary of its recovery."""

GOLDEN = (5**0.5 - 1) / 2
"""Its multiples lie evenly between 0 and 1, however few they are."""

FOREVER = 1 << 63


def run_until(
    workload: Callable[[FaultEnv, P], None], promises: Callable[[], P], operations: int
) -> tuple[FaultEnv, P, bool]:
    """The disk and the promises when power is cut after so many operations; True at the end."""
    env = FaultEnv(3)
    env.make_directory(DIRECTORY)
    made = promises()
    env.stop_after(operations)
    try:
        workload(env, made)
    except DiskError:
        return env, made, False
    return env, made, True


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
    for kept_bits in subsets(env.unsynced):
        yield partial(FaultEnv.crash_keeping, kept_bits=kept_bits)
    for seed in range(SEEDS):
        yield partial(FaultEnv.crash, seed=1000 * boundary + seed, garbage=seed % 2 == 1)
    yield _killed


def _killed(image: FaultEnv) -> None:
    image.stop_after(FOREVER)
    image.crash_process()


def _disk(image: FaultEnv) -> tuple[int, int]:
    """Equal for disks that recover alike, also when power is lost afterwards: after a kill some
    of what can be read is in the page cache alone."""
    return image.digest, image.unsynced


class Images(Generic[P, F]):
    """Crashes a workload at every boundary and recovers every image; counts them.

    promises: makes what the workload writes its promises down in. recover: opens what is left;
    AssertionErrors for each promise that it breaks.
    every: of the crashes at a boundary, one in so many, and other ones at the next boundary.
    """

    def __init__(
        self,
        workload: Callable[[FaultEnv, P], None],
        promises: Callable[[], P],
        recover: Callable[[FaultEnv, P], F],
        *,
        every: int = 1,
    ) -> None:
        self.workload = workload
        self.promises = promises
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
            env, promises, ended = run_until(self.workload, self.promises, boundary)
            self.boundaries += 1
            self._cut_at(env, promises, boundary)
            if ended:
                return

    def _cut_at(self, env: FaultEnv, promises: P, boundary: int) -> None:
        seen: set[tuple[int, int]] = set()
        first = int(boundary * GOLDEN % 1 * self.every)
        chosen = itertools.islice(enumerate(crashes(env, boundary)), first, None, self.every)
        for number, crash in chosen:
            image = env.clone()
            crash(image)
            if _disk(image) in seen:
                continue
            seen.add(_disk(image))
            fresh = image.clone()
            outcome = self.recover(image, promises)
            # A recovery that ended is durable, and the next one finds the same.
            image.crash(number, garbage=number % 2 == 0)
            seen.add(_disk(image))
            assert self.recover(image, promises) == outcome, "a recovery is idempotent"
            self.recoveries += 2
            if (number // self.every + boundary) % CUTS == 0:
                self._cut_again(fresh, promises, outcome, 77 * boundary, seen)
        self.images += len(seen)

    def _cut_again(
        self, crashed: FaultEnv, promises: P, outcome: F, seed: int, seen: set[tuple[int, int]]
    ) -> None:
        """Power is lost inside the recovery, at each of its boundaries; the next one agrees."""
        for boundary in itertools.count():
            env = crashed.clone()
            env.stop_after(boundary)
            try:
                self.recover(env, promises)
                ended = True
            except DiskError:
                ended = False
            env.crash(seed + boundary, garbage=boundary % 2 == 1)
            seen.add(_disk(env))
            again = self.recover(env, promises)
            self.recoveries += 1
            if ended:
                assert again == outcome, "a recovery that ended is durable"
                return
