"""Snapshots in the tiny network of cores: saved at once, shipped in three chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod

from copycat.protocol.peer import InstallReply, InstallSnapshot
from copycat.raft.configuration import Configuration
from copycat.raft.effects import EndShipping, ReceiveSnapshot, ShipSnapshot
from copycat.raft.events import (
    Compacted,
    Event,
    LeaderHeard,
    OldestSnapshotChanged,
    PeerHeard,
    SnapshotInstalled,
    SnapshotShipping,
)
from copycat.types import NO_ENTRY, MemberId
from tests.raft.laws import Entry, History
from tests.raft.node import CHUNKS, Envelope, Node, name_of

__all__ = ["Snapshotting"]


class Snapshotting(ABC):
    """The half of `Cluster` that knows snapshots."""

    nodes: dict[int, Node]
    history: History

    @abstractmethod
    def step(self, number: int, event: Event) -> None: ...

    @abstractmethod
    def post(self, envelope: Envelope) -> None: ...

    @abstractmethod
    def configuration_at(self, log: list[Entry]) -> Configuration | None: ...

    def snapshot(self, number: int) -> bool:
        """Save what is applied, which is what is committed; the newest two are kept."""
        node = self.nodes[number]
        contents = node.log[: node.commit_index]
        if (
            not node.is_up
            or not contents
            or len(contents) <= max(map(len, node.snapshots or [[]]))
        ):
            return False
        node.snapshots = [*node.snapshots, contents][-2:]
        self.step(number, OldestSnapshotChanged(len(node.snapshots[0])))
        return True

    def trim(self, number: int, first: int) -> bool:
        """Drop what is below `first`, as far as the oldest snapshot allows."""
        node = self.nodes[number]
        if not node.is_up or not node.snapshots:
            return False
        first = min(first, len(node.snapshots[0]) + 1)
        if first <= node.first:
            return False
        node.first = first
        self.step(number, Compacted(first))
        return True

    # ---- the sender and the receiver: three chunks, counted between themselves ---------------

    def begin_snapshot(self, node: Node, effect: ShipSnapshot) -> list[Event]:
        """`effect`: send a snapshot until the core ends that. What the core hears of it."""
        node.requests[effect.peer] = effect
        return self._offer(node, effect)

    def end_snapshot(self, node: Node, effect: EndShipping) -> None:
        """The peer has it; or the link broke, and the same file continues when it is back."""
        node.requests.pop(effect.peer, None)
        if effect.done:
            node.shipping.pop(effect.peer, None)

    def resend_snapshots(self, node: Node) -> None:
        """Offer again what nothing was heard of for a heartbeat."""
        if node.raft.now_ms < node.resend_ms:
            return
        node.resend_ms = node.raft.now_ms + node.raft.options.heartbeat_interval_ms
        for peer, request in list(node.requests.items()):
            if peer not in node.heard:
                for event in self._offer(node, request):
                    self.step(node.number, event)
        node.heard.clear()

    def _offer(self, node: Node, request: ShipSnapshot) -> list[Event]:
        peer, raft = request.peer, node.raft
        least = max(request.min_index, raft.cluster_deletion_floor, node.first - 1)
        events: list[Event] = []
        if len(node.shipping.get(peer, [])) < max(least, 1):
            node.shipping.pop(peer, None)
            if not node.snapshots or len(node.snapshots[-1]) < least:
                if node.commit_index < max(least, 1):
                    return []
                node.snapshots = [*node.snapshots, node.log[: node.commit_index]][-2:]
                events.append(OldestSnapshotChanged(len(node.snapshots[0])))
            node.shipping[peer] = node.snapshots[-1]
        entry = name_of(node.shipping[peer])
        events.append(SnapshotShipping(peer, request.request, entry))
        self._post_chunk(node, request, 0, is_empty=True)
        return events

    def _post_chunk(
        self, node: Node, request: ShipSnapshot, offset: int, *, is_empty: bool
    ) -> None:
        contents = node.shipping[request.peer]
        entry, digest = name_of(contents), bytes(32)
        term = node.raft.current_term
        leader, number = node.raft.member, request.request
        message = InstallSnapshot(term, leader, number, entry, CHUNKS, digest, offset)
        entries = () if is_empty else tuple(contents)
        self.post(Envelope(node.number, request.peer, message, entries))

    def receive_acknowledgement(self, node: Node, sender: MemberId, message: InstallReply) -> None:
        """The peer has so many chunks; the core is told only that it lives."""
        self.step(node.number, PeerHeard(sender, message.term))
        request = node.requests.get(sender)
        if (
            request is None
            or (message.term, message.request) != (node.raft.current_term, request.request)
            or message.entry != name_of(node.shipping.get(sender, []))
        ):
            return
        node.heard.add(sender)
        for at in range(message.offset, min(message.offset + 2, CHUNKS)):
            self._post_chunk(node, request, at, is_empty=False)

    def receive_offer(self, node: Node, effect: ReceiveSnapshot) -> None:
        """`effect`: say how many chunks are here."""
        message = effect.message
        if node.part[0] != message.entry:
            node.part = (message.entry, 0)
        self._answer(node, effect.sender, message, node.part[1])

    def receive_chunk(
        self, node: Node, sender: MemberId, message: InstallSnapshot, entries: list[Entry]
    ) -> None:
        """One more chunk; the core is told only that the leader lives, or of the last one."""
        self.step(node.number, LeaderHeard(sender, message.term, message.leader))
        raft = node.raft
        if message.term < raft.current_term:
            self._answer(node, sender, message, 0)
            return
        entry, count = node.part
        is_of_leader = (sender, message.term) == (raft.leader, raft.current_term)
        if not is_of_leader or entry != message.entry or raft.commit_index >= entry.index:
            return
        count += message.offset == count
        node.part = (entry, count)
        if count < CHUNKS:
            self._answer(node, sender, message, count)
            return
        node.part = (NO_ENTRY, 0)
        self.history.installed(node.number, entries)
        node.snapshots = [entries]
        held = self.configuration_at(entries)
        self.step(node.number, SnapshotInstalled(sender, message.request, entry, held))
        self.step(node.number, OldestSnapshotChanged(entry.index))

    def _answer(self, node: Node, to: MemberId, message: InstallSnapshot, count: int) -> None:
        raft = node.raft
        if not raft.is_saving:
            reply = InstallReply(raft.current_term, message.request, message.entry, count, False)
            self.post(Envelope(node.number, to, reply, ()))
