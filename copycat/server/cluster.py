"""The cluster as one member knows it: leader, term, members; and the transfer of leadership."""

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
    """One member of the configuration, as this server knows it."""

    def __init__(self, cluster_name: str, address: str, status: MemberStatus) -> None:
        self._id = member_id(cluster_name, address)
        self._address = Address.parse(address)
        self._status = status

    @property
    def id(self) -> MemberId:
        """An integer of 128 bits, derived from cluster name and address; never used again
        (C16)."""
        return self._id

    @property
    def name(self) -> str:
        """The address as text, which is the key in `Cluster.members`."""
        return str(self._address)

    @property
    def address(self) -> Address:
        """The address that other members and clients connect to."""
        return self._address

    @property
    def type(self) -> MemberType:
        """ACTIVE for every member: each founding member votes."""
        return MemberType.ACTIVE

    @property
    def status(self) -> MemberStatus:
        """UNAVAILABLE while this server is not connected to the member, else AVAILABLE."""
        return self._status

    def __repr__(self) -> str:
        return f"<Member {self.name} {self.type} {self.status}>"


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


class Cluster:
    """Leader, term and members; each property is what the member knows at the moment of the
    call."""

    def __init__(
        self,
        cluster_name: str,
        status: Callable[[], Status],
        hand_over: Callable[[str], Awaitable[TransferOutcome | None]],
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
        """All members by address, in the order of the addresses."""
        status = self._status()
        return MappingProxyType({a: self._member(a, status) for a in sorted(status.members)})

    async def transfer_leadership(self, to: Member | str | None = None) -> None:
        """Transfer leadership to the member `to`, or to the follower with the longest log.

        to: a member or its address. Returns when this member knows that the other one leads.
        NotLeaderError: this member is not the leader, or a third member won the election; the
        error names the leader. UnknownMemberError: `to` is not in the cluster. OperationTimeout:
        `to` did not become leader in time, and this member remains the leader. NoLeaderError: this
        member gave up leadership, and no leader is known.
        """
        status = self._status()
        if status.state is not ServerState.LEADER:
            leader = status.leader or None
            known = (
                f"the leader of term {status.term} is {leader}" if leader else "no leader is known"
            )
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
                hint="nothing is wrong: this member remains the leader",
            )
        outcome = await self._hand_over(name or "")
        _check_outcome(outcome, name or "a follower", status.address)

    def __repr__(self) -> str:
        status = self._status()
        return f"<Cluster {self._cluster_name} term {status.term} leader {status.leader or '?'}>"
