"""Who the members of the cluster are, for everybody in the replica who asks.

The core decides who is a member and says so with `ConfigurationChanged`. This table is the only
place in the replica that remembers it: links, handshake, sessions, refusals and status all read
the table, so a change of members reaches each of them in one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from copycat.raft.configuration import Configuration, MemberRecord
from copycat.types import MemberId

__all__ = ["MemberChanges", "MemberTable"]


class MemberChanges(NamedTuple):
    """What a new configuration means for the links of this member."""

    to_connect: tuple[MemberRecord, ...]
    """New members, and members that have another address now."""
    to_disconnect: tuple[MemberId, ...]
    """Those that are no members any more, and those whose address is another one now."""


class MemberTable:
    """The members, by id. `member` is this one."""

    def __init__(self, member: MemberId, configuration: Configuration) -> None:
        self.member = member
        self._records = {each.member: each for each in configuration.members}
        self.committed_incarnations: dict[MemberId, int] = {}
        """Member -> incarnation of its directory, as committed and applied here."""
        self.greeted_incarnations: dict[MemberId, int] = {}
        """What each peer said last with its Hello; the leader commits those that are new."""

    def adopt(self, configuration: Configuration) -> MemberChanges:
        """The members are those of `configuration` from now on; what is different for links."""
        before = self._records
        after = self._records = {each.member: each for each in configuration.members}
        to_connect = tuple(
            record
            for member, record in after.items()
            if member != self.member and _address(before, member) != record.address
        )
        to_disconnect = tuple(
            member
            for member, record in before.items()
            if member != self.member and _address(after, member) != record.address
        )
        return MemberChanges(to_connect, to_disconnect)

    # ---- the directories of the members --------------------------------------------------

    def record_incarnation(self, member: MemberId, incarnation: int) -> None:
        """It was committed, and applied here: the first one holds for ever (C16)."""
        self.committed_incarnations.setdefault(member, incarnation)

    # ---- who and where ---------------------------------------------------------------------

    def address(self, member: MemberId) -> str:
        """Where `member` listens; empty for who is no member, as for nobody."""
        return _address(self._records, member)

    @property
    def own_address(self) -> str:
        """Where this member listens."""
        return self._records[self.member].address

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of all members, in the order of the configuration."""
        return tuple(record.address for record in self._records.values())

    @property
    def peers(self) -> Mapping[MemberId, str]:
        """The addresses of all other members."""
        return {
            member: record.address
            for member, record in self._records.items()
            if member != self.member
        }


def _address(records: Mapping[MemberId, MemberRecord], member: MemberId) -> str:
    record = records.get(member)
    return "" if record is None else record.address
