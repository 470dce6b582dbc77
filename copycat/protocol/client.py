"""What clients and servers say to each other. Values only; `codec_client.py` gives them bytes.

A request with a `request` number is answered by the reply with the same number, on the
connection that it came by. Commands are different: they are answered by (session, sequence),
on the newest connection of the session, whichever server it reached.
"""

from __future__ import annotations

import enum

import msgspec

from copycat.types import ConsistencyLevel

__all__ = [
    "ClientMessage",
    "CloseSession",
    "Commands",
    "CommandsRefused",
    "Failure",
    "KeepAlive",
    "KeptAlive",
    "QueryRequest",
    "QueryResult",
    "Refusal",
    "Register",
    "Registered",
    "Results",
    "ServerMessage",
    "SessionClosed",
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


class KeepAlive(msgspec.Struct, frozen=True):
    request: int
    session: int
    acked_sequence: int
    """Every reply up to this sequence has reached the client; its cache may be deleted."""
    cluster: str = ""
    """Name of the cluster that the session is of; empty when that is not known."""


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


class Registered(msgspec.Struct, frozen=True):
    request: int
    session: int
    timeout_ms: int
    leader: str
    """Address, or empty when unknown."""
    members: tuple[str, ...]
    cluster: str = ""
    """Name of the cluster."""


class KeptAlive(msgspec.Struct, frozen=True):
    request: int
    leader: str
    members: tuple[str, ...]


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


ClientMessage = Register | KeepAlive | CloseSession | Commands | QueryRequest
ServerMessage = (
    Registered | KeptAlive | SessionClosed | Results | CommandsRefused | QueryResult | Failure
)
