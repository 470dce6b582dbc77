"""Snapshots in the tiny network of cores: saved at once, shipped in three chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod

from copycat.protocol.peer import InstallSnapshot
from copycat.raft.effects import ReceiveChunk, ShipSnapshot
from copycat.raft.events import (
    Compacted,
    Event,
    OldestSnapshotChanged,
    SnapshotHeld,
    SnapshotInstalled,
    SnapshotShipping,
)
from copycat.types import NO_ENTRY
from tests.raft.laws import History
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

    def ship_snapshot(self, node: Node, effect: ShipSnapshot, answers: list[Event]) -> None:
        peer, least = effect.peer, max(effect.min_index, node.first - 1)
        if len(node.shipping.get(peer, [])) < max(least, 1):
            node.shipping.pop(peer, None)
            if not node.snapshots or len(node.snapshots[-1]) < least:
                if node.commit_index < max(least, 1):
                    return  # asked again with the next heartbeat
                node.snapshots = [*node.snapshots, node.log[: node.commit_index]][-2:]
                answers.append(OldestSnapshotChanged(len(node.snapshots[0])))
            node.shipping[peer] = node.snapshots[-1]
        answers.append(SnapshotShipping(peer, effect.request, name_of(node.shipping[peer])))
        self.post_chunk(node, peer, effect.request, 0, is_empty=True)

    def post_chunk(
        self, node: Node, peer: int, request: int, offset: int, *, is_empty: bool
    ) -> None:
        contents = node.shipping[peer]
        entry, digest = name_of(contents), bytes(32)
        term = node.raft.current_term
        message = InstallSnapshot(term, node.raft.member, request, entry, CHUNKS, digest, offset)
        entries = () if is_empty else tuple(contents)
        self.post(Envelope(node.number, peer, message, entries))

    def receive_chunk(self, node: Node, effect: ReceiveChunk, answers: list[Event]) -> None:
        message = effect.message
        entries = node.incoming[1]
        entry, offset = node.part
        if entry != message.entry:
            entry, offset = message.entry, 0
        if entries and message.offset == offset:
            offset += 1
        if offset < CHUNKS:
            node.part = (entry, offset)
            answers.append(
                SnapshotHeld(effect.sender, message.term, message.request, entry, offset)
            )
            return
        node.part = (NO_ENTRY, 0)
        self.history.installed(node.number, list(entries))
        node.snapshots = [list(entries)]
        answers.append(SnapshotInstalled(effect.sender, message.request, entry))
        answers.append(OldestSnapshotChanged(entry.index))
