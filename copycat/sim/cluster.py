"""One seed's world, put together: members, clients, nemesis and every checker."""

from __future__ import annotations

from collections.abc import Sequence

from copycat.config import member_id
from copycat.errors import (
    CopycatError,
    DirectoryRefusedError,
    DiskError,
    DiskFullError,
    InvariantError,
)
from copycat.machine.apply_result import ApplyResult, AvailabilityChanged
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.feeding import FeedingMessage
from copycat.protocol.member_record import Place
from copycat.protocol.peer import ConfigurationNotice, PeerMessage
from copycat.raft.configuration import Configuration
from copycat.replica.known_configurations import configuration_of, entry_configuration
from copycat.replica.replica import Replica
from copycat.seeded_random import SimRandom
from copycat.sim.checkers.availability import StatusChecker
from copycat.sim.checkers.compaction import CompactionLaws
from copycat.sim.checkers.disk_model import DiskModel
from copycat.sim.checkers.healing import HealingChecker
from copycat.sim.checkers.linearizability import Operation
from copycat.sim.checkers.log_history import LogHistory, violated
from copycat.sim.checkers.log_time import ClockChecker
from copycat.sim.checkers.raft import MemberView, RaftChecker
from copycat.sim.checkers.replay import CommittedLog
from copycat.sim.checkers.sessions import SessionChecker
from copycat.sim.churn import Churn
from copycat.sim.client_calls import IMPATIENCE, ClientWorld
from copycat.sim.disk import CLUSTER, SimDisk
from copycat.sim.host import SimHost, replica_options
from copycat.sim.links import Links
from copycat.sim.marks import Marks
from copycat.sim.nemesis import Nemesis
from copycat.sim.network import Network
from copycat.sim.options import N_ZONES, SeedOptions
from copycat.sim.session_client import SessionClient
from copycat.sim.way_back import WayBack
from copycat.sim.workload import SimClient
from copycat.sim.world import MS, SimClock, Trace, World
from copycat.storage.compaction import CompactionOptions, SegmentLimits
from copycat.storage.interface import Batch
from copycat.types import NO_ENTRY, MemberId, MemberType, Run, ServerState

__all__ = ["Cluster"]


DIGEST_EVERY = 8
"""State digests are compared where a slice ends at a multiple of this index."""


