"""What callers asked of one session, who waits for what, and who gave up. Sans-IO.

A command has its sequence from the call on. One that was never sent when its caller gives up
(a timeout, a cancellation) is taken out as if it had never been submitted, and those behind it
move up: no sequence is missing, and the outcome is known. One that was sent keeps its place.
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
from copycat.protocol.operations import Operation, result_type_of
from copycat.protocol.results import decode_results
from copycat.types import ConsistencyLevel

__all__ = ["SessionPhase", "Submissions"]

WAITING_MAX = 1 << 20
WAITING_NBYTES_MAX = 256 << 20


class SessionPhase(enum.Enum):
    """How far the session is."""

    WAITING = "waiting"
    """Not registered yet: submissions wait, nothing was sent."""
    OPEN = "open"
    CLOSED = "closed"
    """Closed by us, or gone at the cluster; nothing more completes."""


class Submissions:
    """The callers' side of a session; `ClientSession` is the cluster's."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._completion = Completion()
        self._queries = Queries(self._completion)
        self._early: dict[int, list[Any]] = {}
        """first sequence -> results of a run that came before its turn."""
        self._has_abandoned_calls = False
        """Some caller of a command gave up since the last look."""
        self._request = 0
        self.phase = SessionPhase.WAITING
        self.session = 0
        self.unavailability: Unavailability | None = None
        """Why the cluster does not serve the session now, when that is known."""

    @property
    def is_idle(self) -> bool:
        """True when nothing waits for an answer."""
        return self._outbox.is_idle and not self._queries

    def check_room(self, count: int, nbytes: int) -> None:
        """OverloadedError where so much more would be above what may wait for an answer.

        Whatever comes alone has room.
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
        """Take one command. deadline_ms: when its caller gives up; never goes back from one
        submission to the next, but for FOREVER_MS, of a caller with a timer of its own."""
        if self.phase is SessionPhase.CLOSED:
            raise self._closed_error()
        sequence = self._outbox.add(encoded, operation.__result_type__)
        return self._completion.expect(future, sequence, operation, deadline_ms)

    def submit_many(
        self,
        future: Any,
        operations: Sequence[Operation[Any]],
        encoded: list[bytes],
        deadline_ms: int = FOREVER_MS,
    ) -> Call:
        """Take at least one with one future for all results."""
        if self.phase is SessionPhase.CLOSED:
            raise self._closed_error()
        first = self._outbox.add_many(encoded, [result_type_of(o) for o in operations])
        return self._completion.expect_many(future, first, operations, deadline_ms)

    def query(
        self,
        future: Any,
        operation: Operation[Any],
        encoded: bytes,
        level: ConsistencyLevel,
        deadline_ms: int = FOREVER_MS,
    ) -> int:
        """Take one query; returns its request number."""
        if self.phase is SessionPhase.CLOSED:
            raise self._closed_error()
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
        """When `give_up_overdue` is to be called next (or a little later)."""
        return min(self._completion.deadline_ms, self._queries.deadline_ms)

    def abandon(self, request: int) -> None:
        """Nobody waits for this query any more: it must not hold up those after it."""
        self._queries.abandon(request)

    def abandon_call(self, call: Call) -> None:
        """Nobody waits for this call any more: what of it was never sent never leaves."""
        call.future = None
        call.deadline_ms = FOREVER_MS
        self._has_abandoned_calls = True

    def give_up_overdue(self, now_ms: int, wait_ms: int, servers: str) -> None:
        """Fail those whose deadline has passed, after they waited for `wait_ms`.

        servers: what each server answered last, for the errors.
        """
        for call in self._completion.overdue(now_ms):
            self.give_up(call, now_ms, wait_ms, servers)
        for query in self._queries.overdue(now_ms):
            self.give_up_query(query.request, now_ms, wait_ms, servers)

    def give_up(self, call: Call, now_ms: int, wait_ms: int, servers: str) -> None:
        """Fail the caller of this one, unless its results are here and only wait for their turn;
        nothing when nobody waits for it any more."""
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
        """The same for a query."""
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
        """What nobody waits for and was never sent leaves the session without a trace."""
        self._has_abandoned_calls = False
        dropped = self._completion.drop(self._outbox.last_attempted)
        if dropped:
            self._outbox.drop(dropped)
            self._queries.resend_renumbered(dropped[0] - 1)
            self._completion.advance()

    # --- what is decided -------------------------------------------------------------------

    def take_finished(self) -> list[Finished]:
        """What was decided since the last call, in order of completion."""
        return self._completion.take_finished()

    def _take_results(self, first: int, message: Results) -> bool:
        """Results from sequence `first` on; False when they came before their turn."""
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
        """Fail what waits, with an error of this kind for each."""

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
