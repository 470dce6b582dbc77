"""What a peer is sent next, and when: entries, a heartbeat, a probe or a snapshot.

Integers only: the replica adds the bytes. Nothing here asks who leads or what a majority has. A
`Replicator` reads a log and says what a peer needs of it; a leader owns one, and counts what the
peers answer by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from copycat.raft.effects import Effect, EndShipping, Replicate, ShipSnapshot
from copycat.raft.progress import Progress, ProgressState, Scope
from copycat.raft.term_index import TermIndex
from copycat.types import NO_ENTRY, EntryId, MemberId, Span

__all__ = ["LogSource", "Replicator"]


class LogSource(Protocol):
    """What a `Replicator` needs of the member whose log it sends (`State` has all of it)."""

    terms: TermIndex
    current_term: int
    commit_index: int
    cluster_deletion_floor: int
    effects: list[Effect]
    """What the replica is asked to do; messages are appended."""


class Replicator:
    """The one place that decides what each peer is sent.

    A peer that accepts entries is sent a window of them; a peer about which little is known is
    sent one message at a time (a probe), until it accepts one; a peer whose link broke is sent
    heartbeats; and a peer that entries do not help is sent a snapshot (`ProgressState`).

    Invariant: request numbers rise over all peers together, so one number says what was sent to
    anybody before and after it (C10).
    """

    __slots__ = ("progress", "request", "window")

    def __init__(self, window: int) -> None:
        self.progress: dict[MemberId, Progress] = {}
        """Of each peer, in the order in which they are sent messages. Invariant: always the same
        dict, for `LeaderState` refers to it."""
        self.request = 0
        """The newest request number, shared by all peers."""
        self.window = window
        """So many messages with entries may be in flight to a peer that accepts them."""

    def follow_members(self, source: LogSource, peers: Iterable[MemberId], now_ms: int) -> None:
        """Send to `peers` from now on, and to nobody else."""
        before = dict(self.progress)
        self.progress.clear()
        for peer in peers:
            self.progress[peer] = before.get(peer) or Progress(source.terms.end, now_ms)
        for peer, progress in before.items():
            if peer not in self.progress:
                self._end_snapshot(source, peer, progress)

    def begin_anew(self, source: LogSource, peer: MemberId, now_ms: int) -> Progress:
        """`peer` has another log from now on than the one that its progress is about."""
        before = self.progress[peer]
        self._end_snapshot(source, peer, before)
        progress = self.progress[peer] = Progress(source.terms.end, now_ms)
        if before.state is ProgressState.LOST:
            progress.mark_lost()
        return progress

    @staticmethod
    def _end_snapshot(source: LogSource, peer: MemberId, progress: Progress) -> None:
        if progress.state is ProgressState.SNAPSHOT:
            source.effects.append(EndShipping(peer, done=False))

    # ---- entries -----------------------------------------------------------------------------

    def send_entries(self, source: LogSource, peer: MemberId) -> None:
        """Ship the next entries if there are any and the window of `peer` has room.

        One `Replicate` at a time waits for its `Sent`. That event says how much of the span really
        left, and leads here again.
        """
        progress = self.progress[peer]
        state, terms = progress.state, source.terms
        end = terms.last_index + 1
        if not progress.sends_all:
            end = min(end, progress.end_of_scope(source.commit_index))
        if (
            progress.pending_request
            or progress.is_fed
            or progress.next_index >= end
            or state is ProgressState.LOST
            or state is ProgressState.SNAPSHOT
            or len(progress.sent) >= (self.window if state is ProgressState.REPLICATE else 1)
        ):
            return
        request = self._number(source, progress)
        progress.pending_request = request
        next_index = progress.next_index
        source.effects.append(
            Replicate(
                peer,
                request,
                terms.entry_at(next_index - 1),
                terms.span_from(next_index, end),
                source.commit_index,
                min(source.cluster_deletion_floor, source.commit_index),
                progress.orders,
                progress.feeder,
            )
        )

    def on_sent(self, source: LogSource, peer: MemberId, span: Span) -> None:
        """Part of the last `Replicate` left: send more while the window of `peer` has room."""
        progress = self.progress.get(peer)
        if progress is None or not progress.on_sent(span):
            return
        if progress.next_index <= source.terms.last_index:
            self.send_entries(source, peer)

    def on_accepted(self, source: LogSource, peer: MemberId, request: int) -> None:
        """`peer` has what comes before its next entry: send it a window of entries."""
        progress = self.progress[peer]
        if request <= progress.rewind_request:
            return
        if progress.state is ProgressState.SNAPSHOT:
            # It got there without the snapshot: by another leader, say.
            progress.leave_snapshot()
            source.effects.append(EndShipping(peer, done=True))
        progress.state = ProgressState.REPLICATE

    def on_rejected(self, source: LogSource, peer: MemberId, request: int, hint: EntryId) -> bool:
        """The log of `peer` differs before its next entry: probe further back, over a whole
        diverged term if need be (paper section 5.3), or send a snapshot.

        hint: the newest entry of the peer that may be the same. False when this tells nothing new.
        """
        progress = self.progress[peer]
        newest = source.terms.last_at_or_below(hint)
        next_index = max(newest.next, progress.match_index + 1)
        if request > progress.rewind_request and self.needs_snapshot(source, next_index):
            self.send_snapshot(source, peer)
            return True
        return progress.rewind(request, newest)

    def on_unreachable(self, source: LogSource, peer: MemberId) -> None:
        """What was in flight may be lost: nothing but heartbeats until one is answered."""
        progress = self.progress.get(peer)
        if progress is not None:
            if progress.state is ProgressState.SNAPSHOT:
                source.effects.append(EndShipping(peer, done=False))
            progress.mark_lost()

    # ---- heartbeats --------------------------------------------------------------------------

    def send_heartbeat(self, source: LogSource, peer: MemberId) -> None:
        """A heartbeat: empty, right before the peer's next entry.

        It finds out what was lost: a follower that lacks what was sent rejects it, and one whose
        replies were lost answers with all that it holds. No window ever stays full for good.
        """
        progress = self.progress[peer]
        if not progress.sends_all and progress.scope >= Scope.HEARTBEATS:
            if progress.scope is Scope.HEARTBEATS:
                self._send_orders(source, peer, progress)
            return
        request = self._number(source, progress)
        next_index = progress.next_index
        progress.note_sent(request, next_index)
        prev = source.terms.entry_at(next_index - 1)
        span = Span(source.current_term, next_index, next_index)
        deletion_floor = min(source.cluster_deletion_floor, source.commit_index)
        source.effects.append(
            Replicate(
                peer,
                request,
                prev,
                span,
                source.commit_index,
                deletion_floor,
                progress.orders,
                progress.feeder,
            )
        )

    def _send_orders(self, source: LogSource, peer: MemberId, progress: Progress) -> None:
        """A heartbeat to a peer that keeps no log: it follows the entry before the first one,
        which every log has."""
        request = self._number(source, progress)
        span = Span(source.current_term, 1, 1)
        source.effects.append(
            Replicate(peer, request, NO_ENTRY, span, source.commit_index, 0, progress.orders)
        )

    def send_commit_index(self, source: LogSource) -> None:
        """A heartbeat to each peer to which no message has named the commit index so far."""
        for peer, progress in self.progress.items():
            is_behind = progress.commit_sent < source.commit_index
            if is_behind and progress.state is not ProgressState.LOST:
                self.send_heartbeat(source, peer)

    # ---- snapshots ---------------------------------------------------------------------------

    def needs_snapshot(self, source: LogSource, next_index: int) -> bool:
        """Whether entries from `next_index` on would not do.

        The log may not reach back so far. And below the deletion floor deletions may have been
        dropped from the log: a peer that lacks entries there has lost what it once had, and
        must not be sent entries that lack those deletions (C23).
        """
        return next_index < source.terms.first_index or next_index <= source.cluster_deletion_floor

    def send_snapshot(self, source: LogSource, peer: MemberId, min_index: int = 0) -> None:
        """Ask the replica to ship a snapshot to `peer`; there is one transfer a peer.

        min_index: the snapshot must cover this much, and the deletion floor in any case.
        """
        progress = self.progress[peer]
        self.request += 1
        progress.last_request = self.request
        terms = source.terms
        min_index = max(min_index, source.cluster_deletion_floor)
        next_index = min(max(terms.first_index, min_index + 1), terms.end)
        progress.begin_snapshot(self.request, next_index)
        source.effects.append(ShipSnapshot(peer, self.request, min_index))

    def _number(self, source: LogSource, progress: Progress) -> int:
        self.request += 1
        progress.last_request = self.request
        progress.commit_sent = source.commit_index
        return self.request
