"""Feeding in the tiny network of cores: a feeder's answer arrives at once.

The questions of a real member and the answers of a real feeder belong to the replica; here a
feeder looks at the asker's log itself. What it may send, and what the asker's core makes of it, is
as in the replica.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from copycat.raft.configuration import Configuration
from copycat.raft.events import EntriesFed, Event, OldestSnapshotChanged, SnapshotInstalled
from copycat.types import INDEX_END, EntryId, MemberId, ServerState, Span
from tests.raft.changing import is_configuration
from tests.raft.laws import Entry, History
from tests.raft.node import Node, name_of

__all__ = ["Feeding"]


class Feeding(ABC):
    """The half of `Cluster` that knows feeding."""

    nodes: dict[int, Node]
    history: History
    blocked: set[tuple[int, int]]
    down: set[tuple[int, int]]
    by_name: dict[EntryId, Configuration]
    entries_max: int

    def __init__(self) -> None:
        self.feeds = True
        """In `stabilize` who is to be fed is fed, by whom the leader named."""
        self.recent: dict[int, int] = {}
        """By member: from which entry on it has its log in memory (C29)."""
        self.feed_refused = ""
        """Why the last `feed` brought nothing."""

    @abstractmethod
    def step(self, number: int, event: Event) -> None: ...

    @abstractmethod
    def snapshot(self, number: int) -> bool: ...

    @abstractmethod
    def configuration_at(self, log: list[Entry]) -> Configuration | None: ...

    def feed_named(self, number: int) -> bool:
        """Member `number` asks whom its leader named; True when something came of it."""
        node = self.nodes[number]
        feeder = node.raft.feeder if node.is_up else 0
        is_asking = feeder and node.raft.state is ServerState.FOLLOWER and not node.is_wiping
        return bool(is_asking) and self.feed(int(feeder), number)

    def feed(self, source: int, number: int, *, upto: int = INDEX_END) -> bool:
        """Member `number` asks `source`, and takes what that has, at most up to `upto`; True when
        it moved."""
        feeder, node = self.nodes[source], self.nodes[number]
        self.feed_refused = ""
        links = {(source, number), (number, source)}
        if not feeder.is_up or not node.is_up or links & (self.blocked | self.down):
            return self._refuse("no link")
        record = feeder.raft.known_configuration.record(MemberId(number))
        if record is None or not record.is_stateful or record.since != node.raft.own_record.since:
            return self._refuse("not yet")  # C31
        before = (node.raft.commit_index, node.raft.commit_ceiling, node.raft.last)
        while node.raft.last.index < upto and self._feed_once(feeder, node):
            pass
        return before != (node.raft.commit_index, node.raft.commit_ceiling, node.raft.last)

    def _refuse(self, why: str) -> bool:
        self.feed_refused = why
        return False

    def _feed_once(self, feeder: Node, node: Node) -> bool:
        """One question and its answer; False when there is nothing more."""
        raft, terms = feeder.raft, feeder.raft.terms
        commit_index = raft.commit_index
        asked = node.raft.last
        committed = node.raft.commit_index
        prev = terms.last_at_or_below(EntryId(asked.term, min(asked.index, commit_index)))
        while prev.index >= committed and node.raft.terms.term_at(prev.index) != prev.term:
            prev = terms.last_at_or_below(node.raft.terms.last_at_or_below(prev))
        takes_gaps = node.raft.eligibility.accepts_gaps
        first = prev.index + 1
        if first <= commit_index and (
            first < feeder.first
            or (takes_gaps and first <= raft.cluster_deletion_floor)
            or (not takes_gaps and first <= feeder.gaps[0])
        ):
            return self._feed_snapshot(feeder, node)
        end = min(commit_index + 1, first + self.entries_max)
        span = terms.span_from(first, end) if first < end else Span(raft.current_term, first, end)
        rows = [at for at in range(first, span.end) if is_configuration(feeder.log[at - 1])]
        if rows:
            end = rows[0] if rows[0] > first else first + 1
            span = Span(span.term, first, end)
        before = (node.raft.last, node.raft.commit_ceiling)
        self.deliver_fed(feeder, node, prev, span)
        return before != (node.raft.last, node.raft.commit_ceiling)

    def deliver_fed(self, feeder: Node, node: Node, prev: EntryId, span: Span) -> None:
        """The answer with `span` of the feeder's log arrives."""
        entries = tuple(feeder.log[span.first - 1 : span.end - 1])
        node.incoming = (span.first, entries)
        has_gaps = bool(entries) and span.first <= feeder.gaps[0]
        node.incoming_gaps = feeder.gaps if has_gaps else (0, 0)
        configuration = None
        if any(map(is_configuration, entries)):
            configuration = self.by_name[EntryId(span.term, span.first)]
        term = feeder.raft.current_term
        self.step(
            node.number,
            EntriesFed(feeder.raft.member, term, prev, span, has_gaps, configuration),
        )

    def _feed_snapshot(self, feeder: Node, node: Node) -> bool:
        """All chunks arrive at once, and the file is installed."""
        raft = feeder.raft
        least = max(raft.cluster_deletion_floor, feeder.first - 1)
        if not node.raft.eligibility.accepts_gaps:
            least = max(least, node.raft.own_record.since, feeder.gaps[1])
        is_old = not feeder.snapshots or len(feeder.snapshots[-1]) < least
        if is_old and (raft.commit_index < max(least, 1) or not self.snapshot(feeder.number)):
            return self._refuse("not yet")
        entries = feeder.snapshots[-1]
        entry = name_of(entries)
        if node.raft.commit_index >= entry.index:
            return False
        self.history.installed(node.number, entries)
        node.snapshots = [entries]
        held = self.configuration_at(entries)
        self.step(node.number, SnapshotInstalled(raft.member, 0, entry, held, raft.current_term))
        self.step(node.number, OldestSnapshotChanged(entry.index))
        return True
