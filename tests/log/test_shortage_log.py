"""F29 in the public log: a tail, a compaction and a close over a disk in memory."""

from __future__ import annotations

import asyncio

import pytest

from copycat.config import Storage
from copycat.errors import ResourceError
from copycat.log.log import Log
from copycat.storage._native import FaultEnv
from copycat.types import Compaction
from tests.log.test_native import DIRECTORY, open_small

ITEMS = [b"%d" % n for n in range(40)]


def written() -> tuple[FaultEnv, Log]:
    env = FaultEnv(1)
    env.make_directory(DIRECTORY)
    log = Log(open_small(env), DIRECTORY, Storage(), read_only=False)
    log.append_many(ITEMS)
    return env, log


def test_f29_a_tail_that_meets_a_shortage_goes_on_where_it_was() -> None:
    env, log = written()

    async def scenario() -> None:
        payloads: list[bytes] = []
        refused = 0
        tail = log.tail(1)
        while len(payloads) < len(ITEMS):
            if len(payloads) % 3 == 0 and refused <= len(payloads):
                env.fail("open", 1, "EMFILE")
                refused += 1
            try:
                payloads.append((await anext(tail)).data)
            except ResourceError:
                refused += 1
        assert payloads == ITEMS

    asyncio.run(asyncio.wait_for(scenario(), 60))
    log.close()


@pytest.mark.parametrize("operation", ["open", "create", "map", "rename", "open_directory"])
def test_f29_a_compaction_that_meets_a_shortage_may_follow_again(operation: str) -> None:
    met = 0
    for nth in range(1, 12):
        env, log = written()
        for index in range(2, 20):
            log.release(index)
        env.fail(operation, nth, "EMFILE")
        try:
            log.compactor.compact(Compaction.MAJOR)
        except ResourceError:
            met += 1
            assert [entry.index for entry in log if entry.index > 19] == list(range(20, 41))
            log.compactor.compact(Compaction.MAJOR)
        log.close()
        env.crash(nth)
        with Log(open_small(env), DIRECTORY, Storage(), read_only=False) as again:
            assert [entry.index for entry in again] == [1, *range(20, 41)]
    assert met > 0 or operation == "map"
