"""Cleaning: how fast, what it writes, what it leaves, and what appends feel of it."""

from __future__ import annotations

import statistics
import threading
import time
from array import array
from pathlib import Path
from typing import Any

import pytest

from bench.churn import KEYED, CopycatKeyed, Keyed, commands, disk_bytes, written_bytes
from bench.copies import copy_s, sealed_segments
from bench.fill import ITEM
from bench.load import cpu_s
from bench.scale import scaled
from copycat import Log
from copycat.types import Compaction

COMMANDS = scaled(10_000_000, 5000)
KEYS = scaled(100_000, 50)
BATCH = 1000
ENTRIES = scaled(1_000_000, 4000)
ROUNDS = scaled(3)
BY_HAND = {"compaction_threshold": 1e9, "durability": "os"}
"""No thread of its own: the bench says when."""
SMALL_SEGMENTS = 2 << 20


@pytest.mark.parametrize(
    "engine", ["copycat", "copycat, segments of 2 MiB", *KEYED], ids=lambda name: name
)
def bench_churn(benchmark: Any, disk: Path, engine: str) -> None:
    """10 M commands over 100 k keys as fast as they go. `space_amplification` is of what is live,
    after the run that the log's own thread would make next; `space_at_the_end` is before it.

    Live are the newest commands of all keys: in the log with their frames' headers, and beside
    it (`of_payload`) keys and values alone, which is what can be compared with the peers.
    """
    benchmark.group = "churn of 10 M commands over 100 k keys"
    benchmark.name = f"bench_churn[{engine}]"
    store = _keyed(disk, engine)
    payload, peak, spent = 0, 0, cpu_s()
    wrote, wrote_here = written_bytes(), written_bytes(thread=True)

    def churn() -> None:
        nonlocal payload, peak
        for number, batch in enumerate(commands(COMMANDS, KEYS, BATCH)):
            store.put(batch)
            payload += sum(len(key) + len(value) for key, value in batch.items)
            if number % 100 == 0:
                peak = max(peak, disk_bytes(disk))

    benchmark.pedantic(churn, rounds=1, iterations=1)
    spent = cpu_s() - spent
    wrote_here = written_bytes(thread=True) - wrote_here
    if isinstance(store, CopycatKeyed):
        store.log._compaction_thread().stop()
    wrote = written_bytes() - wrote
    facts: dict[str, object] = {
        "durability": "os",
        "setting": store.setting,
        "commands_per_s": round(COMMANDS / benchmark.stats.stats.median),
        "cpu_s_per_1000": round(spent * 1000 / COMMANDS, 6),
        "written_of_payload": round(wrote / payload, 3),
        "peak_mb": round(peak / 1e6, 1),
    }
    if isinstance(store, CopycatKeyed):
        live = store.live_bytes()
        facts["write_amplification"] = round(wrote / wrote_here, 3)
        facts["space_at_the_end"] = round(store.log.size / live, 3)
    store.finish_maintenance()
    if isinstance(store, CopycatKeyed):
        facts["space_amplification"] = round(store.log.size / live, 3)
        facts["segments"] = len(store.log.segments)
    facts["disk_mb"] = round(disk_bytes(disk) / 1e6, 1)
    facts["disk_of_payload"] = round(disk_bytes(disk) / (payload / COMMANDS * KEYS), 3)
    benchmark.extra_info.update(facts)
    store.close()


def _keyed(disk: Path, engine: str) -> Keyed:
    if engine == "copycat":
        return CopycatKeyed(disk)
    if engine.startswith("copycat"):
        return CopycatKeyed(disk, max_segment_size=SMALL_SEGMENTS)
    return KEYED[engine](disk)


