"""A tail goes on behind a hole, whatever its length, and whoever made it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from copycat.log.entry import Entry
from copycat.log.log import Log
from copycat.types import Compaction

SOON_S = 5.0
"""What a test waits for an entry that never comes."""


@pytest.mark.parametrize("level", ["disk", "memory"])
@pytest.mark.parametrize("hole", [1, 255, 256, 1000, 1 << 40])
def test_a_tail_goes_on_behind_a_hole(
    tmp_path: Path, level: str, hole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[object] = []
    visible: Any = Log.visible

    def counted(log: Log, *where: int) -> object:
        looks.append(where)
        return visible(log, *where)

    async def follow(log: Log) -> list[Entry]:
        tail = log.tail(1)
        found = [await asyncio.wait_for(anext(tail), SOON_S)]
        log.skip(hole)
        for data in (b"two", b"three"):
            log.append(data)
            found.append(await asyncio.wait_for(anext(tail), SOON_S))
        return found

    monkeypatch.setattr(Log, "visible", counted)
    with Log.open(tmp_path, level=level) as log:
        log.append(b"one")
        found = asyncio.run(follow(log))
    assert found == [(1, 1, b"one"), (hole + 2, 1, b"two"), (hole + 3, 1, b"three")]
    assert len(looks) < 12, "as many for each hole"


def test_a_slow_tail_goes_on_behind_what_a_compaction_let_go(tmp_path: Path) -> None:
    async def follow(log: Log) -> list[int]:
        tail = log.tail(1)
        found = [(await anext(tail)).index]
        log.release_many(range(1, 1900))
        log.compactor.compact(Compaction.MAJOR)
        log.append(b"last")
        while found[-1] <= 2000:
            found.append((await asyncio.wait_for(anext(tail), SOON_S)).index)
        return found

    with Log.open(tmp_path, max_segment_size=16384) as log:
        log.append_many(b"%d" % n + bytes(100) for n in range(1, 2001))
        found = asyncio.run(follow(log))
    assert found == sorted(set(found))
    assert set(found) >= {1, *range(1900, 2002)}
    assert len(found) < 1000, "most were gone before it came to them"


def test_a_tail_waits_at_the_end_of_a_hole_that_is_the_last_there_is(tmp_path: Path) -> None:
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
