"""Everything that can happen to the core. The replica turns the world into these."""

from __future__ import annotations

import msgspec

from copycat.protocol.peer import PeerMessage
from copycat.raft.changes import ConfigurationChange
from copycat.raft.configuration import Configuration
from copycat.types import EntryId, MemberId, Span

__all__ = [
    "ChangeRequested",
    "Compacted",
    "EntriesFed",
    "Event",
    "GapsKnown",
    "IncarnationCommitted",
    "LeaderHeard",
    "LossAccepted",
    "LossRecorded",
    "OldestSnapshotChanged",
    "PeerHeard",
    "Proposed",
    "Reachable",
    "ReadRequested",
    "Received",
    "Saved",
    "Sent",
    "SnapshotInstalled",
    "SnapshotShipping",
    "StorageFull",
    "Synced",
    "Tick",
    "TransferRequested",
    "Unreachable",
]


UNBOUNDED = 1 << 62
"""Of `Synced`: all that the ticket covers."""


class Tick(msgspec.Struct, frozen=True):
    """First event of each turn: milliseconds of CLOCK_BOOTTIME since the last one (C11).

    recent_index: from this entry on the replica has entries at hand in memory: whoever needs older
    ones asks a follower for them (C29). 0: every entry is at hand.
    """

    elapsed_ms: int
    recent_index: int = 0


class Received(msgspec.Struct, frozen=True):
    """A message of a peer whose bytes were checked. May be stale, duplicated or nonsense.

    has_gaps: some of the entries that it carries were deleted, and gaps stand for them (C3).
    configuration: what its entry holds, when it carries one configuration, which is always alone
    in its message (C4). The replica decodes it, under the name of the entry.
    """

    sender: MemberId
    message: PeerMessage
    has_gaps: bool = False
    configuration: Configuration | None = None


class EntriesFed(msgspec.Struct, frozen=True):
    """A feeder answered with entries of `span` after `prev`: all of them are committed there, and
    so they are committed in every term (C26). An empty span says that `prev` is committed.

    term: of the feeder.  has_gaps and configuration: as in `Received`.
    """

    sender: MemberId
    term: int
    prev: EntryId
    span: Span
    has_gaps: bool = False
    configuration: Configuration | None = None


class LeaderHeard(msgspec.Struct, frozen=True):
    """A frame arrived that only the leader of `term` sends, and that the replica takes by itself:
    bytes of a snapshot. The term rule holds for it, and it is a sign of life."""

    sender: MemberId
    term: int
    leader: MemberId
    """Who leads `term`, as the frame says."""


class PeerHeard(msgspec.Struct, frozen=True):
    """A frame arrived that answers the replica itself: a peer acknowledges bytes of a snapshot.
    The term rule holds for it, and it is a sign of life."""

    sender: MemberId
    term: int


class Proposed(msgspec.Struct, frozen=True):
    """`count` entries wait to be appended; answered by one `Append`, or refused by none.

    Sent only while the core says `can_propose`.
    """

    count: int


class ReadRequested(msgspec.Struct, frozen=True):
    """A linearizable read waits for a read index; `token` only ever grows."""

    token: int


class Synced(msgspec.Struct, frozen=True):
    """Every append that was emitted before `Sync(ticket)` is on the disk.

    In the weaker modes it is written, and `synced_index` says how far the disk has it.
    """

    ticket: int
    synced_index: int = UNBOUNDED


class Saved(msgspec.Struct, frozen=True):
    """The hard state of `SaveHardState(ticket)` and of all before it is on the disk."""

    ticket: int


class Sent(msgspec.Struct, frozen=True):
    """What was shipped of the last `Replicate` to this peer; may be shorter than asked.

    Not sent when the link would not take it at all (the replica then sends `Unreachable`).
    """

    peer: MemberId
    span: Span


class Reachable(msgspec.Struct, frozen=True):
    """A link to this peer came up and its Hello was good."""

    peer: MemberId
    fresh: bool
    """Its log was empty when it said Hello (C16)."""
    lost: bool = False
    """It said Hello as one that lost entries, and was not fed since (decision 0016)."""


class IncarnationCommitted(msgspec.Struct, frozen=True):
    """The cluster has committed this directory's incarnation, and it was applied here (C16)."""


class Unreachable(msgspec.Struct, frozen=True):
    """The link to this peer broke: what was in flight may be lost."""

    peer: MemberId


class StorageFull(msgspec.Struct, frozen=True):
    """The disk has no room for more entries (True), or has room again (False) (F12).

    A full member does not campaign; a full leader hands over if it can, and leads on if not.
    """

    full: bool


class Compacted(msgspec.Struct, frozen=True):
    """The log begins at `first_index` now: a snapshot covers what was below."""

    first_index: int


class GapsKnown(msgspec.Struct, frozen=True):
    """This member was just elected, and its log has gaps: all up to `valid_from` was committed
    before the newest of them was made (C22).

    Only what was applied somewhere is deleted, and `valid_from` is how far that was.
    """

    valid_from: int


class LossAccepted(msgspec.Struct, frozen=True):
    """Right after a start: an operator accepted the loss of entries up to `lost_upto` (C12).

    From here on it votes and campaigns with what it has, but takes no gap in place of what it
    lost until something newer is committed (decision 0017).
    """

    lost_upto: EntryId


class LossRecorded(msgspec.Struct, frozen=True):
    """What `RecordLoss` asked for is durable in the directory; the term is to reach `term`."""

    term: int


class OldestSnapshotChanged(msgspec.Struct, frozen=True):
    """The oldest snapshot kept here covers entries up to this; 0 for none (C23)."""

    oldest_index: int


class SnapshotShipping(msgspec.Struct, frozen=True):
    """What `ShipSnapshot(peer, request)` asked for is under way: the snapshot of `entry`."""

    peer: MemberId
    request: int
    entry: EntryId


class SnapshotInstalled(msgspec.Struct, frozen=True):
    """A received snapshot is durable, verified, and the machine's state is that of `entry`.

    request: of the leader that sent it; 0: a feeder did, and it moves the commit index alone (C1).
    configuration: the one in force at `entry`, which the snapshot holds (C35); None: it holds
    none, so that the founders' is in force.
    """

    sender: MemberId
    request: int
    entry: EntryId
    configuration: Configuration | None = None
    term: int = 0
    """Of the feeder (C26); 0 when a leader sent it, whose term the core knows."""


class TransferRequested(msgspec.Struct, frozen=True):
    """Hand leadership over, to `to` or (zero) to the best follower."""

    to: MemberId


class ChangeRequested(msgspec.Struct, frozen=True):
    """Change the configuration; answered by one `ChangeFinished(token)`, at once or later.

    Asked of a member that leads; any other refuses. Tokens are the replica's and never repeat.
    """

    token: int
    change: ConfigurationChange


Event = (
    Tick
    | Received
    | EntriesFed
    | LeaderHeard
    | PeerHeard
    | Proposed
    | ReadRequested
    | Synced
    | Saved
    | Sent
    | IncarnationCommitted
    | Reachable
    | Unreachable
    | StorageFull
    | TransferRequested
    | Compacted
    | GapsKnown
    | LossAccepted
    | LossRecorded
    | OldestSnapshotChanged
    | SnapshotShipping
    | SnapshotInstalled
    | ChangeRequested
)
