"""C44: members that listen at another address than before, as processes do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from copycat import MemberType
from tests.server.cluster import free_address
from tests.server.test_membership import Growing, growing

pytestmark = pytest.mark.slow


async def moved(cluster: Growing, *names: str) -> None:
    """These servers stop, and new ones with their directories have other addresses."""
    for name in names:
        await cluster.servers[name].shutdown()
        await cluster.new(name, free_address())


def all_know(cluster: Growing) -> bool:
    expected = {str(one.address): MemberType.ACTIVE for one in cluster.servers.values()}
    return all(
        {address: member.type for address, member in one.cluster.members.items()} == expected
        for one in cluster.servers.values()
    )


def test_c44_moved(tmp_path: Path) -> None:
    async def test(cluster: Growing) -> None:
        await cluster.bootstrap()
        await cluster.join("b")
        await cluster.join("c")
        old = cluster.servers["c"].cluster.member.id
        await moved(cluster, "c")
        await cluster.servers["c"].bootstrap()
        await cluster.until(lambda: all_know(cluster))
        assert cluster.servers["c"].cluster.member.id == old

    growing(tmp_path, test)


def test_c44_all_moved(tmp_path: Path) -> None:
    async def test(cluster: Growing) -> None:
        await cluster.bootstrap()
        await cluster.join("b")
        await cluster.join("c")
        await moved(cluster, "a", "b", "c")
        servers = list(cluster.servers.values())
        places = [str(one.address) for one in servers]
        await asyncio.gather(*(one.bootstrap(*places) for one in servers))
        await cluster.until(lambda: all_know(cluster))

    growing(tmp_path, test)


def test_c44_the_only_member_moves(tmp_path: Path) -> None:
    async def test(cluster: Growing) -> None:
        await cluster.bootstrap()
        await moved(cluster, "a")
        await cluster.servers["a"].bootstrap()
        await cluster.until(lambda: all_know(cluster))
        await cluster.join("b")
        await cluster.until(lambda: all_know(cluster))

    growing(tmp_path, test)
