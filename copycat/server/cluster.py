"""The cluster as one member sees it now, and handing leadership over.

Changes of membership come in a later issue.
"""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from copycat.config import Address, member_id
from copycat.errors import NoLeaderError, NotLeaderError, OperationTimeout, UnknownMemberError
from copycat.raft.effects import TransferFailure
from copycat.replica.leadership_transfer import TransferOutcome
from copycat.replica.status import Status
from copycat.types import MemberId, MemberStatus, MemberType, ServerState

__all__ = ["Cluster", "Member"]


class Member:
    """One member of the configuration. `status` is what this server's links say."""

    def __init__(self, cluster_name: str, address: str, status: MemberStatus) -> None:
        self._id = member_id(cluster_name, address)
        self._address = Address.parse(address)
        self._status = status

    @property
    def id(self) -> MemberId:
        """128 bits, never reused (C16)."""
        return self._id

    @property
    def name(self) -> str:
        """How `Cluster.members` calls it: its address."""
        return str(self._address)

    @property
    def address(self) -> Address:
        """What others dial; members and clients use one port."""
        return self._address

    @property
    def type(self) -> MemberType:
        """ACTIVE: founding members are voters."""
        return MemberType.ACTIVE

    @property
    def status(self) -> MemberStatus:
        """UNAVAILABLE while this server has no link to it."""
        return self._status

    def __repr__(self) -> str:
        return f"<Member {self.name} {self.type} {self.status}>"


def _check_outcome(outcome: TransferOutcome | None, name: str, address: str) -> None:
    """Raise why leadership is not with the member `name` that `address` was to hand it to."""
    if outcome is None:
        raise OperationTimeout(
            f"{address} did not hear in time whether {name} took over",
            hint="look who leads: cluster.leader",
        )
    if outcome.ok:
        return
    match outcome.failure:
        case TransferFailure.ANOTHER_LEADS:
            raise NotLeaderError(outcome.why, leader=outcome.leader or None)
        case TransferFailure.NOBODY_LEADS | TransferFailure.QUORUM_LOST:
            raise NoLeaderError(outcome.why, hint="wait for the next election")
        case TransferFailure.SILENT:
            hint = "its log says why: a full or slow disk, or entries that it lost"
            raise OperationTimeout(outcome.why, hint=hint)
        case TransferFailure.BUSY:
            raise OperationTimeout(outcome.why, hint="try again: it is free now")
        case _:
            hint = "try again when the follower is reachable and has caught up"
            raise OperationTimeout(outcome.why, hint=hint)


class Cluster:
    """Leader, term and members; every property is as of the moment it is read."""

    def __init__(
        self,
        cluster_name: str,
        status: Callable[[], Status],
        hand_over: Callable[[MemberId], Awaitable[TransferOutcome | None]],
    ) -> None:
        self._cluster_name = cluster_name
        self._status = status
        self._hand_over = hand_over

    def _member(self, address: str, status: Status) -> Member:
        is_unreachable = address in status.unreachable
        word = MemberStatus.UNAVAILABLE if is_unreachable else MemberStatus.AVAILABLE
        return Member(self._cluster_name, address, word)

    @property
    def leader(self) -> Member | None:
        """The leader of the current term, as far as this member knows."""
        status = self._status()
        return self._member(status.leader, status) if status.leader else None

    @property
    def term(self) -> int:
        """The current term."""
        return self._status().term

    @property
    def member(self) -> Member:
        """This server itself."""
        status = self._status()
        return self._member(status.address, status)

    @property
    def members(self) -> Mapping[str, Member]:
        """All members by address, sorted."""
        status = self._status()
        return MappingProxyType({a: self._member(a, status) for a in sorted(status.members)})

    async def transfer_leadership(self, to: Member | str | None = None) -> None:
        """Hand leadership to `to` (a member or its address), or to the best follower.

        Only the leader can: NotLeaderError elsewhere, naming it. UnknownMemberError for a
        stranger. Returns when the other was heard to lead. OperationTimeout says why `to` did
        not take over in time; this member then goes on leading. NoLeaderError when it gave up
        leadership and `to` did not win: NotLeaderError names who leads.
        """
        status = self._status()
        if status.state is not ServerState.LEADER:
            leader = status.leader or None
            known = f"the leader of term {status.term} is {leader}" if leader else "none is known"
            raise NotLeaderError(f"{status.address} is {status.state}; {known}", leader=leader)
        name = to.name if isinstance(to, Member) else None if to is None else str(to)
        if name == status.address:
            return
        if name is not None and name not in status.members:
            near = difflib.get_close_matches(name, status.members, 1)
            hint = f"did you mean {near[0]}?" if near else None
            everyone = ", ".join(sorted(status.members))
            raise UnknownMemberError(
                f'no member "{name}" in cluster "{self._cluster_name}" ({everyone})', hint=hint
            )
        if len(status.members) == 1:
            raise UnknownMemberError(
                f"{status.address} is the only member of its cluster: there is no follower that"
                " could lead",
                hint="nothing is wrong: this member goes on leading",
            )
        target = MemberId(0) if name is None else member_id(self._cluster_name, name)
        _check_outcome(await self._hand_over(target), name or "a follower", status.address)

    def __repr__(self) -> str:
        status = self._status()
        return f"<Cluster {self._cluster_name} term {status.term} leader {status.leader or '?'}>"
