"""A tiny network of pure cores: logs are lists, disks are prefixes of them, links are queues.

Everything is explicit: nothing is delivered, synced, saved or timed unless the test says so.
The laws of one member are checked around every step, those across members as they happen.
"""

from __future__ import annotations

from collections.abc import Callable

from copycat.config import RaftOptions
from copycat.protocol.peer import (
    AppendEntries,
    AppendReply,
    InstallReply,
    InstallSnapshot,
    PeerMessage,
    PreVote,
    RequestVote,
    VoteReply,
)
from copycat.raft.configuration import Configuration
from copycat.raft.core import Raft
from copycat.raft.effects import (
    Append,
    ChangeFinished,
    Commit,
    ConfigurationChanged,
    ConfigurationCommitted,
    Content,
    Effect,
    EndDeparture,
    EndShipping,
    PeerRegressed,
    ReadReady,
    ReceiveSnapshot,
    RecordLoss,
    Replicate,
    Reset,
    RoleChanged,
    SaveHardState,
    Send,
    ShipSnapshot,
    StopForGood,
    Sync,
    TransferFinished,
    Truncate,
    Wipe,
)
from copycat.raft.events import (
    Event,
    GapsKnown,
    LossAccepted,
    LossRecorded,
    Proposed,
    Reachable,
    ReadRequested,
    Received,
    Saved,
    Sent,
    Synced,
    Tick,
    Unreachable,
)
from copycat.raft.initial_state import InitialState
from copycat.raft.invariants import check, observe
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState, Span
from tests.raft.changing import Changing, is_configuration
from tests.raft.disk_faults import DiskFaults
from tests.raft.feeding import Feeding
from tests.raft.laws import Entry, History
from tests.raft.node import Envelope, Node, StoredConfigurations, name_of, runs_of
from tests.raft.snapshotting import Snapshotting

__all__ = ["Cluster", "Envelope", "Node", "runs_of"]


