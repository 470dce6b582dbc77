"""A log that is opened read-only beside the one that writes it, which lets files go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from copycat.errors import StorageError
from copycat.log.log import Log
from copycat.types import Compaction

SMALL: dict[str, Any] = {"max_segment_size": 16384, "max_entries_per_segment": 8}


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Log]:
    with Log.open(tmp_path, **SMALL) as log:
        log.append_many(b"%d" % n for n in range(1, 61))
        yield log


def compact(writer: Log) -> None:
    writer.release_many(range(1, 50, 2))
    writer.compactor.compact(Compaction.MAJOR)


def trim(writer: Log) -> None:
    writer.trim(25)
    writer._maintenance.stop()  # it removes the files


def truncate(writer: Log) -> None:
    writer.truncate(4)
    writer.append(b"another")
    writer._maintenance.stop()


async def follow(log: Log) -> None:
    async for _ in log.tail(1):
        pass


READS: list[Callable[[Log], object]] = [
    list,
    lambda log: [log[index] for index in range(1, 61)],
    lambda log: [log.get(index) for index in range(1, 61)],
    lambda log: asyncio.run(follow(log)),
]


@pytest.mark.parametrize("change", [compact, trim, truncate])
@pytest.mark.parametrize("read", READS, ids=["read", "item", "get", "tail"])
def test_a_file_that_the_writer_removed_is_told_as_that(
    tmp_path: Path, writer: Log, change: Callable[[Log], None], read: Callable[[Log], object]
) -> None:
    with Log.open(tmp_path, read_only=True) as reader:
        change(writer)
        with pytest.raises(StorageError, match="was deleted meanwhile") as caught:
            read(reader)
        assert isinstance(caught.value.__cause__, FileNotFoundError)
        assert caught.value.hint is not None
        assert caught.value.hint.startswith("open the log again")
    with Log.open(tmp_path, read_only=True) as reader:
        assert list(reader) == list(writer)
