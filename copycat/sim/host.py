"""One simulated member: implements `copycat.replica.host.Host` over the virtual world.

A turn, a sync, a save and a slice of the machine are events of the world with drawn latencies.
After a crash only the disk is left; a pause holds events back while the clock continues. The
tested driver is the shipped `Replica`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from copycat.errors import ConfigurationError, CopycatError, DiskError, DiskFullError
from copycat.machine.apply_result import ApplyResult
from copycat.machine.session_executor import SessionExecutor
from copycat.member.configuration_file import NOTHING_STORED, StoredConfigurations
from copycat.protocol.codec_feeding import (
    decode_fed_entries,
    decode_fed_snapshot,
    decode_feed_answer,
    decode_feed_request,
)
from copycat.protocol.codec_peer import decode_append, decode_install, decode_peer
from copycat.protocol.feeding import FedSnapshot, FeedingMessage
from copycat.protocol.framing import Frame, split_frame
from copycat.protocol.peer import InstallSnapshot, PeerMessage
from copycat.protocol.wire import FrameType
from copycat.raft.configuration import Configuration
from copycat.replica.feeding import FEEDING_TYPES
from copycat.replica.host import REPLY_ROOM, Body, Lane
from copycat.replica.options import MemberStores
from copycat.replica.replica import Replica, ReplicaOptions
from copycat.seeded_random import SimRandom
from copycat.sim.checkers.disk_model import DiskModel
from copycat.sim.checkers.log_history import violated
from copycat.sim.disk import CLUSTER, SimDisk
from copycat.sim.instrumented import InstrumentedExecutor
from copycat.sim.links import Links
from copycat.sim.network import Network
from copycat.sim.workers import Workers
from copycat.sim.world import SimClock, Trace, World
from copycat.storage.interface import SaveTicket, SyncTicket
from copycat.types import MemberId, MemberStatus, ServerState

__all__ = ["Connection", "Observer", "ProcessHost", "SimHost"]


class Connection:
    """A client's connection to one member; `close` tells the client of its end."""

    __slots__ = ("close", "deliver", "number", "opened_by", "place")

    def __init__(
        self,
        number: int,
        place: int,
        deliver: Callable[[Connection, bytes], None],
        close: Callable[[Connection], None],
    ) -> None:
        self.number = number
        self.place = place
        self.deliver = deliver
        self.close = close
        self.opened_by = 0
        """The number of the process that accepted it; 0 until its first frame arrived."""


class Observer(Protocol):
    """What the host tells the checkers."""

    def started(self, host: SimHost) -> None: ...
    def touched(self, host: SimHost) -> None: ...
    def sent(self, host: SimHost, to: int, message: PeerMessage) -> None: ...
    def received(self, host: SimHost, message: PeerMessage) -> None: ...
    def fed(self, host: SimHost, message: FeedingMessage) -> None: ...
    def applied(self, host: SimHost, outcome: ApplyResult) -> None: ...
    def snapshot(self, host: SimHost, executor: SessionExecutor, *, is_taken: bool) -> None: ...
    def stopped(self, host: SimHost, reason: BaseException) -> None: ...
    def heard(self, host: SimHost, configuration: Configuration) -> None: ...


