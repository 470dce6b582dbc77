"""Changes of the members, step by step: what a user asks for, as requests to the cluster.

One class serves the command line, which asks over the network, and a server, which asks its own
replica. Each request names the newest committed configuration that this asker saw, so a change
that somebody else made meanwhile is noticed and not undone.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from copycat.errors import (
    ChangeInProgressError,
    ConfigurationError,
    CopycatError,
    IllegalMemberStateError,
    MajorityAtRiskError,
    MemberUnreachableError,
    NoLeaderError,
    NotLeaderError,
    StaleConfigurationError,
    TransferFirstError,
    UnknownMemberError,
)
from copycat.protocol.client import (
    ChangeRequest,
    ClusterRequest,
    ClusterView,
    MemberView,
    TransferRequest,
    ViewRequest,
)
from copycat.protocol.member_record import HealingPolicy
from copycat.types import ChangeKind, EntryId, MemberId, MemberType

__all__ = [
    "Membership",
    "check_has_vote",
    "find_member",
    "has_type",
    "is_id",
    "member_of",
    "unknown_member",
]

NOBODY = MemberId(0)
_ID = re.compile("[0-9a-f]{4,32}")
AGAIN_S = 0.25
"""Between two attempts while no leader is known, or while the leader is not ready yet."""
PROGRESS_S = 3.0
"""So often it is said how far a member is that is to be promoted."""
_BUSY = (NoLeaderError, ChangeInProgressError)
"""A change is asked for again after these: it names what it is based on, so it never undoes what
was changed meanwhile."""
_WAITED_FOR = (*_BUSY, MemberUnreachableError, MajorityAtRiskError)
"""A member that joins is added when these obstacles are gone."""
LADDER = (MemberType.RESERVE, MemberType.PASSIVE, MemberType.ACTIVE)


def find_member(members: Sequence[MemberView], name: str, cluster_name: str) -> MemberView:
    """The member with this address, or with an id that begins so. UnknownMemberError names those
    that there are; ConfigurationError when several are meant."""
    matches = [one for one in members if one.address == name]
    if is_id(name):
        matches = [one for one in members if f"{one.member:032x}".startswith(name.lower())]
    if len(matches) == 1:
        return matches[0]
    if matches:
        rows = [
            f"{one.member:032x}: {one.type}, {'reachable' if one.is_reachable else 'unreachable'}"
            for one in matches
        ]
        raise ConfigurationError(
            f"{len(matches)} members are meant by {name}",
            state="\n".join(rows),
            hint="name one by its id, or by the beginning of its id",
        )
    raise unknown_member(name, [one.address for one in members], cluster_name)


def check_has_vote(member: MemberView) -> None:
    """IllegalMemberStateError unless leadership can be handed to `member`."""
    if member.type is not MemberType.ACTIVE:
        raise IllegalMemberStateError(
            f"{member.address} is {member.type} and has no vote, so it cannot lead",
            hint=f"promote it first: copycat cluster promote {member.address} --type active",
        )


def is_id(name: str) -> bool:
    """Whether this is no address, and may be the id of a member or the beginning of one."""
    return _ID.fullmatch(name.lower()) is not None


def member_of(view: ClusterView, member: MemberId) -> MemberView | None:
    """The member with this id."""
    return next((one for one in view.members if one.member == member), None)


def unknown_member(name: str, addresses: Sequence[str], cluster_name: str) -> UnknownMemberError:
    """The error for an address that is no member's. It suggests the only member with the same
    port, or else the only one on the same host: of two that differ by a digit nobody knows which
    one was meant, and it may be removed."""
    host, _, port = name.rpartition(":")
    near = [each for each in addresses if each.rpartition(":")[2] == port]
    near = near or [each for each in addresses if each.rpartition(":")[0] == host]
    hint = f"did you mean {near[0]}?" if len(near) == 1 < len(addresses) else None
    everyone = ", ".join(sorted(addresses))
    return UnknownMemberError(
        f'no member "{name}" in cluster "{cluster_name}" ({everyone})', hint=hint
    )


def _leads(view: ClusterView, to: MemberId, before: MemberId) -> bool:
    """Whether leadership is where it was to go: at `to`, or at anybody but `before`."""
    return view.leader == to if to else view.leader not in (NOBODY, before)


def has_type(member: MemberView, type: MemberType) -> bool:
    """Whether `member` is of this type, or of one that has more."""
    return LADDER.index(member.type) >= LADDER.index(type)


class Membership:
    """Makes changes of the members through `ask`.

    base: of each change, names the newest committed configuration that was seen.
    say: called with what is waited for, at each change of that text. patience: for so many
    seconds a request is repeated while nobody leads, or while the leader is not ready for it.
    look: the cluster, while `ask` waits for the answer to a change; None to ask with `ask`.
    """

    def __init__(
        self,
        ask: Callable[[ClusterRequest], Awaitable[ClusterView]],
        *,
        say: Callable[[str], None],
        patience: float = 30.0,
        look: Callable[[], Awaitable[ClusterView]] | None = None,
    ) -> None:
        self._ask = ask
        self._look = look or self._ask_for_view
        self._say = say
        self._patience = patience
        self._waits_for: object = None

    def _ask_for_view(self) -> Awaitable[ClusterView]:
        return self._ask(ViewRequest(0))

    def _wait_for(self, text: str, what: object = None) -> None:
        """Say what is waited for, once. what: says the same by another text, as one with the time
        that has passed."""
        what = text if what is None else what
        if what != self._waits_for:
            self._waits_for = what
            self._say(text)

    def _wait_after(self, error: CopycatError) -> None:
        """The request is repeated after this error."""
        if isinstance(error, NotLeaderError):
            self._wait_for("waiting for the next leader")
        else:
            self._wait_for(
                f"waiting: {error.message}", (error.code, error.missing, error.since > 0)
            )

    async def _ask_until(
        self,
        message: ClusterRequest,
        retried: tuple[type[CopycatError], ...] = (NoLeaderError,),
    ) -> ClusterView:
        """The answer; a request that may be served a little later is repeated."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return await self._ask(message)
            except retried as error:
                if time.monotonic() >= deadline:
                    raise
                self._wait_after(error)
            await asyncio.sleep(AGAIN_S)

    async def view(self) -> ClusterView:
        """The cluster as its leader knows it; as another member does, if nobody leads."""
        return await self._ask_until(ViewRequest(0))

    async def view_of_leader(self) -> ClusterView:
        """The same, as soon as somebody leads, or when patience has an end: what a change begins
        with."""
        deadline = time.monotonic() + self._patience
        view = await self.view()
        while not view.leader and time.monotonic() < deadline:
            self._wait_for("waiting for a leader")
            await asyncio.sleep(AGAIN_S)
            view = await self.view()
        return view

    async def _change(
        self,
        kind: ChangeKind,
        member: MemberId,
        type: MemberType,
        base: EntryId,
        *,
        address: str = "",
        retried: tuple[type[CopycatError], ...] = _BUSY,
    ) -> ClusterView:
        request = ChangeRequest(0, kind, member, type, base, address)
        return await self._ask_until(request, retried)

    async def add(
        self, member: MemberId, address: str, type: MemberType, base: EntryId
    ) -> ClusterView:
        """Make `member`, which listens on `address`, a member of this type.

        A member that is to be active is passive first, until it has caught up.
        """
        first = MemberType.RESERVE if type is MemberType.RESERVE else MemberType.PASSIVE
        self._wait_for(f"waiting for the cluster to add {address} as {first}")
        view = await self._change_newcomer(ChangeKind.ADD, member, first, base, address)
        if type is not MemberType.ACTIVE:
            return view
        return await self.promote_newcomer(member, address, view.entry)

    async def promote_newcomer(self, member: MemberId, address: str, base: EntryId) -> ClusterView:
        """Give `member`, which was added to become active, its vote when it has caught up."""
        self._wait_for(f"waiting for {address} to catch up with the log")
        change = self._change_newcomer(ChangeKind.PROMOTE, member, MemberType.ACTIVE, base)
        return await self._with_progress(member, change)

    async def _change_newcomer(
        self,
        kind: ChangeKind,
        member: MemberId,
        type: MemberType,
        base: EntryId,
        address: str = "",
    ) -> ClusterView:
        """A change of a member that joins. It means the same whatever the others are by now, so it
        waits for their changes, and goes on from a configuration that is newer than `base`."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return await self._change(
                    kind, member, type, base, address=address, retried=_WAITED_FOR
                )
            except StaleConfigurationError as error:
                if time.monotonic() >= deadline:
                    raise
                base = EntryId(*error.entry)

    async def promote(
        self, member: MemberView, type: MemberType | None, base: EntryId
    ) -> ClusterView:
        """Promote `member` to `type`, or by one step: reserve, passive, active."""
        goal = self._step(member, type, +1)
        if member.type is MemberType.RESERVE and goal is MemberType.ACTIVE:
            view = await self.promote(member, MemberType.PASSIVE, base)
            member, base = member_of(view, member.member) or member, view.entry
        if member.type is not goal:
            self._wait_for(
                f"waiting for {member.address} to catch up with the log"
                if goal is MemberType.ACTIVE
                else f"waiting for the cluster to make {member.address} {goal}"
            )
        change = self._change(ChangeKind.PROMOTE, member.member, goal, base)
        return await self._with_progress(member.member, change)

    async def _with_progress(
        self, member: MemberId, change: Coroutine[Any, Any, ClusterView]
    ) -> ClusterView:
        """The answer of `change`; meanwhile how far `member` is, now and then."""
        progress = asyncio.ensure_future(self._follow_progress(member))
        try:
            return await change
        finally:
            progress.cancel()
            await asyncio.wait({progress})

    async def _follow_progress(self, member: MemberId) -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            with suppress(CopycatError, OSError):
                self._say_progress(member, await self._look())

    def _say_progress(self, member: MemberId, view: ClusterView) -> None:
        for one in view.members:
            if one.member == member and one.match_index:
                self._wait_for(
                    f"waiting for {one.address} to catch up with the log: it has entry"
                    f" {one.match_index:,} of {view.last_index:,}"
                )

    async def demote(
        self, member: MemberView, type: MemberType | None, base: EntryId
    ) -> ClusterView:
        """Demote `member` to `type`, or by one step: active, passive, reserve.

        A leader transfers its leadership first; the change is asked of the next leader then.
        """
        goal = self._step(member, type, -1)
        if member.type is not goal:
            self._wait_for(f"waiting for the cluster to make {member.address} {goal}")
        return await self._without_leading(ChangeKind.DEMOTE, member, goal, base)

    async def remove(self, member: MemberView, base: EntryId) -> ClusterView:
        """Remove `member`; a leader transfers its leadership first."""
        self._wait_for(f"waiting for the cluster to remove {member.address}")
        goal = MemberType.INACTIVE
        return await self._without_leading(ChangeKind.REMOVE, member, goal, base)

    async def set_policy(self, policy: HealingPolicy, base: EntryId) -> ClusterView:
        """Have the leader heal by `policy` from now on."""
        self._wait_for("waiting for the cluster to set the policy of healing")
        request = ChangeRequest(
            0, ChangeKind.POLICY, NOBODY, MemberType.INACTIVE, base, policy=policy
        )
        return await self._ask_until(request, _BUSY)

    async def transfer(self, to: MemberId = NOBODY) -> ClusterView:
        """Hand leadership over to `to`, or to the follower with the longest log.

        A member that passed the request on to the leader may hear of the next leader before it
        hears the answer: then the next leader is the answer. So it is looked who leads right
        before the request is made again, or leadership would be handed over twice: a look at once
        may still find the leader that is about to step down.
        """
        deadline = time.monotonic() + self._patience
        view = before = await self.view_of_leader()
        while not _leads(view, to, before.leader):
            try:
                return await self._ask(TransferRequest(0, to))
            except NoLeaderError as error:
                view = await self.view_of_leader()
                if _leads(view, to, before.leader):
                    break
                if time.monotonic() >= deadline:
                    raise
                self._wait_after(error)
            await asyncio.sleep(AGAIN_S)
            view = await self.view_of_leader()
        return view

    async def _without_leading(
        self, kind: ChangeKind, member: MemberView, goal: MemberType, base: EntryId
    ) -> ClusterView:
        """Ask for the change; while `member` leads, transfer its leadership and ask again."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return await self._change(kind, member.member, goal, base)
            except TransferFirstError as error:
                if time.monotonic() >= deadline:
                    raise
                self._wait_for(f"waiting for another voter to lead in place of {member.address}")
                try:
                    await self.transfer()
                except (CopycatError, OSError) as cause:
                    raise error from cause
            await asyncio.sleep(AGAIN_S)

    @staticmethod
    def _step(member: MemberView, type: MemberType | None, direction: int) -> MemberType:
        """What `member` becomes. IllegalMemberStateError when this is no step that way."""
        if member.type not in LADDER:
            raise UnknownMemberError(f"{member.address} is no member of this cluster")
        at = LADDER.index(member.type)
        word = "promoted" if direction > 0 else "demoted"
        if type is None:
            if not 0 <= at + direction < len(LADDER):
                raise IllegalMemberStateError(
                    f"{member.address} is {member.type} already: it cannot be {word} further",
                    hint="look at the members: copycat cluster status"
                    if direction > 0
                    else f"take it out of the cluster: copycat cluster remove {member.address}",
                )
            return LADDER[at + direction]
        if type not in LADDER:
            raise IllegalMemberStateError(
                f"{member.address} cannot be {word} to {type}",
                hint="use reserve, passive or active; remove takes a member out of the cluster",
            )
        if (LADDER.index(type) - at) * direction < 0:
            verb = "demote" if direction > 0 else "promote"
            raise IllegalMemberStateError(
                f"{member.address} is {member.type}: to become {type} it has to be {verb}d",
                hint=f"{verb} it: copycat cluster {verb} {member.address} --type {type}",
            )
        return type
