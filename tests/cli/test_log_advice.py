"""What `copycat log verify` tells to do: true for this directory, and the commands in it work."""

from __future__ import annotations

import errno
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from copycat.errors import DiskError
from copycat.member.hard_state import HARD_STATE_FILES
from copycat.member.identity import IDENTITY_FILES
from copycat.member.markers import LostEntries
from copycat.storage._native import Env, NativeLog, crc32c
from copycat.storage.reader import entries, segments
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import CompactionLimits, EntryId, Release
from tests.cli.test_log_tools import run
from tests.log.contract import durable, grow
from tests.log.test_directory import MEMBERS, open_member, save
from tests.log.test_native import open_small

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
    printed = run("verify", "n1")
    assert printed.exit_code == 4
    assert "every checksum fits" not in printed.stdout
    assert "error[corrupt-log]: " in printed.stderr
    assert "\n  hint: " in printed.stderr
    assert run("stat", "n1").exit_code == 4


def hint_of(path: Path) -> str:
    result = run("verify", str(path))
    assert result.exit_code == 4
    return result.stderr


def test_a_cut_tail_is_named_by_file_byte_and_index(tmp_path: Path) -> None:
    path = member(tmp_path / "n1")
    last = list(entries(path))[-1]
    cut_tail(path)
    printed = hint_of(Path("n1"))
    place = f"entry 13 of n1 (n1/log/{tail_of(path).name}, byte {last.offset:,})"
    assert f"{place}: the file has {last.offset:,} of at least 16,384 bytes (F3)" in printed
    assert "copycat recover n1 --accept-loss-from 13" in printed
    assert "others gave it" not in printed


def test_the_others_are_named_only_where_there_are_others(tmp_path: Path) -> None:
    rot(member(tmp_path / "n1", MEMBERS), 7)
    assert (
        "start this member: it does not vote until it has fetched the missing entries"
        in hint_of(Path("n1"))
    )
    assert "copycat recover" not in hint_of(Path("n1/log"))
    rot(member(tmp_path / "one"), 7)
    printed = hint_of(Path("one"))
    assert "others gave it" not in printed
    assert "copycat recover one --accept-loss-from 7" in printed
    assert f"copycat recover {tmp_path}/one --accept-loss-from 7" in hint_of(Path("one/log"))


def test_who_has_no_vote_is_not_told_to_start(tmp_path: Path) -> None:
    path = member(tmp_path / "n1", MEMBERS)
    rot(path, 7)
    without(*IDENTITY_FILES)(path)
    printed = hint_of(Path("n1"))
    assert "hint: start this member" not in printed
    assert "since its identity is lost" in printed


def test_a_bad_snapshot_that_the_log_needs_has_no_one_before_it(tmp_path: Path) -> None:
    path = member(tmp_path / "n1")
    store = SnapshotStore(Env(), f"{path}/snapshots")
    store.save(EntryId(1, 9), time_ms=5, data=b"y" * 500)
    flip(path / "snapshots/9-1.snap", 80)
    assert "the next start uses an earlier snapshot and the log" in hint_of(Path("n1"))
    bad_snapshot(path)
    printed = hint_of(Path("n1"))
    assert "the snapshot before it" not in printed
    assert printed.count("restore this directory from a backup") == 3


def test_a_log_that_is_gone_has_no_entries_to_save(tmp_path: Path) -> None:
    without_log(member(tmp_path / "n1"))
    printed = hint_of(Path("n1"))
    assert "what this member acknowledged is lost (F3)" in printed
    assert "--to" not in printed
    assert "--accept-loss-from" not in printed


# --- the rescue that is told works --------------------------------------------------------------


def bare(path: Path, *, compress: bool = False, cleaned: bool = False) -> Path:
    """Entries 1 to 28 in four files of 8; the first packed or cleaned when asked for."""
    path.mkdir()
    log = open_small(Env(), str(path), compress=compress)
    grow(log, 28, each=2)
    durable(log)
    log.mark_idle()
    if compress or cleaned:
        log.release([3, 4, 5, 11], Release.ANY)
        groups = [[row[0]] for row in log.segments()[:2]]
        work = log.rewrite(groups, CompactionLimits(28, 28, 0), major=True)
        work.run()
        log.install(work)
        durable(log)
    log.close()
    return path


