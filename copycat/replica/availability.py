"""Whether members are heard, as the entries of leaders say, and as this leader writes it (C38)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from copycat.machine.apply_result import AvailabilityChanged
from copycat.machine.availability import AvailabilityRow
from copycat.raft.availability import StatusRow, next_row, status_to_write
from copycat.raft.core import Raft
from copycat.replica.cluster_listener import ClusterListener
from copycat.replica.disk_space import DiskSpace
from copycat.replica.log_clock import LogClock
from copycat.replica.members import MemberTable
from copycat.replica.proposals import ProposalQueue
from copycat.types import MemberId, MemberStatus

__all__ = ["Availability"]

_LOG = logging.getLogger("copycat.replica")


class Availability:
    """Called in turns."""

    def __init__(
        self,
        raft: Raft,
        clock: LogClock,
        members: MemberTable,
        queue: ProposalQueue,
        disk_space: DiskSpace,
        listeners: Sequence[ClusterListener],
    ) -> None:
        self._raft = raft
        self._clock = clock
        self._members = members
        self._queue = queue
        self._disk_space = disk_space
        self._listeners = listeners
        self._rows: dict[MemberId, StatusRow] = {}
        self._proposed: set[MemberId] = set()
        """Members about whom an entry of this leader is on its way."""
        self._rounds = 0
        """Of the leader, when it looked last."""

    def load(self, rows: Mapping[int, AvailabilityRow]) -> None:
        """The state that is applied here is that of a snapshot, which says this of members."""
        self._rows = {}
        timeout_ms = self._raft.options.election_timeout_ms
        for member, row in rows.items():
            status = _status(is_available=row.is_available)
            self._rows[MemberId(member)] = StatusRow(status, row.time_ms, timeout_ms)
        self._show()

    def applied(self, change: AvailabilityChanged) -> None:
        """An entry that says it of one member was applied."""
        member, status = MemberId(change.member), _status(is_available=change.is_available)
        timeout_ms = self._raft.options.election_timeout_ms
        self._rows[member] = next_row(self._rows.get(member), status, change.time_ms, timeout_ms)
        self._proposed.discard(member)
        self._show()
        self._tell(member, status)

    @property
    def unavailable(self) -> frozenset[MemberId]:
        """Whom leaders do not hear; a reserve, which has no log, goes by its own links."""
        members = self._members
        if self._raft.is_reserve:
            return frozenset(members.peers.keys() - members.links)
        return members.unavailable

    def link_changed(self, member: MemberId, *, is_up: bool) -> None:
        """This member is connected to `member` again, or not any more. A reserve, which has no
        entries, goes by that."""
        if self._raft.is_reserve:
            self._tell(member, _status(is_available=is_up))

    def _tell(self, member: MemberId, status: MemberStatus) -> None:
        for listener in self._listeners:
            listener.status_changed(member, status)

    def _show(self) -> None:
        self._members.unavailable = frozenset(
            member for member, row in self._rows.items() if row.status is MemberStatus.UNAVAILABLE
        )

    def step_down(self) -> None:
        """This member does not lead any more: what it wrote may never be committed."""
        self._proposed.clear()
        self._rounds = 0

    def write(self) -> None:
        """If this is a leader that admits entries: after each round of heartbeats it writes what
        it sees of the members where that differs from what is applied."""
        leader_state = self._raft.leader_state
        if leader_state is None or leader_state.heard.rounds == self._rounds:
            return
        if not self._queue.admitting or self._disk_space.write_stall.reason:
            return
        self._rounds = leader_state.heard.rounds
        members, now_ms = self._members, self._clock.peek_ms()
        for member in members.committed.ids:
            if member == members.member:
                seen: MemberStatus | None = MemberStatus.AVAILABLE
            else:
                seen = leader_state.heard.status(member)
            status = status_to_write(seen, self._rows.get(member), now_ms)
            if status is None or member in self._proposed:
                continue
            self._proposed.add(member)
            is_available = status is MemberStatus.AVAILABLE
            self._queue.propose_availability(member, is_available=is_available)
            _LOG.info(
                "%s: %s is %s: %s",
                members.own_address,
                members.address(member),
                status,
                "it is heard again" if is_available else "it answers no heartbeat",
            )


def _status(*, is_available: bool) -> MemberStatus:
    return MemberStatus.AVAILABLE if is_available else MemberStatus.UNAVAILABLE
