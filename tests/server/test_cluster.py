"""The cluster as one member knows it, without that member."""

from __future__ import annotations

import asyncio

import msgspec

from copycat import CopycatServer, ServerState
from copycat.protocol.client import ClusterRequest, ClusterView
from copycat.raft.configuration import Configuration
from copycat.replica.leadership_transfer import TransferOutcome
from copycat.server.cluster import Cluster
from copycat.types import MemberId
from tests.server.cluster import Book


def test_leadership_goes_to_the_address_that_was_named_whoever_listens_there() -> None:
    """A member keeps its id when it moves: the id does not follow from the new address."""
    named: list[str] = []
    inactive = CopycatServer("127.0.0.1:1", Book).status()
    leads = msgspec.structs.replace(
        inactive,
        state=ServerState.LEADER,
        configuration=Configuration.bootstrap({MemberId(1): "a:1", MemberId(2): "b:9"}),
        address="a:1",
        leader="a:1",
    )

    async def hand_over(to: str) -> TransferOutcome:
        named.append(to)
        return TransferOutcome(ok=True, leader=to)

    async def request(_: ClusterRequest) -> ClusterView:
        raise NotImplementedError

    async def scenario() -> None:
        cluster = Cluster("test", lambda: leads, hand_over, request)
        await cluster.transfer_leadership("b:9")
        await cluster.transfer_leadership()

    asyncio.run(scenario())
    assert named == ["b:9", ""]
