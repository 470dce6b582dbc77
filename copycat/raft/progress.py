"""What the leader knows of one peer: what the peer proved, what was sent to it, and what is next.

A peer is in one of four states. PROBE: it is sent one message with entries at a time, until it
accepts one. REPLICATE: it is sent a window of them. LOST: the link broke, and it is sent only
heartbeats until it answers one. SNAPSHOT: entries from the leader's log do not help it, and it is
sent only heartbeats until a snapshot has arrived.

Whatever its state, a peer that is *fed* is sent heartbeats only: they name the member that it asks
for what it lacks (`copycat/raft/leader_feeding.py`).
"""

from __future__ import annotations

import enum
from collections import deque

from copycat.raft.effects import FOUNDER_ORDERS, StandingOrders
from copycat.types import NO_ENTRY, EntryId, MemberId, Span

__all__ = ["Progress", "ProgressState", "Scope"]


class ProgressState(enum.IntEnum):
    """How much may be in flight to a peer."""

    PROBE = 1
    REPLICATE = 2
    LOST = 3
    SNAPSHOT = 4


class Scope(enum.IntEnum):
    """Which entries a peer is sent: what it is to the cluster decides."""

    ALL = 1
    """A voter, or a member that shall become one."""
    HELD_BACK = 2
    """All before the entry that takes its vote, until that is committed (C34)."""
    COMMITTED = 3
    """A passive member."""
    HEARTBEATS = 4
    """A reserve, and a member that was removed and does not know it so far: no entries."""
    NOTHING = 5
    """A member whose first entry is not committed: no message at all."""


