"""One member, whole and synchronous: the same driver under asyncio and in the simulator.

Inputs only check, decode and queue. `turn` then handles everything that arrived since the last
one: peers' messages, completed syncs, client requests, applied slices; it steps the core and
executes its effects in list order. One turn makes one batch, one write a peer and one sync, so
batches are larger under load.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import assert_never

from copycat.errors import CopycatError, IllegalMemberStateError, require
from copycat.machine.apply_result import (
    ApplyResult,
    AvailabilityChanged,
    IncarnationRecorded,
)
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.client import ClusterRequest, ServerMessage
from copycat.protocol.codec_hello import encode_hello
from copycat.protocol.framing import Frame
from copycat.raft.effects import (
    ChangeFinished,
    EndShipping,
    ReceiveSnapshot,
    RoleChanged,
    ShipSnapshot,
    TransferFinished,
)
from copycat.raft.events import (
    Event,
    IncarnationCommitted,
    Proposed,
    Reachable,
    ReadRequested,
    Tick,
    Unreachable,
)
from copycat.replica.applier import Applier
from copycat.replica.availability import Availability
from copycat.replica.cluster_listener import ClusterListener
from copycat.replica.cluster_requests import ClusterRequests
from copycat.replica.compaction import CompactionRunner
from copycat.replica.configuration_store import ConfigurationStore
from copycat.replica.connections import Connections, Replies, Route
from copycat.replica.disk_space import DiskSpace
from copycat.replica.driver import (
    Driver,
    EntrySender,
    MemberEffect,
    Payload,
    RegressionEffect,
    SnapshotEffect,
)
from copycat.replica.feed_client import FeedClient
from copycat.replica.feeding import Feeding
from copycat.replica.healing import Healing
from copycat.replica.host import Host, Inbox, Lane
from copycat.replica.inbound import PeerInbound
from copycat.replica.known_configurations import known_configurations
from copycat.replica.leader_search import LeaderSearch
from copycat.replica.leadership_transfer import LeadershipTransfer, TransferOutcome
from copycat.replica.local_requests import LocalRequests
from copycat.replica.maintenance import PAUSE_MS, Maintenance
from copycat.replica.members import MemberTable
from copycat.replica.membership import Membership
from copycat.replica.moved_members import MovedMembers
from copycat.replica.options import MemberStores, ReplicaOptions
from copycat.replica.proposals import ProposalQueue
from copycat.replica.queries import Queries
from copycat.replica.requests import RequestRouter
from copycat.replica.restore import clock_of, core_of, handshake_of, restore
from copycat.replica.server_states import ServerStates
from copycat.replica.session_index import SessionIndex
from copycat.replica.snapshot_parts import SnapshotParts, build_snapshots
from copycat.replica.status import ElectionObstacles, Outage, RecoveryStatus, Status
from copycat.replica.sync_scheduler import SyncScheduler
from copycat.storage.interface import Batch, SaveTicket, SyncTicket
from copycat.storage.recent_batches import BatchReader, RecentBatches
from copycat.storage.snapshot_store import Snapshot
from copycat.types import Compaction, CompactionReport, MemberId, ServerState

__all__ = ["Replica", "ReplicaOptions"]


class Replica:
    """One member. A host calls it in one thread only; work that it gives to the host is done in
    others (`Host.sync`, `Host.save`, `Host.run`).

    `__init__` builds every part after those that it needs, and gives them to it as arguments.
    `docs/internals/replica.md` says what each of them does.
    """

    def __init__(
        self,
        options: ReplicaOptions,
        stores: MemberStores,
        executor: SessionExecutor,
        host: Host,
        *,
        seed: int,
        now_ms: int,
        wall_ms: int,
    ) -> None:
        is_founder = options.own_id in options.members_by_id
        require(is_founder or not options.members, "a member outside its own list")
        self._options, self._host, self._executor = options, host, executor
        log = stores.log
        self.stopped: BaseException | None = None
        """Why this member stopped; None while it runs."""
        self._cluster_listeners: list[ClusterListener] = []
        covered = restore(stores.snapshots, log, executor)
        known = known_configurations(options, stores, covered.index)
        raft = self.raft = core_of(options, stores, known, covered.index, seed)
        self.member, self._log, self._state = raft.member, log, raft.state
        self._states = ServerStates(raft)
        self.members = MemberTable(
            raft.member, raft.configuration, known.committed, options.address
        )
        clock = self._clock = clock_of(raft, stores, executor.time_ms, now_ms, wall_ms)
        inbox, local_requests = self._inbox, self._local_requests = Inbox(host), LocalRequests()
        replies = self._replies = Replies(host, local_requests)
        sessions = self._sessions = SessionIndex(executor.session_rows())
        connections = self._connections = Connections(host, executor, replies, inbox)
        queue = self._proposal_queue = ProposalQueue(
            options, self.members, executor.commands, sessions, connections, replies
        )
        queries = self._queries = Queries(executor, sessions, host, replies, inbox)
        recent = RecentBatches[Batch](
            options.entry_buffer_size, options.recent_bytes_max, keeps_newest=True
        )
        reader = self._reader = BatchReader(log, recent, options.batch_bytes_max)
        applier = self._applier = Applier(reader, executor.last_applied, options.skips)
        syncs = self._syncs = SyncScheduler(log, stores.hard_state, host, options, stores.ballast)
        store = self._configurations = ConfigurationStore(stores, syncs, known, raft.configuration)
        sender = EntrySender(reader, host)
        # The driver gives effects to parts that step the driver: so it knows them as `self`.
        driver = self._driver = Driver(
            raft, log, clock, host, reader, sender, syncs, applier, queue, queries, store, self
        )
        self._build_those_that_step(driver, stores)
        for member, number in executor.incarnations.items():
            self.record_incarnation(member, number)
        self.load_availability()

    def _build_those_that_step(self, driver: Driver, stores: MemberStores) -> None:
        """The other half of `__init__`: the parts that step the core, through the driver."""
        options, raft, log, members = self._options, self.raft, self._log, self.members
        inbox, clock, sessions = self._inbox, self._clock, self._sessions
        syncs, applier, host = self._syncs, self._applier, self._host
        connections, replies = self._connections, self._replies
        queue, queries, ballast = self._proposal_queue, self._queries, stores.ballast
        recovery = self._recovery = RecoveryStatus(members, raft, log, inbox, driver, stores)
        obstacles = ElectionObstacles(members, raft, recovery)
        outage = self.outage = Outage(members, clock, options.raft, obstacles)
        store, listeners = self._configurations, self._cluster_listeners
        search = LeaderSearch(raft, host, clock, members, self._local_requests, options)
        self._membership = Membership(
            host, clock, members, store, outage, search, listeners, self._link_ended, self._restart
        )
        self._transfer = LeadershipTransfer(raft, driver, members)
        sender, feeder, taker, receiver = self._build_snapshots(driver, stores)
        self._snapshot_sender, self._snapshot_taker = sender, taker
        self._snapshot_receiver = receiver
        compaction = self._compaction = CompactionRunner(
            options, raft, log, clock, host, inbox, syncs, applier, self._executor, taker, receiver
        )
        cluster_requests = self._cluster_requests = self._build_cluster_requests(driver)
        self._moved_members = MovedMembers(options, raft, host, clock, members, cluster_requests)
        self.healing = Healing(raft, members, cluster_requests.ask_itself)
        listeners.append(self.healing)
        requests = self._requests = RequestRouter(
            options,
            members,
            raft,
            self._host,
            inbox,
            sessions,
            connections,
            replies,
            queue,
            queries,
            outage,
            cluster_requests,
            self._local_requests,
        )
        disk = self.disk_space = DiskSpace(
            options, raft, log, clock, inbox, driver, sessions, queue, queries, outage, ballast
        )
        self._availability = Availability(raft, clock, members, queue, disk, listeners)
        shake = self._handshake = handshake_of(members, options, stores)
        file = stores.time_file
        self._maintenance = Maintenance(
            log, clock, inbox, sessions, queue, shake, recovery, taker, compaction, disk, file
        )
        client = FeedClient(raft, clock, host, driver, applier, disk, receiver)
        feeding = self.feeding = Feeding(inbox, feeder, client)
        self._inbound = PeerInbound(
            raft, clock, inbox, driver, requests, outage, disk, sender, receiver, feeding
        )

    def _build_snapshots(self, driver: Driver, stores: MemberStores) -> SnapshotParts:
        return build_snapshots(
            self.raft,
            self._log,
            self._clock,
            self._host,
            self._inbox,
            driver,
            self._syncs,
            self._applier,
            self._sessions,
            self._configurations,
            self._reader,
            self._executor,
            stores.snapshots,
            self._options,
            self,
        )

    def _build_cluster_requests(self, driver: Driver) -> ClusterRequests:
        return ClusterRequests(
            self._options,
            self.raft,
            self._log,
            driver,
            self.members,
            self._membership,
            self._transfer,
            self._replies,
            self._clock,
            self.outage,
            self.status,
        )

    def client_timeout_ms(self, connection: int) -> int:
        """The timeout of the session that a client's connection serves; 0 when none is known."""
        return self._requests.timeout_ms(connection)

    # ---- inputs: check, decode, queue ----------------------------------------------------

    def hello(self) -> bytes:
        """The frame that opens a link of this member to a peer, and answers a peer's."""
        fresh = self._log.last_index == 0 and self.raft.eligibility.accepts_gaps
        lost = self.raft.eligibility.lacks_acknowledged
        return encode_hello(self._handshake.hello(fresh=fresh, lost=lost))

    def accept_peer(self, frame: Frame) -> tuple[MemberId, bytes]:
        """A dialler's Hello: who it is, and the Hello that answers it. Raises PeerRefused."""
        hello = self._handshake.accept(frame, self._recovery.judgement)
        if hello.member not in self.members:
            self._inbox.put(self._membership.greeted, hello)
        elif hello.address != self.members.greeted_address(hello.member):
            self._inbox.put(self._moved_members.greeted, hello)
        return hello.member, self.hello()

    def check_hello(self, peer: MemberId, frame: Frame) -> Reachable:
        """The answer to our Hello on a link to `peer`, as `peer_up` wants it."""
        return self._handshake.answered(peer, frame)

    def connect_peers(self) -> None:
        """Have links made to all other members; the host calls it once, when it takes turns."""
        for peer, address in self.members.peers.items():
            self._host.connect(peer, address)

    def peer_up(self, event: Reachable) -> None:
        """The link that this member writes to `peer` on is open and its Hello was good."""
        self._inbox.put(self._on_peer_up, event)

    def peer_down(self, peer: MemberId) -> None:
        """That link broke."""
        self._inbox.put(self._on_peer_down, peer)

    def receive_peer(self, peer: MemberId, frame: Frame) -> None:
        """One frame from a peer. ProtocolError: the listener closes the connection."""
        if not self.outage.frame_received(peer):
            self._inbox.put(self._membership.heard_unlinked, peer)
        self._inbound.receive(peer, frame)

    def receive_client(self, connection: int, frame: Frame) -> None:
        """One frame from a client. ProtocolError: the listener closes the connection."""
        self._requests.receive(Route(MemberId(0), connection), frame)

    def client_disconnected(self, connection: int) -> None:
        """A client's connection closed."""
        self._inbox.put(self._requests.connection_closed, Route(MemberId(0), connection))

    def synced(self, ticket: SyncTicket) -> None:
        """`ticket.run` returned; see `Host.sync`."""
        self._syncs.completed(ticket)
        self._host.wake()

    def saved(self, ticket: SaveTicket) -> None:
        """`ticket.run` returned; see `Host.save`."""
        self._syncs.completed(ticket)
        self._host.wake()

    def failed(self, cause: BaseException) -> None:
        """The disk, a thread or a turn failed: this member acknowledges nothing any more (class
        STOP)."""
        if self.stopped is None:
            self.stopped = cause
            self._host.stop(cause)

    def _restart(self) -> None:
        """This member has no right to its log and its state any more: the next start deletes
        them, and until then nothing is said."""
        if self.stopped is None:
            address = self._options.address
            self.stopped = IllegalMemberStateError(f"{address} deletes its log and its state")
            self._host.restart()

    def transfer_leadership(self, to: MemberId, done: Callable[[TransferOutcome], None]) -> None:
        """Hand leadership to `to`, or to the best follower when 0; `done(outcome)` in a turn."""
        self._inbox.put(self._transfer.ask, to, done)

    def request(self, message: ClusterRequest, done: Callable[[ServerMessage], None]) -> None:
        """Ask the cluster about its members, or for a change of them, as a client of this member
        would: `done(answer)` in a turn, once. Any member may be asked."""
        self._requests.request_local(message, done)

    def on_cluster_change(self, listener: ClusterListener) -> None:
        """Tell `listener` of each configuration that is committed, of leaders and of links."""
        self._cluster_listeners.append(listener)

    def on_state_change(self, callback: Callable[[ServerState], None]) -> Callable[[], None]:
        """Call back with each new state; the returned function ends that."""
        return self._states.add(callback)

    def on_storage_change(self, callback: Callable[[bool], None]) -> None:
        """Call back with True when the disk is found full, with False when it has room."""
        self.disk_space.on_storage_change(callback)

    # ---- the turn ------------------------------------------------------------------------

    def turn(self, now_ms: int, wall_ms: int) -> None:
        """Take all that arrived. now_ms: CLOCK_BOOTTIME; wall_ms only bounds log time (C25)."""
        if self.stopped is not None:
            return
        try:
            elapsed_ms = self._clock.advance(now_ms, wall_ms)
            self._syncs.begin(now_ms)
            self.disk_space.begin(now_ms)  # first: a leader may append by itself in a tick
            # Most turns come within the millisecond of the one before: the core has nothing to do.
            if elapsed_ms > 0 or self.raft.timeout_ms == 0:
                leads = self.raft.leader_state is not None
                recent_index = self._reader.recent_index if leads else 0
                self._driver.step(Tick(elapsed_ms, recent_index))
            if elapsed_ms >= PAUSE_MS:
                self._maintenance.paused(elapsed_ms)
            if self._syncs.has_completed:
                self._take_completed()
            self._inbox.take()
            if now_ms >= self._snapshot_sender.due_ms:
                self._snapshot_sender.advance(now_ms)
            self.disk_space.update_write_stall()
            self._propose()
            if self._queries.arrived:
                self._ask_reads()
            if now_ms >= self._maintenance.deadline_ms:
                self._run_due(now_ms)
            self._finish()
        except Exception as cause:  # noqa: BLE001  # fail-stop: whatever it was, promise no more
            self.failed(cause)

    def deadline_ms(self) -> int:
        """`turn` must run at this time of CLOCK_BOOTTIME even if nothing arrives."""
        return min(
            self._clock.now_ms + self.raft.timeout_ms,
            self._maintenance.deadline_ms,
            self._applier.due_ms,
            self._syncs.due_ms,
            self._snapshot_sender.due_ms,
            self.feeding.due_ms,
        )

    def _run_due(self, now_ms: int) -> None:
        """What is done by the clock, and need not be done at once."""
        self._maintenance.run_due(now_ms)
        self._availability.write()
        self._cluster_requests.advance(now_ms)
        self._membership.advance(now_ms)
        self._moved_members.advance(now_ms)
        self.healing.advance(now_ms)
        self._states.show()  # the leader's heartbeats alone may have changed it (C28)
        self._propose()

    def _step(self, event: Event) -> None:
        self._driver.step(event)

    def _take_completed(self) -> None:
        for event in self._syncs.take_completed():
            self._driver.step(event)

    def _propose(self) -> None:
        while self._proposal_queue.proposals and self.raft.can_propose:
            proposals = self._proposal_queue.take(self._options.batch_bytes_max)
            count = sum(proposal.count for proposal in proposals)
            nbytes = sum(proposal.frames_nbytes_max for proposal in proposals)
            if not self.disk_space.admits(nbytes, count):
                # Back first: the core's answer may be to step down, which fails them all.
                self._proposal_queue.put_back(proposals)
                self.disk_space.stop_admission()
                return
            last_index = self._log.last_index
            self._driver.step(Proposed(count), Payload(proposals))
            appended = self._log.last_index - last_index
            require(appended == count, "a leader did not append its proposals")

    def _ask_reads(self) -> None:
        if self.raft.state is ServerState.LEADER:
            self._step(ReadRequested(self._queries.next_token()))
        else:
            self._queries.step_down()

    def _finish(self) -> None:
        """Start what the turn asked for. An inline sync comes back at once, and what it lets
        us say leaves with the same write."""
        if self._syncs.has_completed:
            self._take_completed()  # a weaker mode acknowledges this when it is written
        self._syncs.start_save()
        while self._syncs.sync_is_due:
            if self.raft.state is ServerState.LEADER:
                self._host.write_queued()  # followers write while the leader syncs
            self._syncs.start_sync()
            if not self._syncs.has_completed:
                break
            self._take_completed()
        if self.raft.feeder or not self.feeding.is_idle:
            self.feeding.advance(self._clock.now_ms)
        self._connections.deliver()
        self._driver.send_replies()
        eager = self.raft.state is ServerState.LEADER or self._queries.is_waiting
        if runs := self._applier.next_slice(self._clock.now_ms, eager=eager):
            self._inbox.run(Lane.APPLY, partial(self._executor.apply, runs), self.on_applied)
        if self._applier.last_applied >= self._log.valid_from:  # else replaying (C22)
            self._queries.serve(self._applier.last_applied)
        self._snapshot_taker.advance(self._clock.now_ms)
        self._maintenance.prepare_files(self._clock.now_ms)

    # ---- peers ---------------------------------------------------------------------------

    def _on_peer_up(self, event: Reachable) -> None:
        self.outage.link_up(event.peer)
        self._driver.link_opened(event.peer)
        self.feeding.link_opened(event.peer)
        self._step(event)
        self._cluster_requests.link_opened(event.peer)
        self._availability.link_changed(event.peer, is_up=True)

    def _on_peer_down(self, peer: MemberId) -> None:
        self._link_ended(peer)
        self._driver.step_queued()
        self._availability.link_changed(peer, is_up=False)

    def _link_ended(self, peer: MemberId) -> None:
        """What was sent to this peer and not answered may be lost. The core is told next."""
        self.outage.link_down(peer)
        if peer == self.raft.leader:
            self._requests.forwarded_requests.fail_all("")
        self.feeding.link_ended(peer)
        self._driver.queue(Unreachable(peer))

    # ---- the machine ---------------------------------------------------------------------

    def on_applied(self, outcome: ApplyResult) -> None:
        """A slice was applied in the apply thread; called in a turn."""
        self._applier.finished(outcome)
        self._maintenance.timer_set(outcome.next_due_ms)
        self._compaction.applied(outcome)
        for change in outcome.changes:
            if isinstance(change, IncarnationRecorded):
                self.record_incarnation(change.member, change.incarnation)
            elif isinstance(change, AvailabilityChanged):
                self._availability.applied(change)
        if self._proposal_queue.applied(outcome):
            self._maintenance.run_soon()

    def record_incarnation(self, member: int, incarnation: int) -> None:
        """See `IncarnationRecorder`."""
        error = self._handshake.record_incarnation(MemberId(member), incarnation)
        if error is not None:
            raise error
        if member == self.member:
            self._step(IncarnationCommitted())

    def load_availability(self) -> None:
        """See `IncarnationRecorder`."""
        self._availability.load(self._executor.availability)

    def take_snapshot(self, done: Callable[[Snapshot | CopycatError], None]) -> None:
        """Take a snapshot as soon as may be; `done` in a turn, with it or with why not."""
        self._inbox.put(self._snapshot_taker.take, done)

    def compact(self, compaction: Compaction, done: Callable[[CompactionReport], None]) -> None:
        """Clean the log as soon as no other run is under way; `done` in a turn."""
        self._inbox.put(self._compaction.ask, compaction, done)

    # ---- leadership ----------------------------------------------------------------------

    def on_member_effect(self, effect: MemberEffect) -> None:
        """See `EffectHandler`."""
        self._membership.execute(effect, leads=self.raft.state is ServerState.LEADER)
        self._states.show()
        self._replies.leader = self.members.address(self.raft.leader)  # it may have moved

    def on_change_finished(self, effect: ChangeFinished) -> None:
        """See `EffectHandler`."""
        self._cluster_requests.finished(effect)

    def on_transfer_finished(self, effect: TransferFinished) -> None:
        """See `EffectHandler`."""
        self._transfer.finished(effect)

    def on_snapshot_effect(self, effect: SnapshotEffect) -> None:
        """See `EffectHandler`."""
        match effect:
            case ShipSnapshot():
                self._snapshot_sender.begin(effect)
            case EndShipping():
                self._snapshot_sender.end(effect)
            case ReceiveSnapshot():
                self._snapshot_receiver.receive(effect)
            case _:
                assert_never(effect)

    def on_regression_effect(self, effect: RegressionEffect) -> None:
        """See `EffectHandler`."""
        self._recovery.execute(effect)

    def on_role_changed(self, effect: RoleChanged) -> None:
        """See `EffectHandler`."""
        leader = self._replies.leader = self.members.address(effect.leader)
        was_leader = self._state is ServerState.LEADER
        if was_leader and effect.state is not ServerState.LEADER:
            self._snapshot_sender.end_all()
            self._proposal_queue.step_down()
            self._queries.step_down()
            self._cluster_requests.step_down()
            self._availability.step_down()
            self._membership.stepped_down()
        if self.outage.leader_changed(effect.leader):
            self._requests.forwarded_requests.fail_all(leader)
        if effect.state is ServerState.LEADER:
            self._driver.queue(self._recovery.gaps_known())
        for cluster_listener in self._cluster_listeners:
            cluster_listener.leader_changed(effect.leader, effect.term)
        self._state = effect.state
        self._states.show()

    def status(self) -> Status:
        """This member now."""
        raft, log, is_full = self.raft, self._log, self.disk_space.is_full
        feeder, _ = self.feeding.state
        return Status(
            address=self.members.own_address,
            state=self._states.current,
            term=raft.current_term,
            leader=self._replies.leader,
            first_index=log.first_index,
            last_index=log.last_index,
            durable_index=log.durable_index,
            commit_index=raft.commit_index,
            last_applied=self._applier.last_applied,
            sessions=len(self._sessions),
            members=self.members.addresses,
            unreachable=tuple(self.outage.unlinked()),
            storage_full=is_full,
            durability=self._options.durability,
            snapshot_index=self._snapshot_taker.index,
            deletion_floor=raft.deletion_floor,
            missing_entries=self._recovery.missing_entries,
            regressed=self._recovery.regressed,
            full_disks=self.outage.full_disks(is_full=is_full),
            member=self.member,
            leader_member=raft.leader,
            unreachable_members=frozenset(self.outage.unlinked_members()),
            unavailable=self._availability.unavailable,
            configuration=self.members.committed,
            applied_time_ms=self._executor.time_ms,
            feeder=self.members.address(feeder),
            feeder_member=feeder,
        )
