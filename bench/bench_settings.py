"""What each setting of `Storage` changes, one benchmark a setting; small, and side by side.

The two with a plot, `max_segment_size` and `compaction_threshold`, are swept by bench.sweep.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import statistics
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.churn import disk_bytes
from bench.cluster import free_addresses
from bench.fill import ITEM
from bench.member import PAYLOAD, Sink
from bench.scale import scaled
from bench.sweep import churn_point, segment_point
from copycat import CopycatServer, Log, Storage
from copycat.errors import DiskFullError, EntryTooLargeError
from copycat.storage._native import Env
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import Compaction, EntryId

ENTRIES = scaled(200_000, 3000)
COMMANDS = scaled(500_000, 3000)
KEYS = scaled(50_000, 50)
BATCHES = scaled(300, 3)
MEMORY = Path("/dev/shm")  # noqa: S108  (meant: a file system in memory)


def _measure(benchmark: Any, setting: str, value: object, work: Callable[[], Any]) -> Any:
    """One row of the setting's group."""
    benchmark.group = f"storage.{setting}"
    benchmark.name = f"bench_setting[{setting}={value}]"
    return benchmark.pedantic(work, rounds=1, iterations=1)


def _appended(log: Any, batches: int) -> dict[str, float]:
    """Rate of batches of 64 x 256 B; how far the durable index was behind, at most."""
    behind = 0
    took: list[float] = []
    for _ in range(batches):
        began = time.perf_counter()
        log.append_many([ITEM] * 64)
        took.append(time.perf_counter() - began)
        behind = max(behind, log.last_index - log.durable_index)
    return {
        "entries_per_s": round(64 / statistics.median(took)),
        "at_risk_entries": behind,
    }


@pytest.mark.parametrize("where", ["disk", "memory"])
def bench_directory(benchmark: Any, disk: Path, where: str) -> None:
    """The same appends on the disk of the sources and on a file system in memory."""
    path = disk if where == "disk" else MEMORY / f"copycat-{disk.name}"
    with Log.open(path) as log:
        measures = _measure(benchmark, "directory", where, lambda: _appended(log, BATCHES))
    if where != "disk":
        shutil.rmtree(path)
    benchmark.extra_info.update(durability="fsync", **measures)


@pytest.mark.parametrize("level", ["memory", "mapped", "disk"])
def bench_level(benchmark: Any, disk: Path, level: str) -> None:
    """Segments of 1 MiB: nearly all that is read is sealed."""
    with Log.open(disk, level=level, max_segment_size=1 << 20) as log:
        measures = _measure(benchmark, "level", level, lambda: _appended(log, BATCHES))
        began = time.perf_counter()
        read = sum(1 for _ in log)
        measures["scan_per_s"] = round(read / (time.perf_counter() - began))
        rng = random.Random(7)
        numbers = [rng.randint(1, read) for _ in range(scaled(20_000, 100))]
        began = time.perf_counter()
        for number in numbers:
            log.get(number)
        measures["random_per_s"] = round(len(numbers) / (time.perf_counter() - began))
        measures["disk_mb"] = round(disk_bytes(disk) / 1e6, 1)
    benchmark.extra_info.update(durability="fsync", **measures)


@pytest.mark.parametrize("durability", ["fsync", "interval", "os"])
def bench_durability(benchmark: Any, disk: Path, durability: str) -> None:
    with Log.open(disk, durability=durability) as log:
        measures = _measure(benchmark, "durability", durability, lambda: _appended(log, BATCHES))
    benchmark.extra_info.update(durability=durability, **measures)


@pytest.mark.parametrize("interval", [0.001, 0.01, 0.1])
def bench_sync_interval(benchmark: Any, disk: Path, interval: float) -> None:
    with Log.open(disk, durability="interval", sync_interval=interval) as log:
        measures = _measure(
            benchmark, "sync_interval", interval, lambda: _appended(log, BATCHES * 4)
        )
    benchmark.extra_info.update(durability="interval", **measures)


@pytest.mark.parametrize("size_mb", [1, 8, 32])
def bench_max_segment_size(benchmark: Any, disk: Path, size_mb: int) -> None:
    options = {"max_segment_size": size_mb << 20}
    measures = _measure(
        benchmark,
        "max_segment_size",
        f"{size_mb} MiB",
        lambda: segment_point(disk, ENTRIES, **options),
    )
    benchmark.extra_info.update(durability="os", **measures)


@pytest.mark.parametrize("most", [1024, 16_384, 1 << 20])
def bench_max_entries_per_segment(benchmark: Any, disk: Path, most: int) -> None:
    options = {"max_entries_per_segment": most}
    measures = _measure(
        benchmark,
        "max_entries_per_segment",
        most,
        lambda: segment_point(disk, ENTRIES, **options),
    )
    benchmark.extra_info.update(durability="os", **measures)


