"""Completes the operations of a session in the order of their submission, without I/O or a clock.

A query completes after the commands that were submitted before the query, and before the commands
that were submitted after it. Replies arrive in any order; a result that is early waits here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from copycat.errors import CopycatError

__all__ = [
    "FOREVER_MS",
    "Call",
    "Completion",
    "FailureFactory",
    "Finished",
    "WaitingQuery",
    "split_overdue",
    "unknown_outcome",
]

FOREVER_MS = 1 << 62

FailureFactory = Callable[[tuple[object, ...], tuple[object, ...], bool], CopycatError]
"""Makes the error of one operation that fails when the session ends. Arguments: all commands whose
outcome is unknown; all commands that were never sent; whether this one is among the former."""


class Finished(msgspec.Struct, frozen=True, gc=False):
    """A future and what it is to be completed with.

    The garbage collector does not look at it (`gc=False`): that of a command is deleted in the
    turn in which it was made, that of a query when the query completes.

    future: None when nobody waits. value: the result, or the exception if `failed`.
    """

    future: Any
    value: Any
    failed: bool


class Call:
    """A call of `submit` (results is None) or of `submit_many` that waits for its last result."""

    __slots__ = ("count", "deadline_ms", "first", "future", "operations", "results")

    def __init__(
        self,
        future: Any,
        first: int,
        operations: Any,
        results: list[Any] | None,
        deadline_ms: int,
    ) -> None:
        self.future = future
        """None after its caller has given up."""
        self.first = first
        self.count = 1 if results is None else len(operations)
        self.operations = operations
        self.results = results
        self.deadline_ms = deadline_ms
        """The time of its timeout; FOREVER_MS for a call that has no timeout, or a timer of its
        own."""

    @property
    def last(self) -> int:
        """The sequence of its last command."""
        return self.first + self.count - 1

    def operation_list(self) -> Sequence[object]:
        """Its operations; the first has sequence `first`."""
        return (self.operations,) if self.results is None else self.operations


class WaitingQuery:
    """A query's place in the order: right after the command with sequence `after`."""

    __slots__ = ("after", "deadline_ms", "finished", "future", "overtakes")

    def __init__(self, future: Any, after: int, deadline_ms: int) -> None:
        self.future = future
        self.after = after
        self.deadline_ms = deadline_ms
        self.finished: Finished | None = None
        self.overtakes = False
        """True when the query does not wait any more for the commands before it."""


_Timed = TypeVar("_Timed", bound=Call | WaitingQuery)


