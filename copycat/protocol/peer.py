"""What members say to each other. Values only; `codec_peer.py` gives them bytes.

The sender is known from the link that a message came by, so no message names its sender. A
message that only a leader sends, AppendEntries or InstallSnapshot, names the leader of its term,
and counts only when the sender is that leader.
`(term, request)` is unique for ever: a term has one leader, and that leader counts its
requests up from one and never resumes a term after a restart (C10).
"""

from __future__ import annotations

import msgspec

from copycat.protocol.member_record import ConfigurationRecord, DirectoryStart, Place
from copycat.types import NO_ENTRY, EntryId, MemberId, MemberType, SkippedEntry, Span

__all__ = [
    "AppendEntries",
    "AppendReply",
    "ConfigurationNotice",
    "Hello",
    "HelloRefused",
    "InstallReply",
    "InstallSnapshot",
    "LogPosition",
    "LogRegressed",
    "PeerMessage",
    "PreVote",
    "PreVoteReply",
    "RequestVote",
    "TimeoutNow",
    "VoteReply",
]


class Hello(msgspec.Struct, frozen=True):
    """Opens every peer link, in the direction of the dialler; answered by `Hello` (C16)."""

    cluster_name: str
    members: tuple[str, ...]
    """Addresses of the voters of configuration 0, sorted."""
    member: MemberId
    incarnation: int
    """128-bit random number of the sender's directory."""
    address: str
    fresh: bool
    """True while the log of the sender is empty, and never held anything."""
    protocol: tuple[int, int]
    """Lowest and highest protocol version spoken."""
    lost: bool = False
    """The sender's log lost entries that it acknowledged, and no leader has fed it since."""
    skips: tuple[SkippedEntry, ...] = ()
    """By index: where its operator had the user's code left out (decision 0022)."""
    cluster_incarnation: int = 0
    """128 bits that the first leader of the cluster drew; 0 while the sender knows none."""
    starts: tuple[DirectoryStart, ...] = ()
    """The newest starts of the sender's directory, oldest first, the present one last (C42)."""
    place: Place = Place()
    """Failure domain and weight of the sender (C39)."""


class HelloRefused(msgspec.Struct, frozen=True):
    """The last frame before the listener closes: why this peer is not let in."""

    code: str
    reason: str
    is_final: bool = False
    """The sender leads, and hears a majority without this peer, whose directory it refuses for
    good: the peer may come back under a new id (C43)."""
    leader: str = ""
    """Where the leader listens that the sender follows; empty when the sender leads, or knows of
    nobody who does."""


class AppendEntries(msgspec.Struct, frozen=True):
    """Entries [span.first, span.end) after `prev`; a heartbeat when the span is empty."""

    term: int
    leader: MemberId
    """Who leads `term`."""
    request: int
    prev: EntryId
    span: Span
    leader_commit: int
    deletion_floor: int = 0
    """No stateful member needs a deletion at or below this any more (C23); 0 while unknown."""
    configuration: EntryId = NO_ENTRY
    """Names the newest committed configuration of the leader, with which that floor was
    computed; NO_ENTRY is the founders'."""
    log_time_ms: int = 0
    """Log time at the leader when it left (C25); 0 in an empty log."""
    member_type: MemberType = MemberType.ACTIVE
    """What that configuration says of the receiver; INACTIVE: it is no member."""
    since: int = 0
    """The receiver's `since` in that configuration."""
    feeder: MemberId = MemberId(0)
    """Whom the receiver asks for entries and snapshots (C27); 0: the leader sends them."""


