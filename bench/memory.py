"""Memory of an engine, measured in a process of its own: prints bytes for each entry as JSON.

`python -m bench.memory ENGINE DIRECTORY COUNT append` appends; with `open` at the end it opens
what bench.fill wrote, reads everything once in order and a tenth of it at random. What counts
is memory that no file backs (RssAnon): the page cache of mapped files can be taken back at any
time. What an engine needs for a thousand entries (interpreter, libraries, fixed caches) was
there before and is left out.
"""

from __future__ import annotations

import gc
import json
import random
import sys
from pathlib import Path

import numpy as np

from bench.engines import ENGINES, Engine
from bench.fill import ITEM

__all__ = ["measure"]


def _resident() -> tuple[int, int]:
    """(bytes that no file backs, bytes of mapped files) of this process."""
    gc.collect()
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(rows["RssAnon"].split()[0]) << 10, int(rows["RssFile"].split()[0]) << 10


def _read(log: Engine, count: int) -> None:
    log.scan()
    rng = random.Random(7)
    for _ in range(max(1, count // 10)):
        log.get(rng.randrange(count))


def measure(engine: str, directory: Path, count: int, what: str) -> dict[str, float]:
    """Bytes for each entry that no file backs; what is there at any size; mapped files."""
    warm = directory / f"warm-{what}"
    warm.mkdir(parents=True)
    small = ENGINES[engine](warm, sync=False)
    small.append([ITEM] * 1000)
    _read(small, 1000)
    before, mapped_before = _resident()
    if what == "append":
        log = small
        per_entry, fixed = _line(log, count, before)
    else:
        log = ENGINES[engine](directory / "full", sync=False)
        _read(log, count)
        per_entry, fixed = (_resident()[0] - before) / count, 0.0
    mapped = _resident()[1] - mapped_before
    log.close()
    return {
        "anonymous": round(per_entry, 2),
        "fixed_mb": round(fixed / 1e6, 1),
        "mapped": round(mapped / count, 2),
    }


def _line(log: Engine, count: int, before: int) -> tuple[float, float]:
    """Append, and fit a line through the memory seen meanwhile: (bytes an entry, bytes at none).

    Buffers that fill and empty again would make any single sample a matter of luck.
    """
    step = max(1, count // 50_000) * 1000
    entries, resident = [], []
    for done in range(step, count + 1, step):
        for _ in range(step // 1000):
            log.append([ITEM] * 1000)
        entries.append(done)
        resident.append(_resident()[0] - before)
    begin = len(entries) // 8
    slope, fixed = np.polyfit(entries[begin:], resident[begin:], 1)
    return float(slope), float(fixed)


if __name__ == "__main__":
    print(
        json.dumps(
            measure(sys.argv[1], Path(sys.argv[2]).resolve(), int(sys.argv[3]), sys.argv[4])
        )
    )
