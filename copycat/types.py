"""The words every room shares: positions in the log, spans of it, and who is who.

Indexes are 1-based and inclusive; `end` is one past the last. Only `Span`, `EntryId.next` and
`raft/progress.py` add one to an index (house rule: everybody else names the range).
"""

from __future__ import annotations

import enum
from typing import Literal, NamedTuple, NewType, TypeAlias

__all__ = [
    "INDEX_END",
    "NO_ENTRY",
    "NO_LIMITS",
    "ChangeKind",
    "ChangeRefusal",
    "CompactionLike",
    "CompactionLimits",
    "CompactionReport",
    "CompactionResult",
    "ConsistencyLevel",
    "ConsistencyLike",
    "Durability",
    "DurabilityLike",
    "EntryId",
    "EntryKind",
    "MemberId",
    "MemberStatus",
    "MemberType",
    "MemberTypeLike",
    "Release",
    "Run",
    "SegmentStats",
    "ServerState",
    "SessionState",
    "SkippedEntry",
    "Span",
    "StorageLevel",
    "StorageLevelLike",
    "TermRun",
]

MemberId = NewType("MemberId", int)
"""A member's 128-bit identity, never reused (C16). Zero names nobody. 16 bytes on the wire."""


class EntryId(NamedTuple):
    """One entry's name. Tuple order is Raft's "more up-to-date" order (paper section 5.4.1)."""

    term: int
    index: int  # type: ignore[assignment]  # shadows tuple.index on purpose

    @property
    def next(self) -> int:
        """The index right after this entry."""
        return self.index + 1


NO_ENTRY = EntryId(0, 0)
"""What precedes the first entry of a log."""

INDEX_END = 1 << 63
"""Above every index."""


class Span(NamedTuple):
    """The entries [first, end) of one batch; all of one term. Empty when `first == end`."""

    term: int
    first: int
    end: int

    @property
    def last(self) -> int:
        """The last index inside; `first - 1` when the span is empty (C2: never a frame count)."""
        return self.end - 1

    @property
    def length(self) -> int:
        """How many indexes the span covers, gaps included."""
        return self.end - self.first


class TermRun(NamedTuple):
    """From `first` on (until the next run's first) every entry has this `term`."""

    term: int
    first: int


class EntryKind(enum.IntEnum):
    """What an entry is. One byte in the frame; values are the disk and wire format."""

    COMMAND = 1
    """Envelope (session, sequence, acknowledged distance) and one encoded operation."""
    NOOP = 2
    """A leader's first entry of its term; empty payload."""
    TICK = 3
    """Carries log time when nothing else does; empty payload."""
    REGISTER = 4
    """Opens a session; the session's id is this entry's index."""
    KEEP_ALIVE = 5
    CLOSE = 6
    EXPIRE = 7
    """Written by the leader only; names the activity it saw (C25). With session 0 it is written by
    `copycat recover --new-cluster`, and ends every session (C46)."""
    INCARNATION = 8
    """Commits the incarnation of a member's directory (C16)."""
    CONFIGURATION = 9
    """Who the members are; alone in its batch (C4)."""
    DATA = 10
    """An entry of a bare Log: its payload is the user's bytes, without an envelope."""
    AVAILABILITY = 11
    """Whether the leader hears a member (C38). The newest one of each member counts."""
    MARK = 14
    """Local to one file, never on a wire, no index, no slot (C5)."""
    GAP = 15
    """A gap in a cleaned log: the indexes [first, end) of one term that were deleted (C3)."""


class Run(NamedTuple):
    """Neighbouring entries of one batch that the executor takes in one step.

    For COMMAND: `count` operations of one session with consecutive sequences, beginning at
    `first_sequence`; `acked` is the highest sequence whose reply the client had when it sent
    the last of them. For GAP: no payload; the gap is [first_index, end), `first_sequence`
    holds its end and `acked` its `valid_from`; read them as the properties of these names. For
    every other kind: one entry, its payload in `payloads[0]`, and the three session fields are 0.
    """

    first_index: int
    kind: int
    time_ms: int
    session: int
    first_sequence: int
    acked: int
    payloads: list[bytes]

    @property
    def end(self) -> int:
        """One past its last index."""
        is_gap = self.kind == EntryKind.GAP
        return self.first_sequence if is_gap else self.first_index + len(self.payloads)

    @property
    def valid_from(self) -> int:
        """Of a GAP: from here on a replay over the gap equals the full log (C22); else 0."""
        return self.acked if self.kind == EntryKind.GAP else 0


