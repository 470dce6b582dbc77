"""A closed loop of commands through a CopycatClient: `window` in flight, latencies kept."""

from __future__ import annotations

import asyncio
import resource
import time
from typing import Any

from copycat import CopycatClient

__all__ = ["cpu_s", "run_batches", "run_window", "summary"]


async def run_window(
    client: CopycatClient, operation: Any, *, window: int, seconds: float
) -> dict[str, float]:
    """Each answered command is replaced by the next at once, as independent callers would."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    finished = loop.create_future()
    clock = time.perf_counter
    end = clock() + seconds
    pending = 0

    def submit() -> None:
        nonlocal pending
        pending += 1
        started = clock()
        future: asyncio.Future[Any] = asyncio.ensure_future(client.submit(operation))
        future.add_done_callback(lambda done: answered(done, started))

    def answered(done: asyncio.Future[Any], started: float) -> None:
        nonlocal pending
        pending -= 1
        now = clock()
        if done.exception() is not None:
            if not finished.done():
                finished.set_exception(done.exception())  # type: ignore[arg-type]
            return
        latencies.append(now - started)
        if now < end:
            submit()
        elif pending == 0 and not finished.done():
            finished.set_result(None)

    begun = clock()
    for _ in range(window):
        submit()
    await finished
    return summary(latencies, clock() - begun)


async def run_batches(
    client: CopycatClient, operation: Any, *, window: int, seconds: float
) -> dict[str, float]:
    """`submit_many` of half a window, two under way: for callers that have batches."""
    half = max(1, window // 2)
    operations = [operation] * half
    latencies: list[float] = []
    clock = time.perf_counter
    begun = clock()
    end = begun + seconds

    async def caller() -> None:
        while clock() < end:
            started = clock()
            await client.submit_many(operations)
            latencies.extend([clock() - started] * half)

    await asyncio.gather(*(caller() for _ in range(2 if window > 1 else 1)))
    return summary(latencies, clock() - begun)


def summary(latencies: list[float], wall_s: float) -> dict[str, float]:
    """Commands, commands/s, p50 and p99 in microseconds."""
    ordered = sorted(latencies)
    count = len(ordered)
    return {
        "commands": count,
        "commands_per_s": round(count / wall_s),
        "p50_us": round(ordered[count // 2] * 1e6, 1),
        "p99_us": round(ordered[min(count - 1, count * 99 // 100)] * 1e6, 1),
        "wall_s": round(wall_s, 3),
    }


def cpu_s() -> float:
    """User and system seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
