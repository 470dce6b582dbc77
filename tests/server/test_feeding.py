"""A passive member is fed over real sockets, by a follower, and by another one when that stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server.cluster import Book
from tests.server.test_membership import Growing, growing

pytestmark = pytest.mark.slow


def test_a_passive_member_is_fed_by_followers_and_goes_on_when_one_stops(tmp_path: Path) -> None:
    async def scenario(cluster: Growing) -> None:
        await cluster.bootstrap()
        await cluster.join("b")
        await cluster.join("c")
        d = await cluster.join("d", type="passive")
        await cluster.all_see(a="active", b="active", c="active", d="passive")
        leader = await cluster.leader()
        async with leader.client() as client:
            await client.submit_many(Book.add(n) for n in range(1000))
            await cluster.until(lambda: len(d.state_machine.entries) == 1000)
            by_address = {str(one.address): one for one in cluster.servers.values()}
            await cluster.until(lambda: by_address.get(d.status().feeder, leader) is not leader)
            feeder = by_address[d.status().feeder]
            assert leader.status().feeder == ""
            await feeder.shutdown()
            await client.submit_many(Book.add(n) for n in range(1000))
            await cluster.until(lambda: len(d.state_machine.entries) == 2000)
            assert d.status().feeder not in {"", str(feeder.address)}
            assert d.state_machine.entries == [*range(1000), *range(1000)]

    growing(tmp_path, scenario)
