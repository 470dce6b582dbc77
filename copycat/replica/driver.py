"""Steps the core and executes its effects, in list order, each in one place.

Effects may cause events (what was sent, or that a link did not take it); those are stepped after
the effects of the event before them, so nothing is re-entrant.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVarTuple, assert_never

import msgspec

from copycat.errors import ResourceError, require
from copycat.protocol.codec_configuration import encode_configuration
from copycat.protocol.codec_peer import encode_append, encode_append_reply, encode_peer
from copycat.protocol.member_record import ConfigurationRecord
from copycat.protocol.peer import (
    AppendEntries,
    AppendReply,
    ConfigurationNotice,
    PeerMessage,
    PreVoteReply,
    VoteReply,
)
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
from copycat.raft.events import Event, Sent, Unreachable
from copycat.replica.applier import Applier
from copycat.replica.configuration_store import ConfigurationStore
from copycat.replica.host import Host
from copycat.replica.log_clock import LogClock
from copycat.replica.proposals import Proposal, ProposalQueue
from copycat.replica.queries import Queries
from copycat.replica.sync_scheduler import SyncScheduler
from copycat.storage import Batch, encode_batch
from copycat.storage.interface import ReplicaLog
from copycat.storage.recent_batches import BatchReader
from copycat.types import EntryKind, MemberId, Span

__all__ = [
    "Driver",
    "EntrySender",
    "MemberEffect",
    "Payload",
    "RegressionEffect",
    "SnapshotEffect",
]

_LOG = logging.getLogger("copycat.replica")

Arguments = TypeVarTuple("Arguments")

BACKLOG_MAX = 4096
"""A member with more committed entries to apply says that it is replaying."""

MemberEffect = ConfigurationChanged | ConfigurationCommitted | EndDeparture | Wipe
RegressionEffect = PeerRegressed | RecordLoss | StopForGood
SnapshotEffect = ShipSnapshot | EndShipping | ReceiveSnapshot


class Payload(NamedTuple):
    """The bytes that an event stands for: the core sees only names of entries."""

    proposals: Sequence[Proposal] = ()
    """Of `Proposed`."""
    batch: Batch | None = None
    """Entries of an AppendEntries, each frame verified."""
    record: ConfigurationRecord | None = None
    """What that entry says if it is one configuration; or what a leader's notice says, or a
    snapshot."""


_EMPTY = Payload()


class EntrySender:
    """Executes `Replicate`: it becomes a header and a view of the frames of the log."""

    def __init__(self, batch_reader: BatchReader, host: Host) -> None:
        self._batch_reader = batch_reader
        self._host = host

    def ship(
        self,
        effect: Replicate,
        *,
        term: int,
        leader: MemberId,
        log_time_ms: int,
    ) -> Span | None:
        """Send what one message takes; the span that was sent, None when no link took it.

        leader: this member, which leads `term`.  log_time_ms: as this leader knows it (C25).

        What is in a gap was committed (C3), even if this leader was restarted and does not know
        yet up to where all is committed: the message says that the gap is, or a peer that lags
        would refuse the gap, and without that peer there may be no majority for new entries.
        """
        span, batch, committed = effect.span, None, effect.leader_commit
        if span.first < span.end:
            batch = self._batch_reader.gather(span.first, span.end)
            span = Span(span.term, span.first, batch.span.end)
            if committed < span.last and batch.has_gaps:
                committed = max(committed, batch.gaps()[-1][1] - 1)
        orders = effect.orders
        message = AppendEntries(
            term,
            leader,
            effect.request,
            effect.prev,
            span,
            committed,
            effect.deletion_floor,
            orders.configuration,
            log_time_ms,
            orders.member_type,
            orders.since,
            effect.feeder,
        )
        header = encode_append(message, 0 if batch is None else batch.nbytes)
        return span if self._host.send(effect.peer, header, batch) else None


class EffectHandler(Protocol):
    """Who executes the effects that need more than the parts: `copycat/replica/replica.py`, the
    methods of these names."""

    def on_role_changed(self, effect: RoleChanged) -> None:
        """This member has another role, or another leader."""
        ...

    def on_member_effect(self, effect: MemberEffect) -> None:
        """The cluster has other members, or this member is another one to it."""
        ...

    def on_change_finished(self, effect: ChangeFinished) -> None:
        """A change of the members was made, or was refused."""
        ...

    def on_transfer_finished(self, effect: TransferFinished) -> None:
        """The transfer of leadership ended."""
        ...

    def on_snapshot_effect(self, effect: SnapshotEffect) -> None:
        """A snapshot is sent or received, or a transfer is over."""
        ...

    def on_regression_effect(self, effect: RegressionEffect) -> None:
        """A directory is an older copy of itself."""
        ...


class Driver:
    """The only place that knows what each effect means."""

    def __init__(
        self,
        raft: Raft,
        log: ReplicaLog,
        clock: LogClock,
        host: Host,
        batch_reader: BatchReader,
        entry_sender: EntrySender,
        sync_scheduler: SyncScheduler,
        applier: Applier,
        proposal_queue: ProposalQueue,
        queries: Queries,
        configurations: ConfigurationStore,
        handler: EffectHandler,
    ) -> None:
        self._raft = raft
        self._log = log
        self._clock = clock
        self._host = host
        self._batch_reader = batch_reader
        self._entry_sender = entry_sender
        self._sync_scheduler = sync_scheduler
        self._applier = applier
        self._proposal_queue = proposal_queue
        self._queries = queries
        self._configurations = configurations
        self._handler = handler
        self._events: deque[tuple[Event, Payload]] = deque()
        self._replies: dict[MemberId, AppendReply] = {}
        """Answers of this turn; a later one that says more replaces an earlier one."""
        self.left_feeder = MemberId(0)
        """The feeder that this member left last, until the leader's own stream serves it: each
        answer to the leader says it (C27). 0: none."""
        self._unannounced: set[MemberId] = set()
        """Peers with a new link to which it was not sent yet where this log ends."""

    def queue(self, event: Event) -> None:
        """An event that follows from an effect; stepped after the effects beside it."""
        self._events.append((event, _EMPTY))

    def step(self, event: Event, payload: Payload = _EMPTY) -> None:
        """Step the core with `event` and with all that follows from its effects.

        `payload` is what the event stands for, see `Payload`.
        """
        if self._events:  # they are older than this event, so they come first
            self._events.append((event, payload))
        else:
            effects = self._raft.step(event)
            if self._unannounced:
                self._announce_position()
            for effect in effects:
                self._execute(effect, payload)
        if self._events:
            self.step_queued()

    def step_queued(self) -> None:
        """Step the core with what was queued outside of a step."""
        events = self._events
        while events:
            event, payload = events.popleft()
            effects = self._raft.step(event)
            if self._unannounced:
                self._announce_position()
            for effect in effects:
                self._execute(effect, payload)

    def _execute(self, effect: Effect, payload: Payload) -> None:
        match effect:
            case Append():
                self._append(effect, payload)
            case Replicate():
                self._replicate(effect)
            case Sync():
                self._sync_scheduler.request_sync(effect.ticket)
            case Send():
                self._send(effect.peer, effect.message)
            case Commit():
                self._applier.commit(effect.index)
            case Truncate():
                _LOG.warning(
                    "entries %d to %d are dropped: the leader of term %d has others there",
                    effect.after + 1,
                    self._log.last_index,
                    self._raft.current_term,
                )
                _twice(self._log.truncate, effect.after)
                self._batch_reader.truncate(effect.after)
            case Reset():
                _twice(self._log.reset, effect.entry)
                self._batch_reader.truncate(0)
            case ShipSnapshot() | EndShipping() | ReceiveSnapshot():
                self._handler.on_snapshot_effect(effect)
            case PeerRegressed() | RecordLoss() | StopForGood():
                self._handler.on_regression_effect(effect)
            case SaveHardState():
                self._sync_scheduler.request_save(effect)
            case ReadReady():
                self._queries.confirmed(effect.token, effect.index)
            case RoleChanged():
                self._handler.on_role_changed(effect)
            case ConfigurationCommitted():
                record = payload.record
                if record is not None and record.entry == effect.configuration.entry:
                    self._configurations.announced(record)
                self._handler.on_member_effect(effect)
            case ConfigurationChanged() | EndDeparture() | Wipe():
                self._handler.on_member_effect(effect)
            case ChangeFinished():
                self._handler.on_change_finished(effect)
            case TransferFinished():
                self._handler.on_transfer_finished(effect)
            case _:
                assert_never(effect)

    def _append(self, effect: Append, payload: Payload) -> None:
        span = effect.span
        proposals: Sequence[Proposal] = ()
        match effect.content:
            case Content.PROPOSED:
                proposals = payload.proposals
                items = [proposal.item for proposal in proposals]
                batch = encode_batch(span.term, span.first, self._clock.stamp_ms(), items)
            case Content.NOOP:
                self._note_election(span)
                time_ms = self._clock.stamp_ms()
                noop = (int(EntryKind.NOOP), 0, 0, 0, 1, b"")
                batch = encode_batch(span.term, span.first, time_ms, [noop])
                self._proposal_queue.noop_appended(span.first, time_ms)
            case Content.CONFIGURATION:
                self._note_election(span)
                batch = self._configuration_batch(effect)
            case Content.RECEIVED:
                received = payload.batch
                require(received is not None, "an append of frames that never came")
                assert received is not None  # noqa: S101  # for the type checker
                whole = received.span == span
                batch = received if whole else received.slice(span.first, span.end)
                self._clock.entry_appended(batch.last_time_ms)
                if payload.record is not None and whole:
                    self._configurations.appended(payload.record)
            case _:
                assert_never(effect.content)
        require(batch.span == span, "a batch that is not its span", batch=batch.span, span=span)
        _twice(self._log.append, batch)
        self._batch_reader.add(batch)
        self._proposal_queue.appended(span.first, proposals)

    def _note_election(self, span: Span) -> None:
        """The first entry of a leader gives its log time (C25)."""
        last_term = self._log.last_entry.term
        if last_term < span.term:
            self._clock.elected(span.term, last_term)

    def _configuration_batch(self, effect: Append) -> Batch:
        """The entry that holds a configuration which this leader made."""
        configuration = effect.configuration
        require(configuration is not None, "an entry with a configuration that is not there")
        assert configuration is not None  # noqa: S101  # for the type checker
        record = self._configurations.new_record(configuration)
        self._configurations.appended(record)
        item = (int(EntryKind.CONFIGURATION), 0, 0, 0, 1, encode_configuration(record))
        span = effect.span
        return encode_batch(span.term, span.first, self._clock.stamp_ms(), [item])

    def _replicate(self, effect: Replicate) -> None:
        sent = self._entry_sender.ship(
            effect,
            term=self._raft.current_term,
            leader=self._raft.member,
            log_time_ms=self._clock.peek_ms(),
        )
        if sent is None:
            self.queue(Unreachable(effect.peer))
        elif sent.first < sent.end:
            self.queue(Sent(effect.peer, sent))

    def _send(self, peer: MemberId, message: PeerMessage) -> None:
        if isinstance(message, AppendReply):
            earlier = self._replies.get(peer)
            if earlier is not None:
                merged = merge_replies(earlier, message)
                if merged is None:
                    self._write_reply(peer, earlier)
                message = merged or message
            self._replies[peer] = message
        else:
            self._write(peer, message)

    def answer(self, peer: MemberId, message: PeerMessage) -> None:
        """Send a message that the replica makes by itself, in the core's term. Nothing is sent
        while the term is not on the disk (I2), since the peer asks again."""
        if not self._raft.is_saving:
            self._write(peer, message)

    def link_opened(self, peer: MemberId) -> None:
        """A link is open: first tell the peer where this log ends (F8), as soon as the term of the
        leader that this member follows is on the disk (I2)."""
        self._unannounced.add(peer)
        self._announce_position()

    def _announce_position(self) -> None:
        if self._unannounced and not self._raft.is_saving:
            for peer in sorted(self._unannounced):
                self._write(peer, self._raft.position)
            self._unannounced.clear()

    def send_replies(self) -> None:
        """End of a turn: send the replies to AppendEntries that waited to be merged with later
        ones."""
        if not self._replies:
            return
        replies, self._replies = self._replies, {}
        for peer, reply in replies.items():
            self._write_reply(peer, reply)

    def _write_reply(self, peer: MemberId, reply: AppendReply) -> None:
        # If it is lost, the next heartbeat asks for it again: no event for it.
        is_full, is_replaying = self._raft.storage_full, self._is_replaying
        if is_full or is_replaying or self.left_feeder:
            reply = msgspec.structs.replace(
                reply,
                storage_full=is_full,
                is_replaying=is_replaying,
                left_feeder=self.left_feeder,
            )
        self._host.send(peer, encode_append_reply(reply), None)

    def _write(self, peer: MemberId, message: PeerMessage) -> None:
        match message:
            case ConfigurationNotice():
                record = self._configurations.record(message.configuration)
                message = msgspec.structs.replace(message, configuration=record)
            case PreVoteReply() | VoteReply():
                report = self._clock.report
                message = msgspec.structs.replace(
                    message,
                    wall_ms=report.wall_ms,
                    log_time_ms=report.log_time_ms,
                    log_time_term=report.term,
                )
        self._host.send(peer, encode_peer(message), None)

    @property
    def _is_replaying(self) -> bool:
        """Whether the state of the machine is not that of the log so far: around gaps (C22), or
        because much is still to be applied."""
        applier = self._applier
        last_applied = applier.last_applied
        return (
            last_applied < self._log.valid_from
            or applier.commit_index - last_applied > BACKLOG_MAX
        )


def _twice(change: Callable[[*Arguments], object], *arguments: *Arguments) -> None:
    """A shortage that lasts only a moment does not stop the member (F29): the log is as it was, so
    the same call is made again. If that fails too, the error says what was short."""
    try:
        change(*arguments)
    except ResourceError as shortage:
        _LOG.warning("the log's change is tried once more: %s", shortage)
        change(*arguments)


def merge_replies(earlier: AppendReply, later: AppendReply) -> AppendReply | None:
    """One reply that contains what both contain, or None when that cannot be.

    Both must be of one term and accepted: the newer request confirms the round, and the greater
    match_index what is on the disk; each of the two is still true (C1).
    """
    if not (earlier.accepted and later.accepted and earlier.term == later.term):
        return None
    return AppendReply(
        later.term,
        max(earlier.request, later.request),
        accepted=True,
        match_index=max(earlier.match_index, later.match_index),
        hint=later.hint,
        stable_index=max(earlier.stable_index, later.stable_index),
        configuration=max(earlier.configuration, later.configuration),
        last=later.last,
        commit_index=later.commit_index,
    )
