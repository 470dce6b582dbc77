"""Settings of the benchmarks: machine facts into every result, a directory on a real disk."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.engines import is_installed
from bench.filled import own_directory
from bench.load import cpu_s
from bench.scale import SCALE

# A peer that is not installed has no benchmark; `make bench` installs all of them.
collect_ignore = [] if is_installed("pysyncobj") else ["bench_pysyncobj.py"]


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    machine_info["cores"] = os.cpu_count()
    machine_info["kernel"] = platform.release()
    machine_info["filesystem"] = _filesystem(Path.cwd())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A smoke test takes each benchmark once with each engine, and not all its parameters."""
    if SCALE >= 0.01:
        return
    chosen: dict[tuple[str, object], pytest.Item] = {}
    for item in items:
        of_function = item.name.partition("[")[0]
        chosen[of_function, _parameters(item).get("engine")] = item
    chosen_ids = set(map(id, chosen.values()))
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in chosen_ids])
    items[:] = [item for item in items if id(item) in chosen_ids]


def _parameters(item: pytest.Item) -> dict[str, object]:
    call: Any = getattr(item, "callspec", None)
    return {} if call is None else call.params


def _filesystem(path: Path) -> str:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    owner = max((m for m in mounts if str(path).startswith(m[1])), key=lambda m: len(m[1]))
    return f"{owner[2]} on {owner[1]}"


@pytest.fixture
def disk() -> Iterator[Path]:
    """An empty directory beside the sources: /tmp may be memory."""
    with own_directory() as path:
        yield path


@pytest.fixture
def rate(benchmark: Any) -> Callable[..., None]:
    """`rate(work, entries, durability=..., ...)`: median entries/s, and CPU seconds for 1,000.

    What else is named goes into the row as it is.
    """

    def run(
        work: Callable[[], object],
        entries: int,
        *,
        durability: str,
        rounds: int = 30,
        **facts: object,
    ) -> None:
        work()
        before = cpu_s()
        started = time.perf_counter()
        benchmark.pedantic(work, rounds=rounds, iterations=1, warmup_rounds=1)
        wall_s = time.perf_counter() - started
        used_s = cpu_s() - before
        benchmark.extra_info.update(
            durability=durability,
            entries_per_s=round(entries / benchmark.stats.stats.median),
            cpu_s_per_1000=round(used_s * 1000 / (entries * (rounds + 1)), 7),
            wall_s=round(wall_s, 3),
            **facts,
        )

    return run
