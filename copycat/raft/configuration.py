"""Who the members of the cluster are, and the only places where a majority of them is counted.

Elections, commits, read rounds, the leader's check that it is heard, a fresh directory's proof and
the clock of the log all ask here. A second kind of member, or a change of members, is a change of
this file and not of theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from copycat.errors import require
from copycat.types import MemberId

__all__ = ["Configuration"]


class Configuration(NamedTuple):
    """The members of the cluster: each list is sorted by id and free of doubles (see `of`).

    voters: only these count for a majority.  non_voters: members that are sent entries and never
    count; no cluster has one so far.
    """

    voters: tuple[MemberId, ...]
    non_voters: tuple[MemberId, ...] = ()

    @classmethod
    def of(cls, *voters: MemberId, non_voters: Collection[MemberId] = ()) -> Configuration:
        """A configuration of these members in canonical order."""
        require(voters, "a configuration needs a voter")
        members = (*voters, *non_voters)
        require(0 not in members, "member 0 is nobody and cannot vote", voters=members)
        twice = set(voters).intersection(non_voters)
        require(not twice, "a member votes or does not", members=twice)
        return cls(tuple(sorted(set(voters))), tuple(sorted(set(non_voters))))

    @property
    def members(self) -> tuple[MemberId, ...]:
        """All members, voters first."""
        return self.voters + self.non_voters

    def others(self, member: MemberId) -> tuple[MemberId, ...]:
        """Every member but `member`."""
        return tuple(other for other in self.members if other != member)

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
