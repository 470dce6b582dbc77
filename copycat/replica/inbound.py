"""Messages of peers: verified and decoded at once, handled in the next turn in the order of
arrival."""

from __future__ import annotations

import msgspec

from copycat.errors import ProtocolError, VersionMismatchError
from copycat.protocol.codec_peer import (
    decode_append,
    decode_append_reply,
    decode_forward,
    decode_install,
    decode_peer,
    decode_return,
)
from copycat.protocol.framing import Frame
from copycat.protocol.member_record import ConfigurationRecord
from copycat.protocol.peer import (
    AppendEntries,
    AppendReply,
    ConfigurationNotice,
    InstallReply,
    PeerMessage,
    PreVoteReply,
    VoteReply,
)
from copycat.protocol.wire import FrameType
from copycat.raft.core import Raft
from copycat.raft.events import Received
from copycat.replica.connections import Route
from copycat.replica.disk_space import DiskSpace
from copycat.replica.driver import Driver, Payload
from copycat.replica.feeding import FEEDING_TYPES, Feeding
from copycat.replica.host import Inbox
from copycat.replica.known_configurations import configuration_of, entry_configuration
from copycat.replica.log_clock import LogClock, TimeReport
from copycat.replica.requests import RequestRouter
from copycat.replica.snapshot_receiver import SnapshotReceiver
from copycat.replica.snapshot_sender import SnapshotSender
from copycat.replica.status import Outage
from copycat.storage import Batch
from copycat.types import MemberId, Span

__all__ = ["PeerInbound", "received_batch"]


def received_batch(body: memoryview, message: AppendEntries) -> Batch:
    """The entries of a message, every frame verified. ProtocolError.

    C3: only what is committed is ever deleted, so a gap above leader_commit is forged.
    """
    batch = Batch.from_wire(body, message.span)
    if batch.has_gaps:
        for first, end, _ in batch.gaps():
            if end > message.leader_commit + 1:
                raise ProtocolError(
                    f"a gap of [{first}, {end}) above the leader's commit index"
                    f" {message.leader_commit}"
                )
    return batch


class PeerInbound:
    """Decodes and verifies at once; what follows happens in a turn."""

    def __init__(
        self,
        raft: Raft,
        clock: LogClock,
        inbox: Inbox,
        driver: Driver,
        requests: RequestRouter,
        outage: Outage,
        disk_space: DiskSpace,
        snapshot_sender: SnapshotSender,
        snapshot_receiver: SnapshotReceiver,
        feeding: Feeding,
    ) -> None:
        self._raft = raft
        self._clock = clock
        self._inbox = inbox
        self._driver = driver
        self._requests = requests
        self._outage = outage
        self._disk_space = disk_space
        self._snapshot_sender = snapshot_sender
        self._snapshot_receiver = snapshot_receiver
        self._feeding = feeding

    def receive(self, peer: MemberId, frame: Frame) -> None:
        """One frame from a peer. ProtocolError: the listener closes the connection."""
        match frame.type:
            case FrameType.APPEND_ENTRIES:
                message, body = decode_append(frame)
                if message.span.first < message.span.end:
                    self._receive_entries(peer, message, received_batch(body, message))
                elif body.nbytes:
                    raise ProtocolError(f"{body.nbytes} bytes of entries in an empty span")
                else:
                    self._inbox.put(self._on_append_entries, peer, message, None, None)
            case FrameType.APPEND_REPLY:
                self._inbox.put(self._on_append_reply, peer, decode_append_reply(frame))
            case FrameType.INSTALL_SNAPSHOT:
                offer, chunk = decode_install(frame)
                if chunk.nbytes:
                    receive = self._snapshot_receiver.on_chunk
                    self._inbox.put(receive, peer, offer, bytes(chunk))
                else:
                    self._inbox.put(self._on_message, peer, offer)
            case FrameType.FORWARD:
                token, inner = decode_forward(frame)
                self._requests.receive(Route(peer, token), inner)
            case FrameType.RETURN:
                token, answer = decode_return(frame)
                self._requests.receive_return(token, answer)
            case kind if kind in FEEDING_TYPES:
                self._feeding.receive(peer, frame)
            case _:
                other: PeerMessage = decode_peer(frame)
                if isinstance(other, InstallReply) and not other.done:
                    self._inbox.put(self._snapshot_sender.on_acknowledged, peer, other)
                else:
                    self._inbox.put(self._on_message, peer, other)

    def _receive_entries(self, peer: MemberId, message: AppendEntries, batch: Batch) -> None:
        try:
            record = entry_configuration(batch)
        except VersionMismatchError as error:
            self._inbox.put(self._on_unknown_version, message, error)
            return
        self._inbox.put(self._on_append_entries, peer, message, batch, record)

    def _on_unknown_version(self, message: AppendEntries, error: VersionMismatchError) -> None:
        """C47: an entry that nobody may skip. The member stops here, unless no leader sent it."""
        if message.term >= self._raft.current_term:
            raise error

    def _on_append_reply(self, peer: MemberId, reply: AppendReply) -> None:
        self._outage.disk_reported(peer, is_full=reply.storage_full)
        self._driver.step(Received(peer, reply))

    def _on_message(self, peer: MemberId, message: PeerMessage) -> None:
        if isinstance(message, PreVoteReply | VoteReply) and self._outage.is_member(peer):
            report = TimeReport(message.wall_ms, message.log_time_ms, message.log_time_term)
            self._clock.reported(peer, report)
        record = message.configuration if isinstance(message, ConfigurationNotice) else None
        self._driver.step(Received(peer, message), Payload(record=record))

    def _on_append_entries(
        self,
        peer: MemberId,
        message: AppendEntries,
        batch: Batch | None,
        record: ConfigurationRecord | None,
    ) -> None:
        if batch is not None and not self._disk_space.admit_span(message.span, batch.nbytes):
            # F12: as if it were a heartbeat at the same place. What it says of the log before
            # these entries is true; of the entries it says nothing, neither yes nor no.
            first = message.span.first
            empty = Span(message.span.term, first, first)
            message, batch = msgspec.structs.replace(message, span=empty), None
            record = None
        has_gaps = batch is not None and batch.has_gaps
        configuration = None if record is None else configuration_of(record)
        event = Received(peer, message, has_gaps, configuration)
        self._driver.step(event, Payload(batch=batch, record=record))
        raft = self._raft
        # Until this log ends as the leader's does, its entries may be of other leaders, whose
        # log time was behind this one's: it must not lead on with this one's.
        if raft.leader == peer and raft.current_term == message.term == raft.terms.last_term:
            self._clock.leader_reported(message.log_time_ms, message.term)
