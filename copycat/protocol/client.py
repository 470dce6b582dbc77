"""What clients and servers say to each other. Values only; `codec_client.py` gives them bytes.

A request with a `request` number is answered by the reply with the same number, on the
connection that it came by. Commands are different: they are answered by (session, sequence),
on the newest connection of the session, whichever server it reached.
"""

from __future__ import annotations

import enum

import msgspec

from copycat.protocol.member_record import NO_HEALING, HealingPolicy
from copycat.types import (
    ChangeKind,
    ChangeRefusal,
    ConsistencyLevel,
    EntryId,
    MemberId,
    MemberType,
    ServerState,
)

__all__ = [
    "ChangeRefused",
    "ChangeRequest",
    "ClientMessage",
    "CloseSession",
    "ClusterRequest",
    "ClusterView",
    "Commands",
    "CommandsRefused",
    "Failure",
    "KeepAlive",
    "KeptAlive",
    "MemberView",
    "QueryRequest",
    "QueryResult",
    "Refusal",
    "Register",
    "Registered",
    "Results",
    "ServerMessage",
    "SessionClosed",
    "SessionMessage",
    "TransferRequest",
    "ViewRequest",
]


class Refusal(enum.IntEnum):
    """Why a request was not carried out. 1 to 8 are the numbers of the original (1.18)."""

    NO_LEADER = 1
    QUERY = 2
    COMMAND = 3
    """A gap in the session's sequence; `next_sequence` says where to continue."""
    APPLICATION = 4
    ILLEGAL_MEMBER_STATE = 5
    UNKNOWN_SESSION = 6
    INTERNAL = 7
    CONFIGURATION = 8
    OVERLOADED = 9
    """Back-pressure, not logged: resend in order from `next_sequence` a little later."""
    PROTOCOL = 10
    TOO_LARGE = 11
    """The largest command of the refused frame, whose first sequence is `next_sequence`, is above
    the limit of the servers."""
    NO_QUORUM = 12
    """No leader is known, and too few members are reachable to elect one: see `missing`."""
    DISK_FULL = 13
    """The leader's disk, or those of too many members, have no room for entries; queries are still
    answered (F12)."""
    SERVER_FULL = 14
    """This server has no room for another client: ask another server."""
    WRONG_CLUSTER = 15
    """This server is of another cluster than the client named; nothing more is taken from the
    connection, for a session of the same number may be another client's here."""
    SUPERSEDED = 16
    """A later REGISTER of the same client was received before this one."""
    NOT_TRANSFERRED = 17
    """The member that was to lead does not, and why is in the reason."""
    CLUSTER_REPLACED = 18
    """The client's session is of a cluster of the same name with another incarnation; nothing is
    taken from the connection (C41)."""


class Register(msgspec.Struct, frozen=True):
    request: int
    """Grows with each REGISTER of one `instance`."""
    client_id: str
    timeout_ms: int
    """0 asks for the server's default."""
    cluster: str = ""
    """Name of the cluster that the client means; empty for any."""
    instance: int = 0
    """Random number of the client object that asks, so that a leader can tell a REGISTER that was
    delayed from one of a client that was started again with the same id; 0: unknown."""
    incarnation: int = 0
    """Of the cluster in which the client had a session before; 0 while it knows none."""


class KeepAlive(msgspec.Struct, frozen=True):
    request: int
    session: int
    acked_sequence: int
    """Every reply up to this sequence has reached the client; its cache may be deleted."""
    cluster: str = ""
    """Name of the cluster that the session is of; empty when that is not known."""
    incarnation: int = 0
    """Its incarnation; 0 when that is not known."""


class CloseSession(msgspec.Struct, frozen=True):
    request: int
    session: int


class Commands(msgspec.Struct, frozen=True):
    """A run of commands: sequences first_sequence .. first_sequence + count - 1.

    `body` is `lengths u32[count]` followed by the operations; kept as it came, since the log
    is written from it without decoding (data path a).
    """

    session: int
    first_sequence: int
    acked_sequence: int
    count: int
    body: bytes | memoryview


class QueryRequest(msgspec.Struct, frozen=True):
    request: int
    session: int
    sequence: int
    """The session's last submitted command: the query sees it."""
    index: int
    """The highest log index the client has seen: never read below it."""
    consistency: ConsistencyLevel
    operation: bytes | memoryview


class ViewRequest(msgspec.Struct, frozen=True):
    """Who are the members, and how are they? Needs no session."""

    request: int
    cluster: str = ""
    """Name of the cluster that is meant; empty for any."""
    is_local: bool = False
    """The member that is asked answers by itself; else the leader answers, if one is known."""


class ChangeRequest(msgspec.Struct, frozen=True):
    """Change what one member is to the cluster. Needs no session: who lost the answer asks again,
    and what holds already is success."""

    request: int
    kind: ChangeKind
    member: MemberId
    type: MemberType
    """What it shall be; INACTIVE with REMOVE."""
    base: EntryId
    """Names the newest committed configuration that the asker has seen."""
    address: str = ""
    """Where a member that is added listens; empty with the other kinds."""
    cluster: str = ""
    """Name of the cluster that is meant; empty for any."""
    policy: HealingPolicy = NO_HEALING
    """Of POLICY, which has no member and no type: what a leader may change by itself."""


