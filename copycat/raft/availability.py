"""Which members a leader hears, and when it writes that down (C38).

What a leader does goes by what it sees itself in its term: `HeardMembers`. The entries are news
for all others. `status_to_write` compares the two, and `StatusRow` limits how often one member may
have an entry, so that a link which flaps costs little.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from copycat.raft.progress import Progress
from copycat.types import MemberId, MemberStatus

__all__ = ["SILENT_ROUNDS", "HeardMembers", "StatusRow", "next_row", "status_to_write"]

SILENT_ROUNDS = 3
"""So many rounds of heartbeats in a row that a member answers nothing to make it UNAVAILABLE."""
SLOW_ROUNDS = 40
"""So many rounds in a row that a voter was behind make it slow: ten seconds with the default
heartbeat interval of 250 ms."""
HOLD_MS_MAX = 60_000
QUIET_MS = 600_000
"""A member without an entry for so long may have the next ones as if it never had any."""


class HeardMembers:
    """Of one leader, in one term.

    Rounds are counted, and not milliseconds: a leader that stood still for a while sent none, and
    the silence was its own.
    """

    __slots__ = ("_behind", "_silent", "round_at_ms", "rounds")

    def __init__(self) -> None:
        self.rounds = 0
        """How many rounds of heartbeats this leader has begun."""
        self.round_at_ms = 0
        """When the last of them began."""
        self._silent: dict[MemberId, int] = {}
        self._behind: dict[MemberId, int] = {}
        """For how many rounds in a row a member had less than what was committed long before."""

    def on_round(
        self, now_ms: int, progress: Mapping[MemberId, Progress], head_index: int
    ) -> None:
        """A round begins: who answered nothing since the one before has missed that. head_index:
        who lacks committed entries up to this is behind."""
        if self.rounds:
            self._silent = {
                peer: 0
                if each.last_contact_ms >= self.round_at_ms
                else self._silent.get(peer, 0) + 1
                for peer, each in progress.items()
            }
            self._behind = {
                peer: self._behind.get(peer, 0) + 1 if each.counted_index < head_index else 0
                for peer, each in progress.items()
            }
        self.rounds += 1
        self.round_at_ms = now_ms

    def silent_rounds(self, peer: MemberId) -> int:
        """How many rounds in a row `peer` has answered nothing; 0 for who is heard."""
        return self._silent.get(peer, 0)

    def is_heard(self, peer: MemberId) -> bool:
        """Whether `peer` has answered one of the last rounds."""
        return self.rounds > 0 and self._silent.get(peer, 0) < SILENT_ROUNDS

    def is_slow(self, peer: MemberId) -> bool:
        """Whether `peer` answers, and has been behind for long: a slow disk, or a slow link."""
        return self.is_heard(peer) and self._behind.get(peer, 0) >= SLOW_ROUNDS

    def status(self, peer: MemberId) -> MemberStatus | None:
        """What this leader may say of `peer`; None: nothing so far. A new leader says nothing
        before its third round is over."""
        silent = self._silent.get(peer)
        if self.rounds <= SILENT_ROUNDS or silent is None:
            return None
        if silent == 0:
            return MemberStatus.AVAILABLE
        return MemberStatus.UNAVAILABLE if silent >= SILENT_ROUNDS else None


class StatusRow(NamedTuple):
    """What the newest entry about one member says. Times are log time."""

    status: MemberStatus
    time_ms: int
    hold_ms: int
    """For so long after that entry nobody writes that the member is AVAILABLE again."""


def next_row(
    before: StatusRow | None, status: MemberStatus, time_ms: int, election_timeout_ms: int
) -> StatusRow:
    """The row after an entry: each one that says UNAVAILABLE doubles the hold time, from E up to
    a minute, until the member had no entry for ten minutes."""
    if before is None or time_ms - before.time_ms >= QUIET_MS:
        hold_ms = election_timeout_ms
    elif status is MemberStatus.UNAVAILABLE:
        hold_ms = min(2 * before.hold_ms, max(HOLD_MS_MAX, election_timeout_ms))
    else:
        hold_ms = before.hold_ms
    return StatusRow(status, time_ms, hold_ms)


def status_to_write(
    seen: MemberStatus | None, row: StatusRow | None, now_ms: int
) -> MemberStatus | None:
    """What the leader is to write of a member that it sees as `seen`; None: nothing now.

    row: what was written last of it, and is applied; None: nothing ever, so it is AVAILABLE.
    """
    written = MemberStatus.AVAILABLE if row is None else row.status
    if seen is None or seen is written:
        return None
    is_held = row is not None and now_ms < row.time_ms + row.hold_ms
    return None if seen is MemberStatus.AVAILABLE and is_held else seen
