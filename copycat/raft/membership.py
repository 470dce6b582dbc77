"""Who votes. The door for later: reconfiguration, passives and feeders will come in here."""

from __future__ import annotations

from typing import NamedTuple

from copycat.errors import require
from copycat.raft.quorum import majority
from copycat.types import MemberId

__all__ = ["Configuration"]


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
