"""Tuning: the choice by its rules, the page by itself, and a short run on a real disk."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from importlib import util
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

import copycat.cli.tune.app as tune_app
from copycat import Log
from copycat.cli.formatting import size_of
from copycat.cli.main import exit_code_of, tree
from copycat.cli.tune.choose import (
    Choice,
    Measurement,
    Sample,
    choose,
    python_snippet,
    summarise,
    toml_snippet,
)
from copycat.cli.tune.measure import Limits, measure_append
from copycat.cli.tune.page import page
from copycat.config import Storage
from copycat.errors import ConfigurationError, CopycatError, DiskFullError
from copycat.sizes import binary_size, parse_size
from tests.tidy.tree import ROOT


def measured(
    sweep: str, value: float | str, rate: float, p99: float = 100, **more: float
) -> Measurement:
    """A setting whose runs lay 2 % around these numbers."""
    sample = Sample(rate, rate * 288, 50, p99)._replace(**more)
    least, most = (Sample(*(number * by for number in sample)) for by in (0.98, 1.02))
    return Measurement(sweep, value, "fsync", sample, least, most, 3)


def amplified(value: float, written: float, space_ratio: float) -> Measurement:
    return measured(
        "threshold", value, 1, write_amplification=written, space_amplification=space_ratio
    )


ALL = [
    measured("batch", 1, 100),
    measured("batch", 64, 950),
    measured("batch", 1024, 1000),
    measured("segment", 1 << 20, 800),
    measured("segment", 4 << 20, 990, 900),
    measured("segment", 32 << 20, 985, 110),
    measured("segment", 64 << 20, 1000, 100),
    measured("durability", "fsync", 100),
    measured("durability", "os", 9000),
    amplified(0.25, 3.0, 1.1),
    amplified(0.5, 1.8, 1.3),
    amplified(1.0, 1.2, 2.0),
]


def test_the_choice_follows_its_rules() -> None:
    choice = choose(ALL)
    assert choice[:3] == (64, 32 << 20, 0.5)
    assert len(choice.reasons) == 3
    assert choose([]) == Choice(None, None, None, ())


def test_a_summary_is_the_median_and_the_spread() -> None:
    samples = [Sample(rate, rate, 1, 2) for rate in (5.0, 1.0, 3.0)]
    summary = summarise("batch", 4, "fsync", samples)
    assert summary.sample.entries_per_s == 3
    assert (summary.least.entries_per_s, summary.most.entries_per_s, summary.runs) == (1, 5, 3)


def test_the_snippets_are_toml_and_python_that_storage_takes() -> None:
    choice = choose(ALL)
    advice = tomllib.loads(toml_snippet(choice, 'a "b"\\c'))["storage"]
    assert advice == {
        "directory": 'a "b"\\c',
        "durability": "fsync",
        "max_segment_size": "32MiB",
        "compaction_threshold": 0.5,
    }
    line = python_snippet(choice, "./data")
    assert line == (
        'Storage(directory="./data", durability="fsync", max_segment_size=32 << 20,'
        " compaction_threshold=0.5)"
    )
    fields = {field.name for field in msgspec.structs.fields(Storage)}
    assert set(re.findall(r"(\w+)=", line)) <= fields


def test_sizes_are_read_as_they_are_written() -> None:
    for nbytes in (1, 4096, 32 << 20, 3 << 30, 1500, 5 << 40, (1 << 62) + 1):
        assert parse_size(binary_size(nbytes)) == nbytes
    assert parse_size("1.5 GiB") == 3 << 29
    assert [size_of(n) for n in (0, 1023, 1 << 20, 1.4 * (1 << 20))] == [
        "0 B",
        "1,023 B",
        "1.0 MiB",
        "1.4 MiB",
    ]
    assert parse_size(size_of(3 << 40)) == 3 << 40
    for text in ("32MB", "", "-1", "x", "9" * 5000, "nan"):
        with pytest.raises(ConfigurationError):
            parse_size(text)


@pytest.mark.slow
def test_the_page_is_whole_without_a_network() -> None:
    choice = choose(ALL)
    text = page(ALL, choice, facts={"file_system": "ext4 <&>"}, snippets=["a < b"])
    assert text.count("<svg") == 4
    assert text.count("<section>") == 6
    assert not re.search(r"(?:src|href)=[\"'](?!#)", text)
    assert "@import" not in text
    assert "url(http" not in text
    assert "ext4 &lt;&amp;&gt;" in text
    assert "a &lt; b" in text
    assert text.count('<tr class="chosen">') == 4
    assert text == page(ALL, choice, facts={"file_system": "ext4 <&>"}, snippets=["a < b"])


def test_a_run_measures_what_it_wrote(tmp_path: Path) -> None:
    limits = Limits(seconds=60, space=1 << 16, entry_size=100)
    sample = measure_append(tmp_path / "run", limits, batch=8, segment_size=16384, durability="os")
    assert sample.entries_per_s > 0
    assert sample.nbytes_per_s == pytest.approx(sample.entries_per_s * 136)
    assert sample.p50_us <= sample.p99_us
    assert sample.open_ms > 0
    assert not list(tmp_path.iterdir())


def test_segments_that_do_not_fit_twice_are_left_out() -> None:
    sizes = [point.value for point in tune_app.points_of(40 << 20) if point.sweep == "segment"]
    assert sizes == [1 << 20, 4 << 20, 8 << 20, 16 << 20]


# --- the command ------------------------------------------------------------------------------


def run(*words: str) -> Result:
    result = CliRunner().invoke(tree, ["tune", *words])
    if isinstance(result.exception, CopycatError):
        result.exit_code = exit_code_of(result.exception)
    elif result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Points that cost nothing; the names of those that ran."""
    ran: list[str] = []

    def fake(directory: Path, limits: Limits) -> Sample:
        directory.mkdir()
        ran.append(directory.name)
        return Sample(1000 + len(ran), 1.0, 2.0, 3.0)

    points = [
        tune_app.Point("batch", 1, "fsync", fake),
        tune_app.Point("segment", 1 << 20, "fsync", fake),
        tune_app.Point("durability", "os", "os", fake),
    ]
    monkeypatch.setattr(tune_app, "points_of", lambda _: points)
    return ran


