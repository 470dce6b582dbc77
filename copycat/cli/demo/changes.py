"""What the demo does to the members: a kill, a replacement for the dead voter, a newcomer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from copycat.cli.demo.member import MemberFailed, MemberProcess
from copycat.client.cluster_connection import ClusterConnection
from copycat.client.membership import Membership, find_member
from copycat.errors import MajorityAtRiskError, MemberUnreachableError, StaleConfigurationError
from copycat.protocol.client import ClusterView, MemberView

__all__ = ["Joined", "Load", "join", "replace"]

_WITHIN_S = 30.0
_AGAIN_S = 0.1
_LATER = (MajorityAtRiskError, MemberUnreachableError, StaleConfigurationError)
"""The change is asked for again after these: a new leader has to come to know its followers, and
a configuration that an earlier leader left has to be committed."""


class Load(Protocol):
    """What sends the lines (`Drive`)."""

    @property
    def acknowledged(self) -> int: ...


class Joined(NamedTuple):
    """How a new member came to have everything.

    member_s: until it was a member. caught_up_s: until it had applied as much as the leader had
    said last, which was `last_applied`. lines: so many were acknowledged meanwhile.
    """

    name: str
    member_s: float
    caught_up_s: float
    last_applied: int
    lines: int


@contextmanager
def _membership(places: list[str]) -> Iterator[Membership]:
    """As `copycat cluster` asks for changes."""
    connection = ClusterConnection(places)
    try:
        yield Membership(connection.ask, say=_ignore, look=connection.look)
    finally:
        connection.close()


def _ignore(_: str) -> None:
    """What is waited for is not printed."""


async def replace(places: list[str], dead: str, successor: str) -> float:
    """Give the vote of the member at `dead` to the passive one at `successor`; returns the
    monotonic time when it has it.

    The dead one is demoted first: of four voters three would have to run (C37).
    """
    with _membership(places) as membership:

        async def demote(member: MemberView, view: ClusterView) -> ClusterView:
            return await membership.demote(member, None, view.entry)

        async def promote(member: MemberView, view: ClusterView) -> ClusterView:
            return await membership.promote(member, None, view.entry)

        await _made(membership, dead, demote)
        await _made(membership, successor, promote)
        return time.monotonic()


async def _made(
    membership: Membership,
    address: str,
    change: Callable[[MemberView, ClusterView], Awaitable[ClusterView]],
) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while True:
        view = await membership.view_of_leader()
        try:
            await change(find_member(view.members, address, view.cluster), view)
            return
        except _LATER:
            if time.monotonic() >= deadline:
                raise
        await asyncio.sleep(_AGAIN_S)


async def join(
    member: MemberProcess, leader: Callable[[], Awaitable[MemberProcess]], load: Load
) -> Joined:
    """Start a member that joins with an empty directory, and wait until it has caught up."""
    begun, before = time.monotonic(), load.acknowledged
    await member.start()
    joined_at = time.monotonic()
    while time.monotonic() < joined_at + _WITHIN_S:
        reported_at, index = member.applied
        if reported_at > joined_at and index >= (await leader()).applied[1]:
            lines = load.acknowledged - before
            return Joined(member.name, joined_at - begun, reported_at - begun, index, lines)
        await asyncio.sleep(0.01)
    raise MemberFailed(f"{member.name} has not caught up within {_WITHIN_S:.0f} s")
