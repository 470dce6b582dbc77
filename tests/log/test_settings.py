"""Each setting of `Storage` does what its name says, and problems are told all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from copycat.config import Storage
from copycat.errors import ConfigurationError, DiskFullError, EntryTooLargeError
from copycat.log.log import Log
from copycat.log.options import storage_of
from copycat.storage._native import FaultEnv, open_log
from copycat.types import Durability, StorageLevel

MEMBERS_ONLY = {
    "compaction_threads": (0, 65),
    "minor_compaction_interval": (0.0, 1e9),
    "major_compaction_interval": (0.0, 1e9),
    "compaction_threshold": (0.0, -1.0),
    "snapshot_threshold": (-1, 1),
    "compression": ("zip", ""),
}
"""What only a compactor or a member reads: (too little, too much or wrong)."""


def test_directory(tmp_path: Path) -> None:
    with Log.open(tmp_path / "here") as log:
        log.append(b"a")
    assert (tmp_path / "here" / "manifest").exists()


def test_level_memory_has_no_files(tmp_path: Path) -> None:
    with Log.open(tmp_path / "nowhere", level="memory", max_entries_per_segment=4) as log:
        for n in range(10):
            assert log.append(b"%d" % n) == n + 1
        assert log.durable_index == 10
        assert [entry.data for entry in log.read(9)] == [b"8", b"9"]
        assert log[3].data == b"2"
        assert [s.count for s in log.segments][-1] > 0
        assert log.size > 0
        log.truncate(8)
        log.trim(5)
        assert (log.first_index, log.last_index) == (5, 8)
        with pytest.raises(ConfigurationError, match="in memory"):
            log.index_array(log.segments[0])
    assert not (tmp_path / "nowhere").exists()
    with Log.open(tmp_path / "nowhere", level="memory") as log:
        assert len(log) == 0


def test_level_memory_read_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="new and empty"):
        Log.open(tmp_path, level="memory", read_only=True)


def test_durability(tmp_path: Path) -> None:
    for mode, durable in ((Durability.FSYNC, 1), (Durability.OS, 0)):
        with Log.open(tmp_path / mode.value, durability=mode) as log:
            log.append(b"a")
            assert log.durable_index == durable


def test_sync_interval(tmp_path: Path) -> None:
    with Log.open(tmp_path / "long", durability="interval", sync_interval=3600) as log:
        log.append(b"a")
        assert log.durable_index == 0
    with Log.open(tmp_path / "short", durability="interval", sync_interval=1e-4) as log:
        log.append(b"a")
        while log.durable_index == 0:
            log.append(b"b")
        assert log.durable_index >= 1


def test_max_segment_size(tmp_path: Path) -> None:
    with Log.open(tmp_path, max_segment_size=8192) as log:
        log.append_many([b"x" * 1000] * 20)
        assert len(log.segments) > 2
        assert all(segment.size <= 8192 for segment in log.segments)


def test_max_entries_per_segment(tmp_path: Path) -> None:
    with Log.open(tmp_path, max_entries_per_segment=3) as log:
        log.append_many([b"x"] * 9)
        assert [segment.count for segment in log.segments] == [3, 3, 3]


def test_max_entry_size(tmp_path: Path) -> None:
    with Log.open(tmp_path, max_entry_size=4) as log:
        log.append(b"1234")
        with pytest.raises(EntryTooLargeError):
            log.append(b"12345")


def test_entry_buffer_size() -> None:
    """An entry in the buffer is read without the disk; an older one is not."""
    env = FaultEnv()
    native = open_log(env, "/log", max_segment_size=1 << 16, max_entries_per_segment=1000)
    with Log(native, "/log", Storage(entry_buffer_size=3), read_only=False) as log:
        log.append_many([b"a", b"b"])
        for data in (b"c", b"d", b"e"):
            log.append(data)
        before = env.operations
        assert [log[index].data for index in (3, 4, 5)] == [b"c", b"d", b"e"]
        assert env.operations == before
        assert [log._recent.find(index) is None for index in range(1, 7)] == [
            True,
            True,
            False,
            False,
            False,
            True,
        ]
        assert [log[index].data for index in (1, 2)] == [b"a", b"b"]
        log.truncate(4)
        log.append(b"another")
        assert log[5].data == b"another"
        assert log.get(4) == (4, 1, b"d")
        log.append_many([b"x"] * 4)
        assert log._recent.find(9) is None, "a batch beyond the limit is not kept"
        assert log[9].data == b"x"


def test_min_free_space() -> None:
    env = FaultEnv()
    env.make_directory("/log")
    env.set_free_space(8 << 20)
    sizes: dict[str, Any] = {"max_segment_size": 1 << 16, "max_entries_per_segment": 4}
    native = open_log(env, "/log", min_free_space=1 << 30, **sizes)
    with Log(native, "/log", Storage(), read_only=False) as log:
        with pytest.raises(DiskFullError):
            log.append_many([b"x"] * 20)
        assert log.append(b"y") == log.last_index


@pytest.mark.parametrize("name", MEMBERS_ONLY)
def test_settings_of_the_compactor_are_validated(name: str) -> None:
    for value in MEMBERS_ONLY[name]:
        with pytest.raises(ConfigurationError, match=f"storage.{name} "):
            Storage(**cast("Any", {name: value}))


def test_retain_stale_snapshots_is_a_flag() -> None:
    with pytest.raises(ConfigurationError, match="Expected `bool`"):
        Storage(retain_stale_snapshots="yes")  # type: ignore[arg-type]


def test_all_problems_are_told_at_once() -> None:
    settings = {"durability": "never", "sync_interval": 0.0, "max_entry_size": "big", "speed": 9}
    with pytest.raises(ConfigurationError) as caught:
        storage_of("/log", None, settings)
    for name in settings:
        assert f"storage.{name}" in caught.value.message
    assert "entry_buffer_size" in str(caught.value.hint)


def test_text_and_numbers_of_a_file_become_what_they_mean() -> None:
    storage = storage_of("/log", None, {"durability": "os", "level": "memory", "sync_interval": 1})
    assert storage.durability is Durability.OS
    assert storage.level is StorageLevel.MEMORY
    assert isinstance(storage.sync_interval, float)
    settings = cast("Any", {"durability": "interval"})
    assert Storage(**settings).durability is Durability.INTERVAL
