"""One session as the client sees it: what to send, and what has arrived. Sans-IO.

Nothing here is ever retried under another session (C18, I19): when the session is gone, all
that was sent and not answered fails with `SessionExpiredError`, whose `pending` lists it.
Times are milliseconds of a monotonic clock, handed in.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import msgspec

from copycat.client.completion import Completion, Ending, Finished, Waiting, unknown_outcome
from copycat.client.outbox import Outbox
from copycat.client.trouble import BACK_PRESSURE, RETRIED
from copycat.errors import ClosedSessionError, CopycatError, ProtocolError, SessionExpiredError
from copycat.protocol.client import (
    ClientMessage,
    CloseSession,
    CommandsRefused,
    Failure,
    KeepAlive,
    KeptAlive,
    QueryRequest,
    QueryResult,
    Refusal,
    Registered,
    Results,
    ServerMessage,
    SessionClosed,
)
from copycat.protocol.operations import Operation, result_type_of
from copycat.protocol.results import decode_result, decode_results, refusal_error
from copycat.types import ConsistencyLevel

__all__ = ["ClientSession", "SessionPhase"]

RETRY_MS_MIN = 10
RETRY_MS_MAX = 500
RESEND_MS_MIN = 1000
"""A relayed frame can be lost with the member that relayed it: unanswered for so long, it is
sent again, and the cluster answers from its cache what it already knows."""
RESEND_MS_MAX = 8000
SWITCH_AFTER_MS = 2000
"""A server without a leader for longer than elections take may be cut off: try another."""
FOREVER_MS = 1 << 62


class SessionPhase(enum.Enum):
    """How far the session is."""

    WAITING = "waiting"
    """Not registered yet: submissions wait, nothing was sent."""
    OPEN = "open"
    CLOSED = "closed"
    """Closed by us, or gone at the cluster; nothing more completes."""


class _Query(Waiting):
    __slots__ = ("due_ms", "message", "result_type", "sent_ms")

    def __init__(self, sink: Any, message: QueryRequest, result_type: Any) -> None:
        super().__init__(sink, message.sequence)
        self.message = message
        self.result_type = result_type
        self.due_ms = 0
        """When it is to be sent again."""
        self.sent_ms = 0


class ClientSession:
    """State of one session. `outgoing` and `received` are the two doors."""

    def __init__(self, outbox: Outbox | None = None) -> None:
        self._outbox = outbox if outbox is not None else Outbox()
        self._completion = Completion()
        self._queries: dict[int, _Query] = {}
        self._unsent_queries: list[_Query] = []
        self._queries_due_ms = FOREVER_MS
        """No query that was sent is due earlier."""
        self._early: dict[int, list[Any]] = {}
        """first sequence -> results of a run that came before its turn."""
        self._request = 0
        self._keep_alive_due_ms = 0
        self._is_silent = False
        """A keep-alive was sent and nothing at all has come since."""
        self._late_ms = 0
        """The most that a keep-alive left later than it was due: the loop was blocked."""
        self._hold_until_ms = 0
        self._refusals = 0
        self._leaderless_since_ms: int | None = None
        self._progress_ms = 0
        self._resend_ms = RESEND_MS_MIN
        self._is_connected = False
        self.phase = SessionPhase.WAITING
        self.session = 0
        self.timeout_ms = 0
        self.index = 0
        """The highest log index seen in a reply: no later read goes below it (Q4)."""
        self.leader = ""
        self.members: tuple[str, ...] = ()
        self.is_expired = False
        self.is_stable = True
        """False after a keep-alive that failed or was not answered (B13)."""
        self.wants_switch = False
        """The server at hand cannot serve this session now: try another one."""

    # --- submissions -----------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """True when nothing waits for an answer."""
        return self._outbox.is_idle and not self._queries

    def submit(self, sink: Any, operation: Operation[Any], encoded: bytes) -> int:
        """Take one command; returns its sequence."""
        self._check_not_closed()
        sequence = self._outbox.add(encoded, result_type_of(operation))
        self._completion.expect(sink, sequence, operation)
        return sequence

    def submit_many(
        self, sink: Any, operations: Sequence[Operation[Any]], encoded: list[bytes]
    ) -> int:
        """Take at least one with one sink for all results; returns the first sequence."""
        self._check_not_closed()
        first = self._outbox.add_many(encoded, [result_type_of(o) for o in operations])
        self._completion.expect_many(sink, first, operations)
        return first

    def query(
        self, sink: Any, operation: Operation[Any], encoded: bytes, level: ConsistencyLevel
    ) -> int:
        """Take one query; returns its request number."""
        self._check_not_closed()
        self._request += 1
        asked = QueryRequest(self._request, 0, self._outbox.submitted, 0, level, encoded)
        query = _Query(sink, asked, result_type_of(operation))
        self._completion.expect_query(query)
        self._queries[self._request] = query
        self._unsent_queries.append(query)
        return self._request

    def abandon(self, request: int) -> None:
        """Nobody waits for this query any more: it must not hold up those after it."""
        query = self._queries.pop(request, None)
        if query is not None:
            query.finished = Finished(None, None, failed=False)
            self._completion.advance()

    def _check_not_closed(self) -> None:
        if self.phase is SessionPhase.CLOSED:
            raise ClosedSessionError(f"session {self.session} is closed")

    # --- the connection --------------------------------------------------------------------

    def opened(self, registered: Registered, now_ms: int) -> None:
        """REGISTER was answered: the session exists."""
        self.phase = SessionPhase.OPEN
        self.session = registered.session
        self.timeout_ms = registered.timeout_ms
        self.index = registered.session
        self._follow(registered.leader, registered.members)
        self._keep_alive_due_ms = now_ms + self.timeout_ms // 3

    def connected(self, now_ms: int, *, fresh: bool = False) -> None:
        """A connection is up. Everything unanswered leaves again, in order.

        fresh: it just carried the registration. Otherwise a keep-alive goes first, so that
        the server learns at once where this session is.
        """
        self._is_connected = True
        self._outbox.rewind(self._outbox.answered + 1)
        self._hold_until_ms = 0
        self._progressed(now_ms)
        self._unsent_queries = list(self._queries.values())
        self.wants_switch = False
        self._is_silent = False
        if not fresh:
            self._keep_alive_due_ms = now_ms

    def disconnected(self) -> None:
        """The connection is gone; submissions wait for the next one."""
        self._is_connected = False

    def deadline_ms(self, *, is_full: bool = False) -> int:
        """When `outgoing` must be called although nothing happened."""
        if is_full:
            return self._keep_alive_due_ms
        deadline = min(self._keep_alive_due_ms, self._queries_due_ms)
        if self._outbox.sent > self._outbox.answered:
            deadline = min(deadline, self._progress_ms + self._resend_ms)
        if self._outbox.sent < self._outbox.submitted and self._hold_until_ms:
            deadline = min(deadline, self._hold_until_ms)
        return deadline

    def outgoing(self, now_ms: int, *, is_full: bool = False) -> list[ClientMessage]:
        """Everything to send now, in order; nothing while there is no connection.

        is_full: the socket takes no more. Keep-alives go all the same, to find out the dead.
        """
        if not self._is_connected or self.phase is not SessionPhase.OPEN:
            return []
        messages: list[ClientMessage] = []
        if now_ms >= self._keep_alive_due_ms:
            messages.append(self._keep_alive(now_ms))
        if is_full:
            return messages
        if now_ms >= self._hold_until_ms:
            self._hold_until_ms = 0
            self._rewind_if_stalled(now_ms)
            messages += self._outbox.frames(self.session)
        if self._unsent_queries or now_ms >= self._queries_due_ms:
            messages += self._due_queries(now_ms)
        return messages

    def _keep_alive(self, now_ms: int) -> KeepAlive:
        if self._is_silent:
            self.is_stable = False
            self.wants_switch = True
        self._is_silent = True
        self._late_ms = max(self._late_ms, now_ms - self._keep_alive_due_ms)
        self._keep_alive_due_ms = now_ms + max(1, self.timeout_ms // 3)
        self._request += 1
        return KeepAlive(self._request, self.session, self._outbox.answered)

    def _rewind_if_stalled(self, now_ms: int) -> None:
        outbox = self._outbox
        if outbox.sent == outbox.answered:
            self._progress_ms = now_ms
        elif now_ms >= self._progress_ms + self._resend_ms:
            outbox.rewind(outbox.answered + 1)
            self._progress_ms = now_ms
            self._resend_ms = min(2 * self._resend_ms, RESEND_MS_MAX)

    def _progressed(self, now_ms: int) -> None:
        self._progress_ms = now_ms
        self._resend_ms = RESEND_MS_MIN
        self._refusals = 0
        self._leaderless_since_ms = None

    def _served(self) -> None:
        self.is_stable = True
        self._leaderless_since_ms = None

    def _due_queries(self, now_ms: int) -> list[ClientMessage]:
        due = [query for query in self._unsent_queries if query.finished is None]
        self._unsent_queries = []
        if now_ms >= self._queries_due_ms:
            known = {query.message.request for query in due}
            due += [
                query
                for request, query in self._queries.items()
                if query.due_ms <= now_ms and request not in known
            ]
        messages: list[ClientMessage] = []
        for query in due:
            wait_ms = max(RESEND_MS_MIN, 2 * (query.due_ms - query.sent_ms))
            query.sent_ms = now_ms
            query.due_ms = now_ms + min(wait_ms, RESEND_MS_MAX)
            messages.append(
                msgspec.structs.replace(query.message, session=self.session, index=self.index)
            )
        if now_ms >= self._queries_due_ms:
            self._queries_due_ms = min((q.due_ms for q in self._queries.values()), default=0)
        self._queries_due_ms = min(
            self._queries_due_ms or FOREVER_MS, min((q.due_ms for q in due), default=FOREVER_MS)
        )
        return messages

    def close(self) -> CloseSession:
        """The message that closes the session at the cluster."""
        self._request += 1
        return CloseSession(self._request, self.session)

    # --- replies ---------------------------------------------------------------------------

    def received(self, message: ServerMessage, now_ms: int) -> None:
        """Take one reply; raises ProtocolError. What it decides is in `take_finished`."""
        if self.phase is SessionPhase.CLOSED:
            return
        self._is_silent = False
        match message:
            case Results():
                self._on_results(message, now_ms)
            case CommandsRefused():
                self._on_refused(message, now_ms)
            case QueryResult():
                self._on_query_result(message)
            case KeptAlive():
                self._served()
                self._follow(message.leader, message.members)
            case Failure():
                self._on_failure(message, now_ms)
            case Registered() | SessionClosed():
                pass  # the answer to an earlier connection's question

    def take_finished(self) -> list[Finished]:
        """What was decided since the last call, in order of completion."""
        return self._completion.take_finished()

    def _on_results(self, message: Results, now_ms: int) -> None:
        if message.session != self.session:
            return
        outbox, first = self._outbox, message.first_sequence
        last = first + message.count - 1
        if first < 1 or message.count < 1 or last > outbox.attempted:
            raise ProtocolError(
                f"session {self.session}: results for sequences {first} to {last}, while"
                f" {outbox.attempted} were sent"
            )
        self.index = max(self.index, message.last_index)
        if last <= outbox.answered:
            return
        types = outbox.result_types(first, message.count)
        results = decode_results(message.body, message.count, types)
        if first > outbox.answered + 1:
            known = self._early.get(first)
            if known is None or len(known) < len(results):
                self._early[first] = results
            return
        self._take_results(first, results)
        while self._early and min(self._early) <= outbox.answered + 1:
            first = min(self._early)
            self._take_results(first, self._early.pop(first))
        self._progressed(now_ms)
        self._served()

    def _take_results(self, first: int, results: list[Any]) -> None:
        skip = self._outbox.answered + 1 - first
        if skip < len(results):
            news = results[skip:] if skip else results
            self._outbox.answer(self._outbox.answered + len(news))
            self._completion.results(news)

    def _on_query_result(self, message: QueryResult) -> None:
        self.index = max(self.index, message.index)
        self._served()
        query = self._queries.pop(message.request, None)
        if query is not None:
            value = decode_result(message.body, query.result_type)
            query.finished = Finished(query.sink, value, isinstance(value, CopycatError))
            self._completion.advance()

    # --- refusals --------------------------------------------------------------------------

    def _on_refused(self, message: CommandsRefused, now_ms: int) -> None:
        if message.session != self.session:
            return
        if message.code == Refusal.UNKNOWN_SESSION:
            self.expire("the cluster does not know it any more")
            return
        self._follow(message.leader, ())
        if message.code == Refusal.TOO_LARGE:
            sequence, nbytes = self._outbox.replace_largest()
            if nbytes == 0:
                raise ProtocolError(f"an empty command ({sequence}) was refused as too large")
            self._completion.expect_too_large(sequence, nbytes)
            return
        self._judge_server(message.code, now_ms)
        if self._outbox.rewind(message.next_sequence) or message.code in BACK_PRESSURE:
            # A first gap (frames overtook each other at an election) is closed at once; what
            # is refused again without progress waits longer each time.
            delay_ms = 0
            if self._refusals or message.code != Refusal.COMMAND:
                delay_ms = min(RETRY_MS_MIN << min(self._refusals, 6), RETRY_MS_MAX)
            self._refusals += 1
            self._hold_until_ms = now_ms + delay_ms
            self._progress_ms = now_ms

    def _judge_server(self, code: int, now_ms: int) -> None:
        """Is it time to try another server?"""
        if code in (Refusal.ILLEGAL_MEMBER_STATE, Refusal.SERVER_FULL):
            self.wants_switch = True
        elif code in (Refusal.NO_LEADER, Refusal.NO_QUORUM):
            if self._leaderless_since_ms is None:
                self._leaderless_since_ms = now_ms
            if now_ms - self._leaderless_since_ms >= SWITCH_AFTER_MS:
                self.wants_switch = True

    def _on_failure(self, message: Failure, now_ms: int) -> None:
        if message.code == Refusal.UNKNOWN_SESSION:
            self.expire(message.reason)
            return
        self._follow(message.leader, ())
        self._judge_server(message.code, now_ms)
        query = self._queries.get(message.request)
        if query is None:
            # A keep-alive: whoever answers so has no leader (B13).
            self.is_stable = False
            soon_ms = now_ms + max(1, self.timeout_ms // 10)
            self._keep_alive_due_ms = min(self._keep_alive_due_ms, soon_ms)
        elif message.code in RETRIED:
            # Reading twice hurts nobody, and whoever is in a hurry gives a timeout.
            wait_ms = min(max(RETRY_MS_MIN, 2 * (now_ms - query.sent_ms)), RETRY_MS_MAX)
            query.due_ms = now_ms + wait_ms
            self._queries_due_ms = min(self._queries_due_ms, query.due_ms)
        else:
            del self._queries[message.request]
            error = refusal_error(message.code, message.reason, leader=message.leader)
            query.finished = Finished(query.sink, error, failed=True)
            self._completion.advance()

    def expire(self, reason: str) -> None:
        """The session is gone at the cluster: fail everything, retry nothing (B11, C18)."""
        self.is_expired = True
        if self._late_ms > self.timeout_ms // 3:
            reason += f" (this event loop was blocked for {self._late_ms / 1000:.1f} s)"
        self._end(
            lambda pending, unsent: SessionExpiredError(
                f"session {self.session} expired: {reason}",
                state=unknown_outcome(pending),
                pending=pending,
                unsent=unsent,
                outcome_unknown=bool(pending),
            )
        )

    def closed(self) -> None:
        """This client closed the session: whatever still waits fails."""
        self._end(
            lambda pending, unsent: ClosedSessionError(
                f"session {self.session} was closed",
                state=unknown_outcome(pending),
                pending=pending,
                unsent=unsent,
                outcome_unknown=bool(pending),
            )
        )

    def _end(self, ending: Ending) -> None:
        self.phase = SessionPhase.CLOSED
        self._completion.end(self._outbox.answered, self._outbox.attempted, ending)
        self._queries.clear()
        self._unsent_queries.clear()
        self._early.clear()

    def _follow(self, leader: str, members: tuple[str, ...]) -> None:
        self.leader = leader
        if members:
            self.members = members
