"""What a log has in memory is bounded in bytes (docs/reference/settings.md), and is the log's."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any, cast

import pytest

import copycat.log.log as log_module
from copycat.log.log import Log
from copycat.log.tail import Tail
from copycat.storage._native import Batch, encode_batch
from copycat.storage.recent_batches import BYTES_MAX, RecentBatches
from copycat.types import EntryKind
from tests.log.contract import batch


def made(first: int, entries: int, size: int) -> Batch:
    body = (size.to_bytes(4, "little") * entries) + bytes(size) * entries
    return encode_batch(1, first, 1, [(int(EntryKind.DATA), 0, 0, 0, entries, body)])


@pytest.mark.parametrize("seed", range(12))
def test_the_newest_batches_are_what_a_list_holds(seed: int) -> None:
    """Of every index: the batch that was appended last with it, or none; the newest within the
    bounds are there."""
    rng = random.Random(seed)
    entries_max, bytes_max = rng.choice([(5, 1 << 20), (40, 3000), (1000, 6000), (12, 2000)])
    recent, model = RecentBatches[Batch](entries_max, bytes_max), list[Batch]()
    end = 1
    for _ in range(400):
        step = rng.random()
        if step < 0.8:
            added = made(end, rng.choice([1, 1, 1, 2, 5, 9]), rng.choice([0, 10, 300, 1500]))
            recent.add(added)
            model.append(added)
            end = added.span.end
        elif step < 0.9:
            after = rng.randrange(max(end - 12, 0), end)
            recent.truncate(after)
            model = [
                one if one.span.last <= after else one.slice(one.span.first, after + 1)
                for one in model
                if one.span.first <= after
            ]
            end = after + 1
        else:
            recent.trim(rng.randrange(max(end - 30, 1), end + 1))
        count = 0
        for index in range(max(end - 40, 1), end + 3):
            match = recent.find(index)
            if match is not None:
                expected = next(one for one in model if one.span.first <= index < one.span.end)
                assert match is expected
                count += 1
        assert count <= entries_max
        assert recent.nbytes <= bytes_max
        if step < 0.8 and added.span.length <= entries_max and added.nbytes + 512 <= bytes_max:
            assert recent.find(end - 1) is added, "the newest is there"


def test_the_newest_entries_have_a_bound_of_bytes(tmp_path: Path) -> None:
    with Log.open(tmp_path, durability="os", min_free_space=0, entry_buffer_size=1000) as log:
        for _ in range(40):
            log.append(bytes(1 << 20))
        assert 14 << 20 < log._recent.nbytes <= BYTES_MAX
        log.trim(log.last_index)
        assert log._recent.nbytes < 3 << 20
        log.append_many([bytes(1 << 19)] * 8)
        log.truncate(log.last_index - 9)
        assert log._recent.nbytes == 0
        log.append(b"x")
        assert log._recent.nbytes > 0
    assert log._recent.nbytes == 0


def test_small_entries_are_counted_with_what_holds_them() -> None:
    recent = RecentBatches[Batch](1 << 24, 1 << 16)
    for index in range(1, 2000):
        recent.add(batch(index, b""))
    assert recent.nbytes <= 1 << 16
    assert len(recent._rows) <= (1 << 16) // 512


def test_a_tail_and_an_iterator_have_a_part_of_the_log_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    class Counted:
        def __init__(self, native: Any) -> None:
            self._native = native

        def __getattr__(self, name: str) -> Any:
            return getattr(self._native, name)

        def read(self, first: int, end: int, nbytes: int) -> Batch:
            batch = cast("Batch", self._native.read(first, end, nbytes))
            read.append(batch.nbytes)
            return batch

    async def follow(log: Log) -> None:
        tail = cast("Tail", log.tail(1))
        async for entry in tail:
            assert sum(len(one.data) for one in tail._ahead) <= log_module.TAIL_BYTES
            if entry.index == log.last_index:
                return

    with Log.open(tmp_path, durability="os", min_free_space=0) as log:
        log.append_many([bytes(1000)] * 3000)
        monkeypatch.setattr(log, "_native", Counted(log._native))
        asyncio.run(follow(log))
        assert max(read) <= log_module.TAIL_BYTES
        assert sum(1 for _ in log) == 3000
        assert max(read) <= log_module.READ_BYTES
        monkeypatch.undo()
