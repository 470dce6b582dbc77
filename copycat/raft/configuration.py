"""Who the members of the cluster are, and the only places where a majority of them is counted.

Elections, commits, read rounds, the leader's check that it is heard, a fresh directory's proof and
the clock of the log all ask here. Who is a member and who votes is a value, so another
configuration needs no change of theirs.

The first configuration is that of the founders, and no entry holds it. Every later one is an entry
of the log of its own, and is named by that entry: two leaders may write different configurations
at one index, so an index alone is no name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from copycat.errors import require
from copycat.protocol.member_record import (
    NO_HEALING,
    ConfigurationRecord,
    HealingPolicy,
    MemberRecord,
)
from copycat.types import NO_ENTRY, EntryId, MemberId, MemberType

__all__ = ["BOOTSTRAP", "Configuration", "MemberRecord", "name_of"]

BOOTSTRAP = NO_ENTRY
"""The name of the founders' configuration, which no entry holds."""


class Configuration(NamedTuple):
    """The members of the cluster, each once. Made by `bootstrap`, `of` and `from_members`, and
    from an earlier one by `with_record` and `without`.

    entry: the name of the entry that holds it: index alone is no name, for two leaders may write
    different entries at one index. members: in the order in which they are sent messages.
    voters: the ids of those that are ACTIVE; only these count for a majority. policy: what a
    leader may change by itself.
    """

    entry: EntryId
    members: tuple[MemberRecord, ...]
    voters: tuple[MemberId, ...]
    policy: HealingPolicy = NO_HEALING

    @classmethod
    def from_members(
        cls,
        members: Iterable[MemberRecord],
        entry: EntryId = BOOTSTRAP,
        policy: HealingPolicy = NO_HEALING,
    ) -> Configuration:
        """The configuration of these members, in this order."""
        listed = tuple(members)
        ids = [each.member for each in listed]
        voters = tuple(each.member for each in listed if each.type is MemberType.ACTIVE)
        require(voters, "a configuration needs a voter", members=ids)
        require(0 not in ids, "member 0 is nobody and cannot vote", members=ids)
        require(len(ids) == len(set(ids)), "a member votes or does not", members=ids)
        for each in listed:
            require(
                each.type is not MemberType.INACTIVE
                and 0 <= each.since <= entry.index
                and each.has_right_marks,
                "a record that no configuration can hold",
                record=each,
                entry=entry,
            )
        return cls(entry, listed, voters, policy)

    @classmethod
    def bootstrap(cls, addresses: Mapping[MemberId, str]) -> Configuration:
        """The founders, all of them voters."""
        return cls.from_members(
            MemberRecord(member, MemberType.ACTIVE, address)
            for member, address in addresses.items()
        )

    @classmethod
    def of(cls, *voters: MemberId, non_voters: Collection[MemberId] = ()) -> Configuration:
        """A configuration in the order of the ids, for those who need no addresses."""
        active = [MemberRecord(member, MemberType.ACTIVE) for member in sorted(set(voters))]
        passive = [MemberRecord(member, MemberType.PASSIVE) for member in sorted(set(non_voters))]
        return cls.from_members([*active, *passive])

    def with_record(self, record: MemberRecord, entry: EntryId) -> Configuration:
        """The configuration of `entry`: this one with `record`, which takes the place of an
        earlier record of the same member, or comes last."""
        members = [record if each.member == record.member else each for each in self.members]
        if record not in members:
            members.append(record)
        return Configuration.from_members(members, entry, self.policy)

    def without(self, member: MemberId, entry: EntryId) -> Configuration:
        """The configuration of `entry`: this one without `member`."""
        members = [each for each in self.members if each.member != member]
        return Configuration.from_members(members, entry, self.policy)

    def record(self, member: MemberId) -> MemberRecord | None:
        """What it says of `member`; None when that is no member."""
        for each in self.members:
            if each.member == member:
                return each
        return None

    def type(self, member: MemberId) -> MemberType:
        """What `member` is to the cluster; INACTIVE when it is no member."""
        record = self.record(member)
        return MemberType.INACTIVE if record is None else record.type

    @property
    def ids(self) -> tuple[MemberId, ...]:
        """The ids of all members."""
        return tuple(each.member for each in self.members)

    @property
    def stateful(self) -> tuple[MemberId, ...]:
        """The ids of those that have a log and a state."""
        return tuple(each.member for each in self.members if each.is_stateful)

    def others(self, member: MemberId) -> tuple[MemberId, ...]:
        """The ids of all members but `member`."""
        return tuple(each.member for each in self.members if each.member != member)

    def has_vote(self, member: MemberId) -> bool:
        """Whether `member` is a voter."""
        return member in self.voters

    @property
    def quorum_size(self) -> int:
        """How many voters are a majority: for texts. Decisions ask `has_quorum`."""
        return len(self.voters) // 2 + 1

    def has_quorum(self, ids: Collection[MemberId]) -> bool:
        """Whether a majority of the voters is among `ids`; whoever else is there does not count.

        `ids` names each member at most once.
        """
        count = 0
        for voter in self.voters:
            if voter in ids:
                count += 1
        return count > len(self.voters) // 2

    def agreed_index(self, match_of: Mapping[MemberId, int]) -> int:
        """The highest index that a majority of the voters has reached; who is missing is at 0.

        Whether the leader may commit there is another question (own term, paper section 5.4.2).
        """
        descending = sorted([match_of.get(voter, 0) for voter in self.voters], reverse=True)
        return descending[len(descending) // 2]


def name_of(configuration: Configuration | ConfigurationRecord) -> EntryId:
    """The name of `configuration`: a key to sort by, and to find the newest."""
    return configuration.entry