class SkippedEntry(NamedTuple):
    """An entry at which the user's code is not called, since the operator said so."""

    index: int  # type: ignore[assignment]  # shadows tuple.index on purpose
    term: int
    crc: int
    """Of its frame."""


class Compaction(enum.StrEnum):
    """The two kinds of cleaning: single segments by what they would free, or all in order."""

    MINOR = "minor"
    MAJOR = "major"


CompactionLike: TypeAlias = Compaction | Literal["minor", "major"]


class Release(enum.IntEnum):
    """When a compaction may delete an entry that was released; larger is stricter.

    No class lets an entry above the horizon be deleted (C22).
    """

    ANY = 1
    """Mode QUORUM (RELEASE): by any compaction."""
    STABLE = 2
    """Mode FULL: by any compaction, at or below the deletion floor (C23)."""
    SEQUENTIAL = 3
    """Mode SEQUENTIAL (EXPIRING, TOMBSTONE): by a major compaction only, at or below the deletion
    floor, so that a deletion stays longer than what it deleted."""
    SNAPSHOT = 4
    """Mode SNAPSHOT: by any compaction, once a complete snapshot covers the entry."""
    UNKNOWN = 5
    """Mode UNKNOWN, the strictest: by a major compaction only, at or below the deletion floor
    and covered by a complete snapshot."""


class CompactionLimits(NamedTuple):
    """How far a compaction may reach; all inclusive indexes."""

    horizon: int
    """min(last_applied, durable_index): no entry above it is deleted. It becomes the `valid_from`
    of each gap that the compaction writes (C22)."""
    deletion_floor: int
    """Every voter has the entries up to here, durably and in every snapshot that it keeps; 0
    while one voter is unknown (C23)."""
    snapshot_index: int
    """Index of the newest complete snapshot that was read back; 0 for none."""


NO_LIMITS = CompactionLimits(0, 0, 0)
"""Nothing may be deleted: for whoever only looks at the statistics."""


class SegmentStats(NamedTuple):
    """One segment as a compaction sees it. Sizes in bytes; indexes inclusive."""

    id: int
    version: int
    first_index: int
    last_index: int
    nbytes: int
    entries: int
    """How many are there (gaps hold none)."""
    released: int
    """Entries of them that were released, whether or not they may be deleted now."""
    removable_minor: int
    """Entries of them that a minor compaction within the limits asked about would drop."""
    removable_major: int
    """The same of a major compaction."""
    is_sealed: bool


class CompactionResult(NamedTuple):
    """What installing a rewrite changed: the groups that were still the log's. Sizes in bytes."""

    segments_before: int
    segments_after: int
    bytes_before: int
    bytes_after: int
    entries_dropped: int
    is_cut_short: bool = False
    """A group was dropped of which some index is still in the log. Nothing behind it was
    installed, nor may another rewrite be that was frozen with this one."""


class MemberType(enum.StrEnum):
    """The type of a member; each type of this list can be promoted to a later one."""

    INACTIVE = "inactive"
    RESERVE = "reserve"
    PASSIVE = "passive"
    ACTIVE = "active"

    @property
    def is_stateful(self) -> bool:
        """Whether a member of this type has a log and a state."""
        return self is MemberType.ACTIVE or self is MemberType.PASSIVE

    @property
    def rank(self) -> int:
        """Its place in the order of the types: a promotion leads to a greater one."""
        return _TYPES_BY_RANK.index(self)


_TYPES_BY_RANK = tuple(MemberType)

MemberTypeLike: TypeAlias = MemberType | Literal["reserve", "passive", "active"]
"""A type, or its name."""


class MemberStatus(enum.StrEnum):
    """Whether the leader can reach a member."""

    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"


