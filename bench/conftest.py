"""Settings of the benchmarks: machine facts into every result, a directory on a real disk."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    machine_info["cores"] = os.cpu_count()
    machine_info["kernel"] = platform.release()
    machine_info["filesystem"] = _filesystem(Path.cwd())


def _filesystem(path: Path) -> str:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    owner = max((m for m in mounts if str(path).startswith(m[1])), key=lambda m: len(m[1]))
    return f"{owner[2]} on {owner[1]}"


@pytest.fixture
def disk() -> Iterator[Path]:
    """An empty directory beside the sources: /tmp may be memory."""
    root = Path("build") / "bench"
    root.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=root))
    yield path.resolve()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def rate(benchmark: Any) -> Callable[..., None]:
    """`rate(work, entries, durability=...)`: time `work` and say entries/s and CPU µs an entry."""

    def run(
        work: Callable[[], object], entries: int, *, durability: str, rounds: int = 30
    ) -> None:
        work()
        before = _cpu_s()
        started = time.perf_counter()
        benchmark.pedantic(work, rounds=rounds, iterations=1, warmup_rounds=1)
        wall_s = time.perf_counter() - started
        cpu_s = _cpu_s() - before
        benchmark.extra_info.update(
            durability=durability,
            entries_per_s=round(entries / benchmark.stats.stats.median),
            cpu_us_per_entry=round(cpu_s * 1e6 / (entries * (rounds + 1)), 3),
            wall_s=round(wall_s, 3),
        )

    return run


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
