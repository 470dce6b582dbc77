"""Opening a log of a million entries: after a clean stop, and after a crash.

Open means: until the last entry was read. The files are in the page cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.engines import ENGINES, READERS, Engine
from bench.fill import ITEM
from bench.load import cpu_s
from bench.scale import scaled

ENTRIES = scaled(1_000_000, 2000)


@pytest.mark.parametrize("stop", ["clean", "crash"])
@pytest.mark.parametrize("engine", READERS)
def bench_open(benchmark: Any, disk: Path, engine: str, stop: str) -> None:
    """A crash is repaired by the first open, so each round opens a fresh copy of it."""
    benchmark.group = f"open 1 M x 256 B after a {stop} stop"
    source = disk / "source"
    words = [sys.executable, "-m", "bench.fill", engine, str(source), str(ENTRIES), stop]
    subprocess.run(words, check=stop == "clean")
    opened: list[tuple[Engine, Path]] = []
    spent: list[float] = []

    def setup() -> tuple[tuple[Path], dict[str, object]]:
        while opened:
            log, target = opened.pop()
            log.close()
            shutil.rmtree(target)
        target = disk / f"copy-{len(spent)}"
        shutil.copytree(source, target)
        os.sync()
        return (target,), {}

    def reopen(target: Path) -> None:
        before = cpu_s()
        log = ENGINES[engine](target, sync=True)
        assert log.get(ENTRIES - 1) == ITEM
        spent.append(cpu_s() - before)
        opened.append((log, target))

    benchmark.pedantic(reopen, setup=setup, rounds=scaled(7), iterations=1)
    setup()
    benchmark.extra_info.update(
        durability="fsync",
        setting=ENGINES[engine].settings[0],  # type: ignore[attr-defined]
        open_ms=round(benchmark.stats.stats.median * 1e3, 2),
        cpu_s_per_1000=round(sum(spent) / len(spent) * 1000 / ENTRIES, 7),
        entries=ENTRIES,
    )
