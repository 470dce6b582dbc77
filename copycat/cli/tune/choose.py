"""Chooses settings by measurements. No disk and no clock, so that tests can check the rules."""

from __future__ import annotations

import json
from collections.abc import Sequence
from operator import attrgetter
from statistics import median
from typing import Any, NamedTuple

from copycat.cli.formatting import size_of
from copycat.config import Storage
from copycat.sizes import binary_size

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
"""A rate of this share of the best one counts as equally good: the rest is noise."""
_P99_SLACK = 1.5
"""A p99 of up to so many times the best one counts as good."""
_SPACE_SLACK = 1.25
_NOTABLE = 1.1
"""Medians that differ by less count as equal, since three runs can differ by chance."""
_DEFAULTS = Storage()


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
    least: Sample
    """The least of each number over the runs."""
    most: Sample
    runs: int

    @property
    def value_number(self) -> float:
        """`value` of a sweep of numbers."""
        return float(self.value)

    def differs(self, other: Measurement, field: str) -> bool:
        """True for more than noise: the runs of the two do not overlap, the medians lie apart."""
        low, high = sorted((self, other), key=attrgetter(f"sample.{field}"))
        return bool(
            getattr(low.most, field) < getattr(high.least, field)
            and getattr(low.sample, field) * _NOTABLE <= getattr(high.sample, field)
        )


class Choice(NamedTuple):
    """What to set, and why; None where the sweep was not run, or was too short to tell.

    The default stays where the runs of the better setting and of the default overlap.
    """

    batch: int | None
    max_segment_size: int | None
    compaction_threshold: float | None
    reasons: tuple[str, ...]


def summarise(
    sweep: str, value: float | str, durability: str, samples: Sequence[Sample]
) -> Measurement:
    """The median of each number over the runs of one setting, and its least and most."""
    columns: list[tuple[float, ...]] = list(zip(*samples, strict=True))
    middle = Sample(*(median(column) for column in columns))
    least, most = (Sample(*map(end, columns)) for end in (_least, _most))
    return Measurement(sweep, value, durability, middle, least, most, len(samples))


def _least(column: Sequence[float]) -> float:
    return min(column)


def _most(column: Sequence[float]) -> float:
    return max(column)


def label_of(one: Measurement) -> str:
    """How a table and a plot name a setting."""
    if one.sweep in {"segment", "churn"}:
        return size_of(float(one.value)).replace(".0 ", " ")
    return f"{one.value:,}" if isinstance(one.value, int) else f"{one.value}"


def choose(measurements: Sequence[Measurement]) -> Choice:
    """Settings for this disk. Durability is never chosen: a weaker one is not a tuning."""
    batch, why_batch = _batch(_of(measurements, "batch"))
    segment, why_segment = _segment(_of(measurements, "segment"))
    threshold, why_threshold = _threshold(_of(measurements, "threshold"))
    return Choice(
        None if batch is None else int(batch),
        None if segment is None else int(segment),
        threshold,
        tuple(why for why in (why_batch, why_segment, why_threshold) if why),
    )


def _batch(measurements: list[Measurement]) -> tuple[float | None, str]:
    if not measurements:
        return None, ""
    best = _smallest_good(measurements)
    single = _default(measurements, 1)
    if single is not None and not best.differs(single, "entries_per_s"):
        return single.value_number, _stays("batch", single, ("entries_per_s",), best)
    return best.value_number, (
        f"batch {label_of(best)}: the smallest that reaches {_NEAR_BEST:.0%} of the best"
        f" rate ({best.sample.entries_per_s:,.0f} entries per second)"
    )


def _segment(measurements: list[Measurement]) -> tuple[float | None, str]:
    if not measurements:
        return None, ""
    best = _smallest_good(measurements, by_p99=True)
    usual = _default(measurements, _DEFAULTS.max_segment_size)
    fields = ("entries_per_s", "p99_us")
    if usual is not None and not any(best.differs(usual, field) for field in fields):
        return usual.value_number, _stays("max_segment_size", usual, fields, best)
    return best.value_number, (
        f"max_segment_size {label_of(best)}: the smallest near the best rate with a p99"
        f" of at most {_P99_SLACK:g} times the best; small segments are cleaned sooner and"
        " opened faster after a crash"
    )


