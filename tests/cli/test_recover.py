"""`copycat recover`: what it says would be lost, and that it takes the first lost index."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from copycat.cli.main import exit_code_of, tree
from copycat.errors import CopycatError, CorruptLogError
from copycat.member.identity import IDENTITY_FILES
from copycat.member.markers import LostEntries
from copycat.member.verify import verify
from copycat.storage._native import Env, encode_gap
from copycat.storage.reader import entries
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import EntryId
from tests.cli.test_log_advice import ALONE, cut_tail, flip, member, rot, without
from tests.log.contract import contents, durable, expected
from tests.log.test_directory import MEMBERS, open_member


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def recover(*words: str) -> Result:
    result = CliRunner().invoke(tree, ["recover", "n1", *words])
    if isinstance(result.exception, CopycatError):
        result.exit_code = exit_code_of(result.exception)
    return result


def cut_at(index: int, *words: str) -> Result:
    return recover("--accept-loss-from", str(index), *words)


def refusal(index: int) -> CorruptLogError:
    result = cut_at(index)
    assert isinstance(result.exception, CorruptLogError), result.output
    return result.exception


def test_f3_a_cut_tail_is_given_up_from_the_first_entry_that_is_lost(tmp_path: Path) -> None:
    path = member(tmp_path / "n1")  # the last file holds 11 to 13, and 13 is cut off
    cut_tail(path)
    printed = cut_at(13)
    assert printed.exit_code == 1
    assert "entries 6 to 12 are kept, 13 to 13 (and later ones) are discarded" in printed.output
    done = cut_at(13, "--cluster-name", "test", "--yes")
    assert done.exit_code == 0, done.output
    assert "kept entries 6 to 12" in done.output
    assert verify(path).ok
    directory = open_member(Env(), path=str(path), members=ALONE)
    assert contents(directory.log) == expected(6, 13)
    directory.close()


def test_f3_a_cut_below_the_damage_says_what_more_could_be_kept(tmp_path: Path) -> None:
    cut_tail(member(tmp_path / "n1"))
    printed = cut_at(11)
    assert printed.exit_code == 1
    assert (
        "entries 11 to 12 of the discarded ones can be read: --accept-loss-from 13 keeps them"
        in printed.output
    )
    assert "--accept-loss-from 13" in (refusal(14).hint or "")


def test_what_later_marks_prove_is_shown_as_lost(tmp_path: Path) -> None:
    rot(member(tmp_path / "n1"), 11)
    printed = cut_at(11).output
    assert "entries 6 to 10 are kept, 11 to 13 (and later ones) are discarded" in printed
    assert "entry 11 of n1 (n1/log/" in printed
    assert "can be read" not in printed


def test_what_a_snapshot_proves_is_shown_as_lost_from_the_log(tmp_path: Path) -> None:
    path = member(tmp_path / "n1")
    SnapshotStore(Env(), f"{path}/snapshots").save(EntryId(1, 40), time_ms=5, data=b"x")
    cut_tail(path)
    printed = cut_at(13).output
    assert "13 to 40 (and later ones) are discarded" in printed
    assert "a snapshot contains the effects of the entries up to 40, and is kept" in printed


def test_a_whole_log_is_said_to_be_whole(tmp_path: Path) -> None:
    member(tmp_path / "n1")
    printed = cut_at(13)
    assert printed.exit_code == 1
    assert "no entry of this log is damaged: all entries can be read" in printed.output


def test_f14_f17_what_is_rotten_beside_the_log_does_not_stop_a_cut(tmp_path: Path) -> None:
    path = member(tmp_path / "n1")
    SnapshotStore(Env(), f"{path}/snapshots").save(EntryId(1, 7), time_ms=5, data=b"x")
    flip(path / "snapshots/7-1.snap", 80)
    flip(next(path.glob("log/*.idx")), 100)
    rot(path, 12)
    assert "entries 6 to 11 are kept" in cut_at(12).output


def test_f7_without_an_identity_it_says_so(tmp_path: Path) -> None:
    path = member(tmp_path / "n1")
    without(*IDENTITY_FILES)(path)
    error = refusal(13)
    assert "n1 has no identity: it is not known whose it is (F7)" in error.message
    assert "recover cannot help" in (error.hint or "")


def test_f3_f17_where_a_cut_does_not_help_it_is_refused(tmp_path: Path) -> None:
    path = member(tmp_path / "n1")
    shutil.move(path / "snapshots", path / "away")
    assert "cutting the log does not help: the log begins at 6, and no" in refusal(10).message
    shutil.move(path / "away", path / "snapshots")
    assert cut_at(10).exit_code == 1
    shutil.move(path / "log", path / "log-recovered-00")
    error = refusal(10)
    assert "cutting the log does not help: an identity, but no log" in error.message
    assert "--cluster-name NAME --yes completes it" in (error.hint or "")
    done = cut_at(10, "--cluster-name", "test", "--yes")
    assert done.exit_code == 0, done.output
    assert [entry.index for entry in entries(path)] == list(range(6, 14))


@pytest.mark.parametrize("valid_from", [13, 16])
def test_gaps_that_are_right_only_behind_the_damage_are_named(
    tmp_path: Path, valid_from: int
) -> None:
    path = member(tmp_path / "n1", MEMBERS)
    directory = open_member(Env(), path=str(path))
    directory.log.append(encode_gap(1, 14, 15, 1000, valid_from))
    durable(directory.log)
    directory.close()
    LostEntries(Env(), str(path), EntryId(1, 20), first_index=15, term=2).write()
    printed = recover("--accept-missing-entries")
    assert printed.exit_code == 1
    assert "lost to damage" in printed.output
    is_named = "exact from entry 16 on, but the log ends at 14" in printed.output
    assert is_named is (valid_from == 16)