class TransferRequest(msgspec.Struct, frozen=True):
    """Hand leadership over. Needs no session."""

    request: int
    to: MemberId
    """0 for the follower with the longest log."""
    cluster: str = ""
    """Name of the cluster that is meant; empty for any."""


class MemberView(msgspec.Struct, frozen=True):
    """One member of a configuration, as the member that answers knows it."""

    member: MemberId
    type: MemberType
    address: str
    since: int = 0
    """Index of the entry that made it active or passive; 0 for a founder."""
    is_promotable: bool = False
    """It is to become a voter, and is sent entries for that."""
    is_reachable: bool = True
    """Whether the member that answers has a link to it."""
    match_index: int = 0
    """How far the leader, which answers, knows its log to be durable; 0 when that is unknown."""
    is_available: bool = True
    """Whether leaders hear it, as entries say that the member which answers has applied (C38)."""
    replaces: MemberId = MemberId(0)
    """Who was the member at this address before, and lost its directory; 0: nobody."""
    is_slow: bool = False
    """A voter that answers heartbeats and has been behind for long, as the leader sees it."""
    is_demoted: bool = False
    """A user demoted it, so healing does not promote it (C39)."""
    is_leaving: bool = False
    """A voter whose place another member takes (C39)."""
    failure_domain: str = ""
    """What it fails together with; empty when it names none."""
    weight: int = 0


class Registered(msgspec.Struct, frozen=True):
    request: int
    session: int
    timeout_ms: int
    leader: str
    """Address, or empty when unknown."""
    members: tuple[str, ...]
    cluster: str = ""
    """Name of the cluster."""
    incarnation: int = 0
    """Of the cluster; 0 while it has none, since its members were never changed."""


class KeptAlive(msgspec.Struct, frozen=True):
    request: int
    leader: str
    members: tuple[str, ...]
    incarnation: int = 0
    """Of the cluster, which may have got it after the session was opened."""


class SessionClosed(msgspec.Struct, frozen=True):
    request: int


class Results(msgspec.Struct, frozen=True):
    """Replies to sequences first_sequence .. + count - 1; `body` is one MessagePack array.

    An exception raised by the machine stands in the array as an extension value
    (`protocol/operations.py`). first_index is the log index of the first; they are not
    necessarily neighbours in the log, so `last_index` is given too.
    """

    session: int
    first_sequence: int
    count: int
    first_index: int
    last_index: int
    body: bytes | memoryview


class CommandsRefused(msgspec.Struct, frozen=True):
    """Nothing at or after `next_sequence` was logged by this server; resend from there."""

    session: int
    next_sequence: int
    code: int
    leader: str
    reason: str = ""
    missing: tuple[str, ...] = ()
    """Addresses of the members that this server misses (NO_QUORUM)."""
    since_ms: int = 0
    """For so long it has been so (NO_LEADER, NO_QUORUM)."""


class QueryResult(msgspec.Struct, frozen=True):
    request: int
    index: int
    body: bytes | memoryview


class Failure(msgspec.Struct, frozen=True):
    """The answer to a numbered request that could not be carried out."""

    request: int
    code: int
    leader: str
    reason: str
    missing: tuple[str, ...] = ()
    """Addresses of the members that this server misses (NO_QUORUM)."""
    since_ms: int = 0
    """For so long it has been so (NO_LEADER, NO_QUORUM)."""


class ClusterView(msgspec.Struct, frozen=True):
    """The cluster as the member `member` knows it, and how that member is.

    entry, members: the newest committed configuration. The answer to a ViewRequest; and to a
    change or transfer that was made, with what the configuration is then.
    """

    request: int
    member: MemberId
    state: ServerState
    term: int
    leader: MemberId
    """0 while none is known."""
    entry: EntryId
    first_index: int
    last_index: int
    commit_index: int
    last_applied: int
    applied_time_ms: int
    """Log time at the entry `last_applied`."""
    sessions: int
    storage_full: bool
    incarnation: int
    """Of the cluster; 0 while that is not known."""
    cluster: str
    """Name of the cluster."""
    version: str
    """Of copycat, at the member that answers."""
    durability: str
    members: tuple[MemberView, ...]
    policy: HealingPolicy = NO_HEALING
    feeder: MemberId = MemberId(0)
    """Whom the member that answers asks for entries; 0: nobody, the leader sends them."""
    obstacles: str = ""
    """While no leader is known: why the member that answers does not help to elect one, in words.
    Empty when the next election may succeed, as far as it knows."""


class ChangeRefused(msgspec.Struct, frozen=True):
    """A change of the configuration was not made."""

    request: int
    refusal: ChangeRefusal
    entry: EntryId
    """The newest committed configuration of the member that refuses, and `members` are its
    members."""
    leader: str
    """Address, or empty when unknown."""
    reason: str
    """A whole sentence without its end."""
    missing: tuple[str, ...] = ()
    """Addresses of the voters that the change would need."""
    members: tuple[MemberView, ...] = ()


SessionMessage = Register | KeepAlive | CloseSession | Commands | QueryRequest
"""What belongs to a session, or opens one."""
ClusterRequest = ViewRequest | ChangeRequest | TransferRequest
"""What is asked about the members; it belongs to no session."""
ClientMessage = SessionMessage | ClusterRequest
ServerMessage = (
    Registered
    | KeptAlive
    | SessionClosed
    | Results
    | CommandsRefused
    | QueryResult
    | Failure
    | ClusterView
    | ChangeRefused
)
