"""Opening a log of a million entries: after a clean stop, and after a crash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from copycat import Log

ENTRIES = 1_000_000

_FILL = """
import os, sys
from copycat import Log
log = Log.open(sys.argv[1], durability="os")
items = [bytes(255) + b"x"] * 1000
for _ in range({rounds}):
    log.append_many(items)
log.sync()
if sys.argv[2] == "clean":
    log.close()
else:
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("stop", ["clean", "crash"])
def bench_open(benchmark: Any, disk: Path, stop: str) -> None:
    """A crash is repaired by the first open, so each round crashes a fresh copy of it."""
    benchmark.group = f"open 1 M x 256 B after a {stop} stop"
    source = disk / "source"
    script = _FILL.format(rounds=ENTRIES // 1000)
    subprocess.run([sys.executable, "-c", script, str(source), stop], check=False)
    number = 0

    def setup() -> tuple[tuple[Path], dict[str, object]]:
        nonlocal number
        number += 1
        target = disk / f"copy-{number}"
        shutil.copytree(source, target)
        os.sync()
        return (target,), {}

    def reopen(target: Path) -> None:
        log = Log.open(target)
        assert log.last_index == ENTRIES
        logs.append((log, target))

    logs: list[tuple[Log, Path]] = []
    benchmark.pedantic(reopen, setup=setup, rounds=7, iterations=1)
    for log, target in logs:
        log.close()
        shutil.rmtree(target)
    benchmark.extra_info.update(durability="fsync", entries=ENTRIES)
