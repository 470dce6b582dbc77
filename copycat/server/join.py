"""One call of `CopycatServer.join`: the first start of a new member, or a later one."""

from __future__ import annotations

import asyncio
import logging

from copycat.client.cluster_connection import ClusterConnection
from copycat.config import ServerOptions
from copycat.errors import ConfigurationError
from copycat.member.markers import UnfinishedJoin
from copycat.protocol.client import ClusterView
from copycat.protocol.member_record import ID_DIGITS
from copycat.replica.status import Status
from copycat.server.joining import Newcomer, become, find_cluster
from copycat.server.node import Node
from copycat.server.startup import is_new_directory
from copycat.storage import Env
from copycat.types import MemberType

__all__ = ["Join", "is_member"]

log = logging.getLogger("copycat.server")


def is_member(node: Node) -> bool:
    """Whether the node is a member, as far as its directory knows."""
    status = node.status()
    return status.configuration.record(status.member) is not None


class Join:
    """`newcomer`, then the start of the node, then `complete`.

    connection: to the members that were named. goal: what this server is to be.
    """

    def __init__(
        self,
        options: ServerOptions,
        directory: str,
        connection: ClusterConnection,
        goal: MemberType,
    ) -> None:
        self._options = options
        self._directory = directory
        self._connection = connection
        self._goal = goal
        self._is_new = False
        self._places = connection.addresses

    async def newcomer(self) -> Newcomer | None:
        """What an empty directory begins with; None for one that was used before."""
        options, connection = self._options, self._connection
        self._is_new = await asyncio.to_thread(is_new_directory, options, self._directory)
        if not self._is_new:
            return None
        if not connection.addresses:
            raise ConfigurationError(
                f"{options.name} has an empty directory and no member to ask",
                hint="name another member, which is in the cluster: join(ADDRESS), or --join",
            )
        view = await find_cluster(connection, options.name)
        self._lower_goal(view)
        return Newcomer.of(view)

    async def complete(self, node: Node) -> bool:
        """Have the cluster add the node, if it is no member; whether it is one now."""
        options, connection, goal = self._options, self._connection, self._goal
        status, was_member = node.status(), is_member(node)
        if was_member and not self._is_new:
            self._warn_of_other_cluster(status)
        if self._is_new and goal is MemberType.INACTIVE:
            log.info(
                "%s: it waits until somebody adds it (copycat cluster add %s)",
                options.name,
                options.address,
            )
        connection.learn([one.address for one in status.configuration.members])
        unfinished = UnfinishedJoin(Env(), self._directory)
        if goal is MemberType.ACTIVE and not was_member:
            await asyncio.to_thread(unfinished.write)
        is_unfinished = goal is MemberType.ACTIVE and await asyncio.to_thread(unfinished.exists)
        if is_unfinished or not (was_member or goal is MemberType.INACTIVE):
            address = str(options.address)
            view = await become(connection, options.name, status.member, address, goal)
            await node.wait_for_configuration(view.entry)
        await asyncio.to_thread(unfinished.clear)
        return was_member or goal is not MemberType.INACTIVE

    def _lower_goal(self, view: ClusterView) -> None:
        """C43: who comes back without its disk is passive, as long as its old id has a vote; else
        each start of an empty disk would add a voter."""
        here = [one for one in view.members if one.address == str(self._options.address)]
        voters = [one for one in here if one.type is MemberType.ACTIVE]
        if self._goal is not MemberType.ACTIVE or not voters:
            return
        self._goal = MemberType.PASSIVE
        log.warning(
            "%s: it becomes passive, and not active: an earlier member at this address still has a"
            " vote; remove that one (copycat cluster remove %s), then promote this one",
            self._options.name,
            f"{voters[-1].member:032x}"[:ID_DIGITS],
        )

    def _warn_of_other_cluster(self, status: Status) -> None:
        """The directory is a member's already, and what it says wins: perhaps it is of a cluster
        that nobody means any more."""
        members = [one.address for one in status.configuration.members]
        if self._places and not set(self._places) & set(members):
            log.warning(
                "%s: it does not join %s: its directory says that it is a member already, of"
                " cluster %s with %s; to join another cluster it needs an empty directory",
                self._options.name,
                ", ".join(self._places),
                self._options.cluster_name,
                ", ".join(members),
            )
