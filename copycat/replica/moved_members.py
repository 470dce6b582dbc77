"""Members that listen at another address than their records say (C44).

An address says where to dial, and not who is there: a link counts for the id that Hello says. A
member that says Hello with another address is dialled there once it does not answer at the old
one. The leader then writes the new address into the configuration, as an entry of its own, and
its own address too when it has moved itself. Until that is committed, each member knows what it
was told with the Hello, and no change of the members waits for it.
"""

from __future__ import annotations

import logging

from copycat.protocol.peer import Hello
from copycat.raft.configuration import BOOTSTRAP
from copycat.raft.core import Raft
from copycat.replica.cluster_requests import ClusterRequests
from copycat.replica.host import Host
from copycat.replica.log_clock import LogClock
from copycat.replica.members import MemberTable
from copycat.replica.options import ReplicaOptions
from copycat.types import MemberId

__all__ = ["MovedMembers"]

_LOG = logging.getLogger("copycat.replica")

MOVE_ELECTIONS = 14
"""Without a link for so many election timeouts, ten seconds with the default of 750 ms, a member
is dialled at the other address that its Hello said: several times as long as a restart takes. Who
says that Hello may have a copy of the directory of a member that is being restarted."""
DIAL_ELECTIONS = 4
"""Then it is dialled at both addresses in turn, at each for so many election timeouts."""


class MovedMembers:
    """Called in turns."""

    def __init__(
        self,
        options: ReplicaOptions,
        raft: Raft,
        host: Host,
        clock: LogClock,
        members: MemberTable,
        requests: ClusterRequests,
    ) -> None:
        self._raft = raft
        self._host = host
        self._clock = clock
        self._members = members
        self._requests = requests
        self._interval_ms = options.raft.election_timeout_ms
        self._looked_ms = clock.now_ms
        self._redial_ms: dict[MemberId, int] = {}
        """When a member that has no link is dialled at its other address."""

    def greeted(self, hello: Hello) -> None:
        """A member said Hello with another address than before."""
        members, member = self._members, hello.member
        if member not in members:
            return
        members.greeted_addresses[member] = hello.address
        self._redial_ms[member] = self._clock.now_ms + MOVE_ELECTIONS * self._interval_ms
        _LOG.info(
            "%s: the member at %s says that it listens at %s",
            members.own_address,
            members.address(member),
            hello.address,
        )

    def advance(self, now_ms: int) -> None:
        """Once an election timeout: dial whoever does not answer at its other address, and have
        the leader write where each member listens."""
        if now_ms < self._looked_ms + self._interval_ms:
            return
        self._looked_ms = now_ms
        members = self._members
        for member, address in sorted(members.greeted_addresses.items()):
            committed = members.committed.record(member)
            if committed is not None and committed.address == members.address(member) == address:
                del members.greeted_addresses[member]
                self._redial_ms.pop(member, None)
            elif member not in members.links:
                self._dial(member, now_ms)
            else:
                self._redial_ms[member] = now_ms + MOVE_ELECTIONS * self._interval_ms
                if members.dialled_address(member) == address != members.address(member):
                    self._write(member, address)
        if members.has_moved:
            self._write(members.member, members.own_address)
        if self._raft.leader_state is not None and members.committed.entry != BOOTSTRAP:
            self._write_starts()

    def _write_starts(self) -> None:
        """C42: each start is written down once, when its member has a link, and so is another
        failure domain or weight. A cluster that has only its founders has no configuration that
        could hold them."""
        members = self._members
        for record in members.configuration.members:
            member = record.member
            is_linked = member == members.member or member in members.links
            is_older = record.start.number < members.newest_start(member).number
            if is_linked and (is_older or record.place != members.place(member)):
                self._write(member, record.address)
                return

    def _dial(self, member: MemberId, now_ms: int) -> None:
        members = self._members
        greeted, recorded = members.greeted_address(member), members.address(member)
        if now_ms < self._redial_ms.get(member, 0) or not recorded:
            return
        self._redial_ms[member] = now_ms + DIAL_ELECTIONS * self._interval_ms
        if members.dialled_address(member) == greeted:
            members.moved.pop(member, None)
        else:
            members.moved[member] = greeted
        self._host.connect(member, members.dialled_address(member))

    def _write(self, member: MemberId, address: str) -> None:
        """One change at a time: a refused one is asked for again at the next look."""
        raft = self._raft
        leader_state = raft.leader_state
        if (
            leader_state is not None
            and raft.commit_index >= leader_state.noop_index
            and raft.configuration.entry == raft.committed_configuration.entry
            and raft.configuration.record(member) is not None
        ):
            self._requests.move(member, address)
