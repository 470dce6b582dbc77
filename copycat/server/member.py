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
    """One member of the configuration, as this server knew it when it made this object.

    `promote`, `demote` and `remove` name that configuration: when the members were changed
    meanwhile they raise StaleConfigurationError, with the members of now. All other errors of
    theirs are ChangeRefusedErrors, which say why the cluster did not make the change, and
    NoLeaderErrors.
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
        """An integer of 128 bits, which is never given to another member (C16): a founder's is
        derived from cluster name and address, that of a member that joined is random."""
        return self._record.member

    @property
    def name(self) -> str:
        """The address as text: the key in `Cluster.members`, unless two members have it."""
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
        """A passive member that catches up to become active."""
        return self._record.is_promotable

    @property
    def status(self) -> MemberStatus:
        """UNAVAILABLE while this server is not connected to the member, else AVAILABLE."""
        return self._status

    async def promote(self, type: MemberTypeLike | None = None) -> None:
        """Promote the member to `type`, or by one step: reserve, passive, active.

        Any member may ask. Returns when the member is of that type: one that becomes active has
        caught up with the log then. PromotionTimeoutError: it came no nearer for too long.
        """
        await self._change("promote", self._record, self._entry, type)

    async def demote(self, type: MemberTypeLike | None = None) -> None:
        """Demote the member to `type`, or by one step: active, passive, reserve.

        A reserve deletes its log and its state. A leader transfers its leadership first.
        """
        await self._change("demote", self._record, self._entry, type)

    async def remove(self) -> None:
        """Take the member out of the cluster, whether it runs or not. A leader transfers its
        leadership first. The member cannot come back under its id."""
        await self._change("remove", self._record, self._entry, None)

    def on_type_change(self, callback: Callable[[MemberType], object]) -> Listener:
        """Call `callback` with each new type of the member, in the application's loop; INACTIVE
        when it was removed. An `async def` becomes a task of that loop."""
        check_callback("on_type_change", callback, "a MemberType", awaited=True)
        return self._listeners.types(self.id).add(callback)

    def on_status_change(self, callback: Callable[[MemberStatus], object]) -> Listener:
        """Call `callback` with each new status of the member, in the application's loop. An
        `async def` becomes a task of that loop."""
        check_callback("on_status_change", callback, "a MemberStatus", awaited=True)
        return self._listeners.statuses(self.id).add(callback)

    def __repr__(self) -> str:
        return f"<Member {self.name} {self.type} {self.status}>"