@pytest.mark.parametrize("size", [1 << 10, 1 << 16, 1 << 20])
def bench_max_entry_size(benchmark: Any, disk: Path, size: int) -> None:
    """Entries as large as it allows; one byte more is refused."""
    data = bytes(size)
    count = max(1, min(1000, scaled(256 << 20) // size))

    def work() -> None:
        for _ in range(count):
            log.append(data)

    with Log.open(disk, max_entry_size=size, durability="os") as log:
        _measure(benchmark, "max_entry_size", size, work)
        with pytest.raises(EntryTooLargeError):
            log.append(data + b"x")
    took = benchmark.stats.stats.median
    benchmark.extra_info.update(
        durability="os",
        entries_per_s=round(count / took),
        mb_per_s=round(count * size / took / 1e6, 1),
    )


@pytest.mark.parametrize("most", [1, 1024, 65_536])
def bench_entry_buffer_size(benchmark: Any, disk: Path, most: int) -> None:
    """The newest thousand entries, read again and again, one at a time."""
    with Log.open(disk, entry_buffer_size=most, durability="os") as log:
        for _ in range(ENTRIES // 1000):
            log.append_many([ITEM] * 1000)
        indexes = range(log.last_index - 999, log.last_index + 1)
        rounds = scaled(50)

        def work() -> None:
            for _ in range(rounds):
                for index in indexes:
                    log[index]

        _measure(benchmark, "entry_buffer_size", most, work)
    rate = rounds * 1000 / benchmark.stats.stats.median
    benchmark.extra_info.update(durability="reads", entries_per_s=round(rate))


@pytest.mark.parametrize("threads", [1, 2])
def bench_compaction_threads(benchmark: Any, disk: Path, threads: int) -> None:
    """A major compaction of many small segments, half of each released."""
    log: Any = Log.open(
        disk,
        durability="os",
        max_segment_size=max(1 << 16, scaled(4 << 20)),
        compaction_threshold=1e9,
        compaction_threads=threads,
    )
    for _ in range(ENTRIES // 1000):
        log.append_many([ITEM] * 1000)
    log.release_many(array("Q", range(1, log.last_index, 2)))
    sealed = sum(one.size for one in log.segments if one.is_sealed)
    _measure(
        benchmark, "compaction_threads", threads, lambda: log.compactor.compact(Compaction.MAJOR)
    )
    log.close()
    rate = sealed / benchmark.stats.stats.median / 1e6
    benchmark.extra_info.update(durability="fsync of what is rewritten", mb_per_s=round(rate, 1))


@pytest.mark.parametrize("interval", [0.05, 60.0])
@pytest.mark.parametrize("setting", ["minor_compaction_interval", "major_compaction_interval"])
def bench_compaction_interval(benchmark: Any, disk: Path, setting: str, interval: float) -> None:
    """A churn that no threshold would clean: what the interval alone does."""
    options = {setting: interval, "compaction_threshold": 4.0, "max_segment_size": 1 << 20}
    measures = _measure(
        benchmark, setting, interval, lambda: churn_point(disk, COMMANDS, KEYS, **options)
    )
    benchmark.extra_info.update(durability="os", **measures)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def bench_compaction_threshold(benchmark: Any, disk: Path, threshold: float) -> None:
    options = {"compaction_threshold": threshold, "max_segment_size": 1 << 20}
    measures = _measure(
        benchmark,
        "compaction_threshold",
        threshold,
        lambda: churn_point(disk, COMMANDS, KEYS, **options),
    )
    benchmark.extra_info.update(durability="os", **measures)


def _state() -> bytes:
    """A state as machines have: JSON-like text that compresses about four times."""
    rows = [
        f'{{"key": "user-{n}", "value": {n * 7919 % 10007}, "open": true}}' for n in range(999)
    ]
    text = "\n".join(rows).encode()
    return text * max(1, scaled(64 << 20) // len(text))


@pytest.mark.parametrize("compression", ["lz4", "none"])
def bench_compression(benchmark: Any, disk: Path, compression: str) -> None:
    store = SnapshotStore(Env(), str(disk), compress=compression == "lz4")
    state = _state()
    snapshot = _measure(
        benchmark,
        "compression",
        compression,
        lambda: store.save(EntryId(1, 1), time_ms=0, data=state),
    )
    store.admit(snapshot)
    began = time.perf_counter()
    assert store.newest_good() is not None
    load_s = time.perf_counter() - began
    benchmark.extra_info.update(
        durability="fsync",
        save_mb_per_s=round(len(state) / benchmark.stats.stats.median / 1e6, 1),
        load_mb_per_s=round(len(state) / load_s / 1e6, 1),
        size_of_state=round(snapshot.nbytes / len(state), 3),
    )


@pytest.mark.parametrize("compression", ["lz4", "none"])
def bench_compression_of_segments(benchmark: Any, disk: Path, compression: str) -> None:
    """A major compaction of entries like JSON, every third released; then what reading costs."""
    items = [row.encode() for row in _state().decode().splitlines()[:999]]
    options = {"compression": compression, "compaction_threshold": 1e9, "durability": "os"}
    log: Any = Log.open(disk, max_segment_size=max(1 << 16, scaled(4 << 20)), **options)
    for _ in range(ENTRIES // 999 + 1):
        log.append_many(items)
    log.release_many(array("Q", range(1, log.last_index, 3)))
    sealed = sum(one.size for one in log.segments if one.is_sealed)
    before = log.size
    _measure(
        benchmark,
        "compression",
        f"{compression}, segments",
        lambda: log.compactor.compact(Compaction.MAJOR),
    )
    end = log.segments[-1].first_index
    began = time.perf_counter()
    read = sum(1 for _ in log.read(stop=end))
    scan_s = time.perf_counter() - began
    rng = random.Random(7)
    numbers = [rng.randrange(1, end) for _ in range(scaled(20_000, 100))]
    began = time.perf_counter()
    for number in numbers:
        log.get(number)
    random_s = time.perf_counter() - began
    benchmark.extra_info.update(
        durability="fsync of what is rewritten",
        read_mb_per_s=round(sealed / benchmark.stats.stats.median / 1e6, 1),
        size_of_before=round(log.size / before, 3),
        scan_per_s=round(read / scan_s),
        random_per_s=round(len(numbers) / random_s),
    )
    log.close()


@pytest.mark.parametrize("threshold", [0, 1 << 20, 8 << 20])
def bench_snapshot_threshold(benchmark: Any, disk: Path, threshold: int) -> None:
    """One member takes commands of 256 B: what its directory holds at the end."""
    storage = Storage(
        directory=str(disk / "member"), snapshot_threshold=threshold, max_segment_size=1 << 20
    )

    async def work() -> None:
        address = free_addresses(1)[0]
        async with CopycatServer(address, Sink, storage=storage, cluster_name="bench") as server:
            await server.bootstrap(address)
            async with server.client() as client:
                for _ in range(COMMANDS // 4000 + 1):
                    await client.submit_many([Sink.put(PAYLOAD)] * 1000)
                nbytes.append(disk_bytes(disk))

    nbytes: list[int] = []
    _measure(benchmark, "snapshot_threshold", threshold, lambda: asyncio.run(work()))
    rate = (COMMANDS // 4000 + 1) * 1000 / benchmark.stats.stats.median
    benchmark.extra_info.update(
        durability="fsync", commands_per_s=round(rate), disk_mb=round(nbytes[0] / 1e6, 1)
    )


@pytest.mark.parametrize("retain", [False, True])
def bench_retain_stale_snapshots(benchmark: Any, disk: Path, retain: bool) -> None:
    """What six snapshots leave on the disk."""
    store = SnapshotStore(Env(), str(disk), retain_stale=retain)
    state = _state()

    def work() -> None:
        for number in range(1, 7):
            snapshot = store.save(EntryId(1, number), time_ms=0, data=state)
            store.forget(store.discard(store.admit(snapshot)))

    _measure(benchmark, "retain_stale_snapshots", retain, work)
    benchmark.extra_info.update(
        durability="fsync", snapshots=len(store.entries), disk_mb=round(disk_bytes(disk) / 1e6, 1)
    )


@pytest.mark.parametrize("reserve_mb", [0, 8])
def bench_min_free_space(benchmark: Any, disk: Path, reserve_mb: int) -> None:
    """How many MiB a log takes on a disk that had 12 MiB free and this reserve."""
    free = shutil.disk_usage(disk).free
    options = {"min_free_space": free - (12 << 20) + (reserve_mb << 20)}
    with Log.open(disk, durability="os", max_segment_size=1 << 20, **options) as log:

        def work() -> int:
            for number in range(64):
                try:
                    log.append_many([ITEM] * 1024)
                except DiskFullError:
                    return number
            return 64

        appended = _measure(benchmark, "min_free_space", f"{reserve_mb} MiB", work)
    benchmark.extra_info.update(durability="os", taken_mb=round(appended * 1024 * 288 / 1e6, 1))
