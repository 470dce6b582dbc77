"""How a server whose directory was refused for good becomes a member again (C43).

Its disk was lost, or holds an older copy or a copy of what it was. The server asks the leader who
the members are. If one of them has its address, it sets the old files aside, begins with an empty
directory under a new id, and has the cluster add it as a passive member in place of the old one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from copycat.client.cluster_connection import ClusterConnection
from copycat.client.membership import member_of
from copycat.config import ServerOptions
from copycat.errors import (
    ChangeRefusedError,
    DirectoryRefusedError,
    MemberIdReusedError,
    NoLeaderError,
    OperationTimeout,
)
from copycat.member.way_back import WayBackFile, WayBackRecord
from copycat.protocol.client import ClusterView
from copycat.protocol.member_record import ID_DIGITS
from copycat.replica.status import Status
from copycat.server.joining import Newcomer, become, find_cluster
from copycat.server.node import Node
from copycat.types import MemberId, MemberType

__all__ = ["WayBack", "record_of"]

log = logging.getLogger("copycat.server")

AGAIN_S = 1.0


class WayBack:
    """The way back of one directory.

    seeds: addresses that the running start was given.
    """

    def __init__(
        self,
        options: ServerOptions,
        file: WayBackFile,
        record: WayBackRecord,
        seeds: Sequence[str],
    ) -> None:
        self._options = options
        self._file = file
        self._record = record
        address = str(options.address)
        places = [each for each in (*record.addresses, *seeds) if each != address]
        self._connection = ClusterConnection(places, cluster_name=options.cluster_name)

    async def run(
        self,
        node: Node,
        start: Callable[[Node, tuple[str, ...], Newcomer | None], Awaitable[None]],
    ) -> None:
        """Start the node, and have the cluster add it. start: starts it with this newcomer.

        DirectoryRefusedError: this server may not come back; or the cluster has no member at this
        address, or removed this member.
        """
        if not self._options.rejoin:
            raise _refused(self._record, self._options)
        try:
            await start(node, (), await self._newcomer())
            member = node.status().member
            view = await self._join(member)
            await node.wait_for_configuration(view.entry)
            await self._finish(view, member)
        finally:
            self._connection.close()

    async def _newcomer(self) -> Newcomer | None:
        """What the directory begins with, which is as new now; None when an earlier start has
        come so far already."""
        name, record = self._options.name, self._record
        if await asyncio.to_thread(self._file.is_new_member, record):
            return None
        log.warning(
            "%s: its directory is refused: %s; it comes back as a new member: it asks %s who the"
            " members are",
            name,
            record.reason,
            ", ".join(self._connection.addresses),
        )
        view = await find_cluster(self._connection, name)
        self._check_named(view)
        await asyncio.to_thread(self._file.make_room, record)
        if not record.is_empty:
            log.warning(
                "%s: the files of member %032x are in %s/%s now; delete them when nobody needs"
                " them any more",
                name,
                record.member,
                self._file.directory,
                record.folder,
            )
        self._connection.learn([one.address for one in view.members])
        return Newcomer.of(view)

    def _check_named(self, view: ClusterView) -> None:
        """C43: who was removed, or has an address that no member has, never joins by itself."""
        address, record = str(self._options.address), self._record
        who = f"member {record.member:032x} at {address}"
        if not record.is_empty and member_of(view, record.member) is None:
            reason = f"{who} was removed from cluster {self._options.cluster_name}"
        elif all(one.address != address for one in view.members):
            known = ", ".join(one.address for one in view.members)
            reason = (
                f"no member of cluster {self._options.cluster_name} listens at {address}; its"
                f" members are at {known}"
            )
        else:
            return
        raise DirectoryRefusedError(
            f"{reason}; its directory is refused, and it does not join by itself",
            state=record.reason,
            hint=f"to make it a new member, use an empty directory: copycat serve {address} --join"
            " MEMBER --directory DIRECTORY",
        )

    async def _join(self, member: MemberId) -> ClusterView:
        """Have the cluster add `member`, however long that takes; the cluster as it is then."""
        name, address = self._options.name, str(self._options.address)
        while True:
            try:
                return await become(self._connection, name, member, address, MemberType.PASSIVE)
            except MemberIdReusedError:
                raise
            except (ChangeRefusedError, NoLeaderError, OperationTimeout) as error:
                log.warning("%s: it is not added so far: %s", name, error.message)
            await asyncio.sleep(AGAIN_S)

    async def _finish(self, view: ClusterView, member: MemberId) -> None:
        """The cluster has added the member: say what is left to do."""
        await asyncio.to_thread(self._file.clear)
        own = member_of(view, member)
        old = None if own is None else member_of(view, own.replaces)
        if own is None or old is None or old.type is not MemberType.ACTIVE:
            log.warning("%s: it is a member again, under id %032x", self._options.name, member)
            return
        log.warning(
            "%s: it is a passive member now, under id %032x; its old id keeps its vote until it is"
            " removed: copycat cluster remove %s, then copycat cluster promote %s",
            self._options.name,
            member,
            f"{old.member:032x}"[:ID_DIGITS],
            f"{member:032x}"[:ID_DIGITS],
        )


def record_of(status: Status, cause: DirectoryRefusedError) -> WayBackRecord:
    """What to write down of a member that was refused, and is as `status` says."""
    return WayBackRecord(
        member=status.member,
        is_empty=status.last_index == 0,
        addresses=tuple(one.address for one in status.configuration.members),
        reason=cause.message,
    )


def _refused(record: WayBackRecord, options: ServerOptions) -> DirectoryRefusedError:
    return DirectoryRefusedError(
        f"{options.name}: the directory of member {record.member:032x} is refused:"
        f" {record.reason}",
        state="The server was started with rejoin=False (--no-rejoin).",
    )
