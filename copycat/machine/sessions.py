"""The session table: who is open, what was applied, which replies are not acknowledged.

Everything here follows from the log alone, so that all members agree on every byte of it (I17,
I20). A session's id is the index of its REGISTER entry. Replies are kept as one blob a run; how
entries were cut into runs must never show, so acknowledgements, duplicates and digests look at
single results.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Protocol

import msgspec

from copycat.errors import CommandError, UnknownSessionError
from copycat.listeners import Listener, Listeners
from copycat.machine.apply_result import RunReply
from copycat.protocol.results import PIECE_NBYTES, encode_results, failure_value
from copycat.types import Release, SessionState

__all__ = [
    "PendingRelease",
    "ServerSession",
    "SessionRecord",
    "SessionRow",
    "SessionTable",
    "Sessions",
    "SessionsView",
    "listeners_of",
]

LARGE_NBYTES = 1 << 20
"""A session that holds so many bytes of replies counts as one that holds much."""
_LOG = logging.getLogger("copycat.machine")
_split = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def _leading(results: list[object], nbytes_max: int) -> list[object]:
    nbytes = 0
    for number, result in enumerate(results):
        nbytes += memoryview(result).nbytes if isinstance(result, msgspec.Raw) else 256
        if nbytes > nbytes_max:
            return results[: max(1, number)]
    return results


class _Identity:
    """What a `ServerSession` shows, and what only this file may change."""

    __slots__ = ("client_id", "listeners", "session", "state")

    def __init__(self, session: int, client_id: str, state: SessionState) -> None:
        self.session = session
        self.client_id = client_id
        self.state = state
        self.listeners: Listeners[SessionState] | None = None


class ServerSession:
    """A client's session as the state machine sees it."""

    __slots__ = ("_identity",)

    def __init__(
        self, session: int, client_id: str, state: SessionState = SessionState.OPEN
    ) -> None:
        self._identity = _Identity(session, client_id, state)

    @property
    def id(self) -> int:
        """The index of the entry that opened it; never reused."""
        return self._identity.session

    @property
    def client_id(self) -> str:
        """The id of the client that opened it."""
        return self._identity.client_id

    @property
    def state(self) -> SessionState:
        """OPEN, then EXPIRED or CLOSED for ever."""
        return self._identity.state

    def on_state_change(self, callback: Callable[[SessionState], object]) -> Listener:
        """Called while the entry that ends the session is applied. A call of an `async def` or
        of a generator runs nothing: that is logged when it is called."""
        if self._identity.listeners is None:
            self._identity.listeners = Listeners(_LOG)
        return self._identity.listeners.add(callback)

    def __repr__(self) -> str:
        return f"ServerSession(id={self.id}, client_id={self.client_id!r}, {self.state.value})"


_identity_of: Callable[[ServerSession], _Identity] = attrgetter("_identity")


def listeners_of(session: ServerSession) -> list[Callable[[SessionState], object]]:
    """The callbacks of `on_state_change`, in the order in which they were added."""
    listeners = _identity_of(session).listeners
    return [] if listeners is None else listeners.callbacks()


class SessionRow(msgspec.Struct, frozen=True):
    """One open session, for checkers and status. cached_nbytes: bytes of replies kept for it."""

    session: int
    client_id: str
    timeout_ms: int
    time_ms: int
    active_index: int
    sequence: int
    acked_sequence: int
    cached_nbytes: int


class PendingRelease:
    """A released entry that must stay in the log for now, for `obstacles` reasons."""

    __slots__ = ("by_hand", "index", "obstacles", "policy", "waiters")

    def __init__(self, index: int, policy: Release, *, by_hand: bool = False) -> None:
        self.index = index
        self.policy = policy
        self.by_hand = by_hand
        self.obstacles = 1
        self.waiters: list[PendingRelease] = []
        """Deletions that are not deletable before this entry is."""


