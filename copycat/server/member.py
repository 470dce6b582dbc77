"""One member of a cluster, as another one knows it: what it is, and how that is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from copycat.callbacks import check_callback
from copycat.config import Address
from copycat.listeners import Listener
from copycat.protocol.member_record import MemberRecord
from copycat.server.member_listeners import MemberListeners
from copycat.types import EntryId, MemberId, MemberStatus, MemberType, MemberTypeLike

__all__ = ["ChangeMember", "Member", "Verb"]

Verb = Literal["promote", "demote", "remove"]


class ChangeMember(Protocol):
    """Asks the cluster for a change of one member; `entry` names the configuration that was
    seen."""

    async def __call__(
        self, verb: Verb, record: MemberRecord, entry: EntryId, type: MemberTypeLike | None
    ) -> None: ...


class Member:
    """One member of a cluster, as this server knew it when it made this object.

    Take members from `Cluster.members`; a member object does not change.

    `promote`, `demote` and `remove` can be called on any server. They raise:
    StaleConfigurationError: the members were changed since this object was made; its `members`
    has the newest list. ChangeRefusedError: the cluster did not make the change; its type says
    why. IllegalMemberStateError: the member cannot be changed in that direction.
    UnknownMemberError: it is no member any more. NoLeaderError: nobody leads.
    """

    def __init__(
        self,
        record: MemberRecord,
        entry: EntryId,
        status: MemberStatus,
        change: ChangeMember,
        listeners: MemberListeners,
    ) -> None:
        self._record = record
        self._entry = entry
        self._status = status
        self._change = change
        self._listeners = listeners

    @property
    def id(self) -> MemberId:
        """An integer of 128 bits, which no other member gets (C16). A founder's id is derived
        from cluster name and address; the id of a member that joined is random."""
        return self._record.member

    @property
    def name(self) -> str:
        """The address as text, which is the key in `Cluster.members` unless two members have the
        same address."""
        return self._record.address

    @property
    def address(self) -> Address:
        """The address that other members and clients connect to."""
        return Address.parse(self._record.address)

    @property
    def type(self) -> MemberType:
        """ACTIVE: it votes. PASSIVE: it has log and state, and no vote. RESERVE: it has neither.
        INACTIVE: it is no member (any more)."""
        return self._record.type

    @property
    def is_promotable(self) -> bool:
        """True for a passive member that becomes active when it has caught up with the log."""
        return self._record.is_promotable

    @property
    def failure_domain(self) -> str:
        """What the member fails together with; empty when it names none."""
        return self._record.failure_domain

    @property
    def weight(self) -> int:
        """Orders candidates for a place; starts no change."""
        return self._record.weight

    @property
    def status(self) -> MemberStatus:
        """UNAVAILABLE while the leader does not hear the member: an entry of the log says so, and
        another one that it is AVAILABLE again, a while later if that changes often. A reserve
        has no log; at a reserve it is UNAVAILABLE while that is not connected to the member."""
        return self._status

    async def promote(self, type: MemberTypeLike | None = None) -> None:
        """Promote the member to `type`, or by one step: reserve, passive, active.

        type: PASSIVE or ACTIVE. Returns when the member is of that type; a member that is to be
        active has to catch up with the log first. PromotionTimeoutError: it did not catch up,
        and has not come closer for too long; it stays passive.
        """
        await self._change("promote", self._record, self._entry, type)

    async def demote(self, type: MemberTypeLike | None = None) -> None:
        """Demote the member to `type`, or by one step: active, passive, reserve.

        type: PASSIVE or RESERVE. A member that becomes a reserve deletes its log and its state.
        A leader transfers its leadership first. LastVoterError: nobody else has a vote.
        """
        await self._change("demote", self._record, self._entry, type)

    async def remove(self) -> None:
        """Take the member out of the cluster, whether it runs or not.

        A leader transfers its leadership first. A member that runs deletes its log and its state.
        To come back it needs an empty directory, and gets a new id. LastVoterError: nobody else
        has a vote.
        """
        await self._change("remove", self._record, self._entry, None)

    def on_type_change(self, callback: Callable[[MemberType], object]) -> Listener:
        """Call `callback` with each new type of the member, in the application's loop; the type
        is INACTIVE when the member was removed. An `async def` becomes a task of that loop."""
        check_callback("on_type_change", callback, "a MemberType", awaited=True)
        return self._listeners.types(self.id).add(callback)

    def on_status_change(self, callback: Callable[[MemberStatus], object]) -> Listener:
        """Call `callback` with each new status of the member, when an entry that says so is
        applied, in the application's loop. An `async def` becomes a task of that loop. A server
        that starts reads its log from its snapshot on, and calls back with what it reads; a
        reserve, which has no log, when it is connected to the member, or not any more."""
        check_callback("on_status_change", callback, "a MemberStatus", awaited=True)
        return self._listeners.statuses(self.id).add(callback)

    def __repr__(self) -> str:
        return f"<Member {self.name} {self.type} {self.status}>"
