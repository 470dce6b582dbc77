"""`copycat compact` takes a bare log that is closed, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from copycat import Log
from copycat.cli.compact import run_compact
from copycat.errors import ConfigurationError, DirectoryInUseError, WrongDirectoryError
from copycat.storage._native import Env
from copycat.storage.reader import segments
from tests.cli.logs import bare_log
from tests.log.test_directory import open_member


def test_a_members_log_is_its_servers(tmp_path: Path) -> None:
    path = str(tmp_path / "n1")
    open_member(Env(), path=path).close()
    for directory in (path, f"{path}/log"):
        with pytest.raises(WrongDirectoryError, match="which compacts its own log"):
            run_compact(directory, major=True, as_json=False)


def test_a_log_that_is_open_is_refused(tmp_path: Path) -> None:
    bare_log(tmp_path / "d")
    with Log.open(tmp_path / "d"), pytest.raises(DirectoryInUseError):
        run_compact(str(tmp_path / "d"), major=True, as_json=False)


def test_a_directory_without_a_log_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        run_compact(str(tmp_path), major=False, as_json=False)
    assert not list(tmp_path.iterdir())


def test_small_segments_become_one_and_no_entry_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was released is forgotten with the process, so what is left to do is merging."""
    with Log.open(tmp_path / "d", max_entries_per_segment=100) as log:
        for _ in range(5):
            log.append_many([b"x" * 50] * 100)
        before = [entry.data for entry in log]
    assert run_compact(str(tmp_path / "d"), major=False, as_json=False) == 0
    assert "5 segments became 5, 0 B reclaimed" in capsys.readouterr().out
    assert run_compact(str(tmp_path / "d"), major=True, as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["segments_before"], report["segments_after"]) == (5, 2)
    with Log.open(tmp_path / "d") as log:
        assert [segment.first_index for segment in log.segments] == [1, 401]
        assert [entry.data for entry in log] == before


def chunks(path: Path, **options: Any) -> list[bytes]:
    """A log of small segments whose data LZ4 likes."""
    with Log.open(path, max_entries_per_segment=50, **options) as log:
        for number in range(8):
            log.append_many([b"%d" % number * 300] * 50)
        return [entry.data for entry in log]


@pytest.mark.parametrize("size", [32768, 65536])
def test_what_the_log_has_stays(tmp_path: Path, size: int) -> None:
    """Segments as large as the log's own, and plain ones where it has no other."""
    before = chunks(tmp_path / "d", max_segment_size=size)
    assert run_compact(str(tmp_path / "d"), major=True, as_json=False) == 0
    assert not any(row.packed for row in segments(tmp_path / "d"))
    with Log.open(tmp_path / "d") as log:
        assert len(log.segments) > 2
        assert size // 2 < max(segment.size for segment in log.segments[:-1]) <= size
        assert [entry.data for entry in log] == before


def test_a_log_with_packed_segments_goes_on_packing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = chunks(tmp_path / "d", max_segment_size=1 << 17)
    words: dict[str, Any] = {"size": "48KiB", "compression": "lz4"}
    assert run_compact(str(tmp_path / "d"), major=True, as_json=False, **words) == 0
    assert "(segments of 48.0 KiB, compression lz4)" in capsys.readouterr().out
    assert [row.packed for row in segments(tmp_path / "d")].count(True) == 3
    assert run_compact(str(tmp_path / "d"), major=True, as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["max_segment_size"], report["compression"]) == (1 << 17, "lz4")
    assert report["segments_after"] < report["segments_before"]
    assert any(row.packed for row in segments(tmp_path / "d"))
    with Log.open(tmp_path / "d") as log:
        assert [entry.data for entry in log] == before


@pytest.mark.parametrize("size", ["32MB", "1KiB", "3GiB"])
def test_a_size_that_is_none_changes_nothing(tmp_path: Path, size: str) -> None:
    chunks(tmp_path / "d")
    before = {path.name: path.read_bytes() for path in (tmp_path / "d").iterdir()}
    with pytest.raises(ConfigurationError):
        run_compact(str(tmp_path / "d"), major=True, as_json=False, size=size)
    assert {path.name: path.read_bytes() for path in (tmp_path / "d").iterdir()} == before


def test_a_segment_of_one_huge_entry_is_no_measure(tmp_path: Path) -> None:
    with Log.open(tmp_path / "d", max_segment_size=8192) as log:
        log.append_many([b"x" * 100_000, b"y"])
    assert run_compact(str(tmp_path / "d"), major=True, as_json=False) == 0
