"""One run of one setting on the user's disk: a real log, appended to for a while."""

from __future__ import annotations

import os
import shutil
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from copycat import Log
from copycat.cli.tune.choose import Sample

__all__ = ["Limits", "measure_append", "sample_of"]


class Limits(NamedTuple):
    """How much one run may take, and how large its entries are. Seconds and bytes."""

    seconds: float
    space: int
    entry_size: int


def measure_append(
    directory: Path, limits: Limits, *, batch: int, segment_size: int, durability: str
) -> Sample:
    """Append for the time or the space that a run has, then open the log again.

    The rate counts entries whose append returned: with "fsync" they are on the disk then, with
    the weaker modes they are not. `directory` is created, and deleted afterwards.
    """
    options: dict[str, Any] = {"durability": durability, "max_segment_size": segment_size}
    items = [os.urandom(limits.entry_size) for _ in range(batch)]
    entry_nbytes = (32 + limits.entry_size + 7) & ~7
    room = max(1, limits.space // (entry_nbytes * batch))
    times = array("d")
    clock = time.perf_counter
    try:
        with Log.open(directory, **options) as log:
            began = before = clock()
            while before - began < limits.seconds and len(times) < room:
                log.append_many(items)
                now = clock()
                times.append(now - before)
                before = now
        opened = clock()
        with Log.open(directory, **options):
            open_ms = (clock() - opened) * 1000
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return sample_of(times, batch, entry_nbytes)._replace(open_ms=open_ms)


def sample_of(times: Sequence[float], batch: int, entry_nbytes: int) -> Sample:
    """The rates and times of appends of `batch` entries that took `times` seconds."""
    rate = len(times) * batch / sum(times)
    ordered = sorted(times)
    return Sample(
        entries_per_s=rate,
        nbytes_per_s=rate * entry_nbytes,
        p50_us=_at(ordered, 0.5),
        p99_us=_at(ordered, 0.99),
    )


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e6