def test_it_writes_settings_json_and_nothing_else(tmp_path: Path, quick: list[str]) -> None:
    disk, output = tmp_path / "disk", tmp_path / "out"
    disk.mkdir()
    result = run(str(disk), "--no-html", "--space", "64MiB", "--output", str(output))
    assert result.exit_code == 0
    assert len(quick) == 9
    assert not list(disk.iterdir())
    assert sorted(path.name for path in output.iterdir()) == ["settings.toml", "tune.json"]
    document = json.loads((output / "tune.json").read_text(encoding="utf-8"))
    assert document["schema"] == 1
    assert document["machine"]["file_system"]
    assert [m["durability"] for m in document["measurements"]] == ["fsync", "fsync", "os"]
    assert document["chosen"]["max_segment_size"] == 1 << 20
    assert "Storage(" in result.stdout
    assert "SWEEP" in result.stdout
    assert "wrote settings.toml, tune.json" in result.stderr
    quiet = run(str(disk), "--no-html", "--json", "-q", "--output", str(output))
    assert not quiet.stderr
    assert json.loads(quiet.stdout)["schema"] == 1


def test_without_matplotlib_nothing_is_measured(
    tmp_path: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = util.find_spec
    monkeypatch.setattr(
        tune_app, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    result = run(str(tmp_path))
    assert result.exit_code == 2
    assert isinstance(result.exception, ConfigurationError)
    assert 'pip install "copycat-raft[tune]"' in str(result.exception.hint)
    assert not quick


def test_too_little_space_is_refused(tmp_path: Path, quick: list[str]) -> None:
    result = run(str(tmp_path), "--no-html", "--space", "99999GiB")
    assert result.exit_code == 1
    assert isinstance(result.exception, DiskFullError)
    assert not quick


def test_what_fails_leaves_no_folder(
    tmp_path: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(directory: Path, limits: Limits) -> Sample:
        with Log.open(directory) as log:
            log.append(b"x")
        raise KeyboardInterrupt

    point = tune_app.Point("batch", 1, "fsync", interrupted)
    monkeypatch.setattr(tune_app, "points_of", lambda _: [point])
    result = CliRunner().invoke(tree, ["tune", str(tmp_path), "--no-html", "--space", "64MiB"])
    assert result.exit_code == 1  # click's own; `main` makes it 130
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--seconds", "nan"], "--seconds nan"),
        (["--space", "1"], "--space 1 B"),
        (["--entry-size", "0"], "--entry-size 0 B"),
        (["--entry-size", "2MiB"], "--entry-size 2.0 MiB"),
        (["--entry-size", "1MiB"], "--entry-size 1.0 MiB"),
        (["--output", "/proc/x"], "--output /proc/x"),
        (["--output", "file/x"], "--output file/x"),
    ],
)
def test_what_cannot_be_measured_is_refused_first(
    tmp_path: Path,
    quick: list[str],
    words: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    disk = tmp_path / "disk"
    disk.mkdir()
    result = run("disk", "--no-html", *words)
    assert result.exit_code == 2
    assert expected in str(result.exception)
    assert not quick
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "file"]
    assert not list(disk.iterdir())


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path, quick: list[str]) -> None:
    result = run(str(tmp_path), "--seconds", "nan", "--space", "1", "--entry-size", "0")
    assert all(word in str(result.exception) for word in ("--seconds", "--space", "--entry-size"))
    assert not quick


