"""A path means what it meant at the call: what the working directory or a link becomes later
changes nothing, and least of all a directory of the same name that lies there."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from copycat.config import Storage
from copycat.errors import ConfigurationError
from copycat.log.log import Log
from copycat.member.verify import verify
from copycat.paths import absolute_path, real_path
from copycat.storage.follow import Follower
from copycat.storage.reader import compare, entries, last_records, records, segments
from tests.server.cluster import Book, free_address, run, server

SMALL: dict[str, Any] = {
    "max_segment_size": 8192,
    "max_entries_per_segment": 8,
    "min_free_space": 0,
}
ITEMS = [b"entry %d" % n for n in range(40)]


def image(path: Path) -> dict[str, bytes]:
    """Every file below `path` with its bytes."""
    return {str(one): one.read_bytes() for one in sorted(path.rglob("*")) if one.is_file()}


def fill(path: Path, items: list[bytes] = ITEMS) -> Path:
    with Log.open(path, **SMALL) as log:
        log.append_many(items)
    return path


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """Two directories with a closed log `data` each; the first one is the working directory."""
    here, there = tmp_path / "here", tmp_path / "there"
    for place in (here, there):
        place.mkdir()
        fill(place / "data")
    shutil.rmtree(here / "data")
    shutil.copytree(there / "data", here / "data")  # even the uuids of the files are alike
    monkeypatch.chdir(here)
    decoy = image(there)
    yield here, there
    assert image(there) == decoy


def roll(log: Log) -> None:
    log.append_many(ITEMS)
    log.sync()


def trim(log: Log) -> None:
    log.trim(25)
    assert log.first_index == 25


def truncate(log: Log) -> None:
    log.truncate(10)
    log.append(b"after")


def clean(log: Log) -> None:
    log.release_many(range(1, 33))
    assert log.compactor.compact("major").bytes_reclaimed > 0


def clean_by_itself(log: Log) -> None:
    log.release_many(range(1, 33))
    while any(segment.release_count for segment in log.segments[:-1]):
        threading.Event().wait(0.01)


def read(log: Log) -> None:
    assert [entry.data for entry in log] == ITEMS
    assert log[3].data == ITEMS[2]
    assert len(log.index_array(log.segments[0])) == 8


def in_a_thread(log: Log) -> None:
    thread = threading.Thread(target=roll, args=(log,))
    thread.start()
    thread.join()
    trim(log)


@pytest.mark.parametrize("durability", ["fsync", "interval", "os"])
@pytest.mark.parametrize(
    "use", [roll, trim, truncate, clean, clean_by_itself, read, in_a_thread, Log.close]
)
@pytest.mark.parametrize("path", ["data", "./data", "../here/data", Path("data")])
def test_a_log_stays_where_it_was_opened(
    places: tuple[Path, Path], path: Any, use: Callable[[Log], None], durability: Any
) -> None:
    here, there = places
    settings = SMALL | {"minor_compaction_interval": 0.05, "major_compaction_interval": 0.05}
    log = Log.open(path, durability=durability, **settings)
    os.chdir(there)
    use(log)
    expected = None if log.closed else list(log)
    log.close()
    with Log.open(here / "data") as again:
        assert expected is None or list(again) == expected


@pytest.mark.parametrize("level", ["disk", "mapped"])
def test_a_log_that_is_read_stays_where_it_was_opened(
    places: tuple[Path, Path], level: Any
) -> None:
    _, there = places
    log = Log.open("data", read_only=True, level=level)
    os.chdir(there)
    shutil.rmtree(there / "data")
    read(log)
    log.close()
    shutil.copytree(places[0] / "data", there / "data")


def test_a_link_that_leads_elsewhere_later_does_not_take_the_log_along(
    places: tuple[Path, Path],
) -> None:
    here, there = places
    link = here / "current"
    link.symlink_to(here / "data")
    with Log.open(link, **SMALL) as log:
        link.unlink()
        link.symlink_to(there / "data")
        trim(log)
        roll(log)
    assert Log.open(here / "data", read_only=True).first_index == 25


def test_a_directory_behind_a_link_goes_up_as_the_system_does(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (places[0] / "link").symlink_to(tmp_path / "deep" / "er")
    Log.open("link/../log").close()
    assert (tmp_path / "deep" / "log" / "manifest").exists()
    assert absolute_path("link/../log") == f"{places[0]}/link/../log"


def test_a_home_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir("/")
    Log.open("~/log").close()
    assert (tmp_path / "log" / "manifest").exists()
    assert Storage(directory="~/x").directory == f"{tmp_path}/x"


def test_settings_are_of_the_directory_where_they_were_made(places: tuple[Path, Path]) -> None:
    here, there = places
    given = (Storage(), Storage(directory="a/./b"), Storage(directory=Path("p")))
    os.chdir(there)
    assert [one.directory for one in given] == [
        f"{here}/copycat-data",
        f"{here}/a/b",
        f"{here}/p",
    ]


def test_a_working_directory_that_was_deleted_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "gone"
    directory.mkdir()
    monkeypatch.chdir(directory)
    directory.rmdir()
    with pytest.raises(ConfigurationError, match="the working directory was deleted"):
        Log.open("data")
    Log.open(tmp_path / "log", storage=Storage(durability="os")).close()  # no use for its own
    assert real_path(tmp_path) == str(tmp_path)


@pytest.mark.slow
def test_a_member_stays_where_its_storage_said(places: tuple[Path, Path]) -> None:
    here, there = places
    address = free_address()
    small: dict[str, Any] = {"max_segment_size": 1 << 16, "snapshot_threshold": 1 << 16}

    async def live() -> None:
        storage = Storage(directory="member", min_free_space=0, **small)
        member = server(Path(), address, storage=storage)
        os.chdir(there)
        async with member:
            await member.bootstrap()
            os.chdir("/")
            async with member.client() as client:
                for number in range(200):
                    await client.submit(Book.add(number))
            await member.take_snapshot()
            await member.compact()
            await member.shutdown()

    run(live)
    assert any((here / "member" / "snapshots").iterdir())
    os.chdir(there)


def test_what_is_read_beside_a_log_is_read_where_it_was_named(places: tuple[Path, Path]) -> None:
    here, there = places
    readers = (records("data"), entries("data", 3), entries(Path("data"), 5))
    follower = Follower("data", 1)
    os.chdir(here / "data")
    assert [len(list(one)) for one in readers] == [40, 38, 36]
    assert len(follower.poll().records) == 40
    os.chdir(here)
    assert compare(["data", there / "data"], 40) is None


def test_a_server_that_is_given_a_name_remembers_where(places: tuple[Path, Path]) -> None:
    here, there = places

    async def made() -> str:
        member = server(Path("relative"), "127.0.0.1:0")
        os.chdir(there)
        return member.storage.directory

    assert asyncio.run(made()) == f"{here}/relative"


@pytest.mark.parametrize("path", [b"data", "", "da\0ta", os.fsdecode(b"\xff\xfe")])
@pytest.mark.parametrize(
    "look",
    [
        Log.open,
        records,
        segments,
        verify,
        lambda path: Follower(path, 1),
        lambda path: last_records(path, 1),
        lambda path: Storage(directory=path),
    ],
)
def test_what_is_no_path_of_a_log_is_refused_at_the_call(
    places: tuple[Path, Path], look: Callable[[Any], object], path: Any
) -> None:
    with pytest.raises(ConfigurationError, match="UTF-8: not empty, without NUL"):
        look(path)