def _threshold(measurements: list[Measurement]) -> tuple[float | None, str]:
    """Among those that had the time to clean anything; None when the runs were too short."""
    measurements = [one for one in measurements if one.sample.space_amplification]
    if not measurements:
        return None, ""
    least = min(one.sample.space_amplification for one in measurements)
    good = [one for one in measurements if one.sample.space_amplification <= _SPACE_SLACK * least]
    best = min(good, key=_written_then_value)
    usual = _default(measurements, _DEFAULTS.compaction_threshold)
    fields = ("write_amplification", "space_amplification")
    if usual is not None and not any(best.differs(usual, field) for field in fields):
        return usual.value_number, _stays("compaction_threshold", usual, fields, best)
    return best.value_number, (
        f"compaction_threshold {label_of(best)}: the least bytes written among those"
        f" that keep within {_SPACE_SLACK:g} times the least space"
        f" ({best.sample.write_amplification:.2f} written,"
        f" {best.sample.space_amplification:.2f} kept)"
    )


def _default(measurements: list[Measurement], value: float) -> Measurement | None:
    return next((one for one in measurements if one.value == value), None)


_UNITS = {
    "entries_per_s": "{:,.0f} entries per second",
    "p99_us": "{:,.0f} \u00b5s at p99",
    "write_amplification": "{:.2f} written",
    "space_amplification": "{:.2f} kept",
}


def _stays(name: str, usual: Measurement, fields: Sequence[str], best: Measurement) -> str:
    """Why the default stays: with the spread of its own runs, so that a reader can judge."""
    if usual is best:
        return f"{name} {label_of(usual)}: the default, and the best of those that were measured"
    spreads = ", ".join(
        f"{_UNITS[field].format(getattr(one.least, field))} to"
        f" {_UNITS[field].format(getattr(one.most, field))} with {label_of(one)}"
        for field in fields
        for one in (usual, best)
    )
    return (
        f"{name} {label_of(usual)}: the default stays; what {label_of(best)} does better is"
        f" within the noise of {usual.runs} runs ({spreads})"
    )


def _of(measurements: Sequence[Measurement], sweep: str) -> list[Measurement]:
    return [one for one in measurements if one.sweep == sweep]


def _smallest_good(measurements: list[Measurement], *, by_p99: bool = False) -> Measurement:
    best = max(one.sample.entries_per_s for one in measurements)
    good = [one for one in measurements if one.sample.entries_per_s >= _NEAR_BEST * best]
    if by_p99:
        least = min(one.sample.p99_us for one in good)
        good = [one for one in good if one.sample.p99_us <= _P99_SLACK * least]
    return min(good, key=_value_of)


def _value_of(one: Measurement) -> float:
    return one.value_number


def _written_then_value(one: Measurement) -> tuple[float, float]:
    return one.sample.write_amplification, one.value_number


def _settings(choice: Choice) -> dict[str, Any]:
    values = {
        "max_segment_size": choice.max_segment_size,
        "compaction_threshold": choice.compaction_threshold,
    }
    return {name: value for name, value in values.items() if value is not None}


def toml_snippet(choice: Choice, directory: str) -> str:
    """The `[storage]` part of a settings file; `Storage.from_toml` reads it."""
    lines = ["[storage]", f"directory = {_toml_text(directory)}", 'durability = "fsync"']
    for name, value in _settings(choice).items():
        is_size = name == "max_segment_size"
        lines.append(f"{name} = {_toml_text(binary_size(value)) if is_size else f'{value:g}'}")
    if choice.batch is not None:
        lines.append(f"# append_many() with about {choice.batch:,} entries per call")
    return "\n".join(lines) + "\n"


def _toml_text(text: str) -> str:
    """A basic string of TOML: that of JSON, and DEL escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def python_snippet(choice: Choice, directory: str) -> str:
    """The same as a line of Python."""
    values = {"directory": directory, "durability": "fsync"} | _settings(choice)
    inside = ", ".join(f"{name}={_literal(value)}" for name, value in values.items())
    return f"Storage({inside})"


def _literal(value: object) -> str:
    if isinstance(value, int) and value % (1 << 20) == 0:
        return f"{value >> 20} << 20"
    return json.dumps(value) if isinstance(value, str) else repr(value)