def test_what_cannot_be_written_is_printed(tmp_path: Path, quick: list[str]) -> None:
    output = tmp_path / "out"
    (output / "tune.json").mkdir(parents=True)  # in the way
    words = ["tune", str(tmp_path), "--no-html", "--output", str(output)]
    result = CliRunner().invoke(tree, words)
    assert isinstance(result.exception, IsADirectoryError)
    assert "Storage(" in result.stdout
    assert len(quick) == 9


def test_the_shortest_run_that_is_allowed_measures_something(tmp_path: Path) -> None:
    """Its share of a second is less than what opening a log takes."""
    limits = Limits(seconds=1e-9, space=32 << 20, entry_size=100)
    for point in tune_app.points_of(64 << 20):
        if point.sweep in {"threshold", "churn"} or point.value == 1:
            assert point.run(tmp_path / "run", limits).entries_per_s > 0


def test_a_threshold_is_not_chosen_from_runs_that_cleaned_nothing() -> None:
    assert choose([amplified(0.25, 1.0, 0.0)]).compaction_threshold is None
    assert choose([amplified(0.25, 1.0, 0.0), amplified(1.0, 1.2, 2.0)]).compaction_threshold == 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cleans_up(tmp_path: Path, number: signal.Signals, code: int) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["tune", "disk", "--no-html", "--seconds", "3000", "--space", "1GiB"]
    with subprocess.Popen(
        [sys.executable, "-m", "copycat", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not list(disk.glob("copycat-tune-*/*/*.log")):
            assert process.poll() is None
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == code
    assert not list(disk.iterdir())
    assert not (tmp_path / "copycat-tune").exists()


def spread(value: float, low: float, rate: float, high: float, p99: float = 100) -> Measurement:
    """A segment size whose runs lay between `low` and `high` entries per second."""
    one = measured("segment", value, rate, p99)
    return one._replace(
        least=one.least._replace(entries_per_s=low), most=one.most._replace(entries_per_s=high)
    )


def test_what_lies_within_the_noise_leaves_the_default() -> None:
    noisy = [spread(8 << 20, 700, 1000, 1300), spread(32 << 20, 750, 950, 1200)]
    choice = choose(noisy)
    assert choice.max_segment_size == Storage().max_segment_size
    assert "the default stays" in choice.reasons[0]
    assert "750 entries per second to 1,200" in choice.reasons[0]
    clear = [spread(8 << 20, 1300, 1320, 1350), spread(32 << 20, 750, 950, 1200)]
    assert choose(clear).max_segment_size == 8 << 20
    assert "the default stays" not in choose(clear).reasons[0]


def test_a_threshold_or_a_batch_within_the_noise_is_not_chosen() -> None:
    wide = [
        one._replace(
            least=one.least._replace(write_amplification=1, space_amplification=1),
            most=one.most._replace(write_amplification=9, space_amplification=9),
        )
        for one in (amplified(0.5, 1.8, 1.3), amplified(0.75, 1.5, 1.4))
    ]
    assert choose(wide).compaction_threshold == Storage().compaction_threshold
    batches = [
        one._replace(least=one.least._replace(entries_per_s=1))
        for one in (measured("batch", 1, 100), measured("batch", 64, 950))
    ]
    assert choose(batches).batch == 1


@pytest.mark.parametrize(
    "directory", ["/var/lib/log", "/a b/\u00e9", '/q"\\uote', "/tab\tnew\nline\x7f"]
)
def test_what_tune_writes_is_read_back(tmp_path: Path, directory: str) -> None:
    choice = choose(ALL)._replace(max_segment_size=8 << 20, compaction_threshold=0.75)
    (tmp_path / "settings.toml").write_text(toml_snippet(choice, directory), encoding="utf-8")
    storage = Storage.from_toml(tmp_path / "settings.toml")
    assert storage == Storage(
        directory=directory, max_segment_size=8 << 20, compaction_threshold=0.75
    )
    call = ast.parse(python_snippet(choice, directory), mode="eval").body
    assert isinstance(call, ast.Call)
    assert ast.literal_eval(call.keywords[0].value) == directory


def test_an_axis_suits_its_values_and_the_page_says_how_to_read_it() -> None:
    text = page(ALL, choose(ALL), facts={}, snippets=[])
    assert text.count("entries per second (logarithmic)") == 1  # durability
    assert "How to read the plots" in text
    assert "median of 3 runs" in text
    assert "Red" in text