class SessionRecord:
    """What the table knows of one open session."""

    __slots__ = (
        "acked_sequence",
        "active_index",
        "claim_index",
        "claimed",
        "client_id",
        "large_sessions",
        "newest_index",
        "replies",
        "sequence",
        "server_session",
        "session",
        "session_releases",
        "time_ms",
        "timeout_ms",
        "unacked_nbytes",
    )

    def __init__(self, session: int, client_id: str, timeout_ms: int, time_ms: int) -> None:
        self.session = session
        self.client_id = client_id
        self.timeout_ms = timeout_ms
        self.time_ms = time_ms
        self.active_index = session
        """Newest entry that showed the client alive: what an EXPIRE must have seen (C25)."""
        self.sequence = 0
        """Highest sequence that took effect."""
        self.newest_index = session
        """The entry at which that sequence took effect."""
        self.claimed = 0
        """What the client says it has replies up to; more than it was sent, if it lies."""
        self.claim_index = session
        """The entry in which the client said so first."""
        self.acked_sequence = 0
        """Every reply up to here has reached the client: min(claimed, sequence). Both only
        grow, so their entries may be replayed without those between (decision 0012)."""
        self.session_releases: list[PendingRelease] = []
        """Released entries that stay because this record is made of them (C19)."""
        self.replies: deque[RunReply] = deque()
        self.unacked_nbytes = 0
        """Bytes of all `replies`."""
        self.large_sessions: dict[int, int] = {}
        """The table's: session -> `unacked_nbytes`, of those that hold much."""
        self.server_session = ServerSession(session, client_id)

    def mark_active(self, index: int, time_ms: int) -> None:
        """Entry `index` shows that the client is alive."""
        self.active_index = index
        self.time_ms = time_ms

    def add_reply(self, reply: RunReply) -> None:
        """Commands took effect: keep their reply."""
        self.sequence = reply.first_sequence + reply.count - 1
        self.newest_index = self.active_index = reply.last_index
        self.time_ms = reply.time_ms
        self.replies.append(reply)
        self.unacked_nbytes += len(reply.body)
        if self.unacked_nbytes >= LARGE_NBYTES or self.large_sessions:
            self.update_large_sessions()

    def store_replies(self, replies: Iterable[RunReply]) -> None:
        """Hold these replies until they are acknowledged."""
        for reply in replies:
            self.replies.append(reply)
            self.unacked_nbytes += len(reply.body)
        self.update_large_sessions()

    def update_large_sessions(self) -> None:
        """Note in the table whether this session holds many bytes of replies."""
        if self.unacked_nbytes >= LARGE_NBYTES:
            self.large_sessions[self.session] = self.unacked_nbytes
        elif self.large_sessions:
            self.large_sessions.pop(self.session, None)

    def needs_entry(self, index: int) -> bool:
        """Whether sequence, acknowledgement or activity would be lost with this entry (C19)."""
        return index in self.entries_needed

    @property
    def entries_needed(self) -> tuple[int, int, int]:
        """Indexes of the entries that sequence, activity and acknowledgement come from."""
        return self.newest_index, self.active_index, self.claim_index

    def claim_acked(self, sequence: int, index: int) -> None:
        """Entry `index` says that the client has every reply up to `sequence`."""
        if sequence > self.claimed:
            self.claimed = sequence
            self.claim_index = index
        self.acknowledge()

    def acknowledge(self) -> None:
        """Drop the replies that the client has. A client cannot have replies above `sequence`."""
        acked = self.acked_sequence = min(self.claimed, self.sequence)
        replies = self.replies
        while replies and replies[0].first_sequence + replies[0].count - 1 <= acked:
            self.unacked_nbytes -= len(replies.popleft().body)
        if self.unacked_nbytes >= LARGE_NBYTES or self.large_sessions:
            self.update_large_sessions()

    def cached_reply(self, first: int, last: int, time_ms: int, nbytes_max: int = 0) -> RunReply:
        """The replies to sequences first .. last again, byte for byte (I17); with `nbytes_max`
        as many of them as have so many bytes, at least one.

        A reply that the client acknowledged was dropped: an error stands in its place, never a
        null that looks like a result.
        """
        raws: list[object] = []
        indexes: list[int] = []
        at, nbytes = first, 0
        for reply in self.replies:
            end = reply.first_sequence + reply.count
            if end <= at or reply.first_sequence > last:
                continue
            if nbytes_max and nbytes >= nbytes_max:
                last = at - 1
                break
            results = _split(reply.body)
            start = max(at, reply.first_sequence, self.acked_sequence + 1)
            stop = min(end, last + 1)
            if start < stop:
                nbytes += len(reply.body)
                raws += [self._dropped_reply(missing) for missing in range(at, start)]
                raws += results[start - reply.first_sequence : stop - reply.first_sequence]
                indexes += (reply.first_index, reply.last_index)
                at = stop
        raws += [self._dropped_reply(missing) for missing in range(at, last + 1)]
        if nbytes_max:
            raws = _leading(raws, nbytes_max)
            last = first + len(raws) - 1
        return RunReply(
            self.session,
            first,
            last - first + 1,
            min(indexes, default=self.active_index),
            max(indexes, default=self.active_index),
            time_ms,
            encode_results(raws),
        )

    def cached_replies(self, first: int, last: int, time_ms: int) -> Iterator[RunReply]:
        """The same replies as `cached_reply`, in pieces of about PIECE_NBYTES."""
        while first <= last:
            reply = self.cached_reply(first, last, time_ms, PIECE_NBYTES)
            yield reply
            first += reply.count

    def _dropped_reply(self, sequence: int) -> object:
        return failure_value(
            CommandError.code,
            CommandError.__name__,
            f"command {sequence} of session {self.session} was applied and its reply "
            "acknowledged before; it is not kept any more",
        )

    @property
    def unacked_index(self) -> int:
        """Index of the first command whose reply is not acknowledged; 0 when none is."""
        if not self.replies:
            return 0
        reply = self.replies[0]
        return reply.first_index + max(0, self.acked_sequence + 1 - reply.first_sequence)

    def unacked_results(self) -> Iterator[bytes]:
        """Every result after the acknowledged ones, encoded: runs do not show."""
        for reply in self.replies:
            skip = max(0, self.acked_sequence + 1 - reply.first_sequence)
            for raw in _split(reply.body)[skip:]:
                yield bytes(raw)

    def row(self) -> SessionRow:
        """The record as a value."""
        return SessionRow(
            self.session,
            self.client_id,
            self.timeout_ms,
            self.time_ms,
            self.active_index,
            self.sequence,
            self.acked_sequence,
            self.unacked_nbytes,
        )


