"""Pure arithmetic of majorities: how many are needed, and how far a majority got."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from copycat.errors import require
from copycat.types import MemberId

__all__ = ["Configuration", "agreed_index", "majority"]


def majority(voters: int) -> int:
    """How many of `voters` are more than half."""
    return voters // 2 + 1


def agreed_index(matches: Collection[int]) -> int:
    """The highest index that a majority of the voters holds; one number for each voter.

    Whether the leader may commit there is another question (own term, paper section 5.4.2).
    """
    descending = sorted(matches, reverse=True)
    return descending[len(descending) // 2]


class Configuration(NamedTuple):
    """The voters of the cluster, sorted by id and free of doubles (see `of`)."""

    voters: tuple[MemberId, ...]

    @classmethod
    def of(cls, *voters: MemberId) -> Configuration:
        """A configuration of these voters in canonical order."""
        require(voters, "a configuration needs a voter")
        require(0 not in voters, "member 0 is nobody and cannot vote", voters=voters)
        return cls(tuple(sorted(set(voters))))

    @property
    def quorum(self) -> int:
        """How many voters are a majority."""
        return majority(len(self.voters))

    def others(self, member: MemberId) -> tuple[MemberId, ...]:
        """Every voter but `member`."""
        return tuple(voter for voter in self.voters if voter != member)
