"""An operator's commands without a process for each: the same code as `copycat cluster`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from bench.member import CLUSTER
from copycat.client.cluster_connection import ClusterConnection
from copycat.client.healing_policy import HealingPolicy
from copycat.client.membership import Membership, find_member
from copycat.protocol.client import ClusterView, MemberView
from copycat.types import MemberType

__all__ = ["Operator"]


def _quiet(_: str) -> None:
    pass


class Operator:
    """Changes members, named by their addresses, through any member; a context manager."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._connection = ClusterConnection(tuple(addresses), cluster_name=CLUSTER)
        self._membership = Membership(self._connection.ask, say=_quiet, patience=600.0)

    async def __aenter__(self) -> Self:
        await self._membership.view_of_leader()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        self._connection.close()

    async def view(self) -> ClusterView:
        """The cluster as its leader knows it."""
        return await self._membership.view_of_leader()

    async def member(self, address: str) -> tuple[MemberView, ClusterView]:
        """A member, and the view in which it is."""
        view = await self.view()
        return find_member(view.members, address, CLUSTER), view

    async def promote(self, address: str, to: MemberType = MemberType.ACTIVE) -> float:
        """Seconds of a promotion, with the look at the cluster before it."""
        began = time.monotonic()
        member, view = await self.member(address)
        await self._membership.promote(member, to, view.entry)
        return time.monotonic() - began

    async def demote(self, address: str, to: MemberType = MemberType.PASSIVE) -> float:
        """Seconds of a demotion."""
        began = time.monotonic()
        member, view = await self.member(address)
        await self._membership.demote(member, to, view.entry)
        return time.monotonic() - began

    async def remove(self, address: str) -> None:
        """Take a member out of the cluster."""
        member, view = await self.member(address)
        await self._membership.remove(member, view.entry)

    async def set_policy(self, policy: HealingPolicy) -> None:
        """Have the leader heal by `policy`."""
        await self._membership.set_policy(policy.record, (await self.view()).entry)
