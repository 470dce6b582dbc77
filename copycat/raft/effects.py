"""Everything the core can ask for. The replica carries them out in list order.

Leader: `[Append, Replicate..., Sync]`, so that followers work while the leader syncs.
Follower: `[Truncate?, Append, Sync, Commit?]`; the answer that the entries are durable leaves on
`Synced`, never before.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

import msgspec

from copycat.protocol.peer import InstallSnapshot, PeerMessage
from copycat.raft.configuration import Configuration
from copycat.types import NO_ENTRY, ChangeRefusal, EntryId, MemberId, MemberType, ServerState, Span

__all__ = [
    "FOUNDER_ORDERS",
    "Append",
    "ChangeFinished",
    "Commit",
    "ConfigurationChanged",
    "ConfigurationCommitted",
    "Content",
    "Effect",
    "EndDeparture",
    "EndShipping",
    "PeerRegressed",
    "ReadReady",
    "ReceiveSnapshot",
    "RecordLoss",
    "Replicate",
    "Reset",
    "RoleChanged",
    "SaveHardState",
    "Send",
    "ShipSnapshot",
    "StandingOrders",
    "Sync",
    "TransferFailure",
    "TransferFinished",
    "Truncate",
    "Wipe",
]


class Content(enum.Enum):
    """Where the bytes of an `Append` come from."""

    PROPOSED = "proposed"
    """This turn's requests, encoded now."""
    NOOP = "noop"
    """One empty entry: the first of a leader's term."""
    CONFIGURATION = "configuration"
    """One entry that holds `Append.configuration`, encoded now. Only a leader appends it so."""
    RECEIVED = "received"
    """The frames of the AppendEntries being stepped, from span.first on."""


class Append(msgspec.Struct, frozen=True):
    """Append these entries to the log. A follower's span may begin inside what it received.

    configuration: what the entry holds when the span is one configuration, made here or received;
    it is on the disk, synced, before the `Synced` that covers it, in every mode (C35).
    """

    span: Span
    content: Content
    configuration: Configuration | None = None


class Truncate(msgspec.Struct, frozen=True):
    """Drop every entry above `after`; never at or below the commit index (I10)."""

    after: int


class Reset(msgspec.Struct, frozen=True):
    """Delete the whole log and begin an empty one right after `entry`, which a durable snapshot
    covers: the log lacks that entry, or has another one there (I12)."""

    entry: EntryId


class SaveHardState(msgspec.Struct, frozen=True):
    """Make term and vote durable; answer `Saved(ticket)`. Queued apart from data (C9).

    voted_for is 0 for nobody.
    """

    term: int
    voted_for: MemberId
    ticket: int


class Sync(msgspec.Struct, frozen=True):
    """Make all appends so far durable; answer `Synced(ticket)`. Newest ticket answers all."""

    ticket: int


class Send(msgspec.Struct, frozen=True):
    peer: MemberId
    message: PeerMessage


class StandingOrders(NamedTuple):
    """What a leader repeats in each message to a member, so that no order is sent only once.
    They are three fields of an AppendEntries."""

    configuration: EntryId
    """Names the newest committed configuration; NO_ENTRY is the founders'."""
    member_type: MemberType
    """What the receiver is in it; INACTIVE: no member any more."""
    since: int
    """The receiver's `since` in it."""


FOUNDER_ORDERS: Final = StandingOrders(NO_ENTRY, MemberType.ACTIVE, 0)
"""To a voter of a cluster that never changed its members."""


class Replicate(msgspec.Struct, frozen=True):
    """Ship an AppendEntries with as much of `span` as one message takes, at least one entry.

    An empty span is a heartbeat. The replica answers a non-empty one with `Sent`.
    """

    peer: MemberId
    request: int
    prev: EntryId
    span: Span
    leader_commit: int
    deletion_floor: int
    orders: StandingOrders = FOUNDER_ORDERS
    """What the leader says of the members: each message repeats it."""
    feeder: MemberId = MemberId(0)
    """Whom the peer asks for what it lacks (C27); 0: nobody, this leader sends it."""


class ShipSnapshot(msgspec.Struct, frozen=True):
    """Send a snapshot at or above `min_index`: the log does not reach back to what `peer` lacks.

    The core asks once. The replica sends until `EndShipping`, and sends again what is lost. By
    `SnapshotShipping` it names each snapshot that it begins to send. There is one transfer a peer.
    """

    peer: MemberId
    request: int
    min_index: int


class EndShipping(msgspec.Struct, frozen=True):
    """Nothing more of this transfer. done: the peer has it; else it may be taken up again."""

    peer: MemberId
    done: bool


class ReceiveSnapshot(msgspec.Struct, frozen=True):
    """Take the snapshot that this message offers, and say how much of it is here already.

    Answered by `SnapshotInstalled`, once the file is whole, verified, durable and installed.
    """

    sender: MemberId
    message: InstallSnapshot


class Commit(msgspec.Struct, frozen=True):
    """Entries up to here may be applied. On a follower they are durable here too."""

    index: int


