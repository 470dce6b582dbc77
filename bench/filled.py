"""A cluster with 1 GiB of entries of 256 B in its log, which several benchmarks use."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.changes import Operator
from bench.cluster import Processes
from bench.copies import sealed_segments
from bench.scale import scaled

__all__ = ["ENTRIES", "Filled", "own_directory"]

ENTRIES = scaled(1 << 22, 4000)
"""1 GiB of commands at full scale."""


@contextmanager
def own_directory() -> Iterator[Path]:
    """An empty directory on the disk to be measured, deleted at the end."""
    root = Path(os.environ.get("BENCH_DIRECTORY", "build/bench")).resolve()
    root.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=root))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Filled:
    """Processes whose log was filled, and passive members that catch up with it.

    passives: so many join before the log is filled, and are stopped at once: they are as good as
    empty, and the cluster keeps its log for them. A newcomer is sent a snapshot instead.
    """

    def __init__(self, processes: Processes, passives: int = 0) -> None:
        self.processes = processes
        leader = processes.leader()
        self._waiting: list[int] = []
        for _ in range(passives):
            number = processes.add()
            processes.ask(number, f"join passive {processes.addresses[leader]} 1")
            processes.stop(number)
            self._waiting.append(number)
        processes.ask(leader, f"fill {ENTRIES}")

    @property
    def files(self) -> list[Path]:
        """The sealed segments of the leader."""
        return sealed_segments(self.processes.directory(self.processes.leader()))

    @property
    def next(self) -> int:
        """Which of the passive members catches up next."""
        return self._waiting[-1]

    async def catch_up(self, count: int = 1) -> CatchUp:
        """So many of the passive members start at once; waits until all have applied the log as
        it was at the beginning."""
        numbers = [self._waiting.pop() for _ in range(count)]
        for number in numbers:
            await asyncio.to_thread(self.processes.wait, number)
        caught = await self._follow(numbers, "start")
        assert caught.first_index < ENTRIES, "it was sent a snapshot"
        return caught

    async def join(self) -> CatchUp:
        """A newcomer joins as passive, by a snapshot; waits until it has applied all."""
        number = await asyncio.to_thread(self.processes.add)
        leader = self.processes.addresses[self.processes.leader()]
        return await self._follow([number], f"join passive {leader}")

    async def _follow(self, numbers: list[int], order: str) -> CatchUp:
        members = self.processes
        leader = members.leader()
        target = int(members.ask(leader, "status")["last_index"])
        before = members.cpu_s(leader), members.cpu_s(*numbers), members.cpu_s()
        times = await asyncio.gather(
            *(asyncio.to_thread(members.ask, number, f"{order} {target}") for number in numbers)
        )
        after = members.cpu_s(leader), members.cpu_s(*numbers), members.cpu_s()
        used = [now - then for now, then in zip(after, before, strict=True)]
        return CatchUp(numbers, target, times, used)

    async def forget(self, numbers: list[int]) -> None:
        """Remove members again, with all that they have."""
        members = self.processes
        async with Operator(members.addresses[:1]) as operator:
            for number in numbers:
                await operator.remove(members.addresses[number])
        for number in numbers:
            await asyncio.to_thread(members.stop, number, wipe=True)


class CatchUp:
    """What one catch-up took. Seconds from the moment when the first one began to open its
    directory, or asked to join."""

    def __init__(
        self,
        numbers: list[int],
        entries: int,
        times: list[dict[str, Any]],
        cpu_s: list[float],
    ) -> None:
        self.numbers = numbers
        self.entries = entries
        self.began = min(float(one["asked"]) for one in times)
        self.ended = max(float(max(one["stored"], one["applied"])) for one in times)
        self.first_index = max(int(one["first_index"]) for one in times)
        self.started_s = max(one["started"] for one in times) - self.began
        self.first_s = max(one["first"] for one in times) - self.began
        self.stored_s = max(one["stored"] for one in times) - self.began
        self.applied_s = self.ended - self.began
        self.leader_cpu_s, self.receivers_cpu_s, self.all_cpu_s = cpu_s