class ChangeKind(enum.IntEnum):
    """What a change of the configuration does to one member; values are the wire format."""

    ADD = 1
    """A member that was none before joins. One that shall be ACTIVE is PASSIVE first."""
    PROMOTE = 2
    DEMOTE = 3
    REMOVE = 4
    MOVE = 5
    """It listens at another address. The leader writes this by itself, and nobody asks for it, so
    no message has it (C44)."""
    POLICY = 6
    """The policy of healing is another one; no member is changed (C39)."""


class ChangeRefusal(enum.IntEnum):
    """Why a change of the configuration was not made; values are the wire format."""

    STALE_BASE = 1
    """The asker knows an older configuration than the newest committed one."""
    NOT_LEADER = 2
    """This member does not lead, or stopped leading before the change was committed: whoever asks
    the next leader again, with the present base, hears success if it was made."""
    IN_FLIGHT = 3
    """Another change is not committed yet, or leadership is being handed over."""
    NO_OWN_TERM_COMMIT = 4
    """The leader has not committed an entry of its own term yet."""
    LAST_VOTER = 5
    """A cluster without a voter could never change again."""
    UNKNOWN_MEMBER = 6
    MEMBER_ID_REUSED = 7
    """The log still names this id as a member that was removed, or it is the id of a member with
    another address."""
    NO_MAJORITY = 8
    """The voters that the leader hears and streams to are no majority of the new configuration."""
    LEADER_ITSELF = 9
    """A leader does not append the end of its own vote: it transfers leadership first, and no
    voter took the leadership over."""
    NOT_CONNECTED = 10
    """The leader has no link to the member that is to join or to be promoted."""
    TIMED_OUT = 11
    """A member that was to be promoted gained nothing for the time limit; the flag is taken
    back."""
    SUPERSEDED = 12
    """Another change of the same member was committed before the promotion was complete."""
    WRONG_TYPE = 13
    """The member is not of a type from which this change leads to the type that was asked for."""
    TOO_MANY = 14
    """So many requests for changes wait already that this one does not."""


class ServerState(enum.StrEnum):
    """What a member is doing now. Roles of an active member are the last three."""

    INACTIVE = "inactive"
    RESERVE = "reserve"
    PASSIVE = "passive"
    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


class SessionState(enum.StrEnum):
    """How a session stands. UNSTABLE and STALE exist at the client only."""

    OPEN = "open"
    UNSTABLE = "unstable"
    STALE = "stale"
    EXPIRED = "expired"
    CLOSED = "closed"

    @property
    def active(self) -> bool:
        """True until it is expired or closed."""
        return self not in {SessionState.EXPIRED, SessionState.CLOSED}


class ConsistencyLevel(enum.StrEnum):
    """What a query may miss. The default is LINEARIZABLE."""

    SEQUENTIAL = "sequential"
    LINEARIZABLE = "linearizable"


ConsistencyLike: TypeAlias = ConsistencyLevel | Literal["sequential", "linearizable"]
"""A level, or its name."""


class StorageLevel(enum.StrEnum):
    """Where the log lives. Term and vote are on disk at every level."""

    MEMORY = "memory"
    """Nothing of the log is on the disk; it begins empty."""
    MAPPED = "mapped"
    """Sealed segments are read through a map: quicker, but a bad sector ends the process."""
    DISK = "disk"
    """They are read with pread: a bad sector is a DiskError (F14)."""


StorageLevelLike: TypeAlias = StorageLevel | Literal["memory", "mapped", "disk"]


class CompactionReport(NamedTuple):
    """What one run did. `bytes_reclaimed` are of files; they are free once the run returns.

    failure: why the run, or the rest of it, changed nothing (F13). `compact()` raises it.
    """

    segments_before: int
    segments_after: int
    bytes_reclaimed: int
    seconds: float
    failure: Exception | None = None


class Durability(enum.StrEnum):
    """When bytes are forced to the disk. Only FSYNC keeps every acknowledged command."""

    FSYNC = "fsync"
    INTERVAL = "interval"
    OS = "os"


DurabilityLike: TypeAlias = Durability | Literal["fsync", "interval", "os"]
