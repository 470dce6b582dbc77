"""Who the members of the cluster are, for everybody in the replica who asks.

The core decides who is a member and says so with `ConfigurationChanged`. This table is the only
place in the replica that remembers it: links, handshake, sessions, refusals and status all read
the table, so a change of members reaches each of them in one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from copycat.raft.configuration import Configuration, MemberRecord
from copycat.types import MemberId, MemberType

__all__ = ["MemberChanges", "MemberTable"]


class MemberChanges(NamedTuple):
    """What a new configuration means for the links of this member."""

    to_connect: tuple[MemberRecord, ...]
    """New members, and members that have another address now."""
    to_disconnect: tuple[MemberId, ...]
    """Those that are no members any more, and those whose address is another one now."""


class MemberTable(Mapping[MemberId, str]):
    """The members and their addresses, by id. `member` is this one.

    As a mapping it is what its readers need most, the address of each member, as of now: whoever
    is given the table sees each change of it.
    """

    def __init__(self, member: MemberId, configuration: Configuration) -> None:
        self.member = member
        self.configuration = configuration
        """It counts a majority of these members."""
        self._records = {each.member: each for each in configuration.members}
        self.links: set[MemberId] = set()
        """Peers that this member can write to."""
        self.committed_incarnations: dict[MemberId, int] = {}
        """Member -> incarnation of its directory, as committed and applied here."""
        self.greeted_incarnations: dict[MemberId, int] = {}
        """What each peer said last with its Hello; the leader commits those that are new."""

    def adopt(self, configuration: Configuration) -> MemberChanges:
        """The members are those of `configuration` from now on; what is different for links."""
        self.configuration = configuration
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

    def __getitem__(self, member: MemberId) -> str:
        return self._records[member].address

    def __iter__(self) -> Iterator[MemberId]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def type(self, member: MemberId) -> MemberType:
        """What `member` is to the cluster; INACTIVE for who is no member."""
        record = self._records.get(member)
        return MemberType.INACTIVE if record is None else record.type

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
