"""What an error says is about what the caller did, and its hint helps."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from copycat.config import LogOptions, Storage, StorageOptions
from copycat.errors import (
    ConfigurationError,
    CopycatError,
    DirectoryInUseError,
    DiskFullError,
    ForkedProcessError,
    SerializationError,
)
from copycat.log.log import Log
from copycat.types import Durability, StorageLevel
from tests.server.cluster import free_address, run, server


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("place", ["file", "file/log", "file/a/b"])
def test_a_file_is_no_directory(tmp_path: Path, place: str, read_only: bool) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(ConfigurationError, match=r"/file is a file, not a directory"):
        Log.open(tmp_path / place, read_only=read_only)
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_file_is_no_members_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")

    async def scenario() -> None:
        async with server(tmp_path / "file", free_address()) as member:
            with pytest.raises(ConfigurationError, match=r"/file is a file, not a directory"):
                await member.bootstrap()

    run(scenario)


def test_who_holds_a_directory_is_named(tmp_path: Path) -> None:
    this = rf"this very process \({os.getpid()}\)"
    with Log.open(tmp_path), pytest.raises(DirectoryInUseError, match=this):
        Log.open(tmp_path)


@pytest.mark.forks
def test_a_child_that_holds_its_parents_lock_is_named(tmp_path: Path) -> None:
    """The parent closed its log; whoever was forked meanwhile has the lock as long as it lives."""
    log = Log.open(tmp_path)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)  # until the parent lets go
        os._exit(0)
    try:
        log.close()
        with pytest.raises(DirectoryInUseError) as caught:
            Log.open(tmp_path)
        program = Path(sys.executable).name
        assert f"in use by process {child} (" in str(caught.value)
        assert program in str(caught.value) or "pytest" in str(caught.value)
        assert f"forked from process {os.getpid()}" in str(caught.value)
        assert f"end process {child}" in str(caught.value.hint)
        assert caught.value.pid == child
    finally:
        os.close(writing)
        os.waitpid(child, 0)
    Log.open(tmp_path).close()


@pytest.mark.forks
def test_an_object_from_before_a_fork_says_whose_it_is(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    log = Log.open(tmp_path)
    child = os.fork()
    if not child:
        message = b"nothing was raised"
        for use in (lambda: log.append(b"x"), lambda: len(log), lambda: log[1], log.sync):
            try:
                use()
            except ForkedProcessError as error:
                message = str(error).encode()
            else:
                message = b"nothing was raised"
                break
        os.write(writing, message)
        os._exit(0)
    os.close(writing)
    text = os.read(reading, 4096).decode()
    os.waitpid(child, 0)
    assert f"was opened by process {os.getpid()}, from which this one ({child}) was forked" in text
    log.append(b"mine")
    log.close()


def test_the_setting_that_refuses_for_space_is_named(tmp_path: Path) -> None:
    with Log.open(tmp_path, max_entries_per_segment=2, min_free_space=1 << 50) as log:
        log.append_many([b"a", b"b"])
        for change in (lambda: log.append(b"c"), lambda: log.truncate(1)):
            with pytest.raises(DiskFullError, match=rf"less than min_free_space \({1 << 50}\)"):
                change()
        assert [entry.data for entry in log] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"durability": "fsynch"}, 'must be "fsync", "interval" or "os"'),
        ({"level": "ram"}, 'must be "memory", "mapped" or "disk"'),
        ({"compression": "zstd"}, 'must be "lz4" or "none"'),
        ({"max_segment_size": 1 << 70}, "must be 8192 to 2147483648 bytes"),
        ({"durabilty": "os"}, "storage.durabilty: there is no such option"),
    ],
)
def test_what_may_be_given_is_said(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Log.open(tmp_path / "log", **options)
    assert not (tmp_path / "log").exists()


def test_text_stands_for_the_members_of_an_enum(tmp_path: Path) -> None:
    """mypy reads this file: these are the types of the signatures."""
    storage = Storage(durability="fsync", level="mapped", compression="none", directory=tmp_path)
    assert (storage.durability, storage.level) == (Durability.FSYNC, StorageLevel.MAPPED)
    assert storage.directory == str(tmp_path)
    with Log.open(tmp_path, durability="os", level="disk", storage=storage) as log:
        log.append(bytearray(b"a"))
        log.append(memoryview(b"bc"))
        log.append_many([b"d", bytearray(b"e"), memoryview(b"f")])
        assert [entry.data for entry in log] == [b"a", b"bc", b"d", b"e", b"f"]
        log.compactor.compact("minor")
        with pytest.raises(ConfigurationError, match='must be "minor" or "major"'):
            log.compactor.compact("all")  # type: ignore[arg-type]


def test_the_typed_keywords_are_the_fields_of_storage() -> None:
    fields = set(Storage.__struct_fields__)
    assert set(StorageOptions.__annotations__) | set(LogOptions.__annotations__) == fields
    assert fields - set(LogOptions.__annotations__) == {"directory"}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (b"abc", "many entries, and was given one bytes"),
        ("abc", "many entries, and was given one str"),
        (["abc"], "not str"),
        ([memoryview(b"abcdef")[::2]], "are not contiguous"),
    ],
)
def test_what_is_no_entry_is_said(tmp_path: Path, items: Any, message: str) -> None:
    with Log.open(tmp_path) as log:
        with pytest.raises(SerializationError, match=message) as caught:
            log.append_many(items)
        assert "datetime" not in str(caught.value.hint), "a hint of state machines"
        assert isinstance(caught.value, CopycatError)
        assert log.last_index == 0


@pytest.mark.parametrize("index", [1 << 62, 1 << 64, 1 << 200])
def test_an_index_above_every_log_is_named_as_it_was_given(tmp_path: Path, index: int) -> None:
    with Log.open(tmp_path / "log") as log:
        log.append(b"one")
        for indexes in (index, [1, index]):
            with pytest.raises(IndexError, match=rf"^entry {index}\b"):
                log.release_many(indexes) if isinstance(indexes, list) else log.release(indexes)
        assert 1 in log
