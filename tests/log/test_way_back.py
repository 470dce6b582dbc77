"""C43: the record of a refused directory, and how its old files are set aside."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from copycat.errors import CorruptLogError, DiskError
from copycat.member.directory import MemberDirectory
from copycat.member.identity import IDENTITY_FILES, read_identity
from copycat.member.way_back import WAY_BACK_FILE, WayBackFile, WayBackRecord
from copycat.storage import Env
from copycat.types import MemberId

OLD = WayBackRecord(
    member=MemberId((1 << 127) + 5),
    is_empty=False,
    addresses=("a:1", "b:1"),
    reason="its log ends at 90, and it had acknowledged 100",
)


def test_a_record_round_trips_and_is_checked() -> None:
    assert WayBackRecord.decode(OLD.encode(), "way-back") == OLD
    broken = bytearray(OLD.encode())
    broken[-1] ^= 1
    with pytest.raises(CorruptLogError, match="checksum"):
        WayBackRecord.decode(bytes(broken), "way-back")


class CutShort:
    """A disk that fails at one of the renames."""

    def __init__(self, at: int) -> None:
        self._env = Env()
        self._left = at

    def rename(self, source: str, target: str) -> None:
        self._left -= 1
        if self._left == 0:
            raise DiskError(f"{source}: it is a test")
        self._env.rename(source, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)


def refused(path: Path, record: WayBackRecord = OLD) -> tuple[WayBackFile, WayBackRecord]:
    """The directory of a member that was refused, and is closed."""
    env = Env()
    MemberDirectory.open(
        env,
        str(path),
        cluster_name="test",
        address="a:1",
        members=("a:1", "b:1"),
        member=OLD.member,
        incarnation_source=partial(int, 7),
    ).close()
    file = WayBackFile(env, str(path))
    return file, file.write(record)


def names(path: Path) -> set[str]:
    return {each.name for each in path.iterdir()}


def test_c43_the_old_files_are_beside_the_new_ones(tmp_path: Path) -> None:
    file, record = refused(tmp_path)
    before = names(tmp_path) - {"lock", WAY_BACK_FILE}
    file.make_room(record)
    assert names(tmp_path) == {"lock", WAY_BACK_FILE, "set-aside-1"}
    assert names(tmp_path / "set-aside-1") == before
    assert file.read() == record
    assert not file.is_new_member(record)
    file.clear()
    assert not file.exists()
    assert file.write(OLD).folder == "set-aside-2", "what was set aside before stays"


def test_c43_a_directory_that_held_nothing_is_emptied(tmp_path: Path) -> None:
    file, record = refused(tmp_path, msgspec.structs.replace(OLD, is_empty=True))
    file.make_room(record)
    assert names(tmp_path) - {"log", "snapshots"} == {"lock", WAY_BACK_FILE}
    assert names(tmp_path / "log") == set()
    assert read_identity(Env(), str(tmp_path))[0] is None


def test_c43_the_identity_goes_last(tmp_path: Path) -> None:
    """However far it came, the directory is the old member's until all else is moved, and the
    next attempt moves the rest."""
    for at in range(1, 8):
        path = tmp_path / str(at)
        file, record = refused(path)
        short = WayBackFile(cast("Env", CutShort(at)), str(path))
        try:
            short.make_room(record)
        except DiskError:
            stays = {"lock", WAY_BACK_FILE, "set-aside-1", *IDENTITY_FILES}
            assert names(path) & {*IDENTITY_FILES} or names(path) <= stays
            assert not names(path) - stays or {*IDENTITY_FILES} <= names(path)
            file.make_room(record)
        else:
            assert at > 4
        assert names(path) == {"lock", WAY_BACK_FILE, "set-aside-1"}
        assert {*IDENTITY_FILES} <= names(path / "set-aside-1")
