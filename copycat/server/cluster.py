"""The cluster as one member knows it: leader, term, members; changes of them, and their events.

`Cluster` and `Member` belong to the application's event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import assert_never

from copycat.callbacks import check_callback
from copycat.client.healing_policy import HealingPolicy
from copycat.client.membership import Membership, check_has_vote, find_member, unknown_member
from copycat.config import choice
from copycat.errors import NoLeaderError, NotLeaderError, OperationTimeout, UnknownMemberError
from copycat.listeners import Listener
from copycat.protocol.client import ClusterRequest, ClusterView, MemberView
from copycat.protocol.member_record import MemberRecord, member_name
from copycat.raft.effects import TransferFailure
from copycat.replica.leadership_transfer import TransferOutcome
from copycat.replica.status import Status
from copycat.server.cluster_events import ClusterEvents
from copycat.server.member import Member, Verb
from copycat.server.member_listeners import MemberListeners
from copycat.types import (
    EntryId,
    MemberId,
    MemberStatus,
    MemberType,
    MemberTypeLike,
    ServerState,
)

__all__ = ["Cluster"]

log = logging.getLogger("copycat.server")


class Cluster:
    """A cluster as one server knows it: leader, term, members, and their changes.

    Applications get it as `CopycatServer.cluster`. Each property says what the server knows at
    the moment of the call.

    status: of the server. hand_over: transfers its leadership. request: asks the cluster through
    the server's own replica.
    """

    def __init__(
        self,
        cluster_name: str,
        status: Callable[[], Status],
        hand_over: Callable[[MemberId], Awaitable[TransferOutcome | None]],
        request: Callable[[ClusterRequest], Awaitable[ClusterView]],
    ) -> None:
        self._cluster_name = cluster_name
        self._status = status
        self._hand_over = hand_over
        self._membership = Membership(request, say=partial(log.info, "%s"))
        self._member_listeners = MemberListeners()
        self.events = ClusterEvents(self._event_member, self._member_listeners)
        """For the server that owns this object."""

    # --- what it is -------------------------------------------------------------------------

    def _member(self, record: MemberRecord, entry: EntryId, status: Status) -> Member:
        is_unavailable = record.member in status.unavailable
        word = MemberStatus.UNAVAILABLE if is_unavailable else MemberStatus.AVAILABLE
        return Member(record, entry, word, self._change, self._member_listeners)

    def _event_member(self, record: MemberRecord, entry: EntryId) -> Member:
        return self._member(record, entry, self._status())

    @property
    def leader(self) -> Member | None:
        """The leader of the current term; None when this server knows none."""
        status = self._status()
        if not status.leader:
            return None
        record = status.configuration.record(status.leader_member)
        if record is None:
            record = MemberRecord(status.leader_member, MemberType.INACTIVE, status.leader)
        return self._member(record, status.configuration.entry, status)

    @property
    def term(self) -> int:
        """The newest term that this server knows; 0 before the first election."""
        return self._status().term

    @property
    def member(self) -> Member:
        """This server as a member of the cluster; its type is INACTIVE when it is none."""
        status = self._status()
        record = status.configuration.record(status.member)
        if record is None:
            record = MemberRecord(status.member, MemberType.INACTIVE, status.address)
        return self._member(record, status.configuration.entry, status)

    @property
    def members(self) -> Mapping[str, Member]:
        """All members by address ("host:port"), sorted by it, as in the newest committed
        configuration that this server knows. If two members have the same address, the beginning
        of the id follows it in the key, as in `copycat cluster status`."""
        status = self._status()
        entry, members = status.configuration.entry, status.configuration.members
        addresses = [one.address for one in members]
        by_name = {
            member_name(one.member, one.address, addresses): self._member(one, entry, status)
            for one in members
        }
        return MappingProxyType(dict(sorted(by_name.items())))

    @property
    def policy(self) -> HealingPolicy:
        """What the leader may change by itself when members are away, as this server knows it."""
        return HealingPolicy.of(self._status().configuration.policy)

    # --- changes ------------------------------------------------------------------------------

    async def set_policy(self, policy: HealingPolicy) -> None:
        """Have every leader heal by `policy` from now on: one entry of the log. Any member may
        ask. The errors are those of `Member.promote`."""
        view = await self._membership.view_of_leader()
        await self._membership.set_policy(policy.record, view.entry)

    async def _change(
        self, verb: Verb, record: MemberRecord, entry: EntryId, type: MemberTypeLike | None
    ) -> None:
        goal = None if type is None else choice(MemberType, type, "type")
        member = MemberView(record.member, record.type, record.address, record.since)
        match verb:
            case "promote":
                await self._membership.promote(member, goal, entry)
            case "demote":
                await self._membership.demote(member, goal, entry)
            case "remove":
                await self._membership.remove(member, entry)
            case _:
                assert_never(verb)

    async def transfer_leadership(self, to: Member | str | None = None) -> None:
        """Transfer leadership to the member `to`, or to the follower with the longest log.

        to: a member, its address, or its id in hexadecimal or four digits or more of the
        beginning. Can be called on any server. Returns when this server knows that `to` leads.
        UnknownMemberError: `to` is not in the cluster. IllegalMemberStateError: `to` has no vote.
        OperationTimeout: `to` did not become leader in time; the error says who leads.
        NotLeaderError: a third member won the election. NoLeaderError: no leader is known.
        """
        status = self._status()
        if status.state is not ServerState.LEADER:
            view = await self._membership.view_of_leader()
            target = self._find(view.members, to)
            await self._membership.transfer(MemberId(0) if target is None else target.member)
            return
        target = self._find(_views(status), to)
        if target is not None and target.member == status.member:
            return
        if len(status.configuration.members) == 1:
            raise UnknownMemberError(
                f"{status.address} is the only member of its cluster: there is no follower that"
                " could lead",
                hint="nothing is wrong: this member remains the leader",
            )
        outcome = await self._hand_over(MemberId(0) if target is None else target.member)
        name = "a follower" if target is None else target.address
        _check_outcome(outcome, name, status.address)

    def _find(self, members: Sequence[MemberView], to: Member | str | None) -> MemberView | None:
        """Which of `members` is to lead; None for whoever is best."""
        if to is None:
            return None
        if isinstance(to, Member):
            name = f"{to.id:032x}"
            if all(one.member != to.id for one in members):
                addresses = [one.address for one in members]
                raise unknown_member(to.name, addresses, self._cluster_name)
        else:
            name = str(to)
        target = find_member(members, name, self._cluster_name)
        check_has_vote(target)
        return target

    # --- events -------------------------------------------------------------------------------

    def on_join(self, callback: Callable[[Member], object]) -> Listener:
        """Call `callback` with each member that was added, when that is committed.

        It is called on every server of the cluster, in the application's loop. An `async def`
        becomes a task of that loop.
        """
        check_callback("on_join", callback, "a Member", awaited=True)
        return self.events.joins.add(callback)

    def on_leave(self, callback: Callable[[Member], object]) -> Listener:
        """Call `callback` with each member that was removed, when that is committed; the type of
        that `Member` is INACTIVE.

        It is called on every server of the cluster, in the application's loop. An `async def`
        becomes a task of that loop.
        """
        check_callback("on_leave", callback, "a Member", awaited=True)
        return self.events.leaves.add(callback)

    def on_leader_election(self, callback: Callable[[Member], object]) -> Listener:
        """Call `callback` with each leader that this server hears of, in the application's loop.
        An `async def` becomes a task of that loop."""
        check_callback("on_leader_election", callback, "a Member", awaited=True)
        return self.events.elections.add(callback)

    def __repr__(self) -> str:
        status = self._status()
        return f"<Cluster {self._cluster_name} term {status.term} leader {status.leader or '?'}>"


def _views(status: Status) -> list[MemberView]:
    """The members as a leader would say that they are."""
    return [
        MemberView(
            one.member,
            one.type,
            one.address,
            one.since,
            is_reachable=one.member not in status.unreachable_members,
        )
        for one in status.configuration.members
    ]


def _check_outcome(outcome: TransferOutcome | None, name: str, address: str) -> None:
    """Raise when `address` could not transfer its leadership to the member `name`."""
    if outcome is None:
        raise OperationTimeout(
            f"{address} did not hear in time whether {name} became leader",
            hint="cluster.leader says who leads",
        )
    if outcome.ok:
        return
    match outcome.failure:
        case TransferFailure.ANOTHER_LEADS:
            raise NotLeaderError(outcome.why, leader=outcome.leader or None)
        case TransferFailure.NOBODY_LEADS | TransferFailure.QUORUM_LOST:
            raise NoLeaderError(outcome.why, hint="wait for the next election")
        case TransferFailure.SILENT:
            hint = "see the log of that member: its disk is full or slow, or it lost entries"
            raise OperationTimeout(outcome.why, hint=hint)
        case TransferFailure.BUSY:
            raise OperationTimeout(outcome.why, hint="try again: the other transfer has ended")
        case _:
            hint = "try again when the follower is reachable and has caught up"
            raise OperationTimeout(outcome.why, hint=hint)
