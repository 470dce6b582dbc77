"""The incumbent in the place of copycat, with its journal: an mmap that is never synced.

It has no passive members and no promotion, no feeding by followers, and keeps all commands since
its last snapshot in memory: its catch-up is that of a voter that was never started, from fewer
entries. Its commands fail while nobody leads, and are submitted again.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bench.bench_failover import in_timeouts
from bench.cluster import Processes
from bench.scale import SCALE, scaled

SECONDS = max(0.2, 4.0 * SCALE)
ENTRIES = scaled(100_000, 2000)
TIMES = scaled(20, 2)
PROBE_S = 8.0
"""Longer than any of its elections."""
TIMEOUT_S = 0.4
"""Its default `raftMinTimeout`; each wait is between that and 1.4 s."""


@pytest.mark.parametrize("window", [1, 64, 1024])
def bench_pysyncobj(benchmark: Any, window: int, disk: Path) -> None:
    benchmark.group = f"3 members, w={window}, 256 B, fsync"
    benchmark.name = f"pysyncobj inside w={window}"
    with Processes(disk, "bench.pysyncobj_member") as members:
        leader = members.leader()
        before = members.cpu_s()
        result = benchmark.pedantic(
            members.load, (leader, "submit", window, SECONDS), rounds=1, iterations=1
        )
        used_s = members.cpu_s() - before
    result["cpu_s_per_1000"] = round(used_s * 1000 / result["commands"], 4)
    benchmark.extra_info.update(durability="none", **result)
    print(f"\n{benchmark.name}: {result}")


def bench_pysyncobj_failover(benchmark: Any, disk: Path) -> None:
    """Commands are submitted by a follower, since its clients are its members."""
    benchmark.group = "from SIGKILL of the leader to the next acknowledged command"
    benchmark.name = "failover[pysyncobj]"
    pauses: list[float] = []
    failures: list[int] = []

    def one(members: Processes) -> None:
        leader = members.leader()
        follower = next(number for number in members.children if number != leader)
        answer: dict[str, Any] = {}
        asking = threading.Thread(
            target=lambda: answer.update(members.ask(follower, f"probe {PROBE_S}"))
        )
        asking.start()
        time.sleep(PROBE_S / 8)
        killed = members.kill(leader)
        asking.join()
        after = [done for begun, done in answer["answers"] if begun > killed]
        pauses.append(min(after) - killed)
        failures.append(answer["failures"])
        members.start(leader)

    def run() -> None:
        with Processes(disk, "bench.pysyncobj_member") as members:
            for _ in range(TIMES):
                one(members)

    benchmark.pedantic(run, rounds=1, iterations=1)
    benchmark.extra_info.update(
        durability="none",
        times=TIMES,
        failed_commands=sum(failures),
        election_timeout_ms=TIMEOUT_S * 1e3,
        **in_timeouts(pauses, TIMEOUT_S),
    )
    print(f"\n{benchmark.name}: {benchmark.extra_info}")


def bench_pysyncobj_catchup(benchmark: Any, disk: Path) -> None:
    """A third voter that was never started; the time begins with the start of its process."""
    benchmark.group = "an empty passive member catches up with 1 GiB"
    benchmark.name = "catchup[pysyncobj, an empty voter]"
    seconds: list[float] = []
    used: list[float] = []

    def run() -> None:
        with Processes(disk, "bench.pysyncobj_member", absent=[2]) as members:
            leader = members.leader()
            total = members.ask(leader, f"fill {ENTRIES}")["total"]
            before_s = members.cpu_s(leader)
            began = time.monotonic()
            members.start(2)
            while members.ask(2, "status")["total"] < total:
                time.sleep(0.005)
            seconds.append(time.monotonic() - began)
            used.append(members.cpu_s(leader) - before_s + members.cpu_s(2))

    benchmark.pedantic(run, rounds=1, iterations=1)
    benchmark.extra_info.update(
        durability="none",
        entries=ENTRIES,
        mb=round(ENTRIES * 256 / 1e6, 1),
        applied_mb_per_s=round(ENTRIES * 256 / seconds[0] / 1e6, 1),
        applied_entries_per_s=round(ENTRIES / seconds[0]),
        cpu_s_per_1000=round(used[0] * 1000 / ENTRIES, 6),
    )
    print(f"\n{benchmark.name}: {benchmark.extra_info}")
