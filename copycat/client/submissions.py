"""The operations that callers submitted in one session, and their timeouts. No I/O.

A command gets its sequence when it is submitted. If its caller gives up (a timeout or a
cancellation) before the command was sent, the command is deleted, and later commands get lower
sequences: no sequence is missing, and the command cannot take effect. A command that was sent
keeps its sequence, and its outcome is unknown.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

from copycat.client.completion import FOREVER_MS, Call, Completion, Finished, unknown_outcome
from copycat.client.outbox import Outbox
from copycat.client.queries import PendingQuery, Queries
from copycat.client.unavailability import Unavailability, timeout_error
from copycat.errors import ClosedSessionError, CopycatError, OverloadedError
from copycat.protocol.client import Results
from copycat.protocol.operations import Operation
from copycat.protocol.results import decode_results
from copycat.types import ConsistencyLevel

__all__ = ["SessionPhase", "Submissions"]

WAITING_MAX = 1 << 20
WAITING_NBYTES_MAX = 256 << 20
_AMPLE_NBYTES = 1 << 19
"""While all that waits has at most so many bytes, it is within both bounds: a command or a query
has at least one byte, except for the few commands that were emptied."""


class SessionPhase(enum.Enum):
    """The phase of a session."""

    WAITING = "waiting"
    """Not opened yet: operations wait, and none was sent."""
    OPEN = "open"
    CLOSED = "closed"
    """Closed by this client, or expired: nothing more completes."""


class Submissions:
    """The part of a session that callers use; `ClientSession` adds the messages."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._completion = Completion()
        self.finished = self._completion.finished
        """What `take_finished` would return: to ask whether there is something."""
        self._queries = Queries(self._completion)
        self._early: dict[int, list[Any]] = {}
        """Results that arrived before their turn, by the sequence of the first one."""
        self._has_abandoned_calls = False
        """True when callers of commands gave up since the last `_drop_abandoned`."""
        self._request = 0
        self.phase = SessionPhase.WAITING
        self.session = 0
        self.unavailability: Unavailability | None = None
        """Why the cluster does not serve the session now; None when that is not known."""

    @property
    def is_idle(self) -> bool:
        """True while nothing waits for an answer."""
        return self._outbox.is_idle and not self._queries

    def check_room(self, count: int, nbytes: int) -> None:
        """OverloadedError when `count` more operations of `nbytes` bytes would be too many.

        There is always room for the first one that waits.
        """
        outbox, queries = self._outbox, self._queries
        waiting = outbox.last_submitted - outbox.last_answered
        waiting_nbytes = outbox.nbytes + queries.nbytes
        if queries.nbytes:
            waiting += len(queries)
        if waiting and (
            waiting + count > WAITING_MAX or waiting_nbytes + nbytes > WAITING_NBYTES_MAX
        ):
            raise OverloadedError(
                f"{waiting:,} commands and queries of {waiting_nbytes:,} bytes wait for an "
                f"answer, and at most {WAITING_MAX:,} of {WAITING_NBYTES_MAX:,} bytes may: "
                f"{count:,} of {nbytes:,} bytes were not submitted"
            )

    def submit(
        self,
        future: Any,
        operation: Operation[Any],
        encoded: bytes,
        deadline_ms: int = FOREVER_MS,
    ) -> Call:
        """Add a command. ClosedSessionError when the session is closed.

        deadline_ms: the time of its timeout, not earlier than that of submissions before it; or
        FOREVER_MS for a caller that has no timeout, or a timer of its own. OverloadedError: see
        `check_room`.
        """
        if self.phase is SessionPhase.CLOSED:
            raise self._closed_error()
        outbox, nbytes = self._outbox, len(encoded)
        if outbox.nbytes + self._queries.nbytes + nbytes > _AMPLE_NBYTES:
            self.check_room(1, nbytes)
        sequence = outbox.add(encoded, operation.__result_type__)
        return self._completion.expect(future, sequence, operation, deadline_ms)

    def submit_many(
        self,
        future: Any,
        operations: Sequence[Operation[Any]],
        encoded: list[bytes],
        deadline_ms: int = FOREVER_MS,
    ) -> Call:
        """Add one or more commands; `future` gets the list of their results. As `submit`."""
        if self.phase is SessionPhase.CLOSED:
            raise self._closed_error()
        self.check_room(len(encoded), sum(map(len, encoded)))
        first = self._outbox.add_many(
            encoded, [operation.__result_type__ for operation in operations]
        )
        return self._completion.expect_many(future, first, operations, deadline_ms)

    def query(
        self,
        future: Any,
        operation: Operation[Any],
        encoded: bytes,
        level: ConsistencyLevel,
        deadline_ms: int = FOREVER_MS,
    ) -> int:
        """Add a query; returns its request number. As `submit`."""
        if self.phase is SessionPhase.CLOSED:
            raise self._closed_error()
        self.check_room(1, len(encoded))
        self._request += 1
        after = self._outbox.last_submitted
        self._queries.add(
            PendingQuery(future, self._request, after, operation, encoded, level, deadline_ms)
        )
        return self._request

    def _closed_error(self) -> ClosedSessionError:
        return ClosedSessionError(f"session {self.session} is closed")

    # --- callers that give up --------------------------------------------------------------

    @property
    def give_up_ms(self) -> int:
        """The time at which `give_up_overdue` must be called next, or a little later."""
        return min(self._completion.deadline_ms, self._queries.deadline_ms)

    def abandon(self, request: int) -> None:
        """Drop a query whose caller was cancelled; later operations do not wait for it."""
        self._queries.abandon(request)

    def abandon_call(self, call: Call) -> None:
        """The caller was cancelled: commands of this call that were not sent are never sent."""
        call.future = None
        call.deadline_ms = FOREVER_MS
        self._has_abandoned_calls = True

    def give_up_overdue(self, now_ms: int, wait_ms: int, servers: str) -> None:
        """Fail the calls and queries whose deadline has passed.

        wait_ms: how long each has waited. servers: the last answer of each server. Both are for
        the errors.
        """
        for call in self._completion.overdue(now_ms):
            self.give_up(call, now_ms, wait_ms, servers)
        for query in self._queries.overdue(now_ms):
            self.give_up_query(query.request, now_ms, wait_ms, servers)

    def give_up(self, call: Call, now_ms: int, wait_ms: int, servers: str) -> None:
        """Fail one call, or complete it when its results only wait for their turn.

        Does nothing when its caller has given up already. Arguments as for `give_up_overdue`.
        """
        if call.future is None or self.phase is SessionPhase.CLOSED:
            return
        if self._completion.complete_early(call):
            return
        outbox = self._outbox
        unknown, unsent = self._completion.outcomes(
            call, outbox.last_answered, outbox.last_attempted
        )
        error = timeout_error(
            call.operation_list(),
            wait_ms / 1000,
            unknown=unknown,
            unsent=unsent,
            unavailability=self.unavailability,
            servers=servers,
            now_ms=now_ms,
        )
        self._completion.fail(call, error)
        self._has_abandoned_calls = True

    def give_up_query(self, request: int, now_ms: int, wait_ms: int, servers: str) -> None:
        """Fail one query. Arguments as for `give_up_overdue`."""
        query = self._queries.get(request)
        if query is not None:
            error = timeout_error(
                [query.operation],
                wait_ms / 1000,
                unavailability=self.unavailability,
                servers=servers,
                now_ms=now_ms,
            )
            self._queries.fail(query, error)

    def _drop_abandoned(self) -> None:
        """Delete commands that nobody waits for and that were never sent."""
        self._has_abandoned_calls = False
        dropped = self._completion.drop(self._outbox.last_attempted)
        if dropped:
            self._outbox.drop(dropped)
            self._queries.resend_renumbered(dropped[0] - 1)
            self._completion.advance()

    # --- what is decided -------------------------------------------------------------------

    def take_finished(self) -> list[Finished]:
        """The futures to complete that were added since the last call, in order."""
        return self._completion.take_finished()

    def _take_results(self, first: int, message: Results) -> bool:
        """Store the results of a message; False when they arrived before their turn."""
        outbox = self._outbox
        types = outbox.result_types(first, message.count)
        results = decode_results(message.body, message.count, types)
        if first > outbox.last_answered + 1:
            known = self._early.get(first)
            if known is None or len(known) < len(results):
                self._early[first] = results
            return False
        self._complete(first, results)
        while self._early and min(self._early) <= outbox.last_answered + 1:
            first = min(self._early)
            self._complete(first, self._early.pop(first))
        return True

    def _complete(self, first: int, results: list[Any]) -> None:
        skip = self._outbox.last_answered + 1 - first
        if skip < len(results):
            news = results[skip:] if skip else results
            self._outbox.answer(self._outbox.last_answered + len(news))
            self._completion.results(news)

    def _end(self, kind: type[CopycatError], text: str, hint: str | None = None) -> None:
        """Close the session, and fail each operation that waits with a new error of type
        `kind`."""

        def failure_factory(
            pending: tuple[object, ...], unsent: tuple[object, ...], is_unknown: bool
        ) -> CopycatError:
            return kind(
                text,
                hint=hint,
                state=unknown_outcome(pending),
                pending=pending,
                unsent=unsent,
                outcome_unknown=is_unknown,
            )

        self.phase = SessionPhase.CLOSED
        self._completion.end(
            self._outbox.last_answered, self._outbox.last_attempted, failure_factory
        )
        self._queries.clear()
        self._early.clear()