class Cluster(Changing, DiskFaults, Snapshotting, Feeding):
    """`count` voters, numbered from 1. `entries_max`: how many entries one message takes."""

    def __init__(
        self,
        count: int,
        *,
        seed: int = 0,
        options: RaftOptions | None = None,
        entries_max: int = 1000,
        fresh: bool = False,
        has_addresses: bool = False,
    ) -> None:
        self.options = options or RaftOptions(election_timeout_ms=100, heartbeat_interval_ms=20)
        Changing.__init__(self)
        Feeding.__init__(self)
        self.founders = Configuration.of(*map(MemberId, range(1, count + 1)))
        if has_addresses:
            self.founders = Configuration.bootstrap(
                {each: f"m{each}" for each in self.founders.ids}
            )
        self.entries_max = entries_max
        self.seed = seed
        self.history = History()
        self.network: list[Envelope] = []
        self.blocked: set[tuple[int, int]] = set()
        """Links that swallow what is sent; nobody notices."""
        self.down: set[tuple[int, int]] = set()
        """Links that refuse it: the sender hears `Unreachable` instead of `Sent`."""
        self.effects: list[tuple[int, Effect]] = []
        """Everything any core asked for, in order; tests and transcripts read and clear it."""
        self.watch: Callable[[int, Effect], None] | None = None
        self.says_position = False
        """On a new link a member says where its log ends, as the replica does."""
        self.nodes = {number: Node(number) for number in range(1, count + 1)}
        for number in self.nodes:
            self.start(number, fresh=fresh)

    # ---- life ------------------------------------------------------------------------

    def start(self, number: int, *, fresh: bool = False, lost: bool = False) -> None:
        """Build the core from what the disk holds. lost: its log lost what it acknowledged, as it
        had before the last crash if no leader has sent it anything since; its term is raised."""
        node = self.nodes[number]
        lost = lost or node.lacks_acknowledged
        if lost:
            node.hard_state = (node.hard_state[0] + 1, 0)
        node.start_empty()
        durable = node.durable
        if durable is not node.durable_log:
            node.durable_log, node.durable_first = list(durable), len(durable) + 1
        node.log = list(node.durable_log)
        node.first = node.durable_first
        node.commit_index = len(node.snapshots[-1]) if node.snapshots else 0
        if node.is_wiping:
            node.wipe()  # the directory says so, and a start completes it
        stored = node.stored
        if stored is not None and not (lost or node.lost_upto != NO_ENTRY):
            stored = StoredConfigurations(stored.committed, stored.committed)
        if node.lost_upto != NO_ENTRY and node.hard_state[0] < node.required_term:
            node.hard_state = (node.required_term, 0)
        term, vote = node.hard_state
        node.raft = Raft(
            MemberId(number),
            node.first_configuration or self.founders,
            self.options,
            InitialState(
                current_term=term,
                voted_for=MemberId(vote),
                term_runs=runs_of(node.log),
                first_index=node.first,
                last_index=len(node.log),
                before=name_of(node.log[: node.first - 1]),
                snapshot_index=node.commit_index,
                oldest_snapshot_index=len(node.snapshots[0]) if node.snapshots else 0,
                configurations=self.configurations_in(node.log),
                stored_configuration=None if stored is None else stored.newest,
                committed_configuration=node.first_configuration
                if stored is None
                else stored.committed,
                fresh=fresh,
                lost=lost,
                lost_upto=node.lost_upto,
                is_older_copy=node.lost_upto != NO_ENTRY and node.is_older_copy,
            ),
            seed=self.seed,
        )
        node.is_up = True
        node.facts = observe(node.raft)
        check(None, node.facts)
        if node.accepted_loss != NO_ENTRY:
            self.step(number, LossAccepted(node.accepted_loss))

    def crash(self, number: int, *, keep: int = 0) -> int:
        """Power loss: of what was not synced, the first `keep` entries survive by luck."""
        node = self.nodes[number]
        survivors = min(len(node.log), len(node.durable_log) + keep)
        if survivors > len(node.durable_log) and not node.is_reset:
            node.durable_log = node.log[:survivors]
        node.is_up = False
        node.lacks_acknowledged = node.raft.eligibility.lacks_acknowledged
        for key in [key for key in self.history.read_index_min if key[0] == number]:
            del self.history.read_index_min[key]
        return len(node.log) - survivors

    def stop_for_good(self, number: int) -> None:
        """Its process ends, and its id with it (C42)."""
        self.crash(number)
        self.nodes[number].is_over = True

    # ---- steps -----------------------------------------------------------------------

    def step(self, number: int, event: Event) -> None:
        """One event and all its effects, with the `Sent`s that they cause."""
        node = self.nodes[number]
        if node.is_over:
            return
        effects = node.raft.step(event)
        facts = observe(node.raft)
        check(node.facts, facts)
        node.facts = facts
        if not node.raft.eligibility.is_recovering:
            node.lost_upto = NO_ENTRY
        if (
            node.has_regressed
            and node.durable[: len(node.log_before_loss)] == node.log_before_loss
        ):
            node.has_regressed = False
        if not node.raft.eligibility.has_accepted_loss:
            node.accepted_loss = NO_ENTRY
        answers: list[Event] = []
        for effect in effects:
            self.effects.append((number, effect))
            if self.watch is not None:
                self.watch(number, effect)
            self._execute(node, effect, answers)
        for other in self.nodes.values():
            if not other.has_lost and self.is_bound_by_floor(other):
                self.history.deletions_allowed(
                    facts.cluster_deletion_floor, other.number, other.durable
                )
        self._check_matches(node)
        for answer in answers:
            self.step(number, answer)

    def _check_matches(self, node: Node) -> None:
        raft = node.raft
        if raft.state is ServerState.LEADER:
            for other in self.nodes.values():
                if other.raft.current_term > raft.current_term or other.has_regressed:
                    continue  # a newer leader may have replaced what this one counted
                match_index = raft.match_index(MemberId(other.number))
                self.history.matched(match_index, node.log, other.durable)

    def _execute(self, node: Node, effect: Effect, answers: list[Event]) -> None:
        match effect:
            case Send() | Replicate() if (node.number, effect.peer) in self.down:
                lost = Unreachable(effect.peer)
                if lost not in answers:
                    answers.append(lost)
            case Append(span=span):
                self._append(node, span, effect)
            case Truncate(after=after):
                del node.log[after:]
                if not node.is_reset:
                    del node.durable_log[after:]
                node.syncs = [(ticket, min(upto, after)) for ticket, upto in node.syncs]
            case SaveHardState():
                node.saves.append((effect.ticket, effect.term, effect.voted_for))
            case Sync(ticket=ticket):
                node.syncs.append((ticket, len(node.log)))
            case Send(peer=peer, message=message):
                self._check_sent(node, peer, message)
                self.post(Envelope(node.number, peer, message, ()))
            case Replicate():
                shipped = self._ship(node, effect)
                if shipped.length:
                    answers.append(Sent(effect.peer, shipped))
            case Commit(index=index):
                node.commit_index = index
                mine = node.log[:index]
                voters = node.raft.configuration.voters
                durable_logs = [self.nodes[voter].log_for_majority(mine) for voter in voters]
                self.history.commit(index, node.log, durable_logs)
            case ReadReady(token=token, index=index):
                self.history.read_answered(node.number, token, index)
            case RoleChanged(state=state, term=term):
                if state is ServerState.LEADER:
                    self.history.elected(node.number, term, node.log)
                    answers.append(GapsKnown(node.gaps[1]))
                else:
                    self._forget_reads(node)
                    node.requests.clear()
                    node.shipping.clear()
            case ShipSnapshot():
                answers += self.begin_snapshot(node, effect)
            case EndShipping():
                self.end_snapshot(node, effect)
            case ReceiveSnapshot():
                self.receive_offer(node, effect)
            case Reset(entry=entry):
                node.log = list(node.snapshots[-1])
                assert name_of(node.log) == entry, (entry, node.log)
                node.first = entry.next
                node.is_reset, node.gaps = True, (0, 0)
                node.syncs = [(ticket, 0) for ticket, _ in node.syncs]
            case StopForGood():
                self.stop_for_good(node.number)
            case RecordLoss():
                node.losses.append((effect.lost_upto, effect.term))
            case ChangeFinished() | ConfigurationChanged() | ConfigurationCommitted() | Wipe():
                self.on_membership(node, effect)
            case TransferFinished() | PeerRegressed() | EndDeparture():
                pass

    def _forget_reads(self, node: Node) -> None:
        read_index_min = self.history.read_index_min
        for key in [key for key in read_index_min if key[0] == node.number]:
            del read_index_min[key]

    def _append(self, node: Node, span: Span, effect: Append) -> None:
        content = effect.content
        by_itself = content is Content.NOOP or content is Content.CONFIGURATION
        assert not (by_itself and node.raft.storage_full), "F12: it has no room for its own entry"
        if effect.configuration is not None and content is Content.CONFIGURATION:
            payloads = [self.append_configuration(span, effect.configuration)]
        elif content is Content.NOOP:
            payloads = ["noop"]
        elif content is Content.PROPOSED:
            payloads, node.proposals = node.proposals, []
        else:
            first, entries = node.incoming
            assert not (node.incoming_gaps[0] and node.raft.is_joining), "C30: it takes no gap"
            node.gaps = max(node.gaps, node.incoming_gaps)
            payloads = [entry.payload for entry in entries[span.first - first :]]
        assert len(payloads) == span.length, (span, content, payloads)
        assert span.first == len(node.log) + 1, (span, len(node.log))
        for payload in payloads:
            entry = Entry(span.term, payload)
            previous_term = node.log[-1].term if node.log else 0
            node.log.append(entry)
            self.history.appended(len(node.log), entry, previous_term)

    def _check_sent(self, node: Node, peer: int, message: PeerMessage) -> None:
        match message:
            case AppendReply(accepted=True, match_index=match_index):
                self.history.acknowledged(node.number, match_index, node.durable)
            case InstallReply(done=True, entry=entry):
                self.history.acknowledged(node.number, entry.index, node.durable)
            case VoteReply(granted=True, term=term):
                self.history.voted(node.number, term, peer, node.hard_state)
            case RequestVote(term=term):
                self.history.voted(node.number, term, node.number, node.hard_state)
            case _:
                pass
        last_term = max((entry.term for entry in node.durable), default=0)
        saved = max(node.hard_state[0], last_term)
        assert isinstance(message, PreVote) or message.term <= saved, ("C9 unsaved term", message)

    def _ship(self, node: Node, effect: Replicate) -> Span:
        term, first, end = effect.span
        assert first == effect.prev.index + 1, effect
        assert end == first or first >= node.first, (
            "entries from below the log",
            node.first,
            effect,
        )
        end = min(end, first + self.entries_max)
        rows = [at for at in range(first, end) if is_configuration(node.log[at - 1])]
        if rows:  # a configuration travels alone (C4)
            end = rows[0] if rows[0] > first else first + 1
        span = Span(term, first, end)
        entries = tuple(node.log[first - 1 : span.end - 1])
        assert all(entry.term == term for entry in entries), effect
        message = AppendEntries(
            node.raft.current_term,
            MemberId(node.number),
            effect.request,
            effect.prev,
            span,
            effect.leader_commit,
            effect.deletion_floor,
            effect.orders.configuration,
            0,
            effect.orders.member_type,
            effect.orders.since,
            effect.feeder,
        )
        gaps = node.gaps if entries and first <= node.gaps[0] else (0, 0)
        self.post(Envelope(node.number, effect.peer, message, entries, gaps))
        return span

    def post(self, envelope: Envelope) -> None:
        if (envelope.source, envelope.target) not in self.blocked:
            self.network.append(envelope)

    # ---- the world's verbs -----------------------------------------------------------

    def tick(self, number: int, elapsed_ms: int) -> None:
        self.step(number, Tick(elapsed_ms, self.recent.get(number, 0)))
        self.resend_snapshots(self.nodes[number])

    def deliver(self, position: int = 0, *, keep: bool = False) -> None:
        """Deliver one message; with `keep` a copy stays in the network."""
        envelope = self.network[position] if keep else self.network.pop(position)
        node = self.nodes[envelope.target]
        if not node.is_up or (envelope.source, envelope.target) in self.blocked:
            return
        message, sender = envelope.message, MemberId(envelope.source)
        if isinstance(message, InstallSnapshot) and envelope.entries:
            self.receive_chunk(node, sender, message, list(envelope.entries))
            return
        if isinstance(message, InstallReply) and not message.done:
            self.receive_acknowledgement(node, sender, message)
            return
        if isinstance(message, AppendEntries):
            node.incoming = (message.span.first, envelope.entries)
            node.incoming_gaps = envelope.gaps
        has_gaps = envelope.gaps[0] > 0
        configuration = None
        if isinstance(message, AppendEntries) and any(map(is_configuration, envelope.entries)):
            assert len(envelope.entries) == 1, "C4: a configuration travels alone"
            configuration = self.by_name[EntryId(message.span.term, message.span.first)]
        self.step(envelope.target, Received(sender, message, has_gaps, configuration))

    def sync(self, number: int) -> bool:
        """The oldest sync ends; False when none is in flight."""
        node = self.nodes[number]
        if not node.is_up or not node.syncs:
            return False
        ticket, upto = node.syncs.pop(0)
        if upto > len(node.durable_log) or (node.is_reset and upto):
            node.durable_log = node.log[:upto]
            node.is_reset = False
        if not node.is_reset:
            node.durable_first = min(node.first, len(node.durable_log) + 1)
        self.step(number, Synced(ticket))
        return True

    def save(self, number: int) -> bool:
        """The oldest save ends; False when none is in flight."""
        node = self.nodes[number]
        if not node.is_up or not node.saves:
            return False
        ticket, term, vote = node.saves.pop(0)
        node.hard_state = (term, vote)
        self.step(number, Saved(ticket))
        return True

    def record(self, number: int) -> bool:
        """Write the oldest loss into the directory; False when there is none to write."""
        node = self.nodes[number]
        if not node.is_up or not node.losses:
            return False
        node.lost_upto, node.required_term = node.losses.pop(0)
        node.has_regressed, node.is_older_copy = False, True
        self.step(number, LossRecorded(node.required_term))
        return True

    def propose(self, number: int, *payloads: str) -> bool:
        """True when the core took them."""
        node = self.nodes[number]
        if not node.is_up or not node.raft.can_propose:
            return False
        node.proposals = list(payloads)
        self.step(number, Proposed(len(payloads)))
        return True

    def read(self, number: int, token: int) -> None:
        self.history.read_requested(number, token)
        if self.nodes[number].raft.state is not ServerState.LEADER:
            self._forget_reads(self.nodes[number])
        self.step(number, ReadRequested(token))

    def unreachable(self, number: int, peer: int) -> None:
        self.step(number, Unreachable(MemberId(peer)))

    def reachable(self, number: int, peer: int) -> None:
        raft = self.nodes[peer].raft
        fresh = raft.last == NO_ENTRY and raft.eligibility.accepts_gaps
        lost = raft.eligibility.lacks_acknowledged
        self.step(number, Reachable(MemberId(peer), fresh, lost))
        if self.says_position:
            self.say_position(number, peer)

    def say_position(self, number: int, peer: int) -> None:
        """The first message on a new link."""
        self.post(Envelope(number, peer, self.nodes[number].raft.position, ()))

    # ---- conveniences ----------------------------------------------------------------

    def stabilize(self, *, slow: frozenset[int] = frozenset(), rounds: int = 10_000) -> None:
        """Deliver, save and sync in order until nothing moves; `slow` disks do not sync."""
        for _ in range(rounds):
            moved = False
            for number in self.nodes:
                while self.save(number) or self.record(number) or self.wipe(number):
                    moved = True
                while number not in slow and self.sync(number):
                    moved = True
            for _ in range(len(self.network)):
                self.deliver()
                moved = True
            if not moved and self.feeds:
                moved = any(self.feed_named(number) for number in self.nodes)
            if not moved:
                return
        raise AssertionError("the cluster never comes to rest")

    def age(self) -> None:
        """Let the wait of C11 after a start pass at every member, without an election."""
        for node in self.nodes.values():
            node.raft.election_at_ms += self.options.election_timeout_ms
            self.tick(node.number, self.options.election_timeout_ms)

    def elect(self, number: int) -> None:
        """Make `number` the leader, everybody willing."""
        self.forget_leader()
        self.tick(number, self.nodes[number].raft.timeout_ms)
        self.stabilize()

    def forget_leader(self, *numbers: int) -> None:
        """At these nodes (default: all) the link to their leader breaks."""
        for number in numbers or tuple(self.nodes):
            node = self.nodes[number]
            if node.is_up and node.raft.leader not in (0, number):
                self.unreachable(number, node.raft.leader)

    def leaders(self) -> list[int]:
        return [
            number
            for number, node in self.nodes.items()
            if node.is_up and node.raft.state is ServerState.LEADER
        ]
