"""A poll of a follower reads what is new, and notices that a file is not the one it read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from copycat.errors import CorruptLogError
from copycat.storage import encode_batch
from copycat.storage._native import Env, FaultEnv, NativeLog, open_log
from copycat.storage.follow import Follower
from copycat.storage.reader import records
from copycat.types import EntryKind

PAYLOAD = bytes(1000)
FRAME = 1032
HEADERS = 64
"""Of the last record, and of the one that would be the next."""


class CountedFile:
    def __init__(self, file: Any, name: str, count: Counter[str]) -> None:
        self._file, self._name, self._count = file, name, count

    def size(self) -> int:
        return int(self._file.size())

    def read(self, offset: int, size: int) -> bytes:
        data = bytes(self._file.read(offset, size))
        self._count[self._name] += len(data)
        return data


class CountedEnv:
    """Counts the bytes that are read, by the kind of the file."""

    def __init__(self, env: FaultEnv) -> None:
        self._env = env
        self.count = Counter[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def open(self, path: str) -> CountedFile:
        return CountedFile(self._env.open(path), path.rpartition(".")[2], self.count)

    def read_file(self, path: str) -> bytes:
        data = self._env.read_file(path)
        self.count[path.rpartition(".")[2]] += len(data)
        return data

    def take_count(self) -> int:
        """Bytes of segments since the last call."""
        return self.count.pop("log", 0)


def opened(env: FaultEnv) -> NativeLog:
    env.make_directory("/log")
    return open_log(env, "/log", max_segment_size=1 << 20, max_entries_per_segment=4096)


def append(log: NativeLog, count: int, *, is_synced: bool = True) -> None:
    for _ in range(count):
        item = (int(EntryKind.NOOP), 0, 0, 0, 1, PAYLOAD)
        log.append(encode_batch(1, log.last_index + 1, 0, [item]))
    if is_synced:
        ticket = log.begin_sync()
        ticket.run()
        log.end_sync(ticket)


def indexes(follower: Follower) -> list[int]:
    return [record.index for record in follower.poll().records]


@pytest.mark.parametrize("is_synced", [True, False])
def test_a_poll_reads_what_is_new(is_synced: bool) -> None:
    env = FaultEnv(1)
    log, counted = opened(env), CountedEnv(env)
    append(log, 500, is_synced=is_synced)
    follower = Follower("/log", 1, env=counted)  # type: ignore[arg-type]
    assert indexes(follower) == list(range(1, 501))
    assert counted.take_count() > 500 * FRAME
    for _ in range(10):
        assert not indexes(follower)
    assert counted.take_count() == 10 * HEADERS
    append(log, 1, is_synced=is_synced)
    assert indexes(follower) == [501]
    assert counted.take_count() <= HEADERS + 4096 + 4096, "a header of a segment, and a block"
    append(log, 100, is_synced=is_synced)
    assert indexes(follower) == list(range(502, 602))
    assert counted.take_count() <= HEADERS + 4096 + 2 * 101 * FRAME


def test_a_roll_that_no_sync_followed_is_read_once() -> None:
    """Whether a pending manifest counts is found by reading all that it names."""
    env = FaultEnv(1)
    log, counted = opened(env), CountedEnv(env)
    append(log, 10)
    append(log, 1100, is_synced=False)
    assert any(name.endswith(".pending") for name in env.list("/log"))
    follower = Follower("/log", 1, env=counted)  # type: ignore[arg-type]
    assert indexes(follower) == list(range(1, 1111))
    counted.take_count()
    assert not indexes(follower)
    assert counted.take_count() == HEADERS


def test_a_tail_that_is_not_the_one_that_was_read_is_read_anew() -> None:
    env = FaultEnv(1)
    log = opened(env)
    append(log, 20)
    follower = Follower("/log", 1, env=env)
    records = follower.poll().records
    assert records[-1].index == 20
    env.corrupt(records[-1].path, records[-1].offset + 8, 0x40)
    assert not indexes(follower)
    append(log, 1)
    with pytest.raises(CorruptLogError, match="it was durable") as caught:
        follower.poll()
    assert caught.value.index == 20
    assert caught.value.offset == records[-1].offset


def test_a_record_that_is_larger_than_a_block_is_read_whole() -> None:
    env = FaultEnv(1)
    log = opened(env)
    append(log, 3)
    follower = Follower("/log", 1, env=env)
    assert indexes(follower) == [1, 2, 3]
    item = (int(EntryKind.NOOP), 0, 0, 0, 1, bytes(range(256)) * 400)
    log.append(encode_batch(1, 4, 0, [item]))
    (record,) = follower.poll().records
    assert record.payload == item[5]
    append(log, 2)
    assert indexes(follower) == [5, 6]


@pytest.mark.parametrize("size", [8161, 10001, 100_003])
def test_a_poll_in_the_middle_of_a_write_finds_the_rest_later(tmp_path: Path, size: int) -> None:
    """A frame of any size is followed by zeros up to a multiple of 8: these are read with it."""
    directory = str(tmp_path)
    log = open_log(Env(), directory, max_segment_size=1 << 20, max_entries_per_segment=4096)
    append(log, 1)
    follower = Follower(directory, 1)
    assert indexes(follower) == [1]
    large = bytes(range(1, 256)) * 400
    items = [(int(EntryKind.NOOP), 0, 0, 0, 1, payload) for payload in (b"small", large[:size])]
    log.append(encode_batch(1, 2, 0, items))
    *_, record = records(directory)
    with Path(record.path).open("r+b") as file:
        file.seek(record.offset)
        written = file.read(len(record.frame))
        file.seek(record.offset)
        file.write(bytes(len(written)))
        file.flush()
        assert indexes(follower) == [2]
        file.seek(record.offset)
        file.write(written)
    assert indexes(follower) == [3]
    append(log, 2)
    assert indexes(follower) == [4, 5]
    log.close()
