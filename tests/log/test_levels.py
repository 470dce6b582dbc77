"""Storage levels: what DISK, MAPPED and MEMORY read through, and what a bad sector does (F14).

The contract of the log runs at each level: tests/log/test_native.py, tests/log/test_memory.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from copycat.config import Storage
from copycat.errors import CorruptLogError, DiskError
from copycat.log.entries import Entry
from copycat.log.log import Log
from copycat.storage._native import FaultEnv, NativeLog
from copycat.types import StorageLevel
from tests.log.contract import batch, contents, durable, expected, grow
from tests.log.test_native import DIRECTORY, open_small

SMALL: dict[str, Any] = {"max_segment_size": 16384, "max_entries_per_segment": 8}


def grown(env: FaultEnv, *, mapped: bool = False, count: int = 20) -> NativeLog:
    """Entries 1 to `count`, all durable; all but the last few are in sealed segments."""
    log = open_small(env, mapped=mapped)
    grow(log, count)
    durable(log)
    return log


def mapped_files(directory: Path) -> set[str]:
    """Suffixes of the files of `directory` that this process maps now."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {Path(line).suffix for line in lines if line.endswith((".log", ".idx"))
            and str(directory) in line}  # fmt: skip


@pytest.mark.parametrize(
    ("level", "mapped"),
    [(StorageLevel.DISK, {".idx"}), (StorageLevel.MAPPED, {".idx", ".log"})],
)
def test_only_level_mapped_maps_data(
    tmp_path: Path, level: StorageLevel, mapped: set[str]
) -> None:
    items = [b"%d" % n * 9 for n in range(40)]
    with Log.open(tmp_path, level=level, **SMALL) as log:
        log.append_many(items)
    with Log.open(tmp_path, level=level, **SMALL) as log:
        assert [entry.data for entry in log] == items
        assert [log[index].data for index in range(1, 41)] == items
        assert mapped_files(tmp_path) == mapped


def test_a_directory_is_opened_at_either_level(tmp_path: Path) -> None:
    items: list[bytes] = []
    for level in ("mapped", "disk", "mapped"):
        with Log.open(tmp_path, level=level, **SMALL) as log:
            assert [entry.data for entry in log] == items
            items += [f"{level} {n}".encode() for n in range(20)]
            log.append_many(items[-20:])
            assert [entry.data for entry in log] == items


def test_f14_a_bad_sector_is_an_error_at_level_disk() -> None:
    env = FaultEnv()
    log = grown(env)
    for read in (lambda: log.read(1, 9, 1 << 20), lambda: log.entry(9, Entry)):
        env.fail("read", 1, "EIO")
        with pytest.raises(DiskError) as caught:
            read()
        assert ".log" in str(caught.value)
        assert contents(log) == expected(1, 21)


def test_f14_a_bad_sector_stops_no_public_log() -> None:
    """A read that failed promised nothing: it is told, and the log continues."""
    env = FaultEnv()
    with Log(grown(env), DIRECTORY, Storage(), read_only=False) as log:
        env.fail("read", 1, "EIO")
        with pytest.raises(DiskError):
            list(log)
        assert len(list(log)) == 20
        assert log.append(b"more") == 21


@pytest.mark.parametrize("mapped", [False, True])
def test_f2_a_changed_byte_is_told_alike_at_both_levels(mapped: bool) -> None:
    env = FaultEnv()
    log = grown(env, mapped=mapped)
    offset = int(log.index_array(1)[2]["offset"]) + 33
    env.corrupt(f"{DIRECTORY}/1-1.log", offset, 1)
    for read in (lambda: contents(log), lambda: log.entry(3, Entry)):
        with pytest.raises(CorruptLogError) as caught:
            read()
        assert (caught.value.index, caught.value.path) == (3, f"{DIRECTORY}/1-1.log")
        assert caught.value.offset <= offset
    env.corrupt(f"{DIRECTORY}/1-1.log", offset, 1)  # a read error that was not of the disk
    assert contents(log) == expected(1, 21)


def test_neighbours_that_are_read_one_by_one_share_a_read() -> None:
    env = FaultEnv()
    log = grown(env, count=24)
    for first in (1, 17):  # a sealed segment, and the tail
        for index in range(first, first + 4):
            assert log.entry(index, Entry) is not None
        env.fail("read", 1, "EIO")
        assert log.entry(first + 4, Entry) == Entry(first + 4, 1, b"1:%d" % (first + 4))
        with pytest.raises(DiskError):
            log.entry(9, Entry)


def test_f14_a_bad_sector_ahead_is_not_what_was_asked_for() -> None:
    env = FaultEnv()
    log = grown(env)
    assert log.entry(1, Entry) is not None
    env.fail("read", 1, "EIO")  # of the neighbours, which are read ahead from here on
    assert log.entry(2, Entry) == Entry(2, 1, b"1:2")
    assert log.entry(3, Entry) == Entry(3, 1, b"1:3")


def test_what_was_read_ahead_of_a_tail_is_never_old() -> None:
    env = FaultEnv()
    log = open_small(env, entries=1000)
    for index in range(1, 200):
        log.append(batch(index, b"%d" % index))
        if index % 7 == 0:
            for earlier in range(max(1, index - 11), index + 1):
                assert log.entry(earlier, Entry) == Entry(earlier, 1, b"%d" % earlier)
    log.truncate(100)
    log.append(batch(101, b"anew", term=2))
    assert log.entry(100, Entry) == Entry(100, 1, b"100")
    assert log.entry(101, Entry) == Entry(101, 2, b"anew")
