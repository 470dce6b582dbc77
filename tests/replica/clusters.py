"""Clusters whose members may change: real directories over disks in memory, and real handshakes.

Members are dialled because a replica asks for it, and accepted because their Hello is good.
"""

from __future__ import annotations

import itertools
from typing import Any

from copycat.config import RaftOptions, member_id
from copycat.errors import ProtocolError, StorageError, WrongDirectoryError
from copycat.machine.kv import KeyValueStore
from copycat.machine.session_executor import SessionExecutor
from copycat.member.configuration_file import NOTHING_STORED, StoredConfigurations
from copycat.member.directory import MemberDirectory
from copycat.member.markers import DELETED_LOG_FILE
from copycat.protocol.client import (
    ChangeRefused,
    ChangeRequest,
    ClusterView,
    Register,
    ServerMessage,
)
from copycat.protocol.framing import split_frame
from copycat.protocol.member_record import ConfigurationRecord
from copycat.raft.configuration import Configuration
from copycat.replica.members import PeerRefused
from copycat.replica.options import MemberStores, ReplicaOptions
from copycat.replica.replica import Replica
from copycat.storage import FaultEnv
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import (
    ChangeKind,
    Durability,
    EntryId,
    MemberId,
    MemberType,
    ServerState,
    StorageLevel,
)
from tests.replica.harness import CLUSTER, FakeHost, Node

__all__ = ["Cluster", "Member"]

PATH = "/member"


class Member(Node):
    """One member, its processes one after the other, on one disk."""

    def __init__(
        self,
        address: str,
        founders: tuple[str, ...],
        *,
        member: MemberId | None = None,
        first: StoredConfigurations = NOTHING_STORED,
        level: StorageLevel = StorageLevel.DISK,
        durability: Durability = Durability.FSYNC,
        salt: int = 0,
        env: FaultEnv | None = None,
        starts: bool = False,
    ) -> None:
        self.address = self.first_address = address
        self.founders = founders
        self.member = member_id(CLUSTER, address) if member is None else member
        self.env = FaultEnv(5) if env is None else env
        self._first = first
        self.level = level
        self._durability = durability
        self._incarnation = (int.from_bytes(address.encode(), "big") << 20) + salt
        self._random_bits = itertools.count(salt + 1)
        self._start_source = self._draw if starts else None
        self._has_raised = True  # a member may stop: the test looks at `stopped`
        self.now_ms, self.wall_ms = 1000, 1_700_000_000_000
        self.start()

    def _draw(self) -> int:
        return next(self._random_bits)

    def start(self) -> None:
        """A new process on what the disk holds."""
        self.directory = directory = MemberDirectory.open(
            self.env,
            PATH,
            cluster_name=CLUSTER,
            address=self.first_address,
            members=self.founders,
            member=self.member,
            incarnation_source=lambda: self._incarnation,
            max_segment_size=16384,
            max_entries_per_segment=8,
            level=self.level,
            durability=self._durability,
            first=self._first,
            start_source=self._start_source,
            snapshots=lambda: SnapshotStore(self.env, f"{PATH}/snapshots"),
        )
        self.host = FakeHost()
        self.machine = KeyValueStore()
        self.executor = SessionExecutor(self.machine)
        stores = MemberStores(
            incarnation=directory.identity.incarnation,
            log=directory.log,
            hard_state=directory.hard_state,
            fresh=directory.fresh and len(self.founders) > 1,
            lost=directory.lost,
            lost_entries=directory.lost_entries,
            regressed=directory.regressed,
            snapshots=directory.snapshots,
            time_file=directory.time_file,
            configuration_file=directory.configuration_file,
            configurations=directory.configurations,
            cluster_incarnation=directory.identity.cluster_incarnation,
            starts=directory.identity.starts,
            record_cluster=directory.record_cluster,
        )
        options = ReplicaOptions(
            cluster_name=CLUSTER,
            address=self.address,
            members=self.founders,
            member=self.member,
            raft=RaftOptions(),
            durability=self._durability,
            snapshot_threshold=0,
        )
        self.replica = Replica(
            options,
            stores,
            self.executor,
            self.host,
            seed=11,
            now_ms=self.now_ms,
            wall_ms=self.wall_ms,
        )
        self.host.replica = self.replica
        self.replica.connect_peers()

    def finish_syncs(self) -> None:
        try:
            super().finish_syncs()
        except StorageError as error:
            self.replica.failed(error)

    def crash(self, seed: int = 1) -> None:
        """The power fails, and a new process starts."""
        self.env.crash(seed)
        self.env.stop_after(1 << 62)
        self.start()

    def stop(self) -> None:
        """A clean stop."""
        self.host.syncs.clear()
        self.directory.close(lost=self.replica.raft.eligibility.lacks_acknowledged)

    @property
    def configuration(self) -> Configuration:
        return self.replica.raft.configuration

    @property
    def stored(self) -> StoredConfigurations:
        """What its file says now."""
        return self.directory.configuration_file.read()

    @property
    def was_wiped(self) -> bool:
        """Whether a leader once had its log deleted."""
        return self.env.exists(f"{PATH}/{DELETED_LOG_FILE}")

    @property
    def types(self) -> dict[str, str]:
        """Address to type, by the newest configuration that it knows."""
        return {each.address: each.type.value for each in self.configuration.members}


