"""The public log: real files, no cluster, no event loop but for `tail`."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from copycat.config import Storage
from copycat.errors import (
    ConfigurationError,
    DirectoryInUseError,
    EntryTooLargeError,
    ForkedProcessError,
    SerializationError,
    WrongDirectoryError,
)
from copycat.log.log import Entry, Log
from copycat.storage._native import Env, NativeLog
from copycat.types import Durability, DurabilityLike
from tests.log.test_directory import open_member

SMALL: dict[str, Any] = {
    "max_segment_size": 16384,
    "max_entries_per_segment": 16,
    "min_free_space": 0,
}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log.open(tmp_path, **SMALL) as opened:
        yield opened


def data(log: Log) -> list[bytes]:
    return [entry.data for entry in log]


def test_the_readmes_example(tmp_path: Path) -> None:
    with Log.open(tmp_path / "events") as log:
        first = log.append(b"user 7 signed in")
        log.append_many(b"click %d" % n for n in range(1000))
        rows = [(entry.index, entry.data) for entry in log.read(first)]
        assert rows[:2] == [(1, b"user 7 signed in"), (2, b"click 0")]
        assert len(rows) == len(log) == 1001
        assert len(log.segments) == 1


def test_append_returns_the_index_and_is_durable(log: Log) -> None:
    assert (log.first_index, log.last_index, log.next_index) == (1, 0, 1)
    assert log.append(b"a") == 1
    assert log.append(memoryview(b"b")) == 2
    assert log.durable_index == log.last_index == 2
    assert log.next_index == 3


def test_append_many_returns_the_range(log: Log) -> None:
    log.append(b"a")
    assert log.append_many([b"b", b"", b"c" * 5000]) == range(2, 5)
    assert log.append_many(b"%d" % n for n in range(3)) == range(5, 8)
    assert log.append_many([]) == range(8, 8)
    assert data(log) == [b"a", b"b", b"", b"c" * 5000, b"0", b"1", b"2"]
    assert log.durable_index == 7


def test_append_many_larger_than_segments_and_chunks(tmp_path: Path) -> None:
    log = Log.open(tmp_path, max_segment_size=1 << 20, max_entries_per_segment=1400)
    items = [b"%d" % n for n in range(4200)]
    assert log.append_many(items) == range(1, 4201)
    assert data(log) == items
    assert len(log.segments) == 3
    assert sum(segment.count for segment in log.segments) == 4200


def test_many_bytes_are_cut_to_several_batches(tmp_path: Path) -> None:
    with Log.open(tmp_path) as log:
        items = [bytes([n]) * 900_000 for n in range(12)]
        assert log.append_many(items) == range(1, 13)
        assert data(log) == items


def test_terms(log: Log) -> None:
    assert log.append(b"a") == 1
    log.append(b"b", term=4)
    log.append_many([b"c", b"d"])
    assert [log.term(index) for index in (1, 2, 3, 4)] == [1, 4, 4, 4]
    assert [entry.term for entry in log] == [1, 4, 4, 4]
    with pytest.raises(ValueError, match="3"):
        log.append(b"e", term=3)
    with pytest.raises(IndexError):
        log.term(5)


def test_reading(log: Log) -> None:
    log.append_many(b"%d" % n for n in range(100))
    assert log[7] == Entry(7, 1, b"6")
    assert bytes(log[7].view()) == b"6"
    assert log.get(100) == Entry(100, 1, b"99")
    assert log.get(0) is log.get(101) is None
    for index in (0, -1, 101):
        with pytest.raises(IndexError):
            _ = log[index]
        assert index not in log
    assert 1 in log
    assert 100 in log
    assert "7" not in log
    assert [e.index for e in log.read(95)] == [95, 96, 97, 98, 99, 100]
    assert [e.index for e in log.read(stop=4)] == [1, 2, 3]
    assert [e.index for e in log.read(50, 53)] == [50, 51, 52]
    assert list(log.read(101)) == list(log.read(5, 5)) == list(log.read(5, 2)) == []
    assert [e.index for e in log.read(99, 1000)] == [99, 100]
    with pytest.raises(IndexError):
        log.read(0)
    with pytest.raises(IndexError):
        log.read(102)


def test_a_reader_sees_what_was_there_when_it_began(log: Log) -> None:
    log.append_many([b"a", b"b"])
    reader = log.read()
    assert next(reader).data == b"a"
    log.append(b"c")
    assert [entry.data for entry in reader] == [b"b"]


def test_truncate_and_trim(log: Log) -> None:
    log.append_many(b"%d" % n for n in range(60))
    log.truncate(50)
    assert (log.last_index, log.durable_index) == (50, 50)
    assert log.append(b"new") == 51
    log.trim(40)
    assert 24 < log.first_index <= 40
    with pytest.raises(IndexError):
        log.read(1)
    assert log.get(1) is None
    assert data(log)[-2:] == [b"49", b"new"]
    assert len(log) == 51 - log.first_index + 1


def test_a_closed_log_opens_again_as_it_was(tmp_path: Path) -> None:
    with Log.open(tmp_path, **SMALL) as log:
        log.append_many(b"%d" % n for n in range(50))
        size = log.size
        assert size > 0
    assert log.closed
    log.close()
    with Log.open(tmp_path, **SMALL) as log:
        assert data(log) == [b"%d" % n for n in range(50)]
        assert log.durable_index == 50
        assert log.append(b"more") == 51


@pytest.mark.parametrize("durability", ["fsync", "interval", "os"])
def test_a_process_that_dies_loses_nothing_it_appended(
    tmp_path: Path, durability: DurabilityLike
) -> None:
    path = str(tmp_path)
    child = os.fork()
    if not child:
        log = Log.open(path, durability=durability, **SMALL)
        for n in range(50):
            log.append(b"%d" % n)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with Log.open(path) as log:
        assert data(log) == [b"%d" % n for n in range(50)]


def test_segments(log: Log) -> None:
    log.append_many(b"%d" % n for n in range(40))
    first, *_, last = log.segments
    assert (first.first_index, first.last_index, first.count) == (1, 16, 16)
    assert first.is_sealed
    assert first.size > 0
    assert not last.is_sealed
    assert last.last_index == 40
    assert [s.id for s in log.segments] == sorted({s.id for s in log.segments})


# --- refusals ---------------------------------------------------------------------------------


def test_a_directory_in_use_is_refused(tmp_path: Path, log: Log) -> None:
    with pytest.raises(DirectoryInUseError):
        Log.open(tmp_path)


def test_a_members_directory_is_refused(tmp_path: Path) -> None:
    open_member(Env(), str(tmp_path)).close()
    for path in (tmp_path, tmp_path / "log"):
        with pytest.raises(WrongDirectoryError):
            Log.open(path)
    with Log.open(tmp_path / "log", read_only=True) as log:
        assert len(log) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"durability": "never"},
        {"max_segment_size": 1},
        {"sync_interval": 0.0},
        {"max_entry_size": "big"},
        {"max_segments": 3},
        {"level": "paper"},
    ],
)
def test_bad_options_are_refused_before_the_disk(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Log.open(tmp_path / "new", **options)
    assert next(iter(options)).split("_")[0] in caught.value.message
    assert not (tmp_path / "new").exists()


def test_storage_is_taken_and_options_stand_above_it(tmp_path: Path) -> None:
    storage = Storage(durability=Durability.OS, max_entry_size=10)
    with Log.open(tmp_path, storage=storage, max_entry_size=20) as log:
        log.append(b"x" * 20)
        assert log.durable_index == 0
        with pytest.raises(EntryTooLargeError):
            log.append(b"x" * 21)


def test_an_entry_that_is_too_large_changes_nothing(log: Log) -> None:
    with pytest.raises(EntryTooLargeError) as caught:
        log.append_many([b"a", b"x" * (1 << 20), b"x" * ((1 << 20) + 1)])
    assert str((1 << 20) + 1) in caught.value.message
    assert len(log) == 0


@pytest.mark.parametrize("bad", ["text", 7, None, ["a"]])
def test_an_entry_that_is_not_bytes_changes_nothing(log: Log, bad: object) -> None:
    with pytest.raises(SerializationError, match=type(bad).__name__):
        log.append_many([b"a", bad])  # type: ignore[list-item]
    with pytest.raises(SerializationError, match=type(bad).__name__):
        log.append(bad)  # type: ignore[arg-type]
    assert len(log) == 0


def test_a_wide_memoryview_is_its_bytes(log: Log) -> None:
    numbers = array("Q", [1, 2, 3])
    log.append(memoryview(numbers))
    assert data(log) == [numbers.tobytes()]


def test_an_error_in_the_iterable_changes_nothing(log: Log) -> None:
    def items() -> Iterator[bytes]:
        yield b"a"
        raise KeyError(7)

    with pytest.raises(KeyError):
        log.append_many(items())
    assert len(log) == 0


def test_read_only(tmp_path: Path) -> None:
    with Log.open(tmp_path, **SMALL) as log:
        log.append_many([b"a", b"b"])
    with Log.open(tmp_path, read_only=True, **SMALL) as log:
        assert data(log) == [b"a", b"b"]
        for verb in (
            lambda: log.append(b"c"),
            lambda: log.append_many([b"c"]),
            lambda: log.truncate(1),
            lambda: log.trim(1),
            log.sync,
        ):
            with pytest.raises(ConfigurationError):
                verb()


def test_a_forked_child_may_not_use_it(log: Log) -> None:
    log.append(b"a")
    child = os.fork()
    if not child:
        code = 1
        try:
            log.append(b"b")
        except ForkedProcessError:
            log.close()
            code = 0
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert log.append(b"b") == 2


# --- durability -------------------------------------------------------------------------------


def test_os_leaves_it_to_sync(tmp_path: Path) -> None:
    with Log.open(tmp_path, durability="os") as log:
        log.append_many([b"a", b"b"])
        assert log.durable_index == 0
        assert log.sync() == 2
        assert log.durable_index == 2


def test_after_a_sync_a_crash_copies_nothing(tmp_path: Path) -> None:
    log = Log.open(tmp_path / "log", durability="os")
    log.append_many([b"x" * 100] * 1000)
    log.sync()
    shutil.copytree(tmp_path / "log", tmp_path / "crashed")  # as a SIGKILL leaves it
    log.close()
    with Log.open(tmp_path / "crashed") as opened:
        assert opened.last_index == 1000
        native = opened._native
        assert isinstance(native, NativeLog)
        assert not native.report.clean
        assert native.report.copied_entries == 0


def test_interval_syncs_by_itself(tmp_path: Path) -> None:
    with Log.open(tmp_path, durability="interval", sync_interval=0.001) as log:
        done = threading.Event()
        log.append(b"a")
        for _ in range(2000):
            if log.durable_index == 1 or done.wait(0.002):
                break
        assert log.durable_index == 1
    with Log.open(tmp_path) as log:
        assert data(log) == [b"a"]


def test_threads_share_a_log_and_its_syncs(log: Log) -> None:
    def work(name: int) -> None:
        for n in range(25):
            index = log.append(b"%d:%d" % (name, n))
            assert log.durable_index >= index

    workers = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    payloads = data(log)
    assert len(payloads) == 100
    for name in range(4):
        mine = [item for item in payloads if item.startswith(b"%d:" % name)]
        assert mine == [b"%d:%d" % (name, n) for n in range(25)]


# --- tail -------------------------------------------------------------------------------------


def test_a_tail_follows_what_is_appended(log: Log) -> None:
    async def follow() -> list[bytes]:
        payloads = []
        async for entry in log.tail(1):
            payloads.append(entry.data)
            if len(payloads) == 3:
                await asyncio.to_thread(log.append, b"d")
            if entry.data == b"d":
                break
        return payloads

    log.append_many([b"a", b"b", b"c"])
    assert asyncio.run(follow()) == [b"a", b"b", b"c", b"d"]


def test_a_tail_begins_at_the_end_and_ends_at_close(log: Log) -> None:
    async def follow() -> list[bytes]:
        tail = log.tail()
        log.append_many([b"b", b"c"])
        asyncio.get_running_loop().call_soon(log.close)
        return [entry.data async for entry in tail]

    log.append(b"a")
    assert asyncio.run(follow()) in ([b"b", b"c"], [])


def test_a_tail_goes_on_behind_a_truncation(log: Log) -> None:
    async def follow() -> list[tuple[int, bytes]]:
        tail = log.tail(1)
        entries = [await anext(tail) for _ in range(2)]
        log.truncate(1)
        log.append_many([b"B", b"C"])
        entries += [await anext(tail) for _ in range(2)]
        return [(entry.index, entry.data) for entry in entries]

    log.append_many([b"a", b"b", b"c"])
    assert asyncio.run(follow()) == [(1, b"a"), (2, b"b"), (2, b"B"), (3, b"C")]


def test_a_tail_of_trimmed_entries_is_refused(log: Log) -> None:
    async def follow() -> None:
        log.tail(1)

    log.append_many(b"%d" % n for n in range(40))
    log.trim(35)
    with pytest.raises(IndexError):
        asyncio.run(follow())


def test_the_index_of_a_sealed_segment_is_a_mapped_array(tmp_path: Path) -> None:
    with Log.open(tmp_path / "log", max_segment_size=8192) as log:
        log.append_many(bytes([n % 251]) * (100 + n) for n in range(100))
        sealed = log.segments[0]
        index = log.index_array(sealed)
        assert len(index) == sealed.count
        assert not index.flags.writeable
        assert not index.flags.owndata
        data = (tmp_path / "log" / f"{sealed.id}-{sealed.version}.log").read_bytes()
        for row, entry in zip(index, log.read(sealed.first_index), strict=False):
            begin = row["offset"] + 32
            assert data[begin : begin + row["size"]] == entry.data
        with pytest.raises(IndexError):
            log.index_array(999)