def bench_major_compaction(benchmark: Any, disk: Path) -> None:
    """Half of the entries go. Beside it `cp` and fsync of the same files, in the same rounds."""
    benchmark.group = "major compaction, every second entry of 256 B released"
    copies: list[float] = []
    read: list[int] = []
    spent: list[float] = []

    def setup() -> tuple[tuple[Any], dict[str, object]]:
        log = _filled(disk / f"log-{len(copies)}", ENTRIES)
        log.release_many(array("Q", range(1, ENTRIES + 1, 2)))
        read.append(sum(one.size for one in log.segments if one.is_sealed))
        files = sealed_segments(disk / f"log-{len(copies)}")
        copies.append(copy_s(files, disk / "copy"))
        return (log,), {}

    def compact(log: Any) -> None:
        before = cpu_s()
        report = log.compactor.compact(Compaction.MAJOR)
        spent.append(cpu_s() - before)
        assert report.bytes_reclaimed > 0
        opened.append(log)

    opened: list[Any] = []
    benchmark.pedantic(compact, setup=setup, rounds=ROUNDS, iterations=1)
    for log in opened:
        log.close()
    nbytes, median = statistics.median(read), benchmark.stats.stats.median
    benchmark.extra_info.update(
        durability="fsync of what is rewritten",
        read_mb_per_s=round(nbytes / median / 1e6, 1),
        copy_mb_per_s=round(nbytes / statistics.median(copies) / 1e6, 1),
        of_copy=round(statistics.median(copies) / median, 3),
        cpu_s_per_1000=round(statistics.median(spent) * 1000 / ENTRIES, 7),
        entries=ENTRIES,
    )


def bench_foreground_p99(benchmark: Any, disk: Path) -> None:
    """Durable appends of one entry, in turns without and with a major compaction beside them."""
    benchmark.group = "durable append of 1 x 256 B while a major compaction runs"
    log: Any = _filled(disk / "log", ENTRIES)
    log.close()
    log = Log.open(disk / "log", **{**BY_HAND, "durability": "fsync"})
    quiet: list[float] = []
    busy: list[float] = []

    def turns() -> None:
        for turn in range(ROUNDS):
            _append_while(log, quiet, seconds=scaled(1000, 50) / 1000)
            # Each turn takes half of what is left: 1/2, 1/4, ... of the entries.
            step = 2 << turn
            log.release_many(array("Q", range(step // 2, ENTRIES, step)))
            cleaner = threading.Thread(target=log.compactor.compact, args=(Compaction.MAJOR,))
            cleaner.start()
            _append_while(log, busy, cleaner=cleaner)

    benchmark.pedantic(turns, rounds=1, iterations=1)
    log.close()
    alone, beside = _p99(quiet), _p99(busy)
    benchmark.extra_info.update(
        durability="fsync",
        p50_us=round(statistics.median(quiet) * 1e6, 1),
        p99_us=round(alone * 1e6, 1),
        busy_p50_us=round(statistics.median(busy) * 1e6, 1),
        busy_p99_us=round(beside * 1e6, 1),
        busy_worst_us=round(max(busy) * 1e6, 1),
        p99_ratio=round(beside / alone, 3),
        busy_appends=len(busy),
    )


def _append_while(
    log: Any,
    latencies: list[float],
    *,
    cleaner: threading.Thread | None = None,
    seconds: float = 0,
) -> None:
    """Append until the cleaner is done, or so many seconds; at least once."""
    clock = time.perf_counter
    end = clock() + seconds
    while True:
        began = clock()
        log.append(ITEM)
        latencies.append(clock() - began)
        if not (cleaner.is_alive() if cleaner is not None else clock() < end):
            return


def _p99(latencies: list[float]) -> float:
    ordered = sorted(latencies)
    return ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]


def _filled(path: Path, count: int) -> Any:
    """A log of `count` entries in segments that stay many at every scale."""
    size = 8 << 20 if count >= 100_000 else 1 << 16
    log = Log.open(path, max_segment_size=size, **BY_HAND)
    for first in range(0, count, 1000):
        log.append_many([ITEM] * min(1000, count - first))
    log.sync()
    return log
