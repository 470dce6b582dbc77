"""From measurements to settings: no disk, no clock, so that a test can hold it to its rules."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from copycat.cli.words import binary_size, size_of

__all__ = [
    "Choice",
    "Measurement",
    "Sample",
    "choose",
    "label_of",
    "python_snippet",
    "summarise",
    "toml_snippet",
]

_NEAR_BEST = 0.9
"""A rate this close to the best one is as good: the rest is the disk's mood."""
_P99_SLACK = 1.5
"""And a p99 up to so many times the best one."""
_SPACE_SLACK = 1.25


class Sample(NamedTuple):
    """One run of one setting. Rates a second, times in microseconds, sizes in bytes."""

    entries_per_s: float
    nbytes_per_s: float
    p50_us: float
    p99_us: float
    open_ms: float = 0.0
    """To open the log again."""
    write_amplification: float = 0.0
    """Bytes written for each byte appended; 0 where nothing was compacted."""
    space_amplification: float = 0.0
    """Bytes kept for each byte that is still live; 0 where nothing was looked at."""


class Measurement(NamedTuple):
    """One setting of one sweep: the median of its runs, and how far apart they were."""

    sweep: str
    """`batch`, `segment`, `durability`, `threshold`, or `churn` (segment sizes under one)."""
    value: float | str
    """Entries an append, bytes, a mode, or a threshold."""
    durability: str
    sample: Sample
    slowest_per_s: float
    fastest_per_s: float
    runs: int


class Choice(NamedTuple):
    """What to set, and why; None where the sweep was not run, or was too short to tell."""

    batch: int | None
    max_segment_size: int | None
    compaction_threshold: float | None
    reasons: tuple[str, ...]


def summarise(
    sweep: str, value: float | str, durability: str, samples: Sequence[Sample]
) -> Measurement:
    """The median of each number over the runs of one setting."""
    middle = Sample(*(median(column) for column in zip(*samples, strict=True)))
    rates = [sample.entries_per_s for sample in samples]
    return Measurement(sweep, value, durability, middle, min(rates), max(rates), len(samples))


def label_of(one: Measurement) -> str:
    """How a table and a plot name a setting."""
    if one.sweep in {"segment", "churn"}:
        return size_of(float(one.value)).replace(".0 ", " ")
    return f"{one.value:,}" if isinstance(one.value, int) else f"{one.value}"


def choose(measurements: Sequence[Measurement]) -> Choice:
    """Settings for this disk. Durability is never chosen: a weaker one is not a tuning."""
    reasons: list[str] = []
    batch = _smallest_good(_of(measurements, "batch"))
    if batch is not None:
        reasons.append(
            f"batch {label_of(batch)}: the smallest that reaches {_NEAR_BEST:.0%} of the best"
            f" rate ({batch.sample.entries_per_s:,.0f} entries a second)"
        )
    segment = _smallest_good(_of(measurements, "segment"), by_p99=True)
    if segment is not None:
        reasons.append(
            f"max_segment_size {label_of(segment)}: the smallest near the best rate with a p99"
            f" of at most {_P99_SLACK:g} times the best; small segments are cleaned sooner and"
            " opened faster after a crash"
        )
    threshold = _threshold(_of(measurements, "threshold"))
    if threshold is not None:
        reasons.append(
            f"compaction_threshold {label_of(threshold)}: the least bytes written among those"
            f" that keep within {_SPACE_SLACK:g} times the least space"
            f" ({threshold.sample.write_amplification:.2f} written,"
            f" {threshold.sample.space_amplification:.2f} kept)"
        )
    return Choice(
        int(batch.value) if batch is not None else None,
        int(segment.value) if segment is not None else None,
        float(threshold.value) if threshold is not None else None,
        tuple(reasons),
    )


def _of(measurements: Sequence[Measurement], sweep: str) -> list[Measurement]:
    return [one for one in measurements if one.sweep == sweep]


def _smallest_good(found: list[Measurement], *, by_p99: bool = False) -> Measurement | None:
    if not found:
        return None
    best = max(one.sample.entries_per_s for one in found)
    good = [one for one in found if one.sample.entries_per_s >= _NEAR_BEST * best]
    if by_p99:
        least = min(one.sample.p99_us for one in good)
        good = [one for one in good if one.sample.p99_us <= _P99_SLACK * least]
    return min(good, key=lambda one: float(one.value))


def _threshold(found: list[Measurement]) -> Measurement | None:
    """Among those that had the time to clean anything; None when the runs were too short."""
    found = [one for one in found if one.sample.space_amplification]
    if not found:
        return None
    least = min(one.sample.space_amplification for one in found)
    good = [one for one in found if one.sample.space_amplification <= _SPACE_SLACK * least]
    return min(good, key=lambda one: (one.sample.write_amplification, float(one.value)))


def _settings(choice: Choice) -> dict[str, Any]:
    told = {
        "max_segment_size": choice.max_segment_size,
        "compaction_threshold": choice.compaction_threshold,
    }
    return {name: value for name, value in told.items() if value is not None}


def toml_snippet(choice: Choice, directory: str) -> str:
    """The `[storage]` part of a configuration file."""
    lines = ["[storage]", f"directory = {_quoted(directory)}", 'durability = "fsync"']
    for name, value in _settings(choice).items():
        told = _quoted(binary_size(value)) if name == "max_segment_size" else f"{value:g}"
        lines.append(f"{name} = {told}")
    if choice.batch is not None:
        lines.append(f"# append_many() with about {choice.batch:,} entries a call")
    return "\n".join(lines) + "\n"


def python_snippet(choice: Choice, directory: str) -> str:
    """The same as a line of Python."""
    told = {"directory": directory, "durability": "fsync"} | _settings(choice)
    inside = ", ".join(f"{name}={_literal(value)}" for name, value in told.items())
    return f"Storage({inside})"


def _literal(value: object) -> str:
    if isinstance(value, int) and value % (1 << 20) == 0:
        return f"{value >> 20} << 20"
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