class AppendReply(msgspec.Struct, frozen=True):
    """C1: says two things. That the term was looked at, and how far the log is *durable*.

    accepted: the log matches the request at `prev`.
    match_index: min(span.end - 1, durable_index) of the request answered; 0 when rejected.
    hint: when rejected, the sender's newest entry at or below `prev` in both term and index;
        the leader steps back to its own newest entry not above it, in one probe.
    stable_index: what a restart of the sender cannot fall behind (C23): what is verified or
        committed in its log, but not above the oldest snapshot that it keeps.
    wants_snapshot: when rejected, the sender lost entries and accepts no gaps in their place: only
        a snapshot at or above the leader's commit index is as good (decision 0017).
    storage_full: the sender takes no entries now, because its disk is full (F12).
    configuration: names the newest committed configuration that the sender has.
    is_replaying: the state of the sender's machine is not that of its log so far: it replays
        entries around gaps (C22), or has much to apply. Such a member is not promoted, and it
        is no target of a transfer. The replica fills it, as it does `storage_full`.
    last: the last entry of the sender's log, durable or not; NO_ENTRY from who has no log.
    commit_index: of the sender. Only the sender knows both, so each answer has them, a rejection
        too (C28).
    left_feeder: the feeder that the sender left, because it was silent or brought nothing; 0 when
        none. The replica fills it (C27).
    """

    term: int
    request: int
    accepted: bool
    match_index: int
    hint: EntryId
    stable_index: int = 0
    wants_snapshot: bool = False
    storage_full: bool = False
    configuration: EntryId = NO_ENTRY
    is_replaying: bool = False
    last: EntryId = NO_ENTRY
    commit_index: int = 0
    left_feeder: MemberId = MemberId(0)


class ConfigurationNotice(msgspec.Struct, frozen=True):
    """A whole configuration that is committed: for a member whose last answer named an older one.

    A reserve has no log to read it from, nor has a member that is joining.
    """

    term: int
    leader: MemberId
    """Who leads `term`."""
    configuration: ConfigurationRecord
    """The core of the leader names no incarnation of the cluster in it: the driver adds that."""


class PreVote(msgspec.Struct, frozen=True):
    """Would you vote for me in `term`? Changes nobody's term."""

    term: int
    round: int
    last: EntryId


class PreVoteReply(msgspec.Struct, frozen=True):
    """`term` is the answerer's own current term; `round` echoes the question.

    wall_ms: the wall clock of the sender when it left (C25); 0 is unknown, here and below.
    log_time_ms: what log time is by now, as far as the sender knows.
    log_time_term: of the leader from whom it knows that.
    """

    term: int
    round: int
    granted: bool
    wall_ms: int = 0
    log_time_ms: int = 0
    log_time_term: int = 0


class RequestVote(msgspec.Struct, frozen=True):
    """`transfer` marks an election that the old leader asked for (TimeoutNow)."""

    term: int
    last: EntryId
    transfer: bool


class VoteReply(msgspec.Struct, frozen=True):
    """`term` is the answerer's own; the last three are as in a PreVoteReply."""

    term: int
    granted: bool
    wall_ms: int = 0
    log_time_ms: int = 0
    log_time_term: int = 0


class TimeoutNow(msgspec.Struct, frozen=True):
    """Leadership transfer: campaign at once, without a PreVote."""

    term: int


class InstallSnapshot(msgspec.Struct, frozen=True):
    """Bytes of a snapshot file from `offset` on; a message without bytes offers the file.

    (entry, nbytes, digest) name the file; its bytes lie as they do on the sender's disk.
    """

    term: int
    leader: MemberId
    """Who leads `term`."""
    request: int
    """Of the leader: which transfer this is. The first request of it counts (C10)."""
    entry: EntryId
    """The last entry that the snapshot covers."""
    nbytes: int
    """Of the whole file."""
    digest: bytes
    """SHA-256 of the state inside, 32 bytes."""
    offset: int


class InstallReply(msgspec.Struct, frozen=True):
    """How much of the file is held: the sender continues from there.

    done: this member has the snapshot's entry, durably: by it, or by its own log.
    """

    term: int
    request: int
    entry: EntryId
    offset: int
    done: bool


class LogPosition(msgspec.Struct, frozen=True):
    """The first message on a new link: the last entry of the sender's log.

    Whoever led knows from it whether the sender still holds what it acknowledged. term: the newest
    one in which a leader may have had the sender drop entries.
    """

    term: int
    last: EntryId


class LogRegressed(msgspec.Struct, frozen=True):
    """The receiver acknowledged this entry to the sender, and its log does not reach it any more.

    Its directory is an older copy of what it was (F8).
    """

    term: int
    acknowledged: EntryId
    is_final: bool = False
    """The sender leads, and hears a majority without the receiver, which stops for good under its
    id (C42). Else the receiver is needed, and may get those entries again."""


PeerMessage = (
    AppendEntries
    | AppendReply
    | PreVote
    | PreVoteReply
    | RequestVote
    | VoteReply
    | TimeoutNow
    | InstallSnapshot
    | InstallReply
    | LogPosition
    | LogRegressed
    | ConfigurationNotice
)
"""What `Raft.step(Received(...))` takes."""
