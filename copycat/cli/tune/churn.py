"""One run of keyed writes: each entry releases an earlier one, and the log is compacted."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Protocol

from copycat import Log
from copycat.cli.tune.choose import Sample
from copycat.cli.tune.measure import Limits, sample_of
from copycat.types import Compaction

__all__ = ["DURABILITY", "Amplification", "measure_churn"]

KEYS = 20_000
_BATCH = 64
DURABILITY: Literal["os"] = "os"
"""It does not change what is written and deleted, and a run writes more segments with it."""


class _Segment(Protocol):
    @property
    def id(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def size(self) -> int: ...


class Amplification:
    """Bytes written per byte appended, and bytes stored per live byte, as a log shows them."""

    def __init__(self) -> None:
        self._rewritten: dict[tuple[int, int], int] = {}
        self._space_ratios: list[float] = []

    def look(self, segments: Iterable[_Segment], live_nbytes: int) -> None:
        """Count the segments of the log; those of version 2 and above were rewritten."""
        total = 0
        for segment in segments:
            total += segment.size
            if segment.version > 1:
                self._rewritten[segment.id, segment.version] = segment.size
        self._space_ratios.append(total / live_nbytes)

    def written(self, appended_nbytes: int) -> float:
        """Bytes written per byte appended; 1 when nothing was rewritten."""
        return 1 + sum(self._rewritten.values()) / appended_nbytes

    @property
    def mean_space(self) -> float:
        """Bytes stored per live byte, as the mean over all calls of `look`; 0 before the first."""
        return sum(self._space_ratios) / len(self._space_ratios) if self._space_ratios else 0.0


def measure_churn(
    directory: Path, limits: Limits, *, threshold: float, segment_size: int
) -> Sample:
    """Append to random keys, release the replaced entries, and compact after each segment.

    One append at the least; `space_amplification` is 0 when there was no time for a segment.
    """
    entry_nbytes = (32 + limits.entry_size + 7) & ~7
    rng = random.Random(threshold)
    payload = rng.randbytes(limits.entry_size)
    newest: dict[int, int] = {}
    amplification = Amplification()
    times: list[float] = []
    appended = since = 0
    try:
        with Log.open(
            directory,
            durability=DURABILITY,
            max_segment_size=segment_size,
            compaction_threshold=threshold,
        ) as log:
            deadline = time.perf_counter() + limits.seconds
            while not times or (time.perf_counter() < deadline and appended < limits.space):
                before = time.perf_counter()
                indexes = log.append_many([payload] * _BATCH)
                for index in indexes:
                    key = rng.randrange(KEYS)
                    if key in newest:
                        log.release(newest[key])
                    newest[key] = index
                times.append(time.perf_counter() - before)
                appended += _BATCH * entry_nbytes
                since += _BATCH * entry_nbytes
                if since >= segment_size:
                    log.compactor.compact(Compaction.MINOR)
                    amplification.look(log.segments, len(newest) * entry_nbytes)
                    since = 0
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return sample_of(times, _BATCH, entry_nbytes)._replace(
        write_amplification=amplification.written(appended),
        space_amplification=amplification.mean_space,
    )