class Completion:
    """The calls and queries that wait, and results that have arrived before their turn."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque()
        self._queries: deque[WaitingQuery] = deque()
        self._ready: list[Any] = []
        self._completed = 0
        self._refused: dict[int, CopycatError] = {}
        self.finished: list[Finished] = []
        """The futures to complete that were added since `take_finished`; always the same list."""
        self.deadline_ms = FOREVER_MS
        """No call has a timeout earlier than this."""

    def expect(self, future: Any, sequence: int, operation: object, deadline_ms: int) -> Call:
        """Add a call of `submit`. Its deadline is FOREVER_MS, or not earlier than those before
        it."""
        call = Call(future, sequence, operation, None, deadline_ms)
        self._calls.append(call)
        if (
            self.deadline_ms == FOREVER_MS
        ):  # else an earlier call has this deadline or an earlier one
            self.deadline_ms = deadline_ms
        return call

    def expect_many(
        self, future: Any, first: int, operations: Sequence[object], deadline_ms: int
    ) -> Call:
        """Add a call of `submit_many`; its commands have consecutive sequences from `first` on."""
        call = Call(future, first, operations, [], deadline_ms)
        self._calls.append(call)
        self.deadline_ms = min(self.deadline_ms, deadline_ms)
        return call

    def expect_query(self, waiting: WaitingQuery) -> None:
        """Add a query."""
        self._queries.append(waiting)

    def expect_refused(self, sequence: int, error: CopycatError) -> None:
        """Complete the command `sequence` with `error`: servers refuse it, so an empty one was
        sent."""
        self._refused[sequence] = error

    # --- callers that gave up --------------------------------------------------------------

    def overdue(self, now_ms: int) -> list[Call]:
        """Calls whose deadline has passed, in order; sets `deadline_ms` to the next one."""
        overdue, self.deadline_ms = split_overdue(self._calls, now_ms)
        return overdue

    def first_waiting(self) -> int:
        """The lowest sequence of a call whose caller waits; FOREVER_MS when no caller waits."""
        return next((call.first for call in self._calls if call.future is not None), FOREVER_MS)

    def complete_early(self, call: Call) -> bool:
        """Complete a call whose deadline has passed, before its turn, if all its results are here.

        Returns False, and does nothing, when a result is missing.
        """
        begin = call.first - self._completed - 1
        if begin + call.count > len(self._ready):
            return False
        results = self._ready[max(0, begin) : begin + call.count]
        self._replace_refused(results, self._completed + 1 + max(0, begin))
        if call.results is None:
            value = results[0]
            finished = Finished(call.future, value, isinstance(value, CopycatError))
        else:
            finished = _finish_many(call.future, [*call.results, *results])
        self.finished.append(finished)
        call.future, call.deadline_ms = None, FOREVER_MS
        return True

    def fail(self, call: Call, error: CopycatError) -> None:
        """Fail a call; commands of it that were sent keep their sequences."""
        self.finished.append(Finished(call.future, error, failed=True))
        call.future, call.deadline_ms = None, FOREVER_MS

    def drop(self, last_attempted: int) -> list[int]:
        """Remove the commands above sequence `last_attempted` that nobody waits for.

        Returns their sequences, ascending. Neither they nor later commands were ever sent, so the
        later ones get lower sequences, and no sequence of the session is missing.
        """
        tail: list[Call] = []
        while self._calls and self._calls[-1].last > last_attempted:
            tail.append(self._calls.pop())
        dropped: list[int] = []
        for call in reversed(tail):
            first, end = max(call.first, last_attempted + 1), call.first + call.count
            if call.future is None:
                if call.first <= last_attempted:
                    call.operations = call.operations[: first - call.first]
                    call.count = first - call.first
                    self._calls.append(call)
                dropped += range(first, end)
                continue
            if call.first > last_attempted:
                call.first -= len(dropped)
            self._calls.append(call)
        for query in self._queries:
            if dropped and query.after > last_attempted:
                query.after -= bisect_right(dropped, query.after)
        return dropped

    # --- what arrives ----------------------------------------------------------------------

    def finish_query(self, query: WaitingQuery, finished: Finished) -> None:
        """Store the result of a query; it completes when everything before it has."""
        query.finished = finished
        if query.overtakes and finished.future is not None:
            self.finished.append(finished)
            query.finished = Finished(None, None, failed=False)
        self.advance()

    def results(self, results: list[Any]) -> None:
        """Add the results of the next commands, in the order of their sequences."""
        self._ready += results
        self.advance()

    def take_finished(self) -> list[Finished]:
        """The futures to complete that were added since the last call, in order."""
        finished = self.finished.copy()
        self.finished.clear()
        return finished

    def advance(self) -> None:
        """Complete what is next in the order of submission, as far as results are here."""
        while True:
            count = len(self._ready)
            if self._queries:
                query = self._queries[0]
                count = min(count, query.after - self._completed)
                if query.after == self._completed:
                    if query.finished is None:
                        return
                    self._queries.popleft()
                    self.finished.append(query.finished)
                    continue
            if count == 0:
                return
            results, self._ready = self._ready[:count], self._ready[count:]
            if self._refused:
                self._replace_refused(results, self._completed + 1)
                for sequence in [s for s in self._refused if s <= self._completed + count]:
                    del self._refused[sequence]
            self._complete(results)
            self._completed += count

    def _complete(self, results: list[Any]) -> None:
        calls, finished, at = self._calls, self.finished, 0
        while at < len(results):
            call = calls[0]
            if call.results is None:
                value = results[at]
                finished.append(Finished(call.future, value, isinstance(value, CopycatError)))
                call.future = None  # which has the call as its ticket: no cycle for the collector
                calls.popleft()
                at += 1
                continue
            take = min(call.count - len(call.results), len(results) - at)
            call.results += results[at : at + take]
            at += take
            if len(call.results) == call.count:
                calls.popleft()
                finished.append(_finish_many(call.future, call.results))
                call.future = None

    def _replace_refused(self, results: list[Any], first: int) -> None:
        """Replace results of refused commands by their errors; `results` begins at sequence
        `first`."""
        for sequence, error in self._refused.items():
            at = sequence - first
            # A result that is no error comes from a member that did execute the command.
            if 0 <= at < len(results) and isinstance(results[at], CopycatError):
                results[at] = error

    # --- the end ---------------------------------------------------------------------------

    def outcomes(
        self, call: Call, last_answered: int, last_attempted: int
    ) -> tuple[Sequence[object], Sequence[object]]:
        """The operations of a call whose outcome is unknown, and those that were never sent."""
        operations, first = call.operation_list(), call.first
        known = min(max(0, last_answered + 1 - first), call.count)
        sent = min(max(0, last_attempted + 1 - first), call.count)
        return operations[known:sent], operations[sent:]

    def end(
        self, last_answered: int, last_attempted: int, failure_factory: FailureFactory
    ) -> None:
        """The session has ended: complete what has a result, and fail everything else.

        last_answered, last_attempted: the last sequence that was answered, and ever sent.
        """
        pending: list[object] = []
        unsent: list[object] = []
        for call in self._calls:
            unknown, never = self.outcomes(call, last_answered, last_attempted)
            pending += unknown
            unsent += never
        lists = tuple(pending), tuple(unsent)
        for query in self._queries:
            if query.finished is None:
                query.finished = Finished(
                    query.future, failure_factory(*lists, False), failed=True
                )
        self.advance()
        for call in self._calls:
            unknown, _ = self.outcomes(call, last_answered, last_attempted)
            error = failure_factory(*lists, bool(unknown))
            self.finished.append(Finished(call.future, error, failed=True))
        self.finished += [query.finished for query in self._queries if query.finished]
        self._calls.clear()
        self._queries.clear()


def _finish_many(future: Any, results: list[Any]) -> Finished:
    for value in results:
        if isinstance(value, CopycatError):
            # All commands took effect; the first error gets the results of all of them.
            value.results = results  # type: ignore[attr-defined]  # a field of the error
            return Finished(future, value, failed=True)
    return Finished(future, results, failed=False)


def split_overdue(waiting: Iterable[_Timed], now_ms: int) -> tuple[list[_Timed], int]:
    """Those whose deadline has passed, in order, and the deadline of the next one.

    Deadlines other than FOREVER_MS never decrease along `waiting`.
    """
    overdue: list[_Timed] = []
    for each in waiting:
        if each.deadline_ms <= now_ms:
            overdue.append(each)
        elif each.deadline_ms != FOREVER_MS:
            return overdue, each.deadline_ms
    return overdue, FOREVER_MS


def unknown_outcome(pending: tuple[object, ...]) -> str | None:
    """A line for the `state` of an error, which names commands with unknown outcome; None for
    none."""
    if not pending:
        return None
    more = f" and {len(pending) - 1} more" if len(pending) > 1 else ""
    return f"Unknown outcome: {pending[0]!r}{more}"
