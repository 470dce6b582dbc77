"""How a server comes to know the cluster that it is to join, before it has a log."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from functools import partial
from typing import Any, NamedTuple

from copycat.client.cluster_connection import ClusterConnection
from copycat.client.membership import Membership, member_of
from copycat.errors import ChangeSupersededError, NoLeaderError
from copycat.member.configuration_file import StoredConfigurations
from copycat.protocol.client import ClusterView, ViewRequest
from copycat.protocol.member_record import ConfigurationRecord, MemberRecord
from copycat.types import MemberId, MemberType

__all__ = ["Newcomer", "become", "ended_before", "find_cluster"]

log = logging.getLogger("copycat.server")

AGAIN_S = 0.5
WAITING_LOG_S = 3.0
"""How often a server that waits for a cluster logs whom it asks, and what they answer."""


class Newcomer(NamedTuple):
    """What the directory of a server that joins begins with.

    member: its id, 128 random bits (C16). configurations: what the cluster said of itself.
    """

    member: MemberId
    configurations: StoredConfigurations

    @classmethod
    def of(cls, view: ClusterView) -> Newcomer:
        """A new member of the cluster of this view."""
        records = tuple(
            MemberRecord(
                one.member,
                one.type,
                one.address,
                one.since,
                one.is_promotable,
                replaces=one.replaces,
                failure_domain=one.failure_domain,
                weight=one.weight,
                is_demoted=one.is_demoted,
                is_leaving=one.is_leaving,
            )
            for one in view.members
        )
        record = ConfigurationRecord(view.entry, view.incarnation, records, view.policy)
        return cls(MemberId(secrets.randbits(128)), StoredConfigurations((record,)))


async def find_cluster(connection: ClusterConnection, name: str) -> ClusterView:
    """The cluster as its leader knows it, as soon as one of the members says so.

    name: of the server, for the line that is logged every few seconds meanwhile.
    """
    loop = asyncio.get_running_loop()
    begun = logged_s = loop.time()
    while True:
        try:
            view = await connection.ask(ViewRequest(0))
            why = f"no leader is known at {', '.join(connection.addresses)}"
            if view.leader:
                return view
        except NoLeaderError as error:
            why = "; ".join([error.message, *(error.state or "").splitlines()])
        now = loop.time()
        if now - logged_s >= WAITING_LOG_S:
            logged_s = now
            log.warning(
                "%s: waiting for a cluster to join: %s (for %.0f s by now)", name, why, now - begun
            )
        await asyncio.sleep(AGAIN_S)


async def become(
    connection: ClusterConnection, name: str, member: MemberId, address: str, goal: MemberType
) -> ClusterView:
    """Have the cluster make the server `name` a member of this type; the cluster as it is then.

    Who is a member already stays what it is, except that a server which is to be active, and is
    passive, asks for its vote: an earlier start has asked for that, and ended before it had it.
    If somebody else makes it something else before it has its vote, it is that.
    """
    view = await find_cluster(connection, name)
    say = partial(log.info, "%s: %s", name)
    membership = Membership(connection.ask, say=say, look=connection.look)
    known = member_of(view, member)
    try:
        if known is None:
            return await membership.add(member, address, goal, view.entry)
        if goal is MemberType.ACTIVE and known.type is MemberType.PASSIVE:
            return await membership.promote_newcomer(member, address, view.entry)
    except ChangeSupersededError as error:
        view = await find_cluster(connection, name)
        if member_of(view, member) is None:
            raise
        log.warning("%s: it joined, and does not become %s: %s", name, goal, error.message)
    return view


async def ended_before(stopped: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Run `work` to its end, and return True; False when `stopped` was set before, and `work` was
    cancelled."""
    working = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait({working, waiting}, return_when="FIRST_COMPLETED")
    finally:
        is_done = working.done()
        working.cancel()
        waiting.cancel()
        await asyncio.wait({working, waiting})
        if not is_done and not working.cancelled():
            working.exception()  # retrieved here: what the end led to says nothing more
    if is_done:
        working.result()
    return is_done
