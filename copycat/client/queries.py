"""The queries of one session that wait for an answer, and when each is sent, or sent again.

There is no I/O and no clock here: times are milliseconds of the session's clock. `Completion`
decides in which order the results reach the callers.
"""

from __future__ import annotations

from typing import Any

from copycat.client.completion import (
    FOREVER_MS,
    Completion,
    Finished,
    WaitingQuery,
    split_overdue,
)
from copycat.errors import CopycatError
from copycat.protocol.client import QueryRequest
from copycat.protocol.operations import Operation, result_type_of
from copycat.types import ConsistencyLevel

__all__ = ["PendingQuery", "Queries"]

RETRY_MS_MIN = 10
RETRY_MS_MAX = 500
RESEND_MS_MIN = 1000
RESEND_MS_MAX = 8000


class PendingQuery(WaitingQuery):
    """One query, and when it is to be sent again.

    after: the sequence of the last command that was submitted before the query.
    """

    __slots__ = ("due_ms", "encoded", "level", "operation", "request", "result_type", "sent_ms")

    def __init__(
        self,
        future: Any,
        request: int,
        after: int,
        operation: Operation[Any],
        encoded: bytes,
        level: ConsistencyLevel,
        deadline_ms: int,
    ) -> None:
        super().__init__(future, after, deadline_ms)
        self.request = request
        self.operation = operation
        self.encoded = encoded
        self.level = level
        self.result_type = result_type_of(operation)
        self.due_ms = 0
        """When it is to be sent again."""
        self.sent_ms = 0

    def message(self, session: int, index: int, last_answered: int) -> QueryRequest:
        """The message that asks for it.

        index: the query must see a state at least as new as this log index. last_answered: the
        last command that it must see when it does not wait for commands that are stuck.
        """
        sequence = last_answered if self.overtakes else self.after
        return QueryRequest(self.request, session, sequence, index, self.level, self.encoded)


class Queries:
    """The queries of a session that have no result yet, by request number."""

    def __init__(self, completion: Completion) -> None:
        self._completion = completion
        self._pending: dict[int, PendingQuery] = {}
        self._unsent: dict[int, PendingQuery] = {}
        self.nbytes = 0
        """Bytes of all queries that wait for an answer."""
        self.due_ms = FOREVER_MS
        """No query is to be sent again earlier than this."""
        self.deadline_ms = FOREVER_MS
        """No query has a timeout earlier than this."""

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def has_unsent(self) -> bool:
        """True while queries wait to be sent."""
        return bool(self._unsent)

    def add(self, query: PendingQuery) -> None:
        """Add a query. Its deadline is FOREVER_MS, or not earlier than those before it."""
        self._completion.expect_query(query)
        self._pending[query.request] = self._unsent[query.request] = query
        self.nbytes += len(query.encoded)
        self.deadline_ms = min(self.deadline_ms, query.deadline_ms)

    def get(self, request: int) -> PendingQuery | None:
        """The query with this number, while it waits."""
        return self._pending.get(request)

    def finish(self, query: PendingQuery, value: Any, *, failed: bool) -> None:
        """Complete a query with a result, or with an error if `failed`."""
        self._forget(query)
        self._completion.finish_query(query, Finished(query.future, value, failed))

    def abandon(self, request: int) -> None:
        """Drop a query whose caller was cancelled; later operations do not wait for it."""
        query = self._pending.get(request)
        if query is not None:
            self._forget(query)
            self._completion.finish_query(query, Finished(None, None, failed=False))

    def fail(self, query: PendingQuery, error: CopycatError) -> None:
        """Fail a query at once, before operations that were submitted earlier."""
        query.overtakes = True
        self.finish(query, error, failed=True)

    def _forget(self, query: PendingQuery) -> None:
        if self._pending.pop(query.request, None) is not None:
            self.nbytes -= len(query.encoded)
        self._unsent.pop(query.request, None)

    def overdue(self, now_ms: int) -> list[PendingQuery]:
        """Queries whose deadline has passed; sets `deadline_ms` to the next one."""
        overdue, self.deadline_ms = split_overdue(self._pending.values(), now_ms)
        return overdue

    # --- sending ---------------------------------------------------------------------------

    def resend_all(self) -> None:
        """Have all queries sent again, after a connection was opened."""
        self._unsent = dict(self._pending)

    def overtake(self) -> None:
        """Have queries sent that need not wait for commands that are stuck.

        These are all sequential queries, and other queries whose earlier commands have all timed
        out: their callers know that the outcome is unknown, and a full disk must not stop queries
        (F12).
        """
        waiting = self._completion.first_waiting()
        for query in self._pending.values():
            is_free = query.level is ConsistencyLevel.SEQUENTIAL or query.after < waiting
            if is_free and not query.overtakes:
                query.overtakes = True
                self._unsent[query.request] = query

    def resend_renumbered(self, last_attempted: int) -> None:
        """Have queries sent again that name a sequence above `last_attempted`, which has
        changed."""
        for query in self._pending.values():
            if query.after >= last_attempted:
                self._unsent[query.request] = query

    def postpone(self, query: PendingQuery, now_ms: int) -> None:
        """Have a query that was refused for now sent again after twice the time of its answer."""
        wait_ms = min(max(RETRY_MS_MIN, 2 * (now_ms - query.sent_ms)), RETRY_MS_MAX)
        query.due_ms = now_ms + wait_ms
        self.due_ms = min(self.due_ms, query.due_ms)

    def outgoing(
        self, now_ms: int, *, session: int, index: int, last_answered: int
    ) -> list[QueryRequest]:
        """The messages of the queries that are to be sent now."""
        is_due = now_ms >= self.due_ms
        due, self._unsent = self._unsent, {}
        if is_due:
            again = {r: query for r, query in self._pending.items() if query.due_ms <= now_ms}
            due = {**due, **again}
        for query in due.values():
            wait_ms = max(RESEND_MS_MIN, 2 * (query.due_ms - query.sent_ms))
            query.sent_ms = now_ms
            query.due_ms = now_ms + min(wait_ms, RESEND_MS_MAX)
        waiting = self._pending if is_due else due
        earliest = min((query.due_ms for query in waiting.values()), default=FOREVER_MS)
        self.due_ms = earliest if is_due else min(self.due_ms, earliest)
        return [query.message(session, index, last_answered) for query in due.values()]

    def clear(self) -> None:
        """Drop all queries at the end of the session; `Completion.end` fails them."""
        self._pending.clear()
        self._unsent.clear()
        self.nbytes = 0
        self.due_ms = self.deadline_ms = FOREVER_MS
