"""Finds a leader that this member does not know.

A member that was away may know only members that follow: a leader that joined meanwhile has
removed it, say, and has no link to it. The others must not say that it was removed (C33). So a
member that hears no leader for long asks one of those that it has links to who leads, and connects
to that leader, which tells it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from copycat.protocol.client import ClusterView, ServerMessage, ViewRequest
from copycat.protocol.codec_client import encode_client
from copycat.protocol.codec_peer import encode_forward
from copycat.protocol.framing import split_frame
from copycat.raft.configuration import BOOTSTRAP
from copycat.raft.core import Raft
from copycat.replica.host import Host
from copycat.replica.local_requests import LocalRequests
from copycat.replica.log_clock import LogClock
from copycat.replica.members import MemberTable
from copycat.replica.options import ReplicaOptions
from copycat.types import MemberId, ServerState

__all__ = ["ELECTIONS", "LeaderSearch"]

NEVER_MS = 1 << 62
ELECTIONS = 10
"""A member asks when it has heard no leader for so many election timeouts, and so often."""


class LeaderSearch:
    """Called in turns. Who knows of founders only asks when somebody else knows of more."""

    def __init__(
        self,
        raft: Raft,
        host: Host,
        clock: LogClock,
        members: MemberTable,
        requests: LocalRequests,
        options: ReplicaOptions,
    ) -> None:
        self._raft = raft
        self._host = host
        self._clock = clock
        self._members = members
        self._requests = requests
        self._interval_ms = ELECTIONS * options.raft.election_timeout_ms
        self._asked_ms = clock.now_ms
        self._asked = 0
        """How often somebody was asked."""
        self._token = 0
        """Of the last request, which may never be answered."""

    @property
    def due_ms(self) -> int:
        """When `advance` has something to do."""
        raft, clock, members = self._raft, self._clock, self._members
        are_founders = members.committed.entry == BOOTSTRAP and not members.is_behind
        if raft.state is ServerState.LEADER or are_founders:
            return NEVER_MS
        # Who has no vote never forgets a leader, so what counts is when it was heard.
        silent_ms = clock.now_ms + raft.leader_active_until_ms - raft.now_ms
        return max(self._asked_ms, silent_ms) + self._interval_ms

    def advance(self, now_ms: int, meet: Callable[[MemberId, str], None]) -> None:
        """Ask the next member who leads; `meet` is called in a turn with leader and address."""
        self._asked_ms = now_ms
        linked = sorted(self._members.links & self._members.keys())
        if not linked:
            return
        self._requests.cancel(self._token)
        self._token = self._requests.add(partial(self._answered, meet))
        peer = linked[self._asked % len(linked)]
        self._asked += 1
        frame = split_frame(encode_client(ViewRequest(0)))
        self._host.send(peer, encode_forward(self._token, frame), None)

    def _answered(self, meet: Callable[[MemberId, str], None], message: ServerMessage) -> None:
        if self._raft.hears_leader or not isinstance(message, ClusterView):
            return
        for one in message.members:
            if one.member == message.leader:
                meet(one.member, one.address)
