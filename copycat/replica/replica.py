"""One member, whole and synchronous: the same driver under asyncio and in the simulator.

Inputs only check, decode and queue. `turn` then takes everything that arrived since the last
one: peers' messages, completed syncs, client requests, applied slices; steps the core; carries
out its effects in list order. One turn makes one batch, one write a peer and one sync, so load
batches itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from copycat.config import member_id
from copycat.errors import CopycatError, require
from copycat.machine.apply_result import ApplyResult, IncarnationRecorded
from copycat.machine.session_executor import SessionExecutor
from copycat.member.ballast_file import BallastFile
from copycat.member.markers import LostEntries
from copycat.member.time_note import TimeFile
from copycat.protocol.codec_peer import encode_hello
from copycat.protocol.framing import Frame
from copycat.raft.effects import (
    ConfigurationChanged,
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
from copycat.replica.assembly import assemble, core_of
from copycat.replica.compaction import CompactionRunner
from copycat.replica.driver import Driver, RegressionEffect, SnapshotEffect
from copycat.replica.election_obstacles import ElectionObstacles
from copycat.replica.handshake import Handshake, logged_incarnations
from copycat.replica.host import Host
from copycat.replica.inbound import PeerInbound
from copycat.replica.leadership_transfer import LeadershipTransfer, TransferOutcome
from copycat.replica.log_clock import LogClock, last_time_ms
from copycat.replica.maintenance import Maintenance
from copycat.replica.members import MemberTable
from copycat.replica.options import ReplicaOptions
from copycat.replica.outage import Outage
from copycat.replica.recovery_status import NewRecord, RecoveryStatus
from copycat.replica.refusal_reason import WriteStall
from copycat.replica.requests import RequestRouter
from copycat.replica.session_index import Route
from copycat.replica.snapshot_receiver import SnapshotReceiver
from copycat.replica.snapshot_sender import SnapshotSender
from copycat.replica.snapshot_taker import SnapshotTaker, restore
from copycat.replica.status import Status, status_of
from copycat.storage.interface import HardStateStore, ReplicaLog, SaveTicket, SyncTicket
from copycat.storage.snapshot_store import Snapshot, SnapshotStore
from copycat.types import Compaction, CompactionReport, MemberId, ServerState

__all__ = ["Replica", "ReplicaOptions"]


def handshake_of(
    members: MemberTable, options: ReplicaOptions, incarnation: int, log: ReplicaLog
) -> Handshake:
    """Judges who is let in as a peer, by what the options and the log say."""
    return Handshake(
        members,
        cluster_name=options.cluster_name,
        incarnation=incarnation,
        logged=logged_incarnations(log, len(members.addresses)),
        skips=options.skips,
    )


class Replica:
    """See `docs/internals/raft-core.md`. The host calls; all in one thread, but for the work that
    it was handed (`Host.sync`, `.save`, `.run`)."""

    def __init__(
        self,
        options: ReplicaOptions,
        *,
        incarnation: int,
        log: ReplicaLog,
        hard_state: HardStateStore,
        executor: SessionExecutor,
        host: Host,
        seed: int,
        fresh: bool,
        now_ms: int,
        wall_ms: int,
        snapshots: SnapshotStore | None = None,
        lost: bool = False,
        lost_entries: LostEntries | None = None,
        regressed: NewRecord | None = None,
        ballast: BallastFile | None = None,
        time_file: TimeFile | None = None,
    ) -> None:
        require(options.address in options.members, "a member outside its own list")
        self._options, self._host, self._log = options, host, log
        self._executor, self._peers = executor, options.members_by_id
        self.member = member_id(options.cluster_name, options.address)
        self._listeners: list[Callable[[ServerState], None]] = []
        self.stopped: BaseException | None = None
        loaded = restore(snapshots, log, executor)
        self.raft = core_of(
            self.member,
            options,
            log=log,
            hard_state=hard_state,
            covered=loaded.index,
            snapshots=snapshots,
            fresh=fresh,
            seed=seed,
            lost=lost,
            lost_entries=lost_entries,
        )
        self.members = MemberTable(self.member, self.raft.configuration)
        self._state = self.raft.state
        time_ms = max(executor.time_ms, last_time_ms(log))
        written_note = None if time_file is None else time_file.read()
        voters = self.raft.configuration
        clock = LogClock(self.member, voters, now_ms, wall_ms, time_ms, written_note=written_note)
        parts = self._parts = assemble(
            options,
            raft=self.raft,
            log=log,
            hard_state=hard_state,
            executor=executor,
            host=host,
            clock=clock,
            ballast=ballast,
            slice_done=self._on_applied,
        )
        self._inbox, self._driver = parts.inbox, Driver(parts, self)
        self._build(snapshots, incarnation, lost_entries, regressed, ballast, time_file)
        for member, number in executor.incarnations.items():
            self.record_incarnation(member, number)

    def _build(
        self,
        snapshots: SnapshotStore | None,
        incarnation: int,
        lost_entries: LostEntries | None,
        regressed: NewRecord | None,
        ballast: BallastFile | None,
        time_file: TimeFile | None,
    ) -> None:
        """The parts that step the core, each after those that it needs."""
        options, parts, driver, peers = self._options, self._parts, self._driver, self._peers
        self._recovery = RecoveryStatus(
            parts, driver, options.address, lost_entries, new_record=regressed, addresses=peers
        )
        self.outage = Outage(
            self.member,
            peers,
            self.raft.configuration,
            parts.clock,
            options.raft,
            ElectionObstacles(options.address, self.raft, self._recovery),
        )
        self._transfer = LeadershipTransfer(self.raft, driver, peers)
        self._build_compaction(snapshots)
        self._requests = RequestRouter(
            parts,
            peers,
            self.outage,
            max_entry_size=options.max_entry_size,
            cluster_name=options.cluster_name,
        )
        self._handshake = handshake_of(self.members, options, incarnation, self._log)
        self._maintenance = Maintenance(
            parts,
            driver,
            self._handshake,
            options=options,
            snapshotting=self._snapshot_taker,
            compaction=self._compaction,
            outage=self.outage,
            now_ms=parts.clock.now_ms,
            ballast=ballast,
            time_file=time_file,
            recovery=self._recovery,
        )
        self._inbound = PeerInbound(
            parts,
            driver,
            self._requests,
            self.outage,
            maintenance=self._maintenance,
            snapshot_sender=self._snapshot_sender,
            snapshot_receiver=self._snapshot_receiver,
        )

    def _build_compaction(self, snapshots: SnapshotStore | None) -> None:
        """What takes the place of entries: snapshots that are sent, taken and received, and
        compaction, which deletes none that one of them needs."""
        self._snapshot_sender = SnapshotSender(self._parts, self._driver, snapshots)
        self._snapshot_taker = SnapshotTaker(
            self._parts,
            self._driver,
            snapshots,
            self._executor,
            threshold=self._options.snapshot_threshold,
            sender=self._snapshot_sender,
        )
        self._snapshot_receiver = SnapshotReceiver(
            self._parts,
            self._driver,
            snapshots,
            self._executor,
            taker=self._snapshot_taker,
            incarnations=self,
        )
        self._compaction = CompactionRunner(
            self._parts,
            self._executor,
            self._options.compaction,
            snapshot_taker=self._snapshot_taker,
            snapshot_receiver=self._snapshot_receiver,
        )

    def client_timeout_ms(self, connection: int) -> int:
        """The timeout of the session that a client's connection serves; 0 when none is known."""
        return self._requests.timeout_ms(connection)

    # ---- inputs: check, decode, queue ----------------------------------------------------

    def hello(self) -> bytes:
        """The frame that opens a link of this member to a peer, and answers a peer's."""
        fresh = self._log.last_index == 0 and self.raft.eligibility.accepts_gaps
        return encode_hello(self._handshake.hello(fresh=fresh, lost=self.raft.eligibility.is_lost))

    def accept_peer(self, frame: Frame) -> tuple[MemberId, bytes]:
        """A dialler's Hello: who it is, and the Hello that answers it. Raises PeerRefused."""
        return self._handshake.accept(frame), self.hello()

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
        self.outage.frame_received(peer)
        self._inbound.receive(peer, frame)

    def receive_client(self, connection: int, frame: Frame) -> None:
        """One frame from a client. ProtocolError: the listener closes the connection."""
        self._requests.receive(Route(MemberId(0), connection), frame)

    def client_disconnected(self, connection: int) -> None:
        """A client's connection closed."""
        self._inbox.put(self._requests.connection_closed, Route(MemberId(0), connection))

    def synced(self, ticket: SyncTicket) -> None:
        """`ticket.run` returned; see `Host.sync`."""
        self._parts.durable.completed(ticket)
        self._host.wake()

    def saved(self, ticket: SaveTicket) -> None:
        """`ticket.run` returned; see `Host.save`."""
        self._parts.durable.completed(ticket)
        self._host.wake()

    def failed(self, cause: BaseException) -> None:
        """Something below failed: no further promise leaves this member (class STOP)."""
        if self.stopped is None:
            self.stopped = cause
            self._host.stop(cause)

    def transfer_leadership(self, to: MemberId, done: Callable[[TransferOutcome], None]) -> None:
        """Hand leadership to `to`, or to the best follower when 0; `done(outcome)` in a turn."""
        self._inbox.put(self._transfer.ask, to, done)

    def on_state_change(self, callback: Callable[[ServerState], None]) -> Callable[[], None]:
        """Call back with each new state; the returned function ends that."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    def on_storage_change(self, callback: Callable[[bool], None]) -> None:
        """Call back with True when the disk is found full, with False when it has room."""
        self._maintenance.on_storage_change(callback)

    # ---- the turn ------------------------------------------------------------------------

    def turn(self, now_ms: int, wall_ms: int) -> None:
        """Take all that arrived. now_ms: CLOCK_BOOTTIME; wall_ms only bounds log time (C25)."""
        if self.stopped is not None:
            return
        try:
            elapsed_ms = self._parts.clock.advance(now_ms, wall_ms)
            self._parts.durable.begin(now_ms)
            self._step(Tick(elapsed_ms))
            self._maintenance.begin(now_ms, elapsed_ms)
            self._take_completed()
            self._inbox.take()
            self._snapshot_sender.advance(now_ms)
            self._maintenance.update_write_stall()
            self._propose()
            self._ask_reads()
            if now_ms >= self._maintenance.deadline_ms:
                self._maintenance.keep(now_ms)
                self._propose()
            self._finish()
        except Exception as cause:  # noqa: BLE001  # fail-stop: whatever it was, promise no more
            self.failed(cause)

    def deadline_ms(self) -> int:
        """`turn` must run at this time of CLOCK_BOOTTIME even if nothing arrives."""
        return min(
            self._parts.clock.now_ms + self.raft.timeout_ms,
            self._maintenance.deadline_ms,
            self._parts.applier.due_ms,
            self._parts.durable.due_ms,
            self._snapshot_sender.due_ms,
        )

    def _step(self, event: Event) -> None:
        self._driver.step(event)

    def _take_completed(self) -> None:
        for event in self._parts.durable.take_completed():
            self._step(event)

    def _propose(self) -> None:
        while self._parts.proposal_queue.proposals and self.raft.can_propose:
            taken = self._parts.proposal_queue.take(self._options.batch_bytes_max)
            count = sum(proposal.count for proposal in taken)
            if not self._maintenance.admits(sum(each.frames_nbytes_max for each in taken), count):
                # Back first: the core's answer may be to step down, which fails them all.
                self._parts.proposal_queue.put_back(taken)
                self._maintenance.ran_full()
                return
            last_index = self._log.last_index
            self._driver.step(Proposed(count), proposals=taken)
            appended = self._log.last_index - last_index
            require(appended == count, "a leader did not append its proposals")

    def _ask_reads(self) -> None:
        if (token := self._parts.queries.next_token()) is None:
            return
        if self.raft.state is ServerState.LEADER:
            self._step(ReadRequested(token))
        else:
            self._parts.queries.fail_unconfirmed(self._requests.leader)

    def _finish(self) -> None:
        """Start what the turn asked for. An inline sync comes back at once, and what it lets
        us say leaves with the same write."""
        if self._parts.durable.has_completed:
            self._take_completed()  # what a weaker mode answers when it is written
        self._parts.durable.start_save()
        while self._parts.durable.sync_is_due:
            if self.raft.state is ServerState.LEADER:
                self._host.write_queued()  # followers write while the leader syncs
            self._parts.durable.start_sync()
            if not self._parts.durable.has_completed:
                break
            self._take_completed()
        self._driver.send_replies()
        eager = self.raft.state is ServerState.LEADER or self._parts.queries.is_waiting
        self._parts.applier.advance(self._parts.clock.now_ms, eager=eager)
        if self._parts.applier.last_applied >= self._log.valid_from:  # else replaying (C22)
            self._parts.queries.serve(self._parts.applier.last_applied)
        self._snapshot_taker.advance(self._parts.clock.now_ms)
        self._maintenance.keep_files(self._parts.clock.now_ms)

    # ---- peers ---------------------------------------------------------------------------

    def _on_peer_up(self, event: Reachable) -> None:
        self.outage.link_up(event.peer)
        self._driver.link_opened(event.peer)
        self._step(event)

    def _on_peer_down(self, peer: MemberId) -> None:
        self.outage.link_down(peer)
        if peer == self.raft.leader:
            self._requests.forwarded_requests.fail_all("")
        self._step(Unreachable(peer))

    # ---- the machine ---------------------------------------------------------------------

    def _on_applied(self, outcome: ApplyResult) -> None:
        self._parts.applier.finished(outcome)
        self._maintenance.timer_set(outcome.next_due_ms)
        self._compaction.applied(outcome)
        for change in outcome.changes:
            if isinstance(change, IncarnationRecorded):
                self.record_incarnation(change.member, change.incarnation)
        if self._parts.proposal_queue.applied(outcome):
            self._maintenance.run_soon()

    def record_incarnation(self, member: int, incarnation: int) -> None:
        """See `IncarnationRecorder`."""
        error = self._handshake.record_incarnation(MemberId(member), incarnation)
        if error is not None:
            raise error
        if member == self.member:
            self._step(IncarnationCommitted())

    def take_snapshot(self, done: Callable[[Snapshot | CopycatError], None]) -> None:
        """Take a snapshot as soon as may be; `done` in a turn, with it or with why not."""
        self._inbox.put(self._snapshot_taker.take, done)

    def compact(self, compaction: Compaction, done: Callable[[CompactionReport], None]) -> None:
        """Clean the log as soon as no other run is under way; `done` in a turn."""
        self._inbox.put(self._compaction.ask, compaction, done)

    # ---- leadership ----------------------------------------------------------------------

    def on_configuration_changed(self, effect: ConfigurationChanged) -> None:
        """See `EffectHandler`."""
        changes = self.members.adopt(effect.configuration)
        for peer in changes.to_disconnect:
            self._host.disconnect_peer(peer)
        for record in changes.to_connect:
            self._host.connect(record.member, record.address)

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
        leader = self.members.address(effect.leader)
        was_leader = self._state is ServerState.LEADER
        if was_leader and effect.state is not ServerState.LEADER:
            self._snapshot_sender.end_all()
            self._parts.proposal_queue.step_down(leader)
            self._parts.queries.fail_unconfirmed(leader)
        if self.outage.leader_changed(effect.leader):
            self._requests.forwarded_requests.fail_all(leader)
        self._parts.proposal_queue.leader_changed(leader)
        self._parts.queries.leader_changed(leader)
        if effect.state is ServerState.LEADER:
            self._driver.queue(self._recovery.gaps_known())
        if effect.state is not self._state:
            self._state = effect.state
            for listener in list(self._listeners):
                listener(effect.state)

    @property
    def write_stall(self) -> WriteStall:
        """What full disks stop now, in the cluster that this member leads or at itself."""
        return self._maintenance.write_stall

    def status(self) -> Status:
        """This member now."""
        return status_of(
            self._options,
            self._parts,
            self._requests.leader,
            self.outage,
            self._maintenance.is_full,
            self._snapshot_taker.index,
            self._recovery,
        )
