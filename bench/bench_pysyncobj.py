"""The incumbent in bench_cluster's place, with its journal: an mmap that is never synced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.cluster import Processes
from bench.scale import SCALE

SECONDS = max(0.2, 4.0 * SCALE)


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
