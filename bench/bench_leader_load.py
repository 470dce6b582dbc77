"""What other members cost a leader: its CPU seconds for 1,000 commands.

Three voters, one client with `window` commands in flight in a process of its own. The same leader
has 0, 1, 2 and 4 passive members one after the other, several times; a ratio is the median over
these rounds. `leader_load_voter`: a voter that was away comes back 1 GiB of entries behind.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.changes import Operator
from bench.cluster import Processes
from bench.filled import ENTRIES
from bench.foreground import Foreground
from bench.scale import SCALE, scaled

ROUNDS = scaled(3)
SECONDS = max(0.3, 4.0 * SCALE)
PASSIVES = (0, 1, 2, 4)


@pytest.mark.parametrize("window", [1, 64])
def bench_leader_load(benchmark: Any, disk: Path, window: int) -> None:
    benchmark.group = "leader's CPU s for 1,000 commands with passive members"
    benchmark.name = f"leader_load[w={window}]"
    rounds: list[dict[int, dict[str, float]]] = []

    async def one_round(members: Processes) -> None:
        leader = members.leader()
        costs: dict[int, dict[str, float]] = {}
        newcomers: list[int] = []
        for count in PASSIVES:
            while len(newcomers) < count:
                newcomers.append(await _newcomer(members, leader))
            costs[count] = await _cost(members, leader, window)
        rounds.append(costs)
        async with Operator(members.addresses[:3]) as operator:
            for number in newcomers:
                await operator.remove(members.addresses[number])
                await asyncio.to_thread(members.stop, number, wipe=True)

    with Processes(disk) as members:
        benchmark.pedantic(lambda: asyncio.run(one_round(members)), rounds=ROUNDS, iterations=1)
    info: dict[str, object] = {"durability": "fsync"}
    for count in PASSIVES:
        costs = [one[count] for one in rounds]
        info[f"cpu_s_per_1000_{count}"] = _median([one["cpu_s_per_1000"] for one in costs])
        info[f"commands_per_s_{count}"] = _median([one["commands_per_s"] for one in costs])
    for count in PASSIVES[1:]:
        info[f"ratio_{count}"] = _median(
            [one[count]["cpu_s_per_1000"] / one[0]["cpu_s_per_1000"] for one in rounds]
        )
    benchmark.extra_info.update(info)
    print(f"\n{benchmark.name}: {info}")


async def _newcomer(members: Processes, leader: int) -> int:
    """A passive member that has all of the log."""
    number = await asyncio.to_thread(members.add)
    target = members.ask(leader, "status")["last_index"]
    order = f"join passive {members.addresses[leader]} {target}"
    await asyncio.to_thread(members.ask, number, order)
    return number


async def _cost(members: Processes, leader: int, window: int) -> dict[str, float]:
    """The leader's CPU for 1,000 commands, and commands/s."""
    async with Foreground(members.addresses[:3], window) as load:
        await asyncio.sleep(SECONDS / 8)
        begin, before_s = time.monotonic(), members.cpu_s(leader)
        await asyncio.sleep(SECONDS)
        end, used_s = time.monotonic(), members.cpu_s(leader) - before_s
    return _result(load, begin, end, used_s)


def _result(load: Foreground, begin: float, end: float, used_s: float) -> dict[str, float]:
    assert not load.failures, load.failures
    result = load.between(begin, end)
    return {**result, "cpu_s_per_1000": used_s * 1000 / result["commands"]}


@pytest.mark.parametrize("window", [64])
def bench_leader_load_voter(benchmark: Any, disk: Path, window: int) -> None:
    benchmark.group = "leader's CPU s for 1,000 commands while a voter catches up 1 GiB"
    benchmark.name = f"leader_load_voter[w={window}]"
    results: list[dict[str, float]] = []
    seconds: list[float] = []

    async def run(members: Processes) -> None:
        leader = members.leader()
        target = members.ask(leader, f"fill {ENTRIES}")["last_index"]
        async with Foreground(members.addresses[:2], window) as load:
            await asyncio.sleep(SECONDS / 8)
            moments = [(time.monotonic(), members.cpu_s(leader))]
            await asyncio.sleep(SECONDS)
            moments.append((time.monotonic(), members.cpu_s(leader)))
            await asyncio.to_thread(members.start, 2)
            moments.append((time.monotonic(), members.cpu_s(leader)))
            await asyncio.to_thread(partial(members.wait_applied, 2, index=target))
            moments.append((time.monotonic(), members.cpu_s(leader)))
        for (begin, before_s), (end, after_s) in (moments[:2], moments[2:]):
            results.append(_result(load, begin, end, after_s - before_s))
        seconds.append(moments[3][0] - moments[2][0])

    with Processes(disk, absent=[2], options=["--keep-log"]) as members:
        benchmark.pedantic(lambda: asyncio.run(run(members)), rounds=1, iterations=1)
    quiet, busy = results
    info = {
        "durability": "fsync",
        "cpu_s_per_1000": round(quiet["cpu_s_per_1000"], 5),
        "busy_cpu_s_per_1000": round(busy["cpu_s_per_1000"], 5),
        "ratio": round(busy["cpu_s_per_1000"] / quiet["cpu_s_per_1000"], 3),
        "commands_per_s": quiet["commands_per_s"],
        "busy_commands_per_s": busy["commands_per_s"],
        "catchup_s": round(seconds[0], 3),
    }
    benchmark.extra_info.update(info)
    print(f"\n{benchmark.name}: {info}")


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 5)