class SimHost:
    """One member, its processes one after the other."""

    def __init__(
        self,
        number: int,
        *,
        world: World,
        network: Network,
        random: SimRandom,
        trace: Trace,
        disk: SimDisk,
        clock: SimClock,
        options: ReplicaOptions,
        observer: Observer,
    ) -> None:
        self.number = number
        self.disk = disk
        self.clock = clock
        self.options = options
        self.process = 0
        """The number of the current process: events of an earlier one are ignored."""
        self.is_up = False
        self.was_started = False
        """It has, or had, a process."""
        self.is_over = False
        """It never starts again under its id (C42, C43)."""
        self.successor: SimHost | None = None
        """Who listens at its address since, under another id."""
        self.is_paused = False
        self.offered_index = 0
        """What the newest snapshot covers that another member ever began to send."""
        self.replica: Replica | None = None
        self.executor: SessionExecutor | None = None
        self.links: Links
        self._first = NOTHING_STORED
        self._world = world
        self._network = network
        self._random = random
        self._trace = trace
        self._observer = observer
        self._delayed_calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.workers = Workers(self, world, trace)
        self._forget()

    def _forget(self) -> None:
        self.process += 1
        self.is_up = False
        self.is_paused = False
        self.replica = None
        self.executor = None
        self._turn_due = False
        self._timer_at = -1
        self._delayed_calls.clear()
        self._connections: dict[int, Connection] = {}
        self._to_peers: list[tuple[int, bytes, PeerMessage | None]] = []
        self._to_clients: list[tuple[Connection, bytes]] = []
        self.workers.forget()

    # --- the view of the checkers (`MemberView`) -----------------------------------------------

    @property
    def disk_model(self) -> DiskModel:
        return self.disk.disk_model

    @property
    def state(self) -> ServerState:
        return self.alive.raft.state

    @property
    def term(self) -> int:
        return self.alive.raft.current_term

    @property
    def commit_index(self) -> int:
        return self.alive.raft.commit_index

    @property
    def last_applied(self) -> int:
        return 0 if self.executor is None else self.executor.last_applied

    @property
    def durable_index(self) -> int:
        return 0 if self.disk.directory is None else self.disk.directory.log.durable_index

    @property
    def configuration(self) -> Configuration:
        return self.alive.raft.configuration

    @property
    def committed_configuration(self) -> Configuration:
        return self.alive.members.committed

    @property
    def may_vote(self) -> bool:
        """Whether it may vote, and still could after a crash: its disk proves it (C16)."""
        if self.replica is not None and not self.replica.raft.eligibility.may_vote:
            return False
        return self.disk_model.hard_state[0] > 0

    @property
    def leader(self) -> MemberId:
        return self.alive.raft.leader

    def matches(self) -> Mapping[int, int]:
        raft = self.alive.raft
        return {number: raft.match_index(peer) for peer, number in self.links.numbers.items()}

    @property
    def alive(self) -> Replica:
        """The replica of a member that is up."""
        if self.replica is None:
            raise violated("host", "a member that is down was asked", member=self.number)
        return self.replica

    # --- processes --------------------------------------------------------------------------

    def join(self, first: StoredConfigurations) -> None:
        """Start for the first time, as a host that is no founder; `first` is what it was told of
        the cluster."""
        self._first = first
        self.start()

    def take_place(self, old: SimHost) -> None:
        """Listen at the address of a member that is over."""
        old.successor = self
        self.options = msgspec.structs.replace(self.options, address=old.options.address)
        self.disk.move(old.options.address)

    @property
    def at_its_address(self) -> SimHost:
        """Who listens there now."""
        return self if self.successor is None else self.successor.at_its_address

    def start(self) -> None:
        """Open the disk and begin a new process."""
        self.was_started = True
        try:
            log, hard_state, directory, snapshots = self.disk.open(self._first)
        except (DiskError, DiskFullError) as cause:
            self._observer.stopped(self, cause)
            return
        self.is_up = True
        self.executor = InstrumentedExecutor(
            lambda executor, is_taken: self._observer.snapshot(self, executor, is_taken=is_taken),
            self.disk.seen.did,
        )
        try:
            stores = MemberStores(
                incarnation=directory.identity.incarnation,
                log=log,
                hard_state=hard_state,
                fresh=directory.fresh,
                lost_entries=directory.lost_entries,
                regressed=directory.regressed,
                snapshots=snapshots,
                time_file=directory.time_file,
                configuration_file=directory.configuration_file,
                configurations=directory.configurations,
                cluster_incarnation=directory.identity.cluster_incarnation,
                record_cluster=directory.record_cluster,
            )
            self.replica = Replica(
                self.options,
                stores,
                self.executor,
                ProcessHost(self),
                seed=self._random.next(),
                now_ms=self.clock.boot_ms(),
                wall_ms=self.clock.wall_ms(),
            )
        except CopycatError as cause:
            self._forget()
            self._observer.stopped(self, cause)
            return
        self.disk.seen.take()  # a start did it, and no thread
        raft = self.replica.raft
        self.disk_model.role = lambda: (raft.state is ServerState.LEADER, raft.commit_index)
        self.disk_model.last_applied = lambda: self.last_applied
        self.disk_model.valid_from = lambda: log.valid_from
        self._trace.record(
            self._world.now_us, self.number, "start", self.process, log.last_index, self.term
        )
        self._observer.started(self)
        self.replica.on_cluster_change(_Listener(self, self._observer))
        self.replica.connect_peers()
        self.wake()

    def restart(self) -> None:
        """The member starts again because it has no right to its log any more."""
        self._down("log")
        self.disk.lose_process()
        self.start()

    def lose_power(self) -> None:
        """Cut the power: the process ends; each unsynced write is kept, lost or torn."""
        self._down("power")
        self.disk.lose_power()

    def lose_process(self) -> None:
        """Kill the process: the page cache survives."""
        self._down("process")
        self.disk.lose_process()

    def _down(self, loss: str) -> None:
        self._trace.record(self._world.now_us, self.number, f"lost {loss}", self.process)
        connections = list(self._connections.values())
        self._forget()
        self.links.lost(was_power=loss == "power")
        for connection in connections:
            self._network.transmit(self.number, connection.place, connection.close, connection)

    def pause(self) -> None:
        """No turn is taken from now on; what arrives waits."""
        self._trace.record(self._world.now_us, self.number, "pause")
        self.is_paused = True

    def resume(self) -> None:
        """What waited is taken, in order."""
        if not self.is_paused:
            return
        self._trace.record(self._world.now_us, self.number, "resume", len(self._delayed_calls))
        self.is_paused = False
        process = self.process
        while self._delayed_calls and self.process == process and not self.is_paused:
            callback, args = self._delayed_calls.popleft()
            callback(*args)
        if self.process == process:
            self.wake()

    def soon(self, delay_us: int, callback: Callable[..., None], *args: object) -> None:
        """Run later, in this process only, and not while paused."""
        self._world.after(delay_us, self.guarded, self.process, callback, *args)

    def guarded(self, process: int, callback: Callable[..., None], *args: object) -> None:
        """Run `callback` if that process still runs; hold it while paused."""
        if process != self.process or not self.is_up:
            return
        if self.is_paused:
            self._delayed_calls.append((callback, args))
            return
        callback(*args)
        if self.process == process:
            if self.workers.is_holding:
                self.workers.look()
            self._observer.touched(self)

    # --- turns --------------------------------------------------------------------------------

    def wake(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self.soon(self._random.below(200), self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        process, replica = self.process, self.alive
        replica.turn(self.clock.boot_ms(), self.clock.wall_ms())
        if self.process != process:
            return
        self.write_queued()
        self._arm(replica.deadline_ms())

    def _arm(self, deadline_ms: int) -> None:
        at = self.clock.world_us(deadline_ms)
        if at < self._timer_at or self._timer_at <= self._world.now_us:
            self._timer_at = at
            self._world.at(at, self.guarded, self.process, self._timer, at)

    def _timer(self, at: int) -> None:
        if at == self._timer_at:
            self._timer_at = -1
            self.wake()

    # --- peers --------------------------------------------------------------------------------

    def send(self, peer: MemberId, header: bytes, body: Body | None) -> bool:
        to = self.links.numbers[peer]
        if not self.links.is_up(to):
            return False
        data = header if body is None else b"".join((header, body))
        message = peek(split_frame(data))
        if message is not None:
            self._observer.sent(self, to, message)
        self._to_peers.append((to, data, message))
        return True

    def write_queued(self) -> None:
        for to, data, message in self._to_peers:
            self.links.transmit(to, data, message)
        self._to_peers.clear()
        for connection, data in self._to_clients:
            self._network.transmit(
                self.number, connection.place, connection.deliver, connection, data
            )
        self._to_clients.clear()

    def receive(self, source: int, data: bytes, message: PeerMessage | None) -> None:
        """One frame of a peer arrives (guarded by the link)."""
        frame = split_frame(data)
        if message is not None:
            self._observer.received(self, message)
            if isinstance(message, InstallSnapshot):
                self.offered_index = max(self.offered_index, message.entry.index)
        elif (fed := peek_feeding(frame)) is not None:
            self._observer.fed(self, fed)
            if isinstance(fed, FedSnapshot):
                self.offered_index = max(self.offered_index, fed.entry.index)
        self.alive.receive_peer(self.links.ids[source], frame)

    # --- clients ------------------------------------------------------------------------------

    def receive_client(self, connection: Connection, data: bytes) -> None:
        """One frame of a client arrives; its first one opens the connection."""
        if not self.is_up:
            return self._refuse(connection)
        if self.is_paused:
            self._delayed_calls.append((self.receive_client, (connection, data)))
            return None
        if not connection.opened_by:
            connection.opened_by = self.process
            self._connections[connection.number] = connection
        if connection.opened_by != self.process or connection.number not in self._connections:
            return self._refuse(connection)
        self.alive.receive_client(connection.number, split_frame(data))
        return None

    def _refuse(self, connection: Connection) -> None:
        self._network.transmit(self.number, connection.place, connection.close, connection)

    def client_disconnected(self, connection: Connection) -> None:
        """The client closed its connection."""
        if self.is_paused:
            self._delayed_calls.append((self.client_disconnected, (connection,)))
        elif self._connections.pop(connection.number, None) is not None:
            self.alive.client_disconnected(connection.number)

    def reply(self, connection: int, frame: bytes) -> None:
        to = self._connections.get(connection)
        if to is not None:
            self._to_clients.append((to, frame))

    def disconnect(self, connection: int, reason: str) -> None:
        raise violated("F21", "an honest client was shown the door", reason=reason)

    def applied(self, outcome: ApplyResult) -> None:
        """A slice was applied in the apply thread."""
        self._observer.applied(self, outcome)

    def stop(self, reason: BaseException) -> None:
        self._observer.stopped(self, reason)


class _Listener:
    """Implements `copycat.replica.cluster_listener.ClusterListener` for the checkers."""

    def __init__(self, host: SimHost, observer: Observer) -> None:
        self._host = host
        self._observer = observer

    def configuration_committed(self, configuration: Configuration) -> None:
        self._observer.heard(self._host, configuration)

    def leader_changed(self, leader: MemberId, term: int) -> None:
        """Elections have checkers of their own."""

    def status_changed(self, member: MemberId, status: MemberStatus) -> None:
        """What was applied has a checker of its own."""


def peek(frame: Frame) -> PeerMessage | None:
    """The Raft message inside a frame; None for a relayed client's frame."""
    if frame.type == FrameType.APPEND_ENTRIES:
        return decode_append(frame)[0]
    if frame.type == FrameType.INSTALL_SNAPSHOT:
        return decode_install(frame)[0]
    if frame.type in (FrameType.FORWARD, FrameType.RETURN):
        return None
    if frame.type in FEEDING_TYPES:
        return None  # `peek_feeding` looks at it
    return decode_peer(frame)


def peek_feeding(frame: Frame) -> FeedingMessage | None:
    """The question or answer of a member that is fed; None for any other frame."""
    match frame.type:
        case FrameType.FEED_REQUEST:
            return decode_feed_request(frame)
        case FrameType.FED_ENTRIES:
            return decode_fed_entries(frame)[0]
        case FrameType.FEED_ANSWER:
            return decode_feed_answer(frame)
        case FrameType.FED_SNAPSHOT:
            return decode_fed_snapshot(frame)[0]
        case _:
            return None


def replica_options(address: str, addresses: tuple[str, ...], **rest: Any) -> ReplicaOptions:
    """What every simulated member is told; a member that was no founder is given no addresses."""
    if addresses and address not in addresses:
        raise ConfigurationError(f"{address} is not in {addresses}")
    return ReplicaOptions(cluster_name=CLUSTER, address=address, members=addresses, **rest)


T = TypeVar("T")


class ProcessHost:
    """`copycat.replica.host.Host` for one process of `host`."""

    def __init__(self, host: SimHost) -> None:
        self._host = host
        self._process = host.process

    @property
    def _is_current(self) -> bool:
        return self._host.process == self._process

    def wake(self) -> None:
        if self._is_current:
            self._host.wake()

    def send(self, peer: MemberId, header: bytes, body: Body | None) -> bool:
        return self._is_current and self._host.send(peer, header, body)

    def connect(self, peer: MemberId, address: str) -> None:
        if self._is_current:
            links = self._host.links
            links.connect(links.numbers[peer])

    def disconnect_peer(self, peer: MemberId) -> None:
        if self._is_current:
            links = self._host.links
            links.disconnect(links.numbers[peer])

    def close_inbound(self, peer: MemberId) -> None:
        if self._is_current:
            links = self._host.links
            links.close_inbound(links.numbers[peer])

    def reply(self, connection: int, frame: bytes) -> None:
        if self._is_current:
            self._host.reply(connection, frame)

    def has_room(self, peer: MemberId, connection: int, unsent_max: int = REPLY_ROOM) -> bool:
        return True  # the network takes any amount at once

    def disconnect(self, connection: int, reason: str) -> None:
        if self._is_current:
            self._host.disconnect(connection, reason)

    def write_queued(self) -> None:
        if self._is_current:
            self._host.write_queued()

    def sync(self, ticket: SyncTicket) -> None:
        if self._is_current:
            self._host.workers.sync(ticket)

    def save(self, ticket: SaveTicket) -> None:
        if self._is_current:
            self._host.workers.save(ticket)

    def run(self, lane: Lane, work: Callable[[], T], done: Callable[[T], None]) -> None:
        if self._is_current:
            self._host.workers.run(lane, work, done)

    def stop(self, reason: BaseException) -> None:
        if self._is_current:
            self._host.stop(reason)

    def restart(self) -> None:
        if self._is_current:
            self._process = -1  # nothing that this process says is heard any more
            self._host.soon(0, self._host.restart)
