"""F8, end to end: a directory is copied while its member runs, and put back later."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from copycat import CopycatClient, CopycatServer
from tests.faults.test_repair import check_equal, directory_of, trio_of
from tests.server.cluster import Book, Trio, run


async def add(trio: Trio, first: int, end: int) -> None:
    async with CopycatClient(*trio.addresses) as client:
        for number in range(first, end):
            await client.submit(Book.add(number))


async def put_back(member: CopycatServer[Book], copy: Path) -> str:
    """Stop it, replace its directory by the copy; its address."""
    address = str(member.address)
    directory = directory_of(member)
    await member.shutdown()
    shutil.rmtree(directory)
    shutil.copytree(copy, directory)
    return address


async def keeps_leader(trio: Trio) -> CopycatServer[Book]:
    """The leader needs the one that comes back: it knows that the third is gone."""
    await trio.until(lambda: any(s.state.value == "leader" for s in trio.running))
    third = trio.followers[0]
    await third.shutdown()
    await trio.until(lambda: str(third.address) in trio.leader.status().unreachable)
    return third


def scenario(tmp_path: Path, *, is_leader: bool) -> Callable[[], Coroutine[Any, Any, None]]:
    async def play() -> None:
        async with AsyncExitStack() as stack:
            trio = await trio_of(tmp_path, stack, 40)
            victim = trio.leader if is_leader else trio.followers[0]
            copy = tmp_path / "copy"
            shutil.copytree(directory_of(victim), copy)
            await add(trio, 40, 90)
            await trio.all_applied()
            address = await put_back(victim, copy)
            third = await keeps_leader(trio)
            await trio.start(address)
            await add(trio, 90, 100)
            await trio.all_applied()
            assert trio.servers[address].state_machine.entries == list(range(100))
            await trio.start(str(third.address))
            await trio.until(lambda: not any(one.status().regressed for one in trio.running))
            await check_equal(trio, 100)

    return play


@pytest.mark.slow
@pytest.mark.parametrize("is_leader", [False, True])
def test_a_directory_that_is_put_back_is_noticed_and_fed(
    tmp_path: Path, is_leader: bool, caplog: pytest.LogCaptureFixture
) -> None:
    run(scenario(tmp_path, is_leader=is_leader))
    if not is_leader:  # who is elected in its place counts from nothing, and need not know
        messages = [record.getMessage() for record in caplog.records]
        assert any("came back with an older copy" in one for one in messages), messages
        assert any("this directory is an older copy" in one for one in messages), messages
