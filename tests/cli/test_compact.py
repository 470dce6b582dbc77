"""`copycat compact` takes a bare log that is closed, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from copycat import Log
from copycat.cli.compact import run_compact
from copycat.errors import ConfigurationError, DirectoryInUseError, WrongDirectoryError
from copycat.log._native import Env
from tests.cli.logs import bare_log
from tests.log.test_directory import open_member


def test_a_members_log_is_its_servers(tmp_path: Path) -> None:
    path = str(tmp_path / "n1")
    open_member(Env(), path=path).close()
    for directory in (path, f"{path}/log"):
        with pytest.raises(WrongDirectoryError):
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
