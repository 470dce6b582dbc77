"""Replicas under a fake host: every answer of the world waits until the test gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from copycat.config import RaftOptions, member_id
from copycat.machine.kv import KeyValueStore
from copycat.machine.machine import StateMachine
from copycat.machine.session_executor import SessionExecutor
from copycat.member.ballast_file import BallastFile
from copycat.member.markers import LostEntries
from copycat.member.time_note import TimeFile
from copycat.protocol.client import ClientMessage, Registered, ServerMessage
from copycat.protocol.codec_client import decode_server, encode_client, encode_commands
from copycat.protocol.framing import Frame, split_frame
from copycat.protocol.operations import encode_operation
from copycat.protocol.wire import FrameType
from copycat.raft.events import Reachable
from copycat.replica.host import REPLY_ROOM, Body, Lane
from copycat.replica.options import MemberStores, NewLossRecord
from copycat.replica.replica import Replica, ReplicaOptions
from copycat.storage.interface import ReplicaLog, SaveTicket, SyncTicket
from copycat.storage.memory import MemoryLog
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import Durability, MemberId, ServerState

CLUSTER = "test"
CLIENT = 7


class MemoryHardState:
    """Term and vote in memory; durable when the ticket ran."""

    def __init__(self) -> None:
        self.current_term = 0
        self.voted_for = MemberId(0)
        self.saved: list[tuple[int, int]] = []

    def begin_save(self, term: int, voted_for: MemberId) -> Any:
        class Ticket:
            value = (term, voted_for)

            def run(self) -> None:
                pass

        return Ticket()

    def end_save(self, ticket: Any) -> None:
        self.current_term, self.voted_for = ticket.value
        self.saved.append(ticket.value)


Job = tuple[Callable[[], Any], Callable[[Any], None]]
"""Work for a thread, and who is told of its result."""


class FakeHost:
    """Collects what a replica asks for, in order, in `calls`."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.sent: list[tuple[MemberId, Frame]] = []
        self.replies: list[tuple[int, ServerMessage]] = []
        self.syncs: list[SyncTicket] = []
        self.saves: list[SaveTicket] = []
        self.jobs: dict[Lane, list[Job]] = {lane: [] for lane in Lane}
        self.slow: set[Lane] = {Lane.APPLY}
        """Lanes whose work waits until the test lets it go; that of others until the next turn."""
        self.dialled: dict[MemberId, str] = {}
        """The addresses of the peers that the replica wants links to."""
        self.links: set[MemberId] = set()
        self.closed_inbound: list[MemberId] = []
        """Peers whose own connection to this one was closed; `Cluster` tells them."""
        self.unsent: dict[int, int] = {}
        """Bytes that wait for each slow peer or connection; the test takes them out."""
        self.inline = False
        self.stopped: BaseException | None = None
        self.replica: Replica | None = None

    def wake(self) -> None:
        pass

    def send(self, peer: MemberId, header: bytes, body: Body | None) -> bool:
        if peer not in self.links:
            return False
        data = header + (bytes(memoryview(body)) if body is not None else b"")
        frame = split_frame(data)
        self.calls.append(f"send {FrameType(frame.type).name}")
        if peer in self.unsent:
            self.unsent[peer] += len(data)
        self.sent.append((peer, frame))
        return True

    def connect(self, peer: MemberId, address: str) -> None:
        self.dialled[peer] = address

    def disconnect_peer(self, peer: MemberId) -> None:
        del self.dialled[peer]
        self.links.discard(peer)

    def close_inbound(self, peer: MemberId) -> None:
        self.closed_inbound.append(peer)

    def reply(self, connection: int, frame: bytes) -> None:
        message = decode_server(split_frame(frame))
        if connection in self.unsent:
            self.unsent[connection] += len(frame)
        self.calls.append(f"reply {type(message).__name__}")
        self.replies.append((connection, message))

    def has_room(self, peer: MemberId, connection: int, unsent_max: int = REPLY_ROOM) -> bool:
        return self.unsent.get(peer or connection, 0) < unsent_max

    def disconnect(self, connection: int, reason: str) -> None:
        self.calls.append("disconnect")

    def write_queued(self) -> None:
        self.calls.append("write_queued")

    def sync(self, ticket: SyncTicket) -> None:
        self.calls.append("sync")
        if self.inline:
            ticket.run()
            assert self.replica is not None
            self.replica.synced(ticket)
        else:
            self.syncs.append(ticket)

    def save(self, ticket: SaveTicket) -> None:
        self.calls.append("save")
        self.saves.append(ticket)

    def run(self, lane: Lane, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.jobs[lane].append((work, done))

    def finish(self, lane: Lane) -> None:
        """What waits in this lane is done, and the replica hears of it; outside of a turn."""
        assert self.replica is not None
        jobs, self.jobs[lane] = self.jobs[lane], []
        for work, done in jobs:
            try:
                result = work()
            except Exception as cause:  # noqa: BLE001
                self.replica.failed(cause)
                return
            done(result)

    @property
    def work(self) -> list[Job]:
        """What waits for the apply thread."""
        return self.jobs[Lane.APPLY]

    def stop(self, reason: BaseException) -> None:
        self.stopped = reason

    def restart(self) -> None:
        self.calls.append("restart")


class Node:
    """A replica, its host, and shorthand for what tests do with them."""

    def __init__(
        self,
        address: str,
        members: tuple[str, ...],
        *,
        inline: bool = False,
        log: ReplicaLog | None = None,
        machine: StateMachine | None = None,
        durability: Durability = Durability.FSYNC,
        executor: SessionExecutor | None = None,
        snapshots: SnapshotStore | None = None,
        snapshot_threshold: int = 0,
        fresh: bool | None = None,
        hard_state: MemoryHardState | None = None,
        ballast: BallastFile | None = None,
        lost_entries: LostEntries | None = None,
        regressed: NewLossRecord | None = None,
        time_file: TimeFile | None = None,
        now_ms: int = 1000,
        wall_ms: int = 1_700_000_000_000,
    ) -> None:
        self.address = address
        self.host = FakeHost()
        self.host.inline = inline
        self.log = MemoryLog()
        self.hard_state = hard_state or MemoryHardState()
        self.machine = KeyValueStore()
        self.executor = executor or SessionExecutor(self.machine if machine is None else machine)
        self._has_raised = False
        self.now_ms, self.wall_ms = now_ms, wall_ms  # its wall clock shows both, added
        options = ReplicaOptions(
            cluster_name=CLUSTER,
            address=address,
            members=members,
            raft=RaftOptions(),
            durability=durability,
            snapshot_threshold=snapshot_threshold,
        )
        self.replica = Replica(
            options,
            MemberStores(
                incarnation=int.from_bytes(address.encode(), "big"),
                log=self.log if log is None else log,
                hard_state=self.hard_state,
                fresh=len(members) > 1 if fresh is None else fresh,
                lost_entries=lost_entries,
                regressed=regressed,
                snapshots=snapshots,
                ballast=ballast,
                time_file=time_file,
            ),
            self.executor,
            self.host,
            seed=11,
            now_ms=self.now_ms,
            wall_ms=self.wall_ms,
        )
        self.replica.connect_peers()
        self.host.replica = self.replica
        self.member = self.replica.member

    def turn(self, elapsed_ms: int = 0) -> None:
        self.now_ms += elapsed_ms
        for lane in Lane:
            if lane not in self.host.slow:
                self.host.finish(lane)
        self.replica.turn(self.now_ms, self.wall_ms + self.now_ms)
        if self.host.stopped is not None and not self._has_raised:
            self._has_raised = True  # the test hears of it once
            raise self.host.stopped

    def finish_syncs(self) -> None:
        for ticket in [*self.host.syncs]:
            ticket.run()
            self.replica.synced(ticket)
        self.host.syncs.clear()

    def finish_saves(self) -> None:
        for ticket in [*self.host.saves]:
            ticket.run()
            self.replica.saved(ticket)
        self.host.saves.clear()

    def finish_work(self) -> None:
        self.host.finish(Lane.APPLY)

    def stabilize(self, rounds: int = 8) -> None:
        """Everything that is under way comes back, and what follows from it too."""
        for _ in range(rounds):
            self.finish_saves()
            self.finish_syncs()
            self.finish_work()
            self.turn()

    def client(self, message: ClientMessage, connection: int = CLIENT) -> None:
        self.replica.receive_client(connection, split_frame(encode_client(message)))

    def last_reply(self) -> ServerMessage:
        return self.host.replies[-1][1]


def lone_leader(
    *,
    inline: bool = False,
    log: ReplicaLog | None = None,
    machine: StateMachine | None = None,
    ballast: BallastFile | None = None,
    durability: Durability = Durability.FSYNC,
) -> Node:
    """A cluster of one that leads and admits sessions; `log` instead of one in memory."""
    node = Node(
        "127.0.0.1:1",
        ("127.0.0.1:1",),
        inline=inline,
        log=log,
        machine=machine,
        ballast=ballast,
        durability=durability,
    )
    for _ in range(40):
        node.turn(100)
        node.stabilize()
    assert node.replica.raft.state is ServerState.LEADER
    return node


def open_session(node: Node, connection: int = CLIENT) -> int:
    """Register a session and return its id."""
    from copycat.protocol.client import Register

    node.client(Register(1, f"client-{connection}", 5000), connection)
    node.turn()
    node.stabilize()
    reply = node.last_reply()
    assert isinstance(reply, Registered), reply
    return reply.session


class Network:
    """Three replicas whose frames are delivered when the test says so."""

    def __init__(
        self, count: int = 3, make: Callable[[str, tuple[str, ...]], Node] = Node
    ) -> None:
        addresses = tuple(f"127.0.0.1:{n}" for n in range(1, count + 1))
        self.nodes = {
            member_id(CLUSTER, address): make(address, addresses) for address in addresses
        }
        for member, node in self.nodes.items():
            for peer in self.nodes:
                if peer != member:
                    node.host.links.add(peer)
                    node.replica.peer_up(Reachable(peer, fresh=True))

    def deliver(self) -> int:
        """Hand every frame that waits to its member; how many there were."""
        count = 0
        for member, node in self.nodes.items():
            sent, node.host.sent = node.host.sent, []
            for peer, frame in sent:
                if member in self.nodes[peer].host.links:
                    self.nodes[peer].replica.receive_peer(member, frame)
                    count += 1
        return count

    def stabilize(self, elapsed_ms: int = 0, rounds: int = 12) -> None:
        for node in self.nodes.values():
            node.turn(elapsed_ms)
        for _ in range(rounds):
            self.deliver()
            for node in self.nodes.values():
                node.stabilize(rounds=2)

    def elect(self) -> Node:
        for _ in range(60):
            self.stabilize(100)
            for node in self.nodes.values():
                if node.replica.raft.state is ServerState.LEADER:
                    self.stabilize(300)
                    return node
        raise AssertionError("no leader")

    def mend(self, member: MemberId) -> None:
        """Everything goes to and from this member again."""
        for other in self.nodes:
            if other != member:
                for one, two in ((other, member), (member, other)):
                    self.nodes[one].host.links.add(two)
                    fresh = self.nodes[two].replica.status().last_index == 0
                    self.nodes[one].replica.peer_up(Reachable(two, fresh=fresh))

    def cut(self, member: MemberId) -> None:
        """Nothing goes to or from this member any more."""
        for other, node in self.nodes.items():
            if other != member and other in self.nodes[member].host.links:
                node.host.links.discard(member)
                node.replica.peer_down(member)
                self.nodes[member].host.links.discard(other)
                self.nodes[member].replica.peer_down(other)


def commands(session: int, first: int, *operations: Any, acked: int = 0) -> Frame:
    """A Commands frame as a client would send it."""
    encoded = [encode_operation(operation) for operation in operations]
    return split_frame(encode_commands(session, first, acked, encoded))
