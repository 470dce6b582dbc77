"""Addresses of the arguments are dialled beside those of the members that are stored (C45)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from copycat import CopycatError, ServerState
from copycat.config import RaftOptions
from copycat.member.configuration_file import ConfigurationFile
from copycat.replica.leader_search import ELECTIONS
from copycat.server.seed_link import SeedLink
from copycat.storage import Env
from tests.server.cluster import free_address
from tests.server.test_membership import Growing, growing

pytestmark = pytest.mark.slow


def addresses(file: ConfigurationFile) -> list[str]:
    return [each.address for each in file.read().records[0].members]


async def replaced_while_away(cluster: Growing, type: Any) -> None:
    """`r` stops; `b` joins, removes `r`, and the founder leaves: `r` knows no member that runs."""
    a = await cluster.bootstrap()
    r = await cluster.join("r", type=type)
    await r.shutdown()
    b = await cluster.join("b")
    await b.cluster.members[str(r.address)].remove()
    await a.leave()
    await cluster.until(lambda: b.state is ServerState.LEADER)


@pytest.mark.parametrize("type", ["reserve", "passive"])
@pytest.mark.parametrize("way", ["join", "bootstrap"])
def test_c45_who_knows_nobody_that_runs_asks_at_the_addresses_of_its_arguments(
    tmp_path: Path, type: str, way: str
) -> None:
    async def test(cluster: Growing) -> None:
        await replaced_while_away(cluster, type)
        r, place = cluster.servers["r"], str(cluster.servers["b"].address)
        start = r.join(place) if way == "join" else r.bootstrap(place)
        starting = asyncio.create_task(start)  # it is told that it was removed, and starts again
        file = ConfigurationFile(Env(), str(tmp_path / "r"))
        await cluster.until(lambda: str(r.address) not in addresses(file))
        starting.cancel()
        with suppress(CopycatError, asyncio.CancelledError):
            await starting

    growing(tmp_path, test)


def test_c45_an_address_where_nobody_listens_does_no_harm(tmp_path: Path) -> None:
    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        b = await cluster.join("b")
        for one in (a, b):
            await one.shutdown()
        places = str(free_address()), str(free_address())
        await asyncio.gather(a.bootstrap(*places), b.join(*places))
        await cluster.all_see(a="active", b="active")

    growing(tmp_path, test)


def test_c45_who_has_no_vote_asks_when_its_leader_is_silent() -> None:
    """It remembers the leader, which it may have no link to any more."""

    async def scenario() -> None:
        options = RaftOptions()
        raft = SimpleNamespace(
            leader=1,
            state=ServerState.PASSIVE,
            now_ms=1000,
            leader_active_until_ms=1000,
            options=options,
        )
        replica: Any = SimpleNamespace(raft=raft, members=SimpleNamespace(addresses=()))
        host: Any = None
        link = SeedLink(str(free_address()), host, replica)
        assert not link._is_needed()
        raft.now_ms += ELECTIONS * options.election_timeout_ms
        assert link._is_needed()
        raft.state = ServerState.LEADER
        assert not link._is_needed()
        await link.close()

    asyncio.run(scenario())