class Cluster:
    """A whole cluster and its observer. `run` in `runner.py` drives it."""

    def __init__(self, seed: int, options: SeedOptions) -> None:
        self.seed = seed
        self.options = options
        self.world = World()
        self.trace = Trace()
        self.marks = Marks(self.trace)
        random = SimRandom(seed)
        self.network = Network(self.world, random.fork(), options.network, self.trace)
        self.n_hosts = options.members + options.joiners + options.spares
        self.addresses = tuple(f"m{number}:7000" for number in range(self.n_hosts))
        self.founders = self.addresses[: options.members]
        self.ids = [member_id(CLUSTER, address) for address in self.founders]
        drawn = SimRandom(seed ^ 0x10D5)
        self.ids += [MemberId(drawn.next() << 64 | drawn.next()) for _ in range(options.joiners)]
        drawn = SimRandom(seed ^ 0xC43)
        self.ids += [MemberId(drawn.next() << 64 | drawn.next()) for _ in range(options.spares)]
        self.log_history = LogHistory(lambda: self.world.now_us)
        # Where any number of wall clocks may jump, any of them may be a majority.
        is_any_clock_wrong = "clock_jump" in options.faults
        self.clock = None if is_any_clock_wrong else ClockChecker(options.drift_ppm)
        self.disk_models = [DiskModel(n, self.log_history) for n in range(self.n_hosts)]
        self.asked: dict[tuple[int, int], Operation] = {}
        self.history: list[Operation] = []
        self.sessions = SessionChecker(self.asked)
        self.committed_log = CommittedLog()
        laws = CompactionLaws(self.sessions, self._had_by_all)
        for disk_model in self.disk_models:
            disk_model.laws = laws
        by_id = {member_id(CLUSTER, address): address for address in sorted(self.founders)}
        self.raft = RaftChecker(
            self.disk_models,
            self.ids,
            self._committed,
            self._elected,
            Configuration.bootstrap(by_id),
        )
        self.healing = HealingChecker()
        self._healing_steps: dict[int, tuple[Replica, int]] = {}
        """By member: how many steps its process had taken."""
        self.statuses = StatusChecker(options.raft.election_timeout_ms)
        self.hosts: list[SimHost] = []
        self._build_hosts(random)
        self.clients = [self._build_client(number, random) for number in range(self._n_clients)]
        self.way_back, self.nemesis = self._build_faults(random)

    @property
    def _n_clients(self) -> int:
        return self.options.workload.clients

    def _build_hosts(self, random: SimRandom) -> None:
        options, is_spare = self.options, False
        for number, address in enumerate(self.addresses):
            if not is_spare and number >= options.members + options.joiners:
                is_spare, random = True, SimRandom(self.seed ^ 0x59A3)  # they change nothing else
            is_founder = number < options.members
            member = MemberId(0) if is_founder else self.ids[number]
            founders = self.founders if is_founder else ()
            drift = random.between(-options.drift_ppm, options.drift_ppm)
            host = SimHost(
                number,
                world=self.world,
                network=self.network,
                random=random.fork(),
                trace=self.trace,
                disk=SimDisk(
                    self.disk_models[number],
                    address,
                    founders,
                    self.ids[number],
                    options.disk,
                    random.fork(),
                    self.trace,
                ),
                clock=SimClock(
                    self.world, boot_ms=random.between(1_000, 10_000_000), drift_ppm=drift
                ),
                options=replica_options(
                    address,
                    founders,
                    member=member,
                    raft=options.raft,
                    session_timeout_ms=options.workload.session_timeout_ms,
                    batch_bytes_max=options.limits.batch_bytes_max,
                    recent_bytes_max=options.limits.recent_bytes_max,
                    entry_buffer_size=options.limits.entry_buffer_size,
                    inflight_commands_max=options.limits.inflight_commands_max,
                    inflight_bytes_max=options.limits.inflight_bytes_max,
                    snapshot_threshold=options.limits.snapshot_threshold,
                    compaction=self._cleaning(),
                    place=Place(f"zone-{number % N_ZONES}") if options.heals else Place(),
                ),
                observer=self,
            )
            self.hosts.append(host)
        for host in self.hosts:
            host.links = Links(
                host, self.hosts, self.ids, self.world, self.network, random.fork(), self.trace
            )
        self.hosts[options.wrong_clock].clock.jump(options.wrong_at_start_ms)

    def _cleaning(self) -> CompactionOptions:
        disk, clean = self.options.disk, self.options.clean
        return CompactionOptions(
            segment_limits=SegmentLimits(disk.max_segment_size, disk.max_entries_per_segment),
            minor_interval_ms=clean.minor_ms,
            major_interval_ms=clean.major_ms,
            threshold=clean.threshold,
        )

    def _build_faults(self, random: SimRandom) -> tuple[WayBack, Nemesis]:
        seed, options = self.seed, self.options
        way_back = WayBack(
            self.hosts,
            self.ids,
            options.spares,
            self.world,
            SimRandom(seed ^ 0x3A7B),
            self.trace,
        )
        n_drawn = options.members + options.joiners
        nemesis = Nemesis(
            options,
            world=self.world,
            network=self.network,
            random=random.fork(),
            trace=self.trace,
            marks=self.marks,
            hosts=self.hosts,
            clients=self.clients,
            way_back=way_back,
            membership=self.raft.membership,
            churn=Churn(
                self.hosts[:n_drawn],
                self.ids,
                options,
                self.world,
                SimRandom(seed ^ 0xC4A9),
                self.trace,
            ),
        )
        return way_back, nemesis

    def _build_client(self, number: int, random: SimRandom) -> SimClient | SessionClient:
        place = self.n_hosts + number
        if number < self.options.workload.shipped:
            return SessionClient(number, place, self._client_world(), random.fork())
        return SimClient(number, place, self._client_world(), random.fork())

    def _client_world(self) -> ClientWorld:
        return ClientWorld(
            world=self.world,
            network=self.network,
            trace=self.trace,
            hosts=self.hosts,
            addresses=self.addresses,
            options=self.options.workload,
            checker=self.sessions,
            asked=self.asked,
            history=self.history,
            impatience_us=IMPATIENCE * self.options.raft.election_timeout_ms * MS,
        )

    def start(self) -> None:
        """Everybody begins at about the same time."""
        random = SimRandom(self.seed ^ 0xB007)
        for host in self.hosts[: self.options.members]:
            self.world.after(random.below(200 * MS), self._boot, host)
        for client in self.clients:
            self.world.after(random.below(500 * MS), client.tick)
        self.nemesis.begin()

    @staticmethod
    def _boot(host: SimHost) -> None:
        if not host.is_up and host.process == 1:
            host.start()

    # --- the observer (host.Observer) -------------------------------------------------------

    def started(self, host: SimHost) -> None:
        self.marks.forget(host.number)
        self.raft.started(host.number)
        self.raft.after_step(host)

    def _look_at_healing(self, number: int, replica: Replica) -> None:
        step, known = replica.healing.last_step, (replica, replica.healing.steps)
        if step is not None and self._healing_steps.get(number) != known:
            self._healing_steps[number] = known
            self.trace.mark(f"healing: {step.cause}")
            base = self.raft.membership.by_name(step.change.base)
            self.healing.stepped(number, replica.raft, step, base)
        self.healing.looked(number, replica.raft)

    def touched(self, host: SimHost) -> None:
        if host.is_up and host.replica is not None:
            if self.options.heals:
                self._look_at_healing(host.number, host.replica)
            self.raft.after_step(host)
            raft = host.replica.raft
            if host.state is ServerState.LEADER:
                self.raft.note_matches(host)
            self.marks.touched(host.number, raft)
            self.marks.watch_feeder(host)
            was_unaware = host.disk_model.loss.is_unaware
            if was_unaware:
                for other in self.hosts:
                    if not other.is_up:
                        host.disk_model.loss.forgotten(other.number)
            eligibility = raft.eligibility
            is_recorded = eligibility.unrecorded_loss == NO_ENTRY and not raft.is_saving
            if host.disk_model.loss.is_done(
                lacks_entries=eligibility.is_recovering, is_recorded=is_recorded
            ):
                self.trace.mark("missing entries are back")
                host.disk_model.loss.recovered()
            is_aware = eligibility.is_recovering and not host.disk_model.loss.is_unaware
            if was_unaware and is_aware:
                self.trace.mark("older copy noticed")
            if host.disk.power_is_off:
                self._power_went(host)
            elif self.nemesis.fault_trigger is not None:
                self.nemesis.touched(host)

    def _power_went(self, host: SimHost) -> None:
        self.trace.mark("power cut in mid-turn")
        host.lose_power()
        self.nemesis.restart(host, 500 * MS)

    def sent(self, host: SimHost, to: int, message: PeerMessage) -> None:
        if isinstance(message, ConfigurationNotice):
            # A leader that has just counted a majority: it may stop before its turn ends.
            self.raft.after_step(host)
        self.raft.sent(host.number, to, message)

    def received(self, host: SimHost, message: PeerMessage) -> None:
        self.raft.received(host.number, message)
        self.marks.received(host, message)

    def fed(self, host: SimHost, message: FeedingMessage) -> None:
        self.raft.fed(host.number, message)
        self.marks.fed(host, message)

    def applied(self, host: SimHost, outcome: ApplyResult) -> None:
        self.raft.after_step(host)
        if outcome.last_applied > self.sessions.committed_index:
            self._read_committed(host)
        executor = host.executor
        valid_from = 0 if executor is None else executor.valid_from
        for change in outcome.changes:
            if isinstance(change, AvailabilityChanged) and self.statuses.applied(
                host.number, change
            ):
                self.trace.mark(f"member {'available' if change.is_available else 'unavailable'}")
        host.disk_model.released(outcome.last_applied, outcome.releases)
        self.sessions.outcome(host.number, outcome, valid_from)
        if outcome.last_applied < valid_from:
            self.trace.mark("replay over gaps")
        elif outcome.last_applied % DIGEST_EVERY == 0 and executor is not None:
            self.sessions.digest(host.number, outcome.last_applied, executor.digest())

    def snapshot(self, host: SimHost, executor: SessionExecutor, *, is_taken: bool) -> None:
        """I12: the state that is saved, or just installed, equals every member's state at that
        index."""
        self.trace.mark("snapshot taken" if is_taken else "snapshot installed")
        self.trace.record(
            self.world.now_us,
            host.number,
            "takes a snapshot" if is_taken else "installs a snapshot",
            executor.last_applied,
        )
        self.sessions.digest(host.number, executor.last_applied, executor.digest())

    def heard(self, host: SimHost, configuration: Configuration) -> None:
        self.raft.membership.heard(host.number, configuration)

    def stopped(self, host: SimHost, reason: BaseException) -> None:
        """A member stopped itself. Only a power cut in the middle of its work explains it."""
        if host.disk.is_cut:
            self._power_went(host)
            return
        if not host.is_up and host.disk.is_short and isinstance(reason, DiskFullError):
            self.trace.mark("start refused by a full disk")
            host.disk.lose_process()
            self.nemesis.restart(host, 500 * MS)
            return
        if host.disk.has_fault and isinstance(reason, (DiskError, DiskFullError)):
            self.trace.mark("stopped by a disk error" if host.is_up else "start refused by a disk")
            host.lose_process()
            self.nemesis.restart(host, 500 * MS)
            return
        if isinstance(reason, DirectoryRefusedError):
            self.trace.mark("older copy stopped for good")
            host.lose_process()
            self.way_back.ended(host)
            return
        if isinstance(reason, InvariantError):
            raise reason
        detail = reason.render() if isinstance(reason, CopycatError) else repr(reason)
        raise violated("stop", f"member {host.number} stopped itself: {detail}") from reason

    def _committed(self, view: MemberView, _first: int, _end: int) -> None:
        host = self.hosts[view.number]
        self._read_committed(host)
        if host.state is ServerState.LEADER:
            self.raft.check_matches(host)

    def _read_committed(self, host: SimHost) -> None:
        """Give the reference the committed entries, as this member's log has them."""
        directory = host.disk.directory
        if directory is None:
            raise violated("I6", "a commit without a log", member=host.number)
        first, end = self.sessions.committed_index + 1, len(self.raft.committed) + 1
        if first < directory.log.first_index or host.disk_model.gaps.within(first, end):
            return self._read_committed(self._holder(first))
        while first < end:
            try:
                batch = directory.log.read(first, end, 1 << 20)
            except DiskError:
                if not host.disk.is_cut:
                    raise
                return None  # the power failed in this turn: the next member that commits shows it
            runs = batch.runs(first, batch.span.end)
            self.sessions.committed(runs)
            self._check_clock(batch.span.term, runs)
            self.committed_log.committed(batch)
            self._configuration_committed(batch)
            first = batch.span.end
        return None

    def _configuration_committed(self, batch: Batch) -> None:
        """Show the checker of membership what is committed; such an entry is read alone (C4)."""
        record = entry_configuration(batch)
        if record is not None:
            self.trace.mark("configuration committed")
            self.raft.membership.committed_entry(configuration_of(record))

    def _check_clock(self, term: int, runs: Sequence[Run]) -> None:
        if self.clock is not None:
            for run in runs:
                stamped_us = self.log_history.stamped_us[run.first_index, term]
                self.clock.committed(run.first_index, run.time_ms, stamped_us, term)

    def _had_by_all(self) -> int:
        return self.raft.membership.had_by_all([one.had for one in self.disk_models])

    def _holder(self, first: int) -> SimHost:
        """A member whose log still has all that is committed from `first` on."""
        committed = self.raft.committed
        for host in self.hosts:
            directory, disk_model = host.disk.directory, host.disk_model
            if directory is None or directory.log.first_index > first:
                continue
            if disk_model.gaps.within(first, len(committed) + 1):
                continue
            if disk_model.entries[first - 1 : len(committed)] == committed[first - 1 :]:
                return host
        raise violated("I6", "nobody holds what is committed", first=first)

    def _elected(self, member: int, term: int) -> None:
        self.trace.mark("election")
        self.trace.record(self.world.now_us, member, "leads", term)
        self.marks.elected(term, self.hosts)
        self.raft.check_matches(self.hosts[member])

    # --- what is true of all ----------------------------------------------------------------

    def leaders(self) -> list[SimHost]:
        """Members that act as leader, the deposed ones too."""
        return [
            host
            for host in self.hosts
            if host.is_up and host.replica is not None and host.state is ServerState.LEADER
        ]

    def agreed_leader(self) -> MemberId:
        """The one leader that all members follow; 0 when there is none."""
        leaders = self.leaders()
        if len(leaders) != 1:
            return MemberId(0)
        id = self.ids[leaders[0].number]
        agreed = all(host.leader == id and host.term == leaders[0].term for host in self.members())
        return id if agreed else MemberId(0)

    def know_their_removal(self) -> bool:
        """Whether all that were members, and run, know that they are none any more (C33)."""
        removed = self.raft.membership.removed
        return not any(
            id in removed
            and host.is_up
            and host.replica is not None
            and host.committed_configuration.record(id) is not None
            and self._can_learn(host, id)
            for host, id in zip(self.hosts, self.ids, strict=True)
        )

    def _can_learn(self, host: SimHost, id: MemberId) -> bool:
        """Whether a host that is no member knows one that is, and is heard there.

        With a higher term than the leader's it follows nobody before the term of the cluster is as
        high. A founder that knows no change is heard by those that know its directory (C41).
        """
        if host.term > max(each.term for each in self.members()):
            return False
        knows_cluster = host.alive.members.cluster_incarnation != 0
        return any(
            host.committed_configuration.record(self.ids[each.number]) is not None
            and (knows_cluster or id in each.alive.members.committed_incarnations)
            for each in self.members(is_stateful=not knows_cluster)
            if each.replica is not None
        )

    def members(self, *, is_stateful: bool = False) -> list[SimHost]:
        """The hosts of all members of the newest committed configuration, but of those that ended
        for good; is_stateful: of those that have a log."""
        living = [host for host in self.hosts if not host.is_over]
        types = [(host, self.raft.membership.type_of(host.number)) for host in living]
        if is_stateful:
            return [host for host, type in types if type.is_stateful]
        return [host for host, type in types if type is not MemberType.INACTIVE]