class SessionTable:
    """All open sessions, in the order of their registration."""

    def __init__(self) -> None:
        self._records: dict[int, SessionRecord] = {}
        self._by_client: dict[str, SessionRecord] = {}
        self._large_sessions: dict[int, int] = {}

    def unacked_nbytes(self) -> dict[int, int]:
        """Session -> bytes of replies that are not acknowledged, of those that hold much."""
        return self._large_sessions.copy()

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[SessionRecord]:
        return iter(self._records.values())

    def get(self, session: int) -> SessionRecord | None:
        """The record of an open session."""
        return self._records.get(session)

    def of_client(self, client_id: str) -> SessionRecord | None:
        """The open session of a client: there is never more than one."""
        return self._by_client.get(client_id)

    def open(self, record: SessionRecord) -> None:
        """Add a new one; its client has no other any more."""
        self._records[record.session] = record
        self._by_client[record.client_id] = record
        record.large_sessions = self._large_sessions
        record.update_large_sessions()

    def replace(self, records: Iterable[SessionRecord]) -> None:
        """A snapshot is installed: its sessions take the place of all. No listener is called."""
        self._records.clear()
        self._by_client.clear()
        self._large_sessions.clear()
        for record in records:
            self.open(record)

    def remove(self, record: SessionRecord, state: SessionState) -> None:
        """End a session, and drop its replies."""
        del self._records[record.session]
        del self._by_client[record.client_id]
        self._large_sessions.pop(record.session, None)
        _identity_of(record.server_session).state = state


class Sessions(Protocol):
    """What `context.sessions` is: open sessions, in the order of their registration."""

    def __iter__(self) -> Iterator[ServerSession]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, session_id: int) -> ServerSession: ...


class SessionsView:
    """The table without its internals, for the user's machine."""

    __slots__ = ("_table",)

    def __init__(self, table: SessionTable) -> None:
        self._table = table

    def __iter__(self) -> Iterator[ServerSession]:
        return iter([record.server_session for record in self._table])

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, session_id: int) -> ServerSession:
        record = self._table.get(session_id)
        if record is None:
            raise UnknownSessionError(f"session {session_id} is not open")
        return record.server_session