def at(index: int) -> Callable[[Path], None]:
    return lambda path: rot(path, index)


def file_of(path: Path, index: int) -> Path:
    row = [row for row in segments(path) if row.first_index <= index][-1]
    return path / row.name


def in_two_places(path: Path) -> None:
    rot(path, 21)
    rot(path, 12)


def block_of(path: Path) -> None:
    """The only block of the second packed file, which begins with entry 9."""
    assert segments(path)[1].packed
    flip(file_of(path, 9), 100)


def a_mark(path: Path) -> None:
    """Of entries 19 and 20: an append is two."""
    flip(file_of(path, 19), next(entries(path, 19)).offset - 10)


def a_group(path: Path) -> None:
    """A whole frame that its mark does not know: entry 21 as another append wrote it."""
    victim = next(entries(path, 21))
    frame = bytearray(victim.frame)
    frame[-1] ^= 1
    frame[:4] = crc32c(bytes(frame[4:])).to_bytes(4, "little")
    data = bytearray(file_of(path, 21).read_bytes())
    data[victim.offset : victim.offset + len(frame)] = frame
    file_of(path, 21).write_bytes(data)


def cut_bare_tail(path: Path) -> None:
    last = list(entries(path))[-1]
    with file_of(path, 28).open("r+b") as file:
        file.truncate(last.offset + 20)


def empty_file(path: Path) -> None:
    file_of(path, 9).write_bytes(b"")


_DAMAGES: dict[str, tuple[int, Callable[[Path], None]]] = {
    "sealed": (14, at(14)),
    "second entry": (2, at(2)),
    "first of a file": (17, at(17)),
    "last of a file": (16, at(16)),
    "tail": (26, at(26)),
    "two": (12, in_two_places),
    "mark": (19, a_mark),
    "group": (21, a_group),
    "header": (9, lambda path: flip(file_of(path, 9), 20)),
    "lost file": (17, lambda path: file_of(path, 17).unlink()),
    "lost tail": (25, lambda path: file_of(path, 25).unlink()),
    "cut tail": (28, cut_bare_tail),
    "cut file": (9, empty_file),
}


def rescue(tmp_path: Path, path: str) -> list[int]:
    """Run the very command that the hint prints; the indexes that it saved, gaps included."""
    printed = hint_of(Path(path))
    commands = set(re.findall(r"copycat log (export .*) -o FILE", printed))
    assert len(commands) == 1, printed
    done = run(*shlex.split(commands.pop()), "-o", "saved")
    assert done.exit_code == 0, done.output
    saved: list[int] = []
    for line in (tmp_path / "saved").read_text().splitlines():
        record = json.loads(line)
        saved += range(record["index"], record.get("end", record["index"] + 1))
    return saved


@pytest.mark.parametrize(("first", "damage"), _DAMAGES.values(), ids=_DAMAGES)
@pytest.mark.parametrize("kind", ["plain", "cleaned"])
def test_the_export_that_is_told_saves_all_that_is_before_the_damage(
    tmp_path: Path, kind: str, first: int, damage: Callable[[Path], None]
) -> None:
    damage(bare(tmp_path / "my log", cleaned=kind == "cleaned"))
    assert rescue(tmp_path, "my log") == list(range(1, first))


def test_the_export_that_is_told_stops_before_a_bad_block(tmp_path: Path) -> None:
    block_of(bare(tmp_path / "d", compress=True))
    assert rescue(tmp_path, "d") == list(range(1, 9))