class Cluster:
    """Members and the links between them; all frames arrive, unless a member is away."""

    def __init__(self, count: int = 3, **options: Any) -> None:
        founders = tuple(f"127.0.0.1:{n}" for n in range(1, count + 1))
        self.options = options
        self.members: list[Member] = [Member(each, founders, **options) for each in founders]
        self.away: set[MemberId] = set()
        self.blocked: set[tuple[MemberId, MemberId]] = set()
        """From whom to whom nothing arrives, dials too; nobody notices it by a link that is up."""
        self.closes_arrive = True
        """Whether a member notices that the other end closed its link."""
        self._clients = 0
        self.refusals: list[str] = []
        """What members said to diallers that they refused."""

    def by_id(self, member: MemberId) -> Member:
        return next(each for each in self.members if each.member == member)

    @property
    def up(self) -> list[Member]:
        return [
            each
            for each in self.members
            if each.member not in self.away and each.replica.stopped is None
        ]

    def newcomer(self, address: str) -> Member:
        """A member to be, which knows what the leader knows."""
        leader = self.leader
        known = leader.replica.members.committed
        record = ConfigurationRecord(
            known.entry, leader.replica.members.cluster_incarnation, known.members
        )
        number = MemberId(int.from_bytes(address.encode(), "big"))
        member = Member(
            address, (), member=number, first=StoredConfigurations((record,)), **self.options
        )
        member.now_ms = leader.now_ms
        self.members.append(member)
        return member

    # ---- time and frames -------------------------------------------------------------------

    def _dial(self) -> None:
        for one in self.up:
            for peer, address in list(one.host.dialled.items()):
                if peer in one.host.links:
                    continue
                target = next((each for each in self.up if each.address == address), None)
                if target is not None:
                    self._connect(one, peer, target)

    def _close_inbound(self) -> None:
        """Members whose links were closed by the other end notice it."""
        for one in self.up:
            closed, one.host.closed_inbound = one.host.closed_inbound, []
            for peer in closed:
                source = next((each for each in self.up if each.member == peer), None)
                is_linked = source is not None and one.member in source.host.links
                if source is not None and is_linked and self.closes_arrive:
                    source.host.links.discard(one.member)
                    source.replica.peer_down(one.member)

    def _connect(self, one: Member, peer: MemberId, target: Member) -> None:
        if (one.member, target.member) in self.blocked:
            return
        try:
            _, answer = target.replica.accept_peer(split_frame(one.replica.hello()))
        except PeerRefused as refused:
            self.refusals.append(refused.message)
            one.replica.outage.link_failed(peer, refused.message)
            return
        try:
            event = one.replica.check_hello(peer, split_frame(answer))
        except (ProtocolError, WrongDirectoryError) as error:
            one.replica.outage.link_failed(peer, error.message)
            return
        one.host.links.add(peer)
        one.replica.peer_up(event)

    def _deliver(self) -> None:
        for one in self.up:
            sent, one.host.sent = one.host.sent, []
            for peer, frame in sent:
                target = next((each for each in self.up if each.member == peer), None)
                is_lost = peer not in one.host.links or (one.member, peer) in self.blocked
                if target is not None and not is_lost:
                    target.replica.receive_peer(one.member, frame)

    def run(self, rounds: int = 10, elapsed_ms: int = 50) -> None:
        """So many rounds: time, all frames, and all work that is under way."""
        for _ in range(rounds):
            self._close_inbound()
            self._dial()
            for each in self.up:
                each.turn(elapsed_ms)
            for _ in range(4):
                self._deliver()
                for each in self.up:
                    each.stabilize(rounds=1)
            for each in self.members:
                if "restart" in each.host.calls:
                    self._restart_as_asked(each)

    def _restart_as_asked(self, member: Member) -> None:
        member.host.calls.remove("restart")
        try:
            self.restart(member)
        except StorageError:
            self.away.add(member.member)  # the power went

    def restart(self, member: Member, *, cleanly: bool = True) -> None:
        """A new process of this member; the others notice."""
        if cleanly:
            member.stop()
        else:
            member.env.crash(3)
            member.env.stop_after(1 << 62)
        self._drop_links(member)
        member.start()

    def move(self, member: Member, address: str) -> None:
        """A new process of this member, which listens at another address."""
        member.address = address
        self.restart(member)

    def seed(self, member: Member, address: str) -> None:
        """The arguments of this member name one more address to dial, as `SeedLink` does."""
        target = next(each for each in self.up if each.address == address)
        _, answer = target.replica.accept_peer(split_frame(member.replica.hello()))
        member.replica.accept_peer(split_frame(answer))

    def _drop_links(self, member: Member) -> None:
        for other in self.members:
            if other is not member and member.member in other.host.links:
                other.host.links.discard(member.member)
                other.replica.peer_down(member.member)

    def cut(self, member: Member) -> None:
        """Nothing is sent to or from this member any more."""
        self.away.add(member.member)
        self._drop_links(member)
        for peer in list(member.host.links):
            member.host.links.discard(peer)
            member.replica.peer_down(peer)

    def mend(self, member: Member) -> None:
        self.away.discard(member.member)

    @property
    def leader(self) -> Member:
        leaders = [each for each in self.up if each.replica.raft.state is ServerState.LEADER]
        assert leaders, "nobody leads"
        return max(leaders, key=lambda each: each.replica.raft.current_term)

    def elect(self) -> Member:
        """Until somebody leads."""
        for _ in range(100):
            self.run(2, 100)
            if any(each.replica.raft.state is ServerState.LEADER for each in self.up):
                self.run(6, 100)
                return self.leader
        raise AssertionError("no leader")

    def append(self, count: int) -> None:
        """So many entries more in the log: sessions."""
        for _ in range(count):
            self._clients += 1
            self.leader.client(Register(1, f"client-{self._clients}", 600_000), self._clients)
            self.run(1)

    # ---- changes -----------------------------------------------------------------------------

    def ask(
        self, kind: ChangeKind, member: Member, to: MemberType, base: EntryId | None = None
    ) -> list[ServerMessage]:
        """Ask the leader for a change; the answer comes into the list."""
        leader = self.leader
        answers: list[ServerMessage] = []
        base = leader.replica.members.committed.entry if base is None else base
        address = member.address if kind is ChangeKind.ADD else ""
        request = ChangeRequest(1, kind, member.member, to, base, address)
        leader.replica.request(request, answers.append)
        return answers

    def change(self, kind: ChangeKind, member: Member, to: MemberType) -> Configuration:
        """The same, and run until it is done."""
        answers = self.ask(kind, member, to)
        for _ in range(100):
            self.run(1)
            if answers:
                break
        assert answers, "the change was not answered"
        assert not isinstance(answers[0], ChangeRefused), answers[0]
        assert isinstance(answers[0], ClusterView)
        self.run(20)
        return self.leader.replica.members.committed

    def add(self, address: str, to: MemberType = MemberType.PASSIVE) -> Member:
        """A new member of this type."""
        member = self.newcomer(address)
        self.change(ChangeKind.ADD, member, to)
        return member
