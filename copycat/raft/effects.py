"""Everything the core can ask for. The replica carries them out in list order.

Leader: `[Append, Replicate..., Sync]`, so that followers work while the leader syncs.
Follower: `[Truncate?, Append, Sync, Commit?]`; the answer that the entries are durable leaves on
`Synced`, never before.
"""

from __future__ import annotations

import enum

import msgspec

from copycat.protocol.peer import InstallSnapshot, PeerMessage
from copycat.raft.configuration import Configuration
from copycat.types import EntryId, MemberId, ServerState, Span

__all__ = [
    "Append",
    "Commit",
    "ConfigurationChanged",
    "Content",
    "Effect",
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
    "Sync",
    "TransferFailure",
    "TransferFinished",
    "Truncate",
]


class Content(enum.Enum):
    """Where the bytes of an `Append` come from."""

    PROPOSED = "proposed"
    """This turn's requests, encoded now."""
    NOOP = "noop"
    """One empty entry: the first of a leader's term."""
    RECEIVED = "received"
    """The frames of the AppendEntries being stepped, from span.first on."""


class Append(msgspec.Struct, frozen=True):
    """Append these entries to the log. A follower's span may begin inside what it received."""

    span: Span
    content: Content


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
    """The members are those of `configuration` now: connect to those that are new, and disconnect
    from those that are no members any more."""

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
    | ReadReady
    | RoleChanged
    | ConfigurationChanged
    | TransferFinished
)
