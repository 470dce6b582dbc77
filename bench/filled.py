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
    """Processes whose log was filled, and newcomers that catch up with it."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        leader = processes.leader()
        self.facts = processes.ask(leader, f"fill {ENTRIES}")

    @property
    def files(self) -> list[Path]:
        """The sealed segments of the leader."""
        return sealed_segments(self.processes.directory(self.processes.leader()))

    def last_index(self) -> int:
        """The end of the leader's log now."""
        return int(self.processes.ask(self.processes.leader(), "status")["last_index"])

    async def catch_up(self, count: int = 1) -> CatchUp:
        """So many empty passive members join at once; waits until all have applied the log as it
        was at the beginning."""
        members = self.processes
        numbers = [await asyncio.to_thread(members.add) for _ in range(count)]
        leader = members.leader()
        target = self.last_index()
        before = members.cpu_s(leader), members.cpu_s(*numbers)
        order = f"join passive {members.addresses[leader]} {target}"
        times = await asyncio.gather(
            *(asyncio.to_thread(members.ask, number, order) for number in numbers)
        )
        after = members.cpu_s(leader), members.cpu_s(*numbers)
        leader_s, receivers_s = (now - then for now, then in zip(after, before, strict=True))
        return CatchUp(numbers, target, times, leader_s, receivers_s)

    async def forget(self, numbers: list[int]) -> None:
        """Remove newcomers again, with all that they have."""
        members = self.processes
        async with Operator(members.addresses[:1]) as operator:
            for number in numbers:
                await operator.remove(members.addresses[number])
        for number in numbers:
            await asyncio.to_thread(members.stop, number, wipe=True)


class CatchUp:
    """What one catch-up took. Seconds from the moment when the first one asked to join."""

    def __init__(
        self,
        numbers: list[int],
        entries: int,
        times: list[dict[str, Any]],
        leader_cpu_s: float,
        receivers_cpu_s: float,
    ) -> None:
        self.numbers = numbers
        self.entries = entries
        self.began = min(float(one["asked"]) for one in times)
        self.ended = max(float(max(one["stored"], one["applied"])) for one in times)
        self.first_s = max(one["first"] for one in times) - self.began
        self.stored_s = max(one["stored"] for one in times) - self.began
        self.applied_s = self.ended - self.began
        self.leader_cpu_s = leader_cpu_s
        self.receivers_cpu_s = receivers_cpu_s
