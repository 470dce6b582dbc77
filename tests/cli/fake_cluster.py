"""A cluster in memory that answers what `copycat cluster` asks, by the rules for changes."""

from __future__ import annotations

import asyncio
from itertools import count

import msgspec

from copycat.errors import NoLeaderError
from copycat.protocol.change_errors import view_or_error
from copycat.protocol.client import (
    ChangeRefused,
    ChangeRequest,
    ClusterRequest,
    ClusterView,
    MemberView,
    TransferRequest,
    ViewRequest,
)
from copycat.types import (
    ChangeKind,
    ChangeRefusal,
    EntryId,
    MemberId,
    MemberType,
    ServerState,
)

__all__ = ["FakeCluster"]

STATES = {
    MemberType.ACTIVE: ServerState.FOLLOWER,
    MemberType.PASSIVE: ServerState.PASSIVE,
    MemberType.RESERVE: ServerState.RESERVE,
    MemberType.INACTIVE: ServerState.INACTIVE,
}


class FakeCluster:
    """Implements `copycat.cli.cluster.app.ClusterAsker`. The first member leads at first."""

    def __init__(self, **types: str) -> None:
        """types: host name -> type; each listens on port 1."""
        self.members = {
            f"{host}:1": MemberView(MemberId(number), MemberType(type), f"{host}:1")
            for number, (host, type) in enumerate(types.items(), 1)
        }
        self.waiting: dict[str, MemberId] = {}
        """Servers that wait to be added, by address."""
        self.down: set[str] = set()
        self.obstacles: dict[str, str] = {}
        """By address: why that member does not help to elect a leader."""
        self.cut_off: set[str] = set()
        """Members that run, and have no link to any other."""
        self.used_ids = {one.member for one in self.members.values()}
        self.leader = next(iter(self.members), "")
        self.term = 3
        self.entry = EntryId(0, 0)
        self.index = 40
        self.asked: list[ClusterRequest] = []
        self.busy = 0
        """So many changes are refused since another one is not committed yet."""
        self.catch_up_s = 0.0
        """So long a promotion takes; a member comes half the way meanwhile."""
        self._numbers = count(41)

    # --- ClusterAsker ---------------------------------------------------------------------------

    async def ask(self, message: ClusterRequest) -> ClusterView:
        self.asked.append(message)
        if isinstance(message, ViewRequest):
            return self.view(self.leader or next(iter(self.members)))
        if not self.leader:
            raise NoLeaderError("no leader has been known for 1.0 s")
        if isinstance(message, TransferRequest):
            return self._transfer(message)
        if message.kind is ChangeKind.PROMOTE and self.catch_up_s:
            await asyncio.sleep(self.catch_up_s)
        refusal = self._change(message)
        if refusal is None:
            return self.view(self.leader)
        error = view_or_error(
            ChangeRefused(
                0,
                refusal,
                self.entry,
                self.leader,
                f"refused: {refusal.name}",
                (),
                tuple(self.members.values()),
            )
        )
        assert isinstance(error, Exception)
        raise error

    async def look(self) -> ClusterView:
        return self.view(self.leader)

    async def ask_at(self, address: str) -> ClusterView:
        if address in self.down or address not in {*self.members, *self.waiting}:
            raise ConnectionError("connection refused")
        return self.view(address)

    def close(self) -> None:
        pass

    # --- the cluster ----------------------------------------------------------------------------

    def view(self, address: str) -> ClusterView:
        """The cluster, and the member at this address."""
        one = self.members.get(address)
        state = STATES[MemberType.INACTIVE if one is None else one.type]
        if address == self.leader:
            state = ServerState.LEADER
        leader = self.members.get(self.leader)
        return ClusterView(
            request=0,
            member=self.waiting[address] if one is None else one.member,
            state=state,
            term=self.term,
            leader=MemberId(0) if leader is None else leader.member,
            entry=self.entry,
            first_index=1,
            last_index=self.index,
            commit_index=self.index,
            last_applied=self.index,
            applied_time_ms=1_000,
            sessions=0,
            storage_full=False,
            incarnation=7,
            cluster="orders",
            version="0.1.0",
            durability="fsync",
            obstacles=self.obstacles.get(address, ""),
            members=tuple(
                msgspec.structs.replace(
                    each,
                    match_index=self.index // 2,
                    is_reachable=each.address not in self.cut_off,
                )
                for each in self.members.values()
            ),
        )

    def _transfer(self, message: TransferRequest) -> ClusterView:
        voters = [one for one in self.members.values() if one.type is MemberType.ACTIVE]
        others = [one for one in voters if one.address not in {self.leader, *self.down}]
        chosen = [one for one in others if message.to in (0, one.member)]
        if not chosen:
            raise TimeoutError("no follower to hand leadership to")
        self.leader, self.term = chosen[0].address, self.term + 1
        return self.view(self.leader)

    def _change(self, message: ChangeRequest) -> ChangeRefusal | None:
        if self.busy:
            self.busy -= 1
            return ChangeRefusal.IN_FLIGHT
        known = [one for one in self.members.values() if one.member == message.member]
        is_now = known[0].type if known else MemberType.INACTIVE
        if is_now is message.type:
            return None  # the goal holds
        if message.base != self.entry:
            return ChangeRefusal.STALE_BASE
        if message.kind is ChangeKind.ADD:
            return self._add(message)
        if not known:
            return ChangeRefusal.UNKNOWN_MEMBER
        return self._alter(message, known[0])

    def _add(self, message: ChangeRequest) -> ChangeRefusal | None:
        if message.member in self.used_ids:
            return ChangeRefusal.MEMBER_ID_REUSED
        if self.waiting.get(message.address) != message.member:
            return ChangeRefusal.NOT_CONNECTED
        del self.waiting[message.address]
        self.used_ids.add(message.member)
        self._commit(MemberView(message.member, message.type, message.address))
        return None

    def _alter(self, message: ChangeRequest, member: MemberView) -> ChangeRefusal | None:
        is_voter = member.type is MemberType.ACTIVE
        voters = [one for one in self.members.values() if one.type is MemberType.ACTIVE]
        if is_voter and len(voters) == 1:
            return ChangeRefusal.LAST_VOTER
        if is_voter and member.address == self.leader:
            return ChangeRefusal.LEADER_ITSELF
        if message.kind is ChangeKind.PROMOTE and member.address in self.down:
            return ChangeRefusal.NOT_CONNECTED
        if message.kind is ChangeKind.REMOVE:
            del self.members[member.address]
            self.entry = EntryId(self.term, next(self._numbers))
        else:
            self._commit(msgspec.structs.replace(member, type=message.type))
        return None

    def _commit(self, member: MemberView) -> None:
        self.index = next(self._numbers)
        self.entry = EntryId(self.term, self.index)
        self.members[member.address] = member
