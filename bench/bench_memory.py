"""Memory for each million entries, beyond mapped files: see bench.memory.

Bytes an entry are megabytes a million entries. The time is that of the process that opens.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.engines import ENGINES, READERS
from bench.scale import scaled

ENTRIES = scaled(2_000_000, 4000)


@pytest.mark.parametrize("engine", READERS)
def bench_memory(benchmark: Any, disk: Path, engine: str) -> None:
    benchmark.group = "memory for each million entries of 256 B"

    def run(what: str) -> dict[str, float]:
        words = ["bench.memory", engine, str(disk), str(ENTRIES), what]
        done = subprocess.run(
            [sys.executable, "-m", *words], check=True, capture_output=True, text=True
        )
        measures: dict[str, float] = json.loads(done.stdout)
        return measures

    appended = run("append")
    words = ["bench.fill", engine, str(disk / "full"), str(ENTRIES), "clean"]
    subprocess.run([sys.executable, "-m", *words], check=True)
    opened = benchmark.pedantic(run, ("open",), rounds=1, iterations=1)
    benchmark.extra_info.update(
        durability="os",
        setting=ENGINES[engine].settings[1],  # type: ignore[attr-defined]
        append_anonymous_mb=appended["anonymous"],
        append_fixed_mb=appended["fixed_mb"],
        open_anonymous_mb=opened["anonymous"],
        open_mapped_mb=opened["mapped"],
        entries=ENTRIES,
    )