class ReadReady(msgspec.Struct, frozen=True):
    """Answer the read once `index` is applied. One token may answer all before it."""

    token: int
    index: int


class RoleChanged(msgspec.Struct, frozen=True):
    """Emitted when role, term or leader changed. Leaving LEADER fails all that waits."""

    state: ServerState
    term: int
    leader: MemberId
    """Zero when unknown."""


class ConfigurationChanged(msgspec.Struct, frozen=True):
    """The newest configuration that this member knows is another one now, committed or not.

    Who votes by it counts from here on, and links to members that are new in it are opened.
    Nothing of it is final: it may be rolled back, which is this effect again, with an older one.
    Links are closed at `ConfigurationCommitted`. The replica keeps it in the directory (C35).
    """

    configuration: Configuration


class ConfigurationCommitted(msgspec.Struct, frozen=True):
    """`configuration` is committed, and this member knows it: by its own log, by a snapshot, or by
    the leader's word when its log does not reach so far yet.

    Types of members that do not vote count from here on, listeners hear of the difference to
    the last one, and links to those that are no members any more are closed, except that a leader
    keeps them until `EndDeparture`. Emitted once for each configuration, oldest first,
    except for those that a snapshot or the leader's word passed over.
    """

    configuration: Configuration


class EndDeparture(msgspec.Struct, frozen=True):
    """`peer` is no member any more, and knows it or cannot be reached: close the link to it."""

    peer: MemberId


class ChangeFinished(msgspec.Struct, frozen=True):
    """Answers ChangeRequested(token).

    configuration: the newest committed one; when there is no refusal, the goal holds in it. A
    promotion to ACTIVE ends only when the member is a voter.
    refusal: why the change was not made; None on success.
    missing: with NO_MAJORITY, the voters that this leader does not stream to, or has not heard
    within an election timeout.  demote_first: with NO_MAJORITY, a voter whose demotion is possible
    now, and would make the change possible; 0 when there is none.
    """

    token: int
    configuration: Configuration
    refusal: ChangeRefusal | None = None
    missing: tuple[MemberId, ...] = ()
    demote_first: MemberId = MemberId(0)


class Wipe(msgspec.Struct, frozen=True):
    """A leader said that by `configuration`, which is committed, this member is a reserve or no
    member: store `configuration`, synced, and then begin a new process, which deletes log,
    snapshots and the machine's state before it makes its core. Identity, term and vote stay.

    From here on this core takes no entries and acknowledges nothing.
    """

    configuration: Configuration


class PeerRegressed(msgspec.Struct, frozen=True):
    """`peer` lost what it had acknowledged to this member: say so where an operator looks (F8).

    acknowledged: the last entry of that.  last: where its log ends now, or does at most; its
    term is 0 when only the index is known.
    """

    peer: MemberId
    acknowledged: EntryId
    last: EntryId


class RecordLoss(msgspec.Struct, frozen=True):
    """Write into the directory that this log once held up to `lost_upto`, and that the hard state
    must reach `term` before this member says anything; answered by `LossRecorded(term)`."""

    lost_upto: EntryId
    term: int


class StopForGood(msgspec.Struct, frozen=True):
    """This member stops under its id, and its process ends: the leader says that the log lacks
    `acknowledged`, and hears a majority without this member (C42)."""

    acknowledged: EntryId


class TransferFailure(enum.Enum):
    """Why leadership is not where it was asked to be."""

    NO_TARGET = "no-target"
    """There is no such follower, or this member does not lead."""
    LAGS = "lags"
    """The target did not have every entry in time; this member leads on."""
    UNREACHABLE = "unreachable"
    """No link to the target; this member leads on."""
    SILENT = "silent"
    """The target has everything and did not campaign in time; this member leads on."""
    ANOTHER_LEADS = "another-leads"
    """A member leads that was not asked for, perhaps this one, in a later term."""
    NOBODY_LEADS = "nobody-leads"
    """This member gave up its role, and nobody was heard to lead in time."""
    BUSY = "busy"
    """A transfer to another member was under way, and failed; this member leads on."""
    QUORUM_LOST = "quorum-lost"
    """This member stopped leading meanwhile, since it heard no majority."""


class TransferFinished(msgspec.Struct, frozen=True):
    """Answers TransferRequested: `ok` when the other member was heard to lead.

    failure: why not, None for a transfer that nobody asked for.  lacks: so many entries were
    missing at the target.  to: whom this member tried to hand its role to.
    """

    ok: bool
    failure: TransferFailure | None = None
    lacks: int = 0
    to: MemberId = MemberId(0)


Effect = (
    Append
    | Truncate
    | SaveHardState
    | Sync
    | Send
    | Replicate
    | Commit
    | Reset
    | ShipSnapshot
    | EndShipping
    | ReceiveSnapshot
    | PeerRegressed
    | RecordLoss
    | StopForGood
    | ReadReady
    | RoleChanged
    | ConfigurationChanged
    | ConfigurationCommitted
    | EndDeparture
    | ChangeFinished
    | Wipe
    | TransferFinished
)
