"""The log by itself: append, scan, random read; copycat beside its peers, in one run."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.engines import ENGINES, LEVELS, READERS, Engine
from bench.scale import scaled

ENTRIES = scaled(200_000, 2000) // 1000 * 1000


@pytest.mark.parametrize("sync", [True, False], ids=["fsync", "os"])
@pytest.mark.parametrize("size", [256, 1024])
@pytest.mark.parametrize("count", [1, 64, 1024])
@pytest.mark.parametrize("engine", list(ENGINES))
def bench_append(
    benchmark: object,
    rate: Callable[..., None],
    disk: Path,
    engine: str,
    count: int,
    size: int,
    sync: bool,
) -> None:
    durability = "fsync" if sync else "os"
    benchmark.group = f"append {count} x {size} B, {durability}"  # type: ignore[attr-defined]
    log = ENGINES[engine](disk, sync=sync)
    items = [bytes(size - 1) + b"x"] * count
    rounds = scaled(400 if count < 1024 else 100, 3)
    setting = log.settings[0 if sync else 1]
    rate(lambda: log.append(items), count, durability=durability, rounds=rounds, setting=setting)
    log.close()


@pytest.mark.parametrize("engine", [*READERS, "copycat mapped"])
def bench_scan(benchmark: object, rate: Callable[..., None], disk: Path, engine: str) -> None:
    benchmark.group = "scan as bytes, 256 B"  # type: ignore[attr-defined]
    log = _filled(disk, engine)
    assert log.scan() == ENTRIES
    rate(log.scan, ENTRIES, durability="reads", rounds=scaled(5))
    log.close()


@pytest.mark.parametrize("engine", LEVELS)
def bench_scan_batches(
    benchmark: object, rate: Callable[..., None], disk: Path, engine: str
) -> None:
    """Checked batches of about 256 KiB, none of them made into Python objects."""
    benchmark.group = "scan as batches, 256 B"  # type: ignore[attr-defined]
    log = _filled(disk, engine)
    native = log.log._native  # type: ignore[attr-defined]

    def scan() -> int:
        return sum(b.span.end - b.span.first for b in native.scan(1, ENTRIES + 1))

    assert scan() == ENTRIES
    rate(scan, ENTRIES, durability="reads", rounds=scaled(20))
    log.close()


@pytest.mark.parametrize("engine", [*READERS, "copycat mapped"])
def bench_random_read(
    benchmark: object, rate: Callable[..., None], disk: Path, engine: str
) -> None:
    benchmark.group = "random read, 256 B"  # type: ignore[attr-defined]
    log = _filled(disk, engine)
    rng = random.Random(7)
    numbers = [rng.randrange(ENTRIES) for _ in range(scaled(20_000, 100))]
    get = log.get

    def read() -> None:
        for number in numbers:
            get(number)

    rate(read, len(numbers), durability="reads", rounds=scaled(10))
    log.close()


def _filled(disk: Path, engine: str) -> Engine:
    log = (LEVELS.get(engine) or ENGINES[engine])(disk, sync=False)
    items = [bytes(255) + b"x"] * 1000
    for _ in range(ENTRIES // 1000):
        log.append(items)
    return log
