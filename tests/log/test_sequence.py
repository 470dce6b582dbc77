"""What a log is to Python: length, membership, slices and iteration agree; indexes are ints."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from copycat.log.log import Entry, Log

SMALL: dict[str, Any] = {
    "max_segment_size": 8192,
    "max_entries_per_segment": 8,
    "min_free_space": 0,
}
SOON_S = 20


def whole(log: Log) -> None:
    log.append_many([b"%d" % n for n in range(40)])


def trimmed(log: Log) -> None:
    whole(log)
    log.trim(17)


def cleaned(log: Log) -> None:
    whole(log)
    log.release_many([*range(1, 9), 11, 13])
    log.compactor.compact("major")


def with_a_gap_at_the_end(log: Log) -> None:
    whole(log)
    log.skip(5)


def empty(log: Log) -> None:
    pass


def trimmed_and_cleaned(log: Log) -> None:
    cleaned(log)
    log.trim(9)


@pytest.fixture(
    params=[whole, trimmed, cleaned, with_a_gap_at_the_end, empty, trimmed_and_cleaned]
)
def log(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Log]:
    with Log.open(tmp_path, **SMALL) as made:
        request.param(made)
        yield made


def test_all_ways_to_read_agree(log: Log) -> None:
    entries = list(log)
    indexes = [entry.index for entry in entries]
    assert len(log) == len(entries)
    assert bool(log) == bool(entries)
    assert [n for n in range(log.next_index + 5) if n in log] == indexes
    assert all(entry in log for entry in entries)
    assert Entry(indexes[0] if indexes else 1, 1, b"another") not in log
    assert list(reversed(log)) == entries[::-1]
    assert log[:] == log[1:] == log[0 : 2**200] == entries
    assert [log[n] for n in indexes] == entries
    for begin in range(0, log.next_index + 3, 3):
        for end in range(begin, log.next_index + 3, 5):
            assert log[begin:end] == [e for e in entries if begin <= e.index < end]
    assert log[10:5] == []


def test_what_is_not_there_is_an_index_error_or_none(log: Log) -> None:
    for index in (0, -1, -(2**200), log.next_index, 2**63, 2**64, 2**200):
        with pytest.raises(IndexError):
            log[index]
        with pytest.raises(IndexError):
            log.term(index)
        assert log.get(index) is None
        assert index not in log
    for part in (slice(-3, None), slice(None, -1), slice(-(2**200), 5)):
        with pytest.raises(IndexError, match="not counted from the end"):
            log[part]
    with pytest.raises(ValueError, match="no step"):
        log[1:9:2]


VERBS: list[Callable[[Log, Any], object]] = [
    lambda log, index: log[index],
    lambda log, index: log[index:],
    lambda log, index: log.get(index),
    lambda log, index: log.term(index),
    lambda log, index: list(log.read(index)),
    lambda log, index: list(log.read(None, index)),
    lambda log, index: log.truncate(index),
    lambda log, index: log.trim(index),
    lambda log, index: log.release(index),
    lambda log, index: log.release_many([1, index]),
    lambda log, index: log.commit(index),
    lambda log, index: log.skip(index),
    lambda log, index: log.index_array(index),
    lambda log, index: log.tail(index),
    lambda log, index: log.append(b"x", term=index),
]
TAKES_NONE = {VERBS[1], VERBS[4], VERBS[5], VERBS[13], VERBS[14]}


@pytest.mark.parametrize("stranger", [1.0, "1", None, True, False, b"1", [1], 1 + 0j])
@pytest.mark.parametrize("verb", VERBS)
def test_an_index_is_an_int(
    tmp_path: Path, verb: Callable[[Log, Any], object], stranger: object
) -> None:
    """Nothing is done with what is none."""
    with Log.open(tmp_path, **SMALL) as log:
        whole(log)
        before = list(log)
        if stranger is not None or verb not in TAKES_NONE:
            with pytest.raises(TypeError, match="is an int, not"):
                verb(log, stranger)
        assert stranger not in log
        assert list(log) == before
        assert not any(segment.release_count for segment in log.segments)


@pytest.mark.parametrize("verb", VERBS[:-1])
def test_an_index_far_outside_is_no_overflow(
    tmp_path: Path, verb: Callable[[Log, Any], object]
) -> None:
    with Log.open(tmp_path, **SMALL) as log:
        whole(log)
        for index in (2**200, 2**64, 2**63, -1, -(2**200)):
            with suppress(IndexError, ValueError, RuntimeError):  # a tail needs a loop
                verb(log, index)
        assert log.last_index == 40


def test_integers_of_numpy_are_indexes(tmp_path: Path) -> None:
    with Log.open(tmp_path, **SMALL) as log:
        whole(log)
        for kind in (np.int64, np.uint8, np.uint64):
            index = kind(20)
            assert log[index] == log.get(index) == log[20]
            assert index in log
            assert next(log.read(index)).index == 20
            assert [e.index for e in log[index : kind(23)]] == [20, 21, 22]
        log.release_many(np.arange(1, 9, dtype=np.uint64))
        log.trim(np.int32(9))
        log.truncate(np.int16(30))
        assert (log.first_index, log.last_index) == (9, 30)


def test_a_tail_of_a_log_that_is_only_read_follows_who_writes_it(tmp_path: Path) -> None:
    async def follow(writer: Log, reader: Log) -> list[bytes]:
        tail = reader.tail(1)
        payloads = [(await asyncio.wait_for(anext(tail), SOON_S)).data for _ in range(40)]
        for n in range(20):
            writer.append(b"more %d" % n)
            payloads.append((await asyncio.wait_for(anext(tail), SOON_S)).data)
        writer.truncate(50)
        writer.append(b"instead")
        payloads.append((await asyncio.wait_for(anext(tail), SOON_S)).data)
        waiting = asyncio.ensure_future(anext(tail))
        await asyncio.sleep(0)
        reader.close()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting, SOON_S)
        return payloads

    with Log.open(tmp_path, **SMALL) as writer:
        whole(writer)
        payloads = asyncio.run(follow(writer, Log.open(tmp_path, read_only=True)))
        assert payloads[:40] == [b"%d" % n for n in range(40)]
        assert payloads[40:] == [b"more %d" % n for n in range(20)] + [b"instead"]


@pytest.mark.parametrize("level", ["disk", "memory"])
def test_an_index_outside_is_told_what_the_log_holds(tmp_path: Path, level: Any) -> None:
    with Log.open(tmp_path, level=level) as log:
        with pytest.raises(IndexError, match=r"^entry 1: the log is empty, 1 comes next$"):
            log[1]
        log.append_many([b"x"] * 10)
        for index in (0, 11, 2**70):
            with pytest.raises(IndexError, match=rf"^entry {index}: the log holds 1 to 10$"):
                log[index]


@pytest.mark.parametrize("level", ["disk", "memory"])
@pytest.mark.parametrize("copy_it", [copy.copy, copy.deepcopy])
def test_a_log_is_neither_copied_nor_pickled(
    tmp_path: Path, level: Any, copy_it: Callable[[Log], object]
) -> None:
    with Log.open(tmp_path, level=level) as log:
        log.append(b"x")
        with pytest.raises(TypeError, match="a Log cannot be copied or pickled"):
            copy_it(log)
        assert [entry.data for entry in log] == [b"x"]
        assert copy.deepcopy(log[1]) == log[1]
