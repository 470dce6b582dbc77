"""Sweeps of two settings, and a plot of each: `python -m bench.sweep DIRECTORY`.

Writes sweeps.json, sweep-segment-size.svg and sweep-threshold.svg there. Each point is a log of
its own on the same disk, in this process; a point is measured ROUNDS times, and the medians are
kept. The points of one round are in one order, so that a slow minute hits all alike.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench.churn import CopycatKeyed, commands, written_bytes
from bench.fill import ITEM
from bench.scale import scaled
from copycat import Log
from copycat.types import Compaction

__all__ = ["Point", "churn_point", "main", "plot", "segment_point"]

Point = dict[str, float]

SIZES_MB = (1, 2, 4, 8, 16, 32, 64, 128)
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ROUNDS = scaled(3)
ENTRIES = scaled(1_000_000, 3000)
COMMANDS = scaled(1_000_000, 3000)
KEYS = scaled(100_000, 50)


def segment_point(directory: Path, entries: int, **options: Any) -> Point:
    """Append without and with a sync, open after a clean stop, a major compaction of half."""
    storage = {"compaction_threshold": 1e9, **options}
    log: Any = Log.open(directory, durability="os", **storage)
    began = time.perf_counter()
    for first in range(0, entries, 1000):
        log.append_many([ITEM] * min(1000, entries - first))
    append_s = time.perf_counter() - began
    log.close()
    log = Log.open(directory, **storage)
    synced = max(1, entries // 10_000)
    began = time.perf_counter()
    for _ in range(synced):
        log.append_many([ITEM] * 1000)
    synced_s = time.perf_counter() - began
    log.close()
    began = time.perf_counter()
    log = Log.open(directory, **storage)
    open_s = time.perf_counter() - began
    segments = log.segments
    log.release_many(array("Q", range(1, entries, 2)))
    began = time.perf_counter()
    log.compactor.compact(Compaction.MAJOR)
    compact_s = time.perf_counter() - began
    log.close()
    sealed = sum(one.size for one in segments if one.is_sealed)
    return {
        "append_per_s": round(entries / append_s),
        "durable_append_per_s": round(synced * 1000 / synced_s),
        "open_ms": round(open_s * 1e3, 3),
        "compaction_mb_per_s": round(sealed / compact_s / 1e6, 1),
        "segments": len(segments),
    }


def churn_point(directory: Path, count: int, keys: int, **options: Any) -> Point:
    """Keyed commands with cleaning by the log's own thread: what it leaves and what it writes."""
    store = CopycatKeyed(directory, **options)
    others = written_bytes() - written_bytes(thread=True)
    appended = written_bytes(thread=True)
    sizes: list[int] = []
    began = time.perf_counter()
    for number, batch in enumerate(commands(count, keys, 1000)):
        store.put(batch)
        if number % 20 == 0:
            sizes.append(store.log.size)
    took = time.perf_counter() - began
    store.log._compaction_thread().stop()
    appended = written_bytes(thread=True) - appended
    others = written_bytes() - written_bytes(thread=True) - others
    live = store.live_bytes()
    second_half = sizes[len(sizes) // 2 :]
    point = {
        "space_amplification": round(store.log.size / live, 3),
        "mean_space_amplification": round(statistics.mean(second_half) / live, 3),
        "write_amplification": round(1 + others / appended, 3),
        "commands_per_s": round(count / took),
        "segments": len(store.log.segments),
    }
    store.close()
    return point


def _swept(values: Iterable[float], measure: Callable[[Path, float], Point]) -> list[Point]:
    """Medians of ROUNDS points for each value, which is the point's `value`."""
    values = list(values)
    by_value: dict[float, list[Point]] = {value: [] for value in values}
    root = (Path("build") / "bench").resolve()
    root.mkdir(parents=True, exist_ok=True)
    for _ in range(ROUNDS):
        for value in values:
            directory = Path(tempfile.mkdtemp(dir=root))
            by_value[value].append(measure(directory, value))
            shutil.rmtree(directory)
    return [
        {"value": value}
        | {key: statistics.median(point[key] for point in points) for key in points[0]}
        for value, points in by_value.items()
    ]


def plot(target: Path, points: list[Point], label: str, columns: dict[str, str]) -> None:
    """One panel a column, the setting on the x axis. `columns`: name in a point -> title."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"svg.hashsalt": "copycat", "svg.fonttype": "none", "font.size": 9})
    figure = Figure(figsize=(3.2 * len(columns), 2.6), layout="constrained")
    for axes, (name, title) in zip(
        figure.subplots(1, len(columns), squeeze=False)[0], columns.items(), strict=True
    ):
        values = [point["value"] for point in points]
        axes.plot(values, [point[name] for point in points], marker="o", markersize=3)
        if max(values) > 1:
            axes.set_xscale("log", base=2)
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(label)
        axes.grid(visible=True, alpha=0.3)
    figure.savefig(target, metadata={"Date": None})


def main(directory: str) -> None:
    """Sweep both, write the numbers and the plots."""
    target = Path(directory).resolve()
    sizes = _swept(
        SIZES_MB,
        lambda path, size: segment_point(path, ENTRIES, max_segment_size=int(size) << 20),
    )
    thresholds = _swept(
        THRESHOLDS,
        lambda path, threshold: churn_point(
            path, COMMANDS, KEYS, max_segment_size=2 << 20, compaction_threshold=threshold
        ),
    )
    sweeps = {"max_segment_size": sizes, "compaction_threshold": thresholds}
    (target / "sweeps.json").write_text(json.dumps(sweeps, indent=1) + "\n")
    plot(
        target / "sweep-segment-size.svg",
        sizes,
        "max_segment_size, MiB",
        {
            "append_per_s": "append, entries/s",
            "durable_append_per_s": "durable append, entries/s",
            "open_ms": "open after a clean stop, ms",
            "compaction_mb_per_s": "major compaction, MB/s read",
        },
    )
    plot(
        target / "sweep-threshold.svg",
        thresholds,
        "compaction_threshold",
        {
            "mean_space_amplification": "space / live bytes, mean",
            "write_amplification": "written / appended",
            "commands_per_s": "keyed commands/s",
        },
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
