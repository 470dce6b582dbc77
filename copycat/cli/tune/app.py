"""`copycat tune`: measures settings on the user's disk, and says which to use."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import msgspec

from copycat.cli.formatting import file_system_of, size_of, table
from copycat.cli.progress import progress, say
from copycat.cli.tune.choose import (
    Choice,
    Measurement,
    Sample,
    choose,
    label_of,
    python_snippet,
    summarise,
    toml_snippet,
)
from copycat.cli.tune.churn import DURABILITY, measure_churn
from copycat.cli.tune.measure import Limits, measure_append
from copycat.errors import ConfigurationError, DiskFullError

__all__ = ["Point", "TuneOptions", "points_of", "run_tune"]

_ROUNDS = 3
_SEGMENT = 32 << 20
_BATCH = 64
_BATCHES = (1, 4, 16, 64, 256, 1024)
_SECONDS_MAX = 86400
_ENTRY_MAX = 1 << 20
"""Storage.max_entry_size."""
_SPARE = 256 << 20
"""Storage.min_free_space: the log refuses appends below it."""

Run = Callable[[Path, Limits], Sample]


class TuneOptions(NamedTuple):
    """The options of the command line. Sizes in bytes. output: the folder of the three files."""

    directory: Path
    seconds: float
    space: int
    entry_size: int
    output: Path
    html: bool
    as_json: bool
    quiet: bool


class Point(NamedTuple):
    """One setting to measure, and how."""

    sweep: str
    value: float | str
    durability: str
    run: Run


def points_of(space: int) -> list[Point]:
    """Every setting of every sweep; segment sizes only as far as two of them fit in `space`."""

    def append(**settings: Any) -> Run:
        arguments: dict[str, Any] = {
            "batch": _BATCH,
            "segment_size": _SEGMENT,
            "durability": "fsync",
            **settings,
        }
        return partial(measure_append, **arguments)

    sizes = [mib << 20 for mib in (1, 4, 8, 16, 32, 64, 128) if 2 * (mib << 20) <= space]
    points = [
        *(Point("batch", batch, "fsync", append(batch=batch)) for batch in _BATCHES),
        *(Point("segment", size, "fsync", append(segment_size=size)) for size in sizes),
        *(
            Point("durability", mode, mode, append(durability=mode))
            for mode in ("fsync", "interval", "os")
        ),
    ]
    return points + _churn_points()


def _churn_points() -> list[Point]:
    """A keyed churn in small segments, so that a run gets through many of them."""

    def churn(**settings: float) -> Run:
        arguments: dict[str, Any] = {"threshold": 0.5, "segment_size": 1 << 20, **settings}
        return partial(measure_churn, **arguments)

    return [
        *(
            Point("threshold", threshold, DURABILITY, churn(threshold=threshold))
            for threshold in (0.1, 0.25, 0.5, 0.75, 1.0)
        ),
        *(
            Point("churn", mib << 20, DURABILITY, churn(segment_size=mib << 20))
            for mib in (1, 2, 4, 8)
        ),
    ]


def run_tune(options: TuneOptions) -> int:
    """Measure, print the table, write settings, JSON and the page. Nothing else stays behind.

    ConfigurationError, DiskFullError: before anything is measured. OSError: the results could
    not be written; they are printed.
    """
    _check(options)
    points = points_of(options.space)
    with _scratch(options.directory) as scratch, _output(options.output):
        measurements = _measured(points, scratch, options)
    choice = choose(measurements)
    facts = _facts(options.directory, options.entry_size)
    snippets = [
        toml_snippet(choice, str(options.directory)),
        python_snippet(choice, str(options.directory)),
    ]
    document = _document(measurements, choice, facts, snippets)
    try:
        _write(options, document, measurements, choice, facts, snippets)
    finally:  # what took so long to measure is printed even when it cannot be written
        if options.as_json:
            print(msgspec.json.encode(document).decode())
        else:
            print("\n".join(_lines(measurements, choice)))
            print(f"\n{snippets[0]}\n{snippets[1]}")
    return 0


def _check(options: TuneOptions) -> None:
    problems = []
    if not 1 <= options.seconds <= _SECONDS_MAX:
        problems.append(f"--seconds {options.seconds:g} is not in 1 to {_SECONDS_MAX}")
    if options.space < 2 * _SEGMENT:
        problems.append(
            f"--space {size_of(options.space)} is too little: two segments of"
            f" {size_of(_SEGMENT)} are {size_of(2 * _SEGMENT)}"
        )
    if not 1 <= options.entry_size <= _ENTRY_MAX:
        problems.append(
            f"--entry-size {size_of(options.entry_size)} is not in 1 B to {size_of(_ENTRY_MAX)}"
        )
    elif 2 * _BATCHES[-1] * options.entry_size > options.space:
        problems.append(
            f"--space {size_of(options.space)} is too little for --entry-size"
            f" {size_of(options.entry_size)}: twice {_BATCHES[-1]:,} entries are"
            f" {size_of(2 * _BATCHES[-1] * options.entry_size)}"
        )
    if problems:
        raise ConfigurationError(f"{'; '.join(problems)}; nothing was measured")
    if options.html and find_spec("matplotlib") is None:
        raise ConfigurationError(
            "the page needs matplotlib, which is not installed; nothing was measured",
            hint='pip install "copycat-raft[tune]", or leave the page out with --no-html',
        )
    if not options.directory.is_dir():
        raise ConfigurationError(
            f"{options.directory} is no directory; nothing was measured",
            hint="name a directory on the disk that the log will be on",
        )
    free = shutil.disk_usage(options.directory).free
    if free < options.space + _SPARE:
        raise DiskFullError(
            f"{options.directory} has {size_of(free)} free, and tune may need"
            f" {size_of(options.space + _SPARE)}; nothing was measured",
            hint="free some space, or lower --space",
        )


@contextmanager
def _scratch(directory: Path) -> Iterator[Path]:
    """A new folder on the same disk, which is deleted at the end, also after Ctrl-C or SIGTERM."""
    before = signal.signal(signal.SIGTERM, _end)
    path = Path(tempfile.mkdtemp(prefix="copycat-tune-", dir=directory.resolve()))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _output(path: Path) -> Iterator[None]:
    """Make the folder of the results before anything is measured; it is deleted after a
    failure."""
    made = [one for one in (path, *path.parents) if not one.exists()]
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
        except OSError as cause:
            raise ConfigurationError(
                f"--output {path}: {cause.strerror}; nothing was measured",
                hint="name a folder that can be made and written to",
            ) from cause
        yield
    except BaseException:
        for one in made:
            with suppress(OSError):  # not made yet, or not empty any more
                one.rmdir()
        raise


def _end(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _measured(points: Sequence[Point], scratch: Path, options: TuneOptions) -> list[Measurement]:
    """Measure all points in rounds, so that a disk that becomes slow slows all points alike."""
    limits = Limits(
        options.seconds / (_ROUNDS * len(points)), options.space // 2, options.entry_size
    )
    samples: list[list[Sample]] = [[] for _ in points]
    done = 0
    with progress("measuring", _ROUNDS * len(points)) as (advance, _):
        for round_ in range(_ROUNDS):
            for position, point in enumerate(points):
                samples[position].append(point.run(scratch / f"{round_}-{position}", limits))
                done += 1
                if not options.quiet:
                    advance(done)
    return [
        summarise(point.sweep, point.value, point.durability, point_samples)
        for point, point_samples in zip(points, samples, strict=True)
    ]


def _facts(directory: Path, entry_size: int) -> dict[str, Any]:
    return {
        "copycat": version("copycat-raft"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "file_system": file_system_of(directory),
        "directory": str(directory.resolve()),
        "entry_size": entry_size,
    }


def _document(
    measurements: Sequence[Measurement],
    choice: Choice,
    facts: dict[str, Any],
    snippets: Sequence[str],
) -> dict[str, Any]:
    return {
        "schema": 1,
        "machine": facts,
        "measurements": [
            {
                "sweep": one.sweep,
                "value": one.value,
                "durability": one.durability,
                **one.sample._asdict(),
                "slowest_per_s": one.least.entries_per_s,
                "fastest_per_s": one.most.entries_per_s,
                "p99_us_least": one.least.p99_us,
                "p99_us_most": one.most.p99_us,
                "runs": one.runs,
            }
            for one in measurements
        ],
        "chosen": choice._asdict(),
        "toml": snippets[0],
        "python": snippets[1],
    }


def _write(
    options: TuneOptions,
    document: dict[str, Any],
    measurements: Sequence[Measurement],
    choice: Choice,
    facts: dict[str, Any],
    snippets: Sequence[str],
) -> None:
    files = {
        "settings.toml": snippets[0],
        "tune.json": msgspec.json.format(msgspec.json.encode(document)).decode() + "\n",
    }
    if options.html:
        from copycat.cli.tune.page import page

        files["tune.html"] = page(measurements, choice, facts=facts, snippets=snippets)
    for name, text in files.items():
        (options.output / name).write_text(text, encoding="utf-8")
    if not options.quiet:
        say(f"wrote {', '.join(files)} to {options.output}")


def _lines(measurements: Sequence[Measurement], choice: Choice) -> list[str]:
    chosen = {
        "batch": choice.batch,
        "segment": choice.max_segment_size,
        "threshold": choice.compaction_threshold,
    }
    rows = [
        (
            one.sweep,
            f"{label_of(one)}{' *' if chosen.get(one.sweep) == one.value else '  '}",
            one.durability,
            f"{one.sample.entries_per_s:,.0f}",
            f"{one.sample.nbytes_per_s / (1 << 20):,.1f}",
            f"{one.sample.p99_us:,.0f}",
            f"{one.sample.open_ms:,.1f}" if one.sample.open_ms else "",
            f"{one.sample.write_amplification:.2f}" if one.sample.write_amplification else "",
            f"{one.sample.space_amplification:.2f}" if one.sample.space_amplification else "",
        )
        for one in measurements
    ]
    names = "<SWEEP|SETTING  |<DURABLE|ENTRIES/S|MiB/S|P99 µs|OPEN ms|WRITTEN|KEPT"
    head = names.split("|")
    return [*table(head, rows), *(f"* {reason}" for reason in choice.reasons)]
