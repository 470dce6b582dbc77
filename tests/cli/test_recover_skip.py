"""`copycat recover --skip-entry`: recorded in the directory, refused where members disagree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from copycat.cli.main import exit_code_of, tree
from copycat.errors import (
    ConfigurationError,
    CopycatError,
    CorruptLogError,
    DirectoryInUseError,
    WrongDirectoryError,
)
from copycat.member.skips import SKIPS_FILE, SKIPS_MAX, read_skips, write_skips
from copycat.storage._native import Env
from copycat.storage.reader import records
from copycat.types import SkippedEntry
from tests.cli.test_log_advice import ALONE, flip, member
from tests.log.test_directory import open_member


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    member(tmp_path / "n1")  # entries 6 to 13, and a snapshot of entry 5


def run(*words: str) -> Result:
    result = CliRunner().invoke(tree, words)
    if isinstance(result.exception, CopycatError):
        result.exit_code = exit_code_of(result.exception)
    return result


def skip(index: int, *words: str) -> Result:
    return run("recover", "n1", "--skip-entry", str(index), *words)


def skips() -> tuple[SkippedEntry, ...]:
    return read_skips(Env(), "n1", "test")


SIGNED = ("--cluster-name", "test", "--yes")


def test_it_is_shown_first_and_recorded_when_it_is_signed() -> None:
    shown = skip(9)
    assert shown.exit_code == 1
    assert "not called for this entry" in shown.output
    assert "nothing was changed" in shown.output
    assert skips() == ()
    done = skip(9, *SIGNED)
    assert done.exit_code == 0, done.output
    (entry,) = [one for one in records("n1", 9) if one.index == 9]
    assert skips() == (SkippedEntry(9, entry.term, entry.crc),)
    audit = json.loads(Path("n1/audit.jsonl").read_text(encoding="utf-8"))
    assert (audit["action"], audit["index"]) == ("skip-entry", 9)
    assert skip(7, *SIGNED).exit_code == 0
    assert [one.index for one in skips()] == [7, 9]
    assert isinstance(skip(9, *SIGNED).exception, ConfigurationError)


def test_stat_and_show_say_it() -> None:
    before = json.loads(run("log", "stat", "n1", "--json").output)
    assert "skipped" not in before
    assert skip(9, *SIGNED).exit_code == 0
    assert "skipped     entry 9, term 1, by the operator" in run("log", "stat", "n1").output
    (expected,) = json.loads(run("log", "stat", "n1", "--json").output)["skipped"]
    assert expected["index"] == 9
    lines = run("log", "show", "n1").output.splitlines()
    assert [line for line in lines if "skipped by the operator" in line] == [
        line for line in lines if line.split()[:1] == ["9"]
    ]
    rows = json.loads(run("log", "show", "n1", "--json").output)["entries"]
    assert [row["index"] for row in rows if row.get("skipped")] == [9]


def test_an_entry_that_a_snapshot_covers_is_refused() -> None:
    result = skip(5, *SIGNED)
    assert isinstance(result.exception, ConfigurationError)
    assert "snapshot of entry 5" in result.exception.message
    assert "disagree" in (result.exception.hint or "")


def test_an_entry_that_is_not_there_is_refused() -> None:
    result = skip(14, *SIGNED)
    assert isinstance(result.exception, ConfigurationError)
    assert "has no entry 14" in result.exception.message
    assert SKIPS_FILE in (result.exception.hint or "")


def test_another_clusters_name_and_a_running_server_are_refused(tmp_path: Path) -> None:
    assert isinstance(skip(9, "--cluster-name", "other", "--yes").exception, ConfigurationError)
    assert isinstance(skip(9, "--yes").exception, ConfigurationError)
    directory = open_member(Env(), path=str(tmp_path / "n1"), members=ALONE)
    try:
        assert isinstance(skip(9, *SIGNED).exception, DirectoryInUseError)
    finally:
        directory.close()
    both = skip(9, "--accept-unsynced-loss", *SIGNED)
    assert isinstance(both.exception, ConfigurationError)
    assert skips() == ()


def test_a_file_that_rotted_or_is_another_clusters_is_refused() -> None:
    assert skip(9, *SIGNED).exit_code == 0
    with pytest.raises(WrongDirectoryError):
        read_skips(Env(), "n1", "other")
    flip(Path("n1") / SKIPS_FILE, 20)
    with pytest.raises(CorruptLogError, match="checksum"):
        read_skips(Env(), "n1", "test")
    assert "its checksum does not fit" in run("log", "stat", "n1").output


def test_as_many_are_recorded_as_a_handshake_holds() -> None:
    many = tuple(SkippedEntry(100 + number, 1, 1) for number in range(SKIPS_MAX))
    write_skips(Env(), "n1", "test", many)
    result = skip(9, *SIGNED)
    assert isinstance(result.exception, ConfigurationError)
    assert "the limit" in result.exception.message
