"""A tail continues behind a gap, whatever its length, and whoever made it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import pytest

from copycat.log.entries import Entry
from copycat.log.log import Log
from copycat.log.tail import Tail
from copycat.types import Compaction, StorageLevelLike

SOON_S = 5.0
"""What a test waits for an entry that never comes."""


@pytest.mark.parametrize("level", ["disk", "memory"])
@pytest.mark.parametrize("gap", [1, 255, 256, 1000, 1 << 40])
def test_a_tail_goes_on_behind_a_gap(
    tmp_path: Path, level: StorageLevelLike, gap: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    feed = Log._feed

    def counted(log: Log, follower: Tail) -> None:
        looks.append(follower.position)
        feed(log, follower)

    async def follow(log: Log) -> list[Entry]:
        tail = log.tail(1)
        entries = [await asyncio.wait_for(anext(tail), SOON_S)]
        log.skip(gap)
        for data in (b"two", b"three"):
            log.append(data)
            entries.append(await asyncio.wait_for(anext(tail), SOON_S))
        return entries

    monkeypatch.setattr(Log, "_feed", counted)
    with Log.open(tmp_path, level=level) as log:
        log.append(b"one")
        entries = asyncio.run(follow(log))
    assert entries == [(1, 1, b"one"), (gap + 2, 1, b"two"), (gap + 3, 1, b"three")]
    assert len(looks) < 12, "as many for each gap"


def test_a_slow_tail_goes_on_behind_what_a_compaction_let_go(tmp_path: Path) -> None:
    async def follow(log: Log) -> list[int]:
        tail = log.tail(1)
        indexes = [(await anext(tail)).index]
        log.release_many(range(1, 1900))
        log.compactor.compact(Compaction.MAJOR)
        log.append(b"last")
        while indexes[-1] <= 2000:
            indexes.append((await asyncio.wait_for(anext(tail), SOON_S)).index)
        return indexes

    with Log.open(tmp_path, max_segment_size=16384) as log:
        log.append_many(b"%d" % n + bytes(100) for n in range(1, 2001))
        indexes = asyncio.run(follow(log))
    assert indexes == sorted(set(indexes))
    assert set(indexes) >= {1, *range(1900, 2002)}
    assert len(indexes) < 1000, "most were gone before it came to them"


def test_a_tail_waits_at_the_end_of_a_gap_that_is_the_last_there_is(tmp_path: Path) -> None:
    async def follow(log: Log) -> Entry:
        waiting = asyncio.ensure_future(anext(log.tail(1)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        log.append(b"behind")
        return await asyncio.wait_for(waiting, SOON_S)

    with Log.open(tmp_path) as log:
        log.skip(5000)
        assert asyncio.run(follow(log)).index == 5001


def test_a_truncation_comes_before_or_after_a_tail_is_fed(tmp_path: Path) -> None:
    """Another thread cuts the log right when a tail was given entries: none of them is shown."""

    async def follow(log: Log) -> list[bytes]:
        tail = cast("Tail", log.tail(1))
        take, fed = tail.take, threading.Event()

        def slow(entries: Iterable[Entry], position: int) -> None:
            cutter.start()
            fed.set()
            assert not cut.wait(0.05), "the cut waits for the lock that this is done under"
            take(entries, position)

        tail.take = slow  # type: ignore[method-assign]
        cut = threading.Event()

        def cut_it() -> None:
            fed.wait()
            log.truncate(1)
            cut.set()

        cutter = threading.Thread(target=cut_it)
        payloads = [(await anext(tail)).data]
        tail.take = take  # type: ignore[method-assign]
        cutter.join()
        log.append(b"new")
        payloads.append((await asyncio.wait_for(anext(tail), SOON_S)).data)
        return payloads

    with Log.open(tmp_path) as log:
        log.append_many([b"one", b"two", b"three"])
        assert asyncio.run(follow(log)) == [b"one", b"new"]
