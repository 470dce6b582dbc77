"""Three processes on loopback with fsync, 256 B: commands/s, latency, CPU of all processes.

`inside` runs the load in the leader's process (through its own client, over loopback);
`remote` in this process, whose CPU is counted too. Each client connects to the leader: a client
that may connect to any member has its commands forwarded in two of three runs, which takes more
CPU. `submit` awaits each command; `batches` uses submit_many. CPU seconds for 1,000 commands is
the fair figure on shared cores.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.cluster import Processes
from bench.load import cpu_s, run_batches, run_window
from bench.member import PAYLOAD, Sink, loop_factory
from bench.scale import SCALE
from copycat import CopycatClient

SECONDS = max(0.2, 4.0 * SCALE)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    root = (Path("build") / "bench-cluster").resolve()
    root.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=root))
    with Processes(directory) as processes:
        yield processes
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("mode", ["submit", "batches"])
@pytest.mark.parametrize("where", ["inside", "remote"])
@pytest.mark.parametrize("window", [1, 64, 1024])
def bench_commands(benchmark: Any, members: Processes, window: int, where: str, mode: str) -> None:
    if mode == "batches" and window == 1:
        mode = "submit"
    benchmark.group = f"3 members, w={window}, 256 B, fsync"
    benchmark.name = f"copycat {where} {mode} w={window}"
    leader = members.leader()

    def run() -> dict[str, Any]:
        if where == "inside":
            return members.load(leader, mode, window, SECONDS)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_remote(members.addresses[leader], window, mode))

    members.load(leader, mode, window, SECONDS / 8)
    before = members.cpu_s() + cpu_s()
    result = benchmark.pedantic(run, rounds=1, iterations=1)
    used_s = members.cpu_s() + cpu_s() - before
    result["cpu_s_per_1000"] = round(used_s * 1000 / result["commands"], 4)
    benchmark.extra_info.update(durability="fsync", **result)
    print(f"\n{benchmark.name}: {result}")


async def _remote(leader: str, window: int, mode: str) -> dict[str, Any]:
    run = run_batches if mode == "batches" else run_window
    async with CopycatClient(leader, cluster_name="bench") as client:
        return await run(client, Sink.put(PAYLOAD), window=window, seconds=SECONDS)
