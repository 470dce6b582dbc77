"""An open log belongs to the directory that it was opened in, whatever is named so later."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from copycat.config import Storage
from copycat.errors import DirectoryInUseError
from copycat.log.log import Log
from copycat.storage._native import Env
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import EntryId
from tests.log.test_paths import (
    ITEMS,
    SMALL,
    clean,
    clean_by_itself,
    fill,
    image,
    in_a_thread,
    read,
    roll,
    trim,
    truncate,
)
from tests.server.cluster import Book, free_address, run, server

Replace = Callable[[Path], None]


def nothing(place: Path) -> None:
    """Its name is nobody's."""


def empty(place: Path) -> None:
    place.mkdir()


def file(place: Path) -> None:
    place.write_bytes(b"no directory")


def copy(place: Path) -> None:
    """Even the uuids of the files are alike."""
    shutil.copytree(place.with_name("moved"), place)


def another(place: Path) -> None:
    fill(place, ITEMS[:5])


def link(place: Path) -> None:
    """The decoy is behind a link."""
    fill(place.with_name("behind"), ITEMS[:9])
    place.symlink_to(place.with_name("behind"))


REPLACED: list[Replace] = [nothing, empty, file, copy, another, link]


def moved(place: Path, replace: Replace) -> Path:
    there = place.rename(place.with_name("moved"))
    replace(place)
    return there


def bytes_at(place: Path) -> object:
    return place.read_bytes() if place.is_file() else image(place.resolve())


@pytest.mark.parametrize("replace", REPLACED)
@pytest.mark.parametrize(
    "use", [roll, trim, truncate, clean, clean_by_itself, read, in_a_thread, Log.close]
)
@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_log_goes_on_in_its_own_directory(
    tmp_path: Path, use: Callable[[Log], None], replace: Replace, durability: Any
) -> None:
    place = fill(tmp_path / "data")
    settings = SMALL | {"minor_compaction_interval": 0.05, "major_compaction_interval": 0.05}
    log = Log.open(place, durability=durability, **settings)
    there = moved(place, replace)
    decoy = bytes_at(place)
    use(log)
    expected = None if log.closed else list(log)
    log.close()
    assert bytes_at(place) == decoy
    with Log.open(there) as again:
        assert expected is None or list(again) == expected


@pytest.mark.parametrize("level", ["disk", "mapped"])
@pytest.mark.parametrize("replace", REPLACED)
def test_a_reader_goes_on_in_the_directory_that_it_opened(
    tmp_path: Path, replace: Replace, level: Any
) -> None:
    place = fill(tmp_path / "data")
    log = Log.open(place, read_only=True, level=level)
    moved(place, replace)
    read(log)
    log.close()


def test_one_directory_has_one_owner_whatever_it_is_named(tmp_path: Path) -> None:
    place = fill(tmp_path / "data")
    with Log.open(place, **SMALL) as log:
        there = moved(place, copy)
        with pytest.raises(DirectoryInUseError):
            Log.open(there)
        opened = f"from copycat import Log; Log.open({str(there)!r})"
        done = subprocess.run(
            [sys.executable, "-c", opened], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "DirectoryInUseError" in done.stderr
        with Log.open(place, **SMALL) as copied:  # the copy is another one
            copied.append_many(ITEMS)
            log.append(b"mine")
            assert (len(copied), len(log)) == (80, 41)
    with Log.open(there, **SMALL) as again, Log.open(place, **SMALL) as copied:
        assert (len(copied), len(again)) == (80, 41)


def test_a_log_is_moved_while_it_grows(tmp_path: Path) -> None:
    place = fill(tmp_path / "data")
    with Log.open(place, **SMALL) as log:
        for number in range(30):
            place = place.rename(tmp_path / f"data-{number}")
            log.append_many(ITEMS[:7])
            if number % 4 == 0:
                log.trim(log.next_index - 20)
        expected = list(log)
    with Log.open(place, **SMALL) as again:
        assert list(again) == expected
    assert [one.name for one in tmp_path.iterdir()] == ["data-29"]


def test_a_directory_above_it_is_renamed(tmp_path: Path) -> None:
    place = fill(tmp_path / "above" / "data")
    with Log.open(place, **SMALL) as log:
        (tmp_path / "above").rename(tmp_path / "else")
        decoy = image(fill(place))
        roll(log)
        trim(log)
    assert image(place) == decoy
    assert Log.open(tmp_path / "else" / "data", read_only=True).first_index == 25


def test_what_is_held_is_found_by_each_form_of_its_path(tmp_path: Path) -> None:
    place = tmp_path / "data"
    place.mkdir()
    env = Env().inside(f"{place}//")
    env.make_directory(f"{place}/a/b")
    (tmp_path / "data-2").mkdir()
    place.rename(tmp_path / "moved")
    env.create(f"{place}//a/b//file").write(0, b"x")
    env.create(f"{place}-2/file").write(0, b"beside")
    assert env.list(str(place)) == env.list(f"{place}/") == ["a"]
    assert env.list(f"{place}/a/b/") == ["file"]
    assert env.free_space(f"{place}/a") > 0
    env.rename(f"{place}/a/b/file", f"{place}/file")
    env.sync_directory(str(place))
    nested = env.inside(f"{place}/a")
    (tmp_path / "moved" / "a").rename(tmp_path / "moved" / "c")
    nested.replace_file(f"{place}/a/vote", b"one")
    assert not env.exists(f"{place}/a")
    with pytest.raises(FileNotFoundError):
        env.inside(f"{place}/a")
    root = Env().inside(os.sep)
    assert root.read_file(f"{tmp_path}/moved/c/vote") == b"one"
    assert image(tmp_path).keys() == {
        f"{tmp_path}/{name}" for name in ("data-2/file", "moved/file", "moved/c/vote")
    }


def test_snapshots_stay_with_their_member(tmp_path: Path) -> None:
    place = tmp_path / "member"
    place.mkdir()
    env = Env().inside(str(place))
    store = SnapshotStore(env, f"{place}/snapshots")
    place.rename(tmp_path / "moved")
    place.mkdir()
    store.save(EntryId(1, 10), time_ms=1, data=b"state")
    assert list(place.iterdir()) == []
    assert (tmp_path / "moved" / "snapshots" / "10-1.snap").exists()


@pytest.mark.slow
def test_a_member_goes_on_in_its_own_directory(tmp_path: Path) -> None:
    address, place = free_address(), tmp_path / "member"
    small: dict[str, Any] = {"max_segment_size": 1 << 16, "snapshot_threshold": 1 << 16}

    async def live() -> None:
        storage = Storage(directory=place, min_free_space=0, **small)
        member = server(Path(), address, storage=storage)
        async with member:
            await member.bootstrap()
            moved(place, copy)
            decoy = image(place)
            async with member.client() as client:
                for number in range(200):
                    await client.submit(Book.add(number))
            await member.take_snapshot()
            await member.compact()
            await member.shutdown()
            assert image(place) == decoy

    run(live)
    assert any((tmp_path / "moved" / "snapshots").iterdir())
