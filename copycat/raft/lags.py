"""How far members are behind, as a leader sees it round by round: which voters are slow, and which
members were much nearer to the end of the log all that time (C39).

Only rounds in which the commit index moved are counted: a voter that is behind while nothing is
committed hinders nobody, and soon is not behind any more.
"""

from __future__ import annotations

from collections.abc import Mapping

from copycat.raft.progress import Progress, Scope
from copycat.types import MemberId

__all__ = ["NEARER_FACTOR", "Lags"]

NEARER_FACTOR = 4
"""So many times nearer to the end of the log than a slow voter is who may take its place."""


class Lags:
    """Of one leader, in one term."""

    __slots__ = ("_commit_index", "_nearer", "_rounds", "is_moving")

    def __init__(self) -> None:
        self.is_moving = False
        """Whether anything was committed in the last round."""
        self._commit_index = 0
        self._rounds: dict[MemberId, int] = {}
        """For how many rounds in a row a member was behind."""
        self._nearer: dict[MemberId, dict[MemberId, int]] = {}
        """Of such a member: for how many rounds in a row another one was much nearer."""

    def on_round(
        self, progress: Mapping[MemberId, Progress], head_index: int, commit_index: int
    ) -> None:
        """A round begins. head_index: who lacks committed entries up to this is behind."""
        self.is_moving = commit_index > self._commit_index > 0
        self._commit_index = commit_index
        behind = [peer for peer, each in progress.items() if each.counted_index < head_index]
        if not behind and not self._rounds:
            return
        self._rounds = {peer: self._rounds.get(peer, 0) + self.is_moving for peer in behind}
        if self.is_moving:
            self._nearer = {peer: self._nearer_than(peer, progress) for peer in behind}

    def _nearer_than(
        self, peer: MemberId, progress: Mapping[MemberId, Progress]
    ) -> dict[MemberId, int]:
        known = self._nearer.get(peer, {}) if self._rounds.get(peer, 0) > 1 else {}
        mine = progress[peer]
        lag = self._commit_index - max(mine.counted_index, mine.reported_index)
        return {
            other: known.get(other, 0) + 1
            for other, each in progress.items()
            if each.scope is Scope.COMMITTED
            and NEARER_FACTOR * (self._commit_index - each.reported_index) <= lag
        }

    def rounds_behind(self, peer: MemberId) -> int:
        """For how many rounds in a row, while entries were committed, `peer` has been behind."""
        return self._rounds.get(peer, 0)

    def nearer(self, peer: MemberId, rounds: int) -> frozenset[MemberId]:
        """The passive members that were much nearer than `peer` in the last `rounds` rounds."""
        known = self._nearer.get(peer, {})
        return frozenset(other for other, count in known.items() if count >= rounds)
