"""The result of applying a slice of entries. Values only: they pass from thread to thread."""

from __future__ import annotations

from array import array

import msgspec

from copycat.types import Release

__all__ = [
    "ApplyResult",
    "AvailabilityChanged",
    "Change",
    "IncarnationRecorded",
    "MachineQuery",
    "QueryAnswer",
    "RunReply",
    "SessionEnded",
    "SessionKeptAlive",
    "SessionOpened",
]


class RunReply(msgspec.Struct, frozen=True):
    """Encoded results of neighbouring commands of one session (`body`: MessagePack array)."""

    session: int
    first_sequence: int
    count: int
    first_index: int
    last_index: int
    time_ms: int
    body: bytes


class SessionOpened(msgspec.Struct, frozen=True):
    session: int
    client_id: str
    timeout_ms: int
    time_ms: int


class SessionKeptAlive(msgspec.Struct, frozen=True):
    """A keep-alive was applied at entry `index`."""

    session: int
    index: int
    time_ms: int


class SessionEnded(msgspec.Struct, frozen=True):
    """Closed by its client, expired by the leader, or replaced by its client's next one."""

    session: int
    expired: bool
    index: int


class IncarnationRecorded(msgspec.Struct, frozen=True):
    member: int
    incarnation: int


class AvailabilityChanged(msgspec.Struct, frozen=True):
    """A leader wrote whether it hears `member` (C38), in entry `index`."""

    member: int
    is_available: bool
    index: int
    time_ms: int
    """Log time of the entry."""


Change = (
    SessionOpened | SessionKeptAlive | SessionEnded | IncarnationRecorded | AvailabilityChanged
)


class ApplyResult(msgspec.Struct, frozen=True):
    """All that a slice did, in log order.

    rejected: (session, sequence, index) of commands whose session was not open; their
    clients learn UNKNOWN_SESSION.
    """

    last_applied: int
    time_ms: int
    replies: list[RunReply]
    changes: list[Change]
    rejected: list[tuple[int, int, int]]
    next_due_ms: int = 0
    """Log time of the next scheduled callback or expiring key; 0 for none."""
    releases: list[tuple[Release, array[int]]] = []
    """Indexes (array "Q") of entries that the machine no longer needs. The log may be told of them
    once `SessionExecutor.acknowledged_index` has reached `last_applied` (C21)."""
    unacked_nbytes: dict[int, int] = {}
    """Session -> bytes of replies that its client has not acknowledged, where they are many."""


class MachineQuery(msgspec.Struct, frozen=True):
    token: int
    session: int
    operation: bytes


class QueryAnswer(msgspec.Struct, frozen=True):
    """`body` is one encoded result (or error extension); empty when `unknown_session`."""

    token: int
    index: int
    unknown_session: bool
    body: bytes
