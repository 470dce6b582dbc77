"""From SIGKILL of the leader to the next acknowledged command, in election timeouts.

Three voters and one client, which submits the next durable command when the last is answered. The
moment that counts is the first answer to a command that was submitted after the signal: it
contains what the followers need to notice, the election, the first entries of the new leader, and
what the client needs to find it. Each member that was killed is started again before the next.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

from bench.cluster import Processes
from bench.foreground import Foreground
from bench.scale import scaled

TIMES = scaled(100, 2)
ELECTION_TIMEOUT_S = 0.75
"""The default of `CopycatServer`, which the members have."""
CALM_S = 0.2
"""So long commands are answered again before the next leader is killed."""


def bench_failover(benchmark: Any, disk: Path) -> None:
    benchmark.group = "from SIGKILL of the leader to the next acknowledged command"
    benchmark.name = "failover[copycat]"
    pauses: list[float] = []
    failures: list[str] = []

    async def run() -> None:
        with Processes(disk) as members:
            for _ in range(TIMES):
                await one(members)

    async def one(members: Processes) -> None:
        leader = await asyncio.to_thread(members.leader)
        async with Foreground(members.addresses, 1) as load:
            await load.answer_after(time.monotonic() + CALM_S)
            killed = members.kill(leader)
            pauses.append(await load.answer_after(killed) - killed)
        failures.extend(load.failures)
        await asyncio.to_thread(members.start, leader)
        await asyncio.to_thread(members.wait_applied, *members.children)

    benchmark.pedantic(lambda: asyncio.run(run()), rounds=1, iterations=1)
    benchmark.extra_info.update(
        durability="fsync",
        times=TIMES,
        failed_commands=len(failures),
        election_timeout_ms=ELECTION_TIMEOUT_S * 1e3,
        **in_timeouts(pauses, ELECTION_TIMEOUT_S),
    )
    print(f"\n{benchmark.name}: {benchmark.extra_info}")


def in_timeouts(pauses: list[float], timeout_s: float) -> dict[str, float]:
    """p50, p99 and the longest, in milliseconds and in election timeouts."""
    ordered = sorted(pauses)
    points = {
        "p50": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
        "max": ordered[-1],
    }
    in_ms = {f"{name}_ms": round(value * 1e3, 1) for name, value in points.items()}
    return in_ms | {f"{name}_timeouts": round(v / timeout_s, 3) for name, v in points.items()}
