"""C39 over real sockets: a leader gives the place of a dead voter to a passive member."""

from __future__ import annotations

from pathlib import Path

import pytest

from copycat import HealingPolicy, MemberStatus
from copycat.cli.cluster.app import ClusterOptions, run_with
from copycat.client.cluster_connection import ClusterConnection
from tests.server.cluster import Book, free_address, server
from tests.server.test_membership import Growing, growing

pytestmark = pytest.mark.slow


def test_c39_a_dead_voter_is_replaced_and_every_member_hears_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        await cluster.join("b")
        c = await cluster.join("c")
        d = await cluster.join("d", type="passive")
        statuses: list[MemberStatus] = []
        d.cluster.members[str(c.address)].on_status_change(statuses.append)
        await d.cluster.set_policy(
            HealingPolicy(target_active=3, heal_after=1.0, heal_interval=0.2)
        )
        await cluster.until(lambda: a.cluster.policy.target_active == 3)
        await c.shutdown()
        await cluster.all_see(a="active", b="active", c="passive", d="active")
        assert statuses == [MemberStatus.UNAVAILABLE]
        assert a.cluster.members[str(c.address)].status is MemberStatus.UNAVAILABLE
        async with a.client() as client:
            assert await client.submit(Book.add(1)) == 1

        connection = ClusterConnection((str(a.address),))
        options = ClusterOptions((str(a.address),), policy={"is_on": False})
        try:
            assert await run_with(connection, "heal", options) == 0
        finally:
            connection.close()
        assert capsys.readouterr().out.splitlines() == [
            'healing is off in cluster "test"',
            "voters to be heard           3",
            "passive members to be heard  0",
            "replace a member after       1 s",
            "time between two steps       0.2 s",
            "passive to reserve after     3600 s",
            "replace a slow voter after   never",
            "spread live voters           yes",
        ]

    growing(tmp_path, test)


def test_c39_a_member_says_where_it_is_with_its_settings(tmp_path: Path) -> None:
    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        zoned = server(
            tmp_path / "z", free_address(), Book, name="z", failure_domain="zone-a", weight=2
        )
        cluster.servers["z"] = zoned
        await cluster.stack.enter_async_context(zoned)
        await zoned.join(str(a.address), type="passive")
        name = str(zoned.address)
        await cluster.until(lambda: a.cluster.members[name].failure_domain == "zone-a")
        assert a.cluster.members[name].weight == 2

    growing(tmp_path, test)
