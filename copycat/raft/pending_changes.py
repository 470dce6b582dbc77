"""What a leader was asked to change, and has not answered so far. Data and answers only."""

from __future__ import annotations

from typing import NamedTuple

from copycat.raft.changes import ConfigurationChange
from copycat.raft.configuration import Configuration
from copycat.raft.effects import ChangeFinished
from copycat.types import INDEX_END, ChangeRefusal, EntryId, MemberId

__all__ = ["WAITING_MAX", "PendingChange", "PendingChanges", "Promotion"]

WAITING_MAX = 64
"""So many requests wait for one promotion, or for the entry that is not committed. With one more,
the one that waits longest is refused: most likely who asked has asked again since."""


class PendingChange(NamedTuple):
    """One request that waits for its entry to be committed."""

    token: int
    change: ConfigurationChange
    entry: EntryId


class Promotion:
    """A member that has the flag, and shall get its vote when it has the log (C36).

    A round begins with the end of the leader's log, and ends when the member has all of that
    durably, by an answer to a later request. A round shorter than an election timeout shows that
    the member keeps up.
    """

    __slots__ = (
        "gained_at_ms",
        "least_lag",
        "missing",
        "refusal",
        "round_at_ms",
        "round_index",
        "round_request",
        "tokens",
    )

    def __init__(self, now_ms: int) -> None:
        self.tokens: list[int] = []
        """Who asked for it, here; empty when an earlier leader was asked."""
        self.least_lag = INDEX_END
        """The fewest entries that the member lacked ever."""
        self.gained_at_ms = now_ms
        """When that last fell."""
        self.round_index = 0
        self.round_request = 0
        """The first request whose answer can end the round; 0: no round has begun."""
        self.round_at_ms = now_ms
        self.refusal: ChangeRefusal | None = None
        """Why the flag is taken back; None while it is not."""
        self.missing: tuple[MemberId, ...] = ()
        """Voters that were not in reach when the member could have got its vote (C37)."""

    def begin_round(self, now_ms: int, last_index: int, next_request: int) -> None:
        """The round ends at `last_index`, by an answer to `next_request` or a later one."""
        self.round_index, self.round_request, self.round_at_ms = last_index, next_request, now_ms


class PendingChanges:
    """Of one leader, in one term."""

    __slots__ = ("handing_over", "promotions", "waiting")

    def __init__(self) -> None:
        self.waiting: list[PendingChange] = []
        """Requests whose entry is appended, and not committed."""
        self.promotions: dict[MemberId, Promotion] = {}
        """Of each member that has the flag in the committed configuration."""
        self.handing_over: list[int] = []
        """Requests to take the leader's own vote: it hands over first (C34)."""

    def end(self, committed: Configuration) -> list[ChangeFinished]:
        """This member leads no more: nobody is answered by it later."""
        tokens = [each.token for each in self.waiting] + self.handing_over
        for promotion in self.promotions.values():
            tokens += promotion.tokens
        return [
            ChangeFinished(token, committed, ChangeRefusal.NOT_LEADER) for token in sorted(tokens)
        ]

    def end_handing_over(self, committed: Configuration) -> list[ChangeFinished]:
        """The transfer failed, and this member leads on."""
        tokens, self.handing_over = self.handing_over, []
        return [ChangeFinished(token, committed, ChangeRefusal.LEADER_ITSELF) for token in tokens]
