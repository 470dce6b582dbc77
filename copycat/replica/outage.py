"""Why this member cannot serve a request: what its clients are told (never a bare silence)."""

from __future__ import annotations

from copycat.config import RaftOptions
from copycat.protocol.client import Refusal
from copycat.replica.connections import RefusalReason
from copycat.replica.election_obstacles import ElectionObstacles
from copycat.replica.log_clock import LogClock
from copycat.replica.members import MemberTable
from copycat.replica.proposals import WriteStall
from copycat.types import MemberId

__all__ = ["Outage"]

SILENT_ELECTIONS = 4
"""A member without a leader asks the others for votes once an election timeout or so. One that
was not heard for so many of them counts as unreachable, though its link may stand: its process
may be stopped."""


class Outage:
    """Which peers are reachable and have room, and for how long no leader was known."""

    def __init__(
        self,
        members: MemberTable,
        clock: LogClock,
        options: RaftOptions,
        obstacles: ElectionObstacles | None = None,
    ) -> None:
        self._obstacles = obstacles
        self._members = members
        self._clock = clock
        self._silent_ms = SILENT_ELECTIONS * options.election_timeout_ms
        self._received_ms: dict[MemberId, int] = {}
        self._reasons: dict[MemberId, str] = {}
        self._leaderless_ms = clock.now_ms
        self._leader = MemberId(0)
        self._full: set[MemberId] = set()
        """Peers that answered the leader, this member, that their disks are full."""

    def frame_received(self, peer: MemberId) -> None:
        """A frame of this peer arrived."""
        self._received_ms[peer] = self._clock.now_ms

    def link_up(self, peer: MemberId) -> None:
        """The link to this peer is open."""
        self._members.links.add(peer)
        self._reasons.pop(peer, None)
        self.frame_received(peer)

    def link_down(self, peer: MemberId) -> None:
        """It broke."""
        self._members.links.discard(peer)

    def link_failed(self, peer: MemberId, reason: str) -> None:
        """The peer was dialled, and this is why there is no link."""
        self._reasons[peer] = reason

    def unlinked(self) -> list[str]:
        """Addresses of the peers that this member cannot write to."""
        return [
            where for peer, where in self._members.peers.items() if peer not in self._members.links
        ]

    def leader_changed(self, leader: MemberId) -> bool:
        """This member leads, or (0) none that is known; whether it is another than before."""
        is_other = leader != self._leader
        if is_other and not leader:
            self._leaderless_ms = self._clock.now_ms
        self._leader = leader
        if is_other:
            self._full.clear()
        return is_other

    def disk_reported(self, peer: MemberId, *, is_full: bool) -> None:
        """A follower said with its answer whether its disk is full."""
        if is_full:
            self._full.add(peer)
        else:
            self._full.discard(peer)

    def full_disks(self, *, is_full: bool) -> tuple[str, ...]:
        """Addresses of the members in reach whose disks are full, as far as this one knows: a
        leader hears it of all. is_full: whether this member's disk is."""
        full = [self._members[peer] for peer in self._full & self._members.links]
        return tuple(sorted([self._members.own_address, *full] if is_full else full))

    def write_stall(self, *, is_full: bool) -> WriteStall:
        """Whether full disks stop the cluster that this member leads, and whose they are."""
        if not is_full and not self._full:
            return WriteStall()
        full = self.full_disks(is_full=is_full)
        able = {self._members.member} | (
            self._members.links - self._full
        )  # this member has room for its log
        stops_commits = bool(
            self._full & self._members.links
        ) and not self._members.configuration.has_quorum(able)
        if not is_full and not stops_commits:
            return WriteStall()
        verb = "disk of {} is" if len(full) == 1 else "disks of {} are"
        reason = f"the {verb.format(' and '.join(full))} full"
        if stops_commits:
            reason += f": {len(able) - is_full} of {len(self._members)} members take entries,"
            reason += f" {self._members.configuration.quorum_size} needed"
            if away := sorted(self.unlinked()):
                reason += f"; unreachable: {', '.join(away)}"
        return WriteStall(reason, stops_commits)

    def explain(self) -> RefusalReason:
        """Why a request for the leader cannot be served here now."""
        if self._leader:
            where = self._members.peers.get(self._leader)
            reason = f"no link to the leader {where}" if where else "this member is just elected"
            return RefusalReason(Refusal.NO_LEADER, reason, (), 0)
        since_ms = self._clock.now_ms - self._leaderless_ms
        missing = [peer for peer in self._members.peers if not self._is_reachable(peer, since_ms)]
        up = {self._members.member} | (self._members.peers.keys() - missing)
        if self._members.configuration.has_quorum(up):
            reason = f"no leader has been known for {since_ms / 1000:.1f} s"
            reason += self._obstacle_texts()
            return RefusalReason(Refusal.NO_LEADER, reason, (), since_ms)
        names = ", ".join(self._name(peer) for peer in missing)
        reason = (
            f"{len(up)} of {len(self._members)} members reachable,"
            f" {self._members.configuration.quorum_size} needed;"
            f" no leader for {since_ms / 1000:.1f} s;"
            f" unreachable: {names}{self._obstacle_texts()}"
        )
        addresses = tuple(sorted(self._members[peer] for peer in missing))
        return RefusalReason(Refusal.NO_QUORUM, reason, addresses, since_ms)

    def _obstacle_texts(self) -> str:
        texts = [] if self._obstacles is None else self._obstacles.texts()
        return "".join(f"; {text}" for text in texts)

    def _is_reachable(self, peer: MemberId, leaderless_ms: int) -> bool:
        if peer not in self._members.links:
            return False
        silent_ms = self._clock.now_ms - self._received_ms.get(peer, 0)
        return min(leaderless_ms, silent_ms) < self._silent_ms

    def _name(self, peer: MemberId) -> str:
        reason = self._reasons.get(peer)
        if reason is None and peer in self._members.links:
            reason = "connected, but silent"
        return f"{self._members[peer]} ({reason})" if reason else self._members[peer]
