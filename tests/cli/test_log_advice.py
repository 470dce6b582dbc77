"""What `copycat log verify` tells to do: true for this directory, and the commands in it work."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from copycat.log._native import Env
from copycat.log.hard_state import HARD_STATE_FILES
from copycat.log.identity import IDENTITY_FILES
from copycat.log.inspect import entries, segments
from copycat.log.snapshots import SnapshotStore
from copycat.types import EntryId
from tests.cli.test_log_tools import run
from tests.log.contract import durable, grow
from tests.log.test_directory import MEMBERS, open_member, save

ALONE = ("a:1",)


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")


def member(path: Path, members: tuple[str, ...] = ALONE) -> Path:
    """Entries 6 to 13 of a member whose first five a snapshot covers."""
    env = Env()
    directory = open_member(env, path=str(path), members=members)
    save(directory, 1, 1)
    grow(directory.log, 13)
    durable(directory.log)
    store = SnapshotStore(env, f"{path}/snapshots")
    store.admit(store.save(EntryId(1, 5), time_ms=5, data=b"x" * 500))
    directory.log.trim(6)
    durable(directory.log)
    directory.close()
    return path


def flip(file: Path, offset: int) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 0x40
    file.write_bytes(data)


def rot(path: Path, index: int) -> None:
    victim = next(entries(path, index))
    assert victim.index == index
    flip(Path(victim.path), victim.offset + 33)


def tail_of(path: Path) -> Path:
    return path / "log" / segments(path)[-1].name


def cut_tail(path: Path) -> None:
    last = list(entries(path))[-1]
    with tail_of(path).open("r+b") as file:
        file.truncate(last.offset)


def without(*names: str) -> Callable[[Path], None]:
    def remove(path: Path) -> None:
        for name in names:
            (path / name).unlink()

    return remove


def without_log(path: Path) -> None:
    shutil.rmtree(path / "log")


def without_snapshots(path: Path) -> None:
    shutil.rmtree(path / "snapshots")


def bad_snapshot(path: Path) -> None:
    flip(path / "snapshots/5-1.snap", 80)


_RUINS: dict[str, Callable[[Path], None]] = {
    "cut-tail": cut_tail,
    "no-identity": without(*IDENTITY_FILES),
    "no-vote": without(*HARD_STATE_FILES),
    "one-vote": without(HARD_STATE_FILES[0]),
    "no-log": without_log,
    "no-snapshots": without_snapshots,
    "bad-snapshot": bad_snapshot,
}


@pytest.mark.parametrize("ruin", _RUINS.values(), ids=_RUINS)
def test_what_keeps_a_member_from_starting_is_exit_code_4(
    tmp_path: Path, ruin: Callable[[Path], None]
) -> None:
    path = member(tmp_path / "n1")
    assert run("verify", "n1").exit_code == 0
    ruin(path)
    told = run("verify", "n1")
    assert told.exit_code == 4
    assert "every checksum fits" not in told.stdout
    assert "error[corrupt-log]: " in told.stderr
    assert "\n  hint: " in told.stderr
    assert run("stat", "n1").exit_code == 4


def hint_of(path: Path) -> str:
    result = run("verify", str(path))
    assert result.exit_code == 4
    return result.stderr


def test_a_cut_tail_is_named_by_file_byte_and_index(tmp_path: Path) -> None:
    path = member(tmp_path / "n1")
    last = list(entries(path))[-1]
    cut_tail(path)
    told = hint_of(Path("n1"))
    place = f"entry 13 of n1 (n1/log/{tail_of(path).name}, byte {last.offset:,})"
    assert f"{place}: the file has {last.offset:,} of at least 16,384 bytes (F3)" in told
    assert "copycat recover n1 --accept-loss-from 13" in told
    assert "others gave it" not in told


def test_the_others_are_named_only_where_there_are_others(tmp_path: Path) -> None:
    rot(member(tmp_path / "n1", MEMBERS), 7)
    assert "start this member: it has no vote until others gave it what is missing" in hint_of(
        Path("n1")
    )
    assert "copycat recover" not in hint_of(Path("n1/log"))
    rot(member(tmp_path / "one"), 7)
    told = hint_of(Path("one"))
    assert "others gave it" not in told
    assert "copycat recover one --accept-loss-from 7" in told
    assert f"copycat recover {tmp_path}/one --accept-loss-from 7" in hint_of(Path("one/log"))


def test_who_has_no_vote_is_not_told_to_start(tmp_path: Path) -> None:
    path = member(tmp_path / "n1", MEMBERS)
    rot(path, 7)
    without(*IDENTITY_FILES)(path)
    told = hint_of(Path("n1"))
    assert "hint: start this member" not in told
    assert "do not start it: it is not known whose directory this is" in told


def test_a_bad_snapshot_that_the_log_needs_has_no_one_before_it(tmp_path: Path) -> None:
    path = member(tmp_path / "n1")
    store = SnapshotStore(Env(), f"{path}/snapshots")
    store.save(EntryId(1, 9), time_ms=5, data=b"y" * 500)
    flip(path / "snapshots/9-1.snap", 80)
    assert "the next start takes the snapshot before it and the log" in hint_of(Path("n1"))
    bad_snapshot(path)
    told = hint_of(Path("n1"))
    assert "the snapshot before it" not in told
    assert told.count("restore this directory from a backup") == 3


def test_a_log_that_is_gone_has_no_entries_to_save(tmp_path: Path) -> None:
    without_log(member(tmp_path / "n1"))
    told = hint_of(Path("n1"))
    assert "what this member acknowledged is lost (F3)" in told
    assert "--to" not in told
    assert "--accept-loss-from" not in told
