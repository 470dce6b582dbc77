"""What only a leader has: made at the election, and dropped when the member stops leading."""

from __future__ import annotations

from copycat.raft.availability import HeardMembers
from copycat.raft.lags import Lags
from copycat.raft.pending_changes import PendingChanges
from copycat.raft.read_index import ReadRounds
from copycat.raft.replication import Replicator
from copycat.types import MemberId

__all__ = ["NEVER_MS", "LeaderState"]

NEVER_MS = 1 << 62
"""The deadline of a timer that does not run."""


class LeaderState:
    """Progress of every peer, the read rounds, and the leader's own timers."""

    __slots__ = (
        "changes",
        "check_at_ms",
        "commit_heartbeat_at_ms",
        "departing",
        "heard",
        "heartbeat_at_ms",
        "is_second_look",
        "is_transfer_requested",
        "is_transfer_to_any",
        "lags",
        "last_transfer_to",
        "limited",
        "next_reach_index",
        "noop_index",
        "progress",
        "reach_index",
        "reads",
        "recent_index",
        "replicator",
        "term",
        "transfer_at_ms",
        "transfer_to",
        "valid_from",
    )

    def __init__(self, term: int, noop_index: int, window: int) -> None:
        self.term = term
        self.noop_index = noop_index
        """First entry of the leader's own term; nothing commits below it by count alone."""
        self.replicator = Replicator(window)
        """What each peer is sent next, with the progress of each."""
        self.progress = self.replicator.progress
        """What each peer proved, and what was sent to it: the mapping of `replicator`, which
        changes it in place."""
        self.reads = ReadRounds()
        self.heard = HeardMembers()
        """Who answers heartbeats (C38)."""
        self.lags = Lags()
        """Who is behind, and who was nearer (C39)."""
        self.changes = PendingChanges()
        """What this leader was asked to change, and who is being promoted."""
        self.recent_index = 0
        """From this entry on the replica has entries in memory (C29); 0: all of them."""
        self.limited: tuple[MemberId, ...] = ()
        """The peers that are not sent all entries: those who are sent committed ones get more of
        them with each commit."""
        self.departing: tuple[MemberId, ...] = ()
        """Those that are no members any more, and were not heard to know it (C34)."""
        self.reach_index = noop_index - 1
        """C37: whoever has this much is in reach: it is what this log had one to two election
        timeouts ago, or at the election."""
        self.next_reach_index = noop_index - 1
        """What `reach_index` is at the next check of the quorum."""
        self.heartbeat_at_ms = NEVER_MS
        self.check_at_ms = NEVER_MS
        self.is_second_look = False
        self.commit_heartbeat_at_ms = NEVER_MS
        self.transfer_to = MemberId(0)
        self.is_transfer_requested = False
        """Somebody waits for the end of the transfer under way."""
        self.is_transfer_to_any = False
        """Whoever waits left it to this member to choose the target."""
        self.transfer_at_ms = NEVER_MS
        """When a transfer is given up."""
        self.last_transfer_to = MemberId(0)
        """Whom a full leader tried last to give its leadership to (F12)."""
        self.valid_from = 0
        """What the gaps in the log say since the election: all up to this index was committed
        before the newest gap was made (C22). 0 without a gap."""

    def end_transfer(self) -> None:
        """No transfer is under way any more; this member leads on."""
        self.transfer_to = MemberId(0)
        self.transfer_at_ms = NEVER_MS
        self.is_transfer_requested = self.is_transfer_to_any = False