class Progress:
    """Progress of one peer during one term of one leader.

    Invariant: match_index < next_index, and match_index never falls (I9). Invariant: match_index
    rises only to an index that some request to the peer reached (`acknowledge`).
    """

    __slots__ = (
        "acked_request",
        "commit_sent",
        "feeder",
        "has_regressed",
        "hold_index",
        "is_fed",
        "is_replaying",
        "is_stateful",
        "is_uncompared",
        "last_contact_ms",
        "last_request",
        "left_feeders",
        "match_index",
        "match_request",
        "needed_index",
        "next_index",
        "notice_at_ms",
        "orders",
        "pending_request",
        "reported_index",
        "rewind_request",
        "scope",
        "sends_all",
        "sent",
        "snapshot",
        "snapshot_request",
        "stable_index",
        "state",
        "void_request",
    )

    def __init__(self, next_index: int, now_ms: int) -> None:
        self.state = ProgressState.PROBE
        self.scope = Scope.ALL
        self.sends_all = True
        """Whether `scope` is ALL, which it is for everybody in most clusters."""
        self.hold_index = 0
        """HELD_BACK: the first entry that is not sent; 0 for any other scope."""
        self.orders: StandingOrders = FOUNDER_ORDERS
        """What each message to the peer repeats (C28)."""
        self.is_stateful = True
        """Whether the committed configuration, or a newer one, gives the peer a log: then the
        deletion floor waits for it (C31)."""
        self.is_replaying = False
        """What the peer's last answer said of its machine."""
        self.reported_index = 0  # its commit index, as its last answer said
        self.notice_at_ms = 0
        """When the committed configuration may be sent to the peer again."""
        self.is_fed = False
        """The peer asks `feeder` for what it lacks, and is sent heartbeats only (C29)."""
        self.feeder = MemberId(0)
        """Whom the heartbeats name; 0 while the peer is not fed."""
        self.needed_index = 0
        """While it is fed: entries of this log do not help the peer before it has committed this
        much: the log does not reach back so far, or a deletion below may be gone from it."""
        self.left_feeders: dict[MemberId, int] = {}
        """Feeders that the peer left -> until when they are not named to it again."""
        self.match_index = 0
        self.match_request = 0
        """The newest request to this peer when match_index was credited: an answer to a later
        request comes from a log that has the entry at match_index, or has lost it."""
        self.has_regressed = False
        """The peer's log does not reach match_index any more: the peer counts for nothing (F8)."""
        self.is_uncompared = False
        """A new link to the peer is open, and nothing that came by it was compared with
        match_index so far: the peer may have come back with an older log (F8)."""
        self.void_request = 0
        """The newest request when the leader noticed that the log regressed. An answer to it, or
        to an older one, may be of the log before, so it counts as lost."""
        self.next_index = next_index
        """The index of the entry to be sent next. Invariant: match_index < next_index."""
        self.last_request = 0
        """The newest request to this peer. Invariant: no honest reply names a later one."""
        self.acked_request = 0
        """The newest request that the peer answered in this term: read rounds count it."""
        self.pending_request = 0
        """Request of the `Replicate` with entries that waits for its `Sent`; 0 for none."""
        self.rewind_request = 0
        """The newest request at the last rewind: answers to it and to older ones change nothing of
        what is sent."""
        self.commit_sent = 0
        """The highest commit index that a message to the peer named."""
        self.last_contact_ms = now_ms
        self.sent: deque[tuple[int, int]] = deque()
        """(request, end) in flight, both strictly rising: the bound of I9 and the window."""
        self.stable_index = 0
        """Up to here the peer keeps what it has, whatever restart happens (C23); 0: unknown."""
        self.snapshot_request = 0
        """Of the transfer under way; 0 when there is none."""
        self.snapshot = NO_ENTRY
        """The last entry that the snapshot covers; NO_ENTRY until the replica has said so."""

    @property
    def counted_index(self) -> int:
        """Up to where this peer counts for a commit."""
        return 0 if self.has_regressed else self.match_index

    def end_of_scope(self, commit_index: int) -> int:
        """One past the last entry that the peer may be sent, unless it may be sent all."""
        return commit_index + 1 if self.scope is Scope.COMMITTED else self.hold_index

    def regress(self) -> None:
        """The peer's log is older than the log that gave match_index (F8)."""
        self.has_regressed = True
        self.void_request = self.last_request

    def note_sent(self, request: int, end: int) -> None:
        """Remember that `request` reached up to `end`; only a new high adds to the bound."""
        sent = self.sent
        if end - 1 > self.match_index and (not sent or sent[-1][1] < end):
            sent.append((request, end))

    def on_sent(self, span: Span) -> bool:
        """`Sent` arrived: move next_index. False when it answers nothing that was asked."""
        request = self.pending_request
        if request == 0 or span.first != self.next_index or span.end <= span.first:
            return False
        self.pending_request = 0
        self.next_index = span.end
        self.note_sent(request, span.end)
        return True

    def acknowledge(self, request: int, match_index: int) -> bool:
        """Credit `match_index` if `request`, or one before it, reached that far (I9).

        False if none did. After a rewind or a broken link nothing counts as sent any more, so a
        late reply to an older request is not credited; the answer to the next probe is.
        """
        sent = self.sent
        bound = 0
        for number, end in sent:
            if number > request:
                break
            bound = end - 1
        if match_index > bound:
            return False
        self.match_index = match_index
        self.match_request = self.last_request
        self.is_uncompared = False
        while sent and sent[0][1] - 1 <= match_index:
            sent.popleft()
        if self.next_index <= match_index:
            self.next_index = match_index + 1
        return True

    def rewind(self, request: int, newest: EntryId) -> bool:
        """`request` was rejected: return to `newest`, the leader's entry at or below the hint.

        False when the rejection tells nothing new: it is late, or its hint is not below what is
        known. A rejection below match_index moves nothing: unless it is late, the log of the peer
        has regressed (F8, `copycat/raft/regression.py`), and probes would continue for ever.
        """
        next_index = max(newest.next, self.match_index + 1)
        if request <= self.rewind_request or next_index >= self.next_index:
            return False
        self.next_index = next_index
        self._reset(ProgressState.PROBE)
        return True

    def begin_snapshot(self, request: int, next_index: int) -> None:
        """Entries do not help this peer; after the snapshot they begin at `next_index` or later.

        Heartbeats at `next_index` meanwhile: whoever accepts one needs no snapshot any more.
        """
        self.next_index = max(next_index, self.match_index + 1)
        self._reset(ProgressState.SNAPSHOT)
        self.snapshot_request = request

    def end_snapshot(self, match_index: int) -> None:
        """The peer has everything up to `match_index` durably: continue with entries."""
        self.has_regressed = self.has_regressed and match_index < self.match_index
        self.match_index = max(self.match_index, match_index)
        self.match_request = self.last_request
        self.next_index = self.match_index + 1
        self._reset(ProgressState.REPLICATE)

    def leave_snapshot(self) -> None:
        """The peer accepts what follows `next_index`, so it needs no snapshot any more."""
        self.snapshot_request = 0
        self.snapshot = NO_ENTRY

    def on_trimmed(self, first_index: int) -> None:
        """The log begins at `first_index` now: the peer is sent nothing below it any more."""
        if self.next_index < first_index:
            self.next_index = first_index
            if self.state is not ProgressState.SNAPSHOT:
                self._reset(
                    ProgressState.LOST if self.state is ProgressState.LOST else ProgressState.PROBE
                )

    def begin_feeding(self, next_index: int, needed_index: int) -> None:
        """The peer asks a feeder from now on.

        needed_index: it needs a snapshot of so much, and heartbeats are at `next_index` meanwhile;
        0: what it lacks is in the log, and what is in flight to it still counts.
        """
        self.is_fed = True
        if needed_index:
            self.needed_index = max(self.needed_index, needed_index)
            self.next_index = max(next_index, self.match_index + 1)
            self._reset(ProgressState.PROBE)

    def note_fed(self, commit_index: int, end: int) -> None:
        """The peer says that it has committed so much: what the leader would send follows that.
        It moves no match_index: the peer may say so of the log of another leader (C29).

        end: one past the end of the leader's log.
        """
        next_index = min(commit_index + 1, end)
        self.next_index = max(self.next_index, next_index)
        if commit_index >= self.needed_index:
            self.needed_index = 0

    def end_feeding(self) -> None:
        """The leader's own stream begins, with a probe: the peer is believed what it answers."""
        self.is_fed = False
        self.feeder = MemberId(0)
        self.needed_index = 0
        if self.state is not ProgressState.LOST:
            self._reset(ProgressState.PROBE)

    def mark_lost(self) -> None:
        """The link broke. next_index stays: the first probe's rejection says where to continue."""
        self._reset(ProgressState.LOST)

    def _reset(self, state: ProgressState) -> None:
        self.state = state
        self.sent.clear()
        self.pending_request = 0
        self.rewind_request = self.last_request
        self.leave_snapshot()