def test_show_stops_before_the_damage_too(tmp_path: Path) -> None:
    rot(bare(tmp_path / "d"), 14)
    assert run("show", "d", "--from", "12", "--to", "13").exit_code == 0
    assert run("show", "d", "--from", "12", "--to", "14").exit_code == 1


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (at(1), "there is no entry before the damage, so none can be exported"),
        (
            lambda path: flip(path / "manifest", 50),
            "without its manifest no entry can be exported",
        ),
        (
            lambda path: (path / "manifest").unlink(),
            "without its manifest no entry can be exported",
        ),
    ],
)
def test_where_nothing_can_be_saved_no_export_is_told(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(bare(tmp_path / "d"))
    printed = hint_of(Path("d"))
    assert words in printed
    assert "restore this directory from a backup" in printed
    assert "copycat log export" not in printed


# --- what says nothing of the bytes ------------------------------------------------------------


class Denied(Env):
    """A disk on which the segments are another user's, of mode 600."""

    def read_file(self, path: str) -> bytes:
        if path.endswith(".log"):
            raise DiskError(f"open {path}: Permission denied", path=path, errno=errno.EACCES)
        return super().read_file(path)


@pytest.mark.parametrize(
    ("words", "module"),
    [
        (["verify"], "member.verify"),
        (["verify", "--json"], "member.verify"),
        (["stat"], "member.verify"),
        (["show"], "storage.reader"),
        (["tail"], "storage.reader"),
        (["export"], "storage.reader"),
    ],
)
def test_a_file_of_another_user_is_exit_code_1_and_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], module: str
) -> None:
    member(tmp_path / "n1")
    monkeypatch.setattr(f"copycat.{module}.Env", Denied)
    result = run(*words, "n1")
    assert result.exit_code == 1
    assert isinstance(result.exception, DiskError)
    printed = result.exception.render() + result.output
    assert "Permission denied" in printed
    assert "ls -l shows the owner" in printed
    assert "check the disk" not in printed
    assert "damage" not in printed


# --- entries that a gap proves to be missing ---------------------------------------------------


def cut_after(log: NativeLog, after: int) -> None:
    log.release([3, 4, 5, 11], Release.ANY)
    work = log.rewrite([[log.segments()[0][0]]], CompactionLimits(24, 24, 0), major=True)
    work.run()
    log.install(work)
    durable(log)
    log.truncate(after)
    durable(log)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (None, "unless truncate() deleted these entries, they are lost: restore a backup"),
        (ALONE, "unless copycat recover discarded these entries, they are lost"),
        (
            MEMBERS,
            "a member that was behind gets these entries from its leader; a member that was up",
        ),
    ],
)
def test_entries_that_a_gap_proves_to_be_missing_are_told(
    tmp_path: Path, members: tuple[str, ...] | None, words: str
) -> None:
    if members is None:
        log = open_small(Env(), str(bare(tmp_path / "d")))
        cut_after(log, 20)
        log.close()
    else:
        directory = open_member(Env(), path="d", members=members)
        save(directory, 1, 1)
        grow(directory.log, 28)
        durable(directory.log)
        cut_after(directory.native, 20)
        directory.close()
    for command in ("verify", "stat"):
        result = run(command, "d")
        assert result.exit_code == 0, result.output
        assert "entries 21 to 24: a gap shows that they were durable once" in result.stdout
        assert words in result.stdout
        assert json.loads(run(command, "d", "--json").stdout)["missing_upto"] == 24
    assert "every checksum fits, but entries are missing" in run("verify", "d").stdout


def test_a_member_that_lacks_entries_is_to_be_started(tmp_path: Path) -> None:
    directory = open_member(Env(), path="d")
    save(directory, 1, 1)
    grow(directory.log, 28)
    durable(directory.log)
    cut_after(directory.native, 20)
    directory.close()
    assert "do not start it" in run("verify", "d").stdout
    LostEntries(Env(), "d", EntryId(1, 28), first_index=21, term=2).write()
    printed = run("verify", "d").stdout
    assert "this member has recorded the loss: start it" in printed
    assert "do not start it" not in printed


def test_an_identity_of_a_later_format_is_told_and_stops_nothing(tmp_path: Path) -> None:
    path = member(tmp_path / "n1")
    for name in IDENTITY_FILES:
        rest = (99).to_bytes(4, "little") + (path / name).read_bytes()[16:]
        (path / name).write_bytes(b"COPYIDN\0" + crc32c(rest).to_bytes(4, "little") + rest)
    assert "has format version 99" in hint_of(Path("n1"))
