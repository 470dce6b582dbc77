"""The cluster as one member sees it now: a read-only view. Changes come in a later issue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from copycat.config import Address, member_id
from copycat.replica.status import Status
from copycat.types import MemberId, MemberStatus, MemberType

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


class Cluster:
    """Leader, term and members; every property is as of the moment it is read."""

    def __init__(self, cluster_name: str, status: Callable[[], Status]) -> None:
        self._cluster_name = cluster_name
        self._status = status

    def _member(self, address: str, status: Status) -> Member:
        gone = address in status.unreachable
        word = MemberStatus.UNAVAILABLE if gone else MemberStatus.AVAILABLE
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

    def __repr__(self) -> str:
        status = self._status()
        return f"<Cluster {self._cluster_name} term {status.term} leader {status.leader or '?'}>"
