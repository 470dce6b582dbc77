"""Promotions: of a warm and of a cold passive member, and in place of a voter that died.

The operator is this process, with the code of `copycat cluster promote` and `demote`; it asks any
member. A client submits one durable command after the other meanwhile.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

from bench.changes import Operator
from bench.cluster import Processes
from bench.filled import Filled
from bench.foreground import Foreground
from bench.scale import scaled
from copycat.client.healing_policy import HealingPolicy
from copycat.errors import MemberUnreachableError
from copycat.protocol.client import ClusterView
from copycat.types import MemberType

TIMES = scaled(20, 2)
GROUP = "promotion of a passive member, ms"


def bench_promotion_warm(benchmark: Any, disk: Path) -> None:
    """Of a member that has the whole log; it is demoted again after each time."""
    benchmark.group = GROUP
    benchmark.name = "promotion[warm]"
    promoted: list[float] = []
    demoted: list[float] = []
    loads: list[Foreground] = []

    async def run(members: Processes) -> None:
        address = members.addresses[await newcomer(members)]
        async with (
            Foreground(members.addresses[:3], 1) as load,
            Operator(members.addresses[:3]) as operator,
        ):
            for _ in range(TIMES):
                promoted.append(await operator.promote(address))
                demoted.append(await operator.demote(address))
        loads.append(load)

    with Processes(disk) as members:
        benchmark.pedantic(lambda: asyncio.run(run(members)), rounds=1, iterations=1)
    benchmark.extra_info.update(
        durability="fsync",
        times=TIMES,
        **_in_ms(promoted),
        demote_p50_ms=round(statistics.median(demoted) * 1e3, 2),
        failed_commands=len(loads[0].failures),
    )
    print(f"\n{benchmark.name}: {benchmark.extra_info}")


async def newcomer(members: Processes) -> int:
    """A passive member that has applied all that the leader had."""
    number = await asyncio.to_thread(members.add)
    leader = members.leader()
    target = members.ask(leader, "status")["last_index"]
    order = f"join passive {members.addresses[leader]} {target}"
    await asyncio.to_thread(members.ask, number, order)
    return number


def bench_promotion_cold(benchmark: Any, disk: Path) -> None:
    """Of a member that starts at this moment, and has nothing of a log of 1 GiB."""
    benchmark.group = GROUP
    benchmark.name = "promotion[cold, 1 GiB]"
    times: list[float] = []

    async def run(filled: Filled) -> None:
        members = filled.processes
        async with Operator(members.addresses[:3]) as operator:
            address = members.addresses[filled.next]
            catching_up = asyncio.create_task(filled.catch_up())
            await _promote_when_reachable(operator, address)
            ended = time.monotonic()
            caught = await catching_up
            times.append(ended - caught.began)
            await operator.demote(address)
        await filled.forget(caught.numbers)

    with Processes(disk, options=["--keep-log"]) as members:
        rounds = scaled(3)
        filled = Filled(members, rounds)
        benchmark.pedantic(lambda: asyncio.run(run(filled)), rounds=rounds, iterations=1)
    benchmark.extra_info.update(durability="fsync", times=len(times), **_in_ms(times))
    print(f"\n{benchmark.name}: {benchmark.extra_info}")


async def _promote_when_reachable(operator: Operator, address: str) -> None:
    while True:
        try:
            await operator.promote(address)
        except MemberUnreachableError:
            await asyncio.sleep(0.005)
        else:
            return


def bench_promotion_replacement(benchmark: Any, disk: Path) -> None:
    """A follower is killed; the operator demotes it, and promotes the warm passive member.

    From SIGKILL until there are three voters that run. The member that was killed starts again
    then, as passive, and is the next one to be promoted.
    """
    benchmark.group = GROUP
    benchmark.name = "promotion[in place of a dead voter]"
    times: list[float] = []
    pauses: list[float] = []
    failures: list[str] = []

    async def one(members: Processes, operator: Operator, load: Foreground, spare: int) -> int:
        leader = await asyncio.to_thread(members.leader)
        dead = next(number for number in members.children if number not in (leader, spare))
        await load.answer_after(time.monotonic())
        killed = members.kill(dead)
        await operator.demote(members.addresses[dead])
        await operator.promote(members.addresses[spare])
        times.append(time.monotonic() - killed)
        pauses.append(load.longest_pause(killed, time.monotonic()))
        await asyncio.to_thread(members.start, dead)
        await asyncio.to_thread(members.wait_applied, dead)
        return dead

    async def run(members: Processes) -> None:
        spare = await newcomer(members)
        async with (
            Foreground(members.addresses, 1) as load,
            Operator(members.addresses) as operator,
        ):
            for _ in range(TIMES):
                spare = await one(members, operator, load, spare)
        failures.extend(load.failures)

    with Processes(disk) as members:
        benchmark.pedantic(lambda: asyncio.run(run(members)), rounds=1, iterations=1)
    benchmark.extra_info.update(
        durability="fsync",
        times=TIMES,
        **_in_ms(times),
        longest_pause_ms=round(max(pauses) * 1e3, 2),
        failed_commands=len(failures),
    )
    print(f"\n{benchmark.name}: {benchmark.extra_info}")


def bench_promotion_healed(benchmark: Any, disk: Path) -> None:
    """The same without an operator: the leader finds out that a follower is dead, and heals.

    From SIGKILL until the leader says that three voters are there that it hears. `heal_after_ms`
    of that the leader waits, and `heal_interval_ms` between its two steps.
    """
    benchmark.group = GROUP
    benchmark.name = "promotion[by a leader that heals]"
    policy = HealingPolicy(target_active=3, heal_after=1.0, heal_interval=0.1)
    times: list[float] = []
    failures: list[str] = []

    async def one(members: Processes, operator: Operator, load: Foreground, spare: int) -> int:
        leader = await asyncio.to_thread(members.leader)
        dead = next(number for number in members.children if number not in (leader, spare))
        await load.answer_after(time.monotonic())
        killed = members.kill(dead)
        while not _is_healed(await operator.view(), members.addresses[dead]):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        times.append(time.monotonic() - killed)
        await asyncio.to_thread(members.start, dead)
        await asyncio.to_thread(members.wait_applied, dead)
        return dead

    async def run(members: Processes) -> None:
        spare = await newcomer(members)
        async with (
            Foreground(members.addresses, 1) as load,
            Operator(members.addresses) as operator,
        ):
            await operator.set_policy(policy)
            for _ in range(TIMES):
                spare = await one(members, operator, load, spare)
        failures.extend(load.failures)

    with Processes(disk) as members:
        benchmark.pedantic(lambda: asyncio.run(run(members)), rounds=1, iterations=1)
    benchmark.extra_info.update(
        durability="fsync",
        times=TIMES,
        **_in_ms(times),
        heal_after_ms=policy.heal_after * 1e3,
        heal_interval_ms=policy.heal_interval * 1e3,
        failed_commands=len(failures),
    )
    print(f"\n{benchmark.name}: {benchmark.extra_info}")


def _is_healed(view: ClusterView, dead: str) -> bool:
    voters = [one.address for one in view.members if one.type is MemberType.ACTIVE]
    return len(voters) == 3 and dead not in voters


def _in_ms(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "p50_ms": round(statistics.median(ordered) * 1e3, 2),
        "p99_ms": round(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1e3, 2),
    }
