"""Full disks of followers over real sockets: whoever waits for a commit hears whose they are."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from copycat import CopycatClient, DiskFullError
from tests.server.cluster import Book, Trio, run

NEVER_FREE = 1 << 50
"""More bytes than any disk has: with it as `min_free_space` the disk counts as full."""


async def refusal(waits: Awaitable[object]) -> DiskFullError:
    with pytest.raises(DiskFullError) as caught:
        await waits
    return caught.value


@pytest.mark.slow
def test_f12_a_client_hears_whose_disks_stop_its_commands(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            cluster = Trio(tmp_path, stack, max_segment_size=1 << 16)
            await cluster.start()
            await cluster.all_applied()
            leader = cluster.leader
            full = sorted(str(member.address) for member in cluster.followers)
            client = await stack.enter_async_context(CopycatClient(str(leader.address)))
            assert await client.submit(Book.add(1)) == 1
            cluster.settings["min_free_space"] = NEVER_FREE
            for address in full:
                await cluster.servers[address].shutdown()
                await cluster.start(address)
            await cluster.until(lambda: leader.status().full_disks == tuple(full))

            error = await refusal(client.submit(Book.add(2), timeout=0.5))
            why = f"the disks of {full[0]} and {full[1]} are full: 1 of 3 members take entries"
            assert why in error.render()
            assert await client.submit(Book.count(), timeout=5) == 1, "queries continue"
            error = await refusal(CopycatClient(str(leader.address)).connect())
            assert why in error.render()
            logged = [r.message for r in caplog.records if "nothing can be committed" in r.message]
            assert [why in line for line in logged][-1:] == [True]
            assert len(logged) <= 2, "once for each set of members, not each turn"

    run(scenario)
