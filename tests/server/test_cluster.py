"""The cluster as one member knows it, without that member."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from copycat import CopycatServer, ServerState
from copycat.errors import ConfigurationError
from copycat.protocol.client import ClusterRequest, ClusterView
from copycat.raft.configuration import Configuration, MemberRecord
from copycat.replica.leadership_transfer import TransferOutcome
from copycat.replica.status import Status
from copycat.server.cluster import Cluster
from copycat.types import EntryId, MemberId, MemberStatus, MemberType
from tests.server.cluster import Book


def test_leadership_goes_to_the_address_that_was_named_whoever_listens_there() -> None:
    """A member keeps its id when it moves: the id does not follow from the new address."""
    named: list[MemberId] = []
    inactive = CopycatServer("127.0.0.1:1", Book).status()
    leads = msgspec.structs.replace(
        inactive,
        state=ServerState.LEADER,
        configuration=Configuration.bootstrap({MemberId(1): "a:1", MemberId(2): "b:9"}),
        address="a:1",
        leader="a:1",
    )

    async def hand_over(to: MemberId) -> TransferOutcome:
        named.append(to)
        return TransferOutcome(ok=True)

    async def request(_: ClusterRequest) -> ClusterView:
        raise NotImplementedError

    async def scenario() -> None:
        cluster = Cluster("test", lambda: leads, hand_over, request)
        await cluster.transfer_leadership("b:9")
        await cluster.transfer_leadership()

    asyncio.run(scenario())
    assert named == [2, 0]


OLD, NEW = MemberId(0x1111 << 112), MemberId(0x2222 << 112)


def test_two_members_at_one_address_are_two() -> None:
    """The disk of a voter was lost, and a new member has joined at its address."""
    records = (
        MemberRecord(MemberId(1), MemberType.ACTIVE, "a:1"),
        MemberRecord(OLD, MemberType.ACTIVE, "b:1"),
        MemberRecord(NEW, MemberType.ACTIVE, "b:1"),
    )
    inactive = CopycatServer("127.0.0.1:1", Book).status()
    follows = msgspec.structs.replace(
        inactive,
        state=ServerState.FOLLOWER,
        member=MemberId(1),
        address="a:1",
        configuration=Configuration.from_members(records, EntryId(1, 9)),
        leader="b:1",
        leader_member=NEW,
        unreachable=("b:1",),
        unavailable=frozenset({OLD}),
    )
    status = follows
    named: list[MemberId] = []

    async def hand_over(to: MemberId) -> TransferOutcome:
        named.append(to)
        return TransferOutcome(ok=True)

    async def request(_: ClusterRequest) -> ClusterView:
        raise NotImplementedError

    def current() -> Status:
        return status

    cluster = Cluster("test", current, hand_over, request)
    leader = cluster.leader
    assert leader is not None
    assert (leader.id, leader.status) == (NEW, MemberStatus.AVAILABLE)
    statuses = {name: one.status for name, one in cluster.members.items()}
    assert statuses == {
        "a:1": MemberStatus.AVAILABLE,
        "b:1 (id 11110000)": MemberStatus.UNAVAILABLE,
        "b:1 (id 22220000)": MemberStatus.AVAILABLE,
    }

    status = msgspec.structs.replace(
        follows, state=ServerState.LEADER, leader="a:1", leader_member=MemberId(1)
    )

    async def scenario() -> None:
        await cluster.transfer_leadership(cluster.members["b:1 (id 22220000)"])
        await cluster.transfer_leadership("1111")
        with pytest.raises(ConfigurationError, match="2 members are meant by b:1"):
            await cluster.transfer_leadership("b:1")

    asyncio.run(scenario())
    assert named == [NEW, OLD]
