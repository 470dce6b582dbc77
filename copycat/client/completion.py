"""In which order a session's callers hear of their results. Sans-IO, no clock.

Everything completes strictly in submission order: a query after the commands that
were submitted before it, and before those submitted after it. Replies arrive in any order; what
is early waits here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from copycat.errors import CopycatError

__all__ = [
    "FOREVER_MS",
    "Call",
    "Completion",
    "FailureFactory",
    "Finished",
    "WaitingQuery",
    "unknown_outcome",
]

FOREVER_MS = 1 << 62

FailureFactory = Callable[[tuple[object, ...], tuple[object, ...], bool], CopycatError]
"""(operations with unknown outcome, operations that were never sent, whether the caller's own
is among the first) -> a new error."""


class Finished(NamedTuple):
    """One thing that a caller waits for is decided. `failed`: value is the exception."""

    future: Any
    value: Any
    failed: bool


class Call:
    """A `submit` (results is None) or a `submit_many` that waits for its last result."""

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
        """Who waits; None when the caller gave up."""
        self.first = first
        self.count = 1 if results is None else len(operations)
        self.operations = operations
        self.results = results
        self.deadline_ms = deadline_ms
        """When its caller gives up; FOREVER_MS when the caller has a timer of its own."""

    @property
    def last(self) -> int:
        """The sequence of its last command."""
        return self.first + self.count - 1

    def operation_list(self) -> Sequence[object]:
        """Its operations, from sequence `first` on."""
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
        """It does not wait for commands that are stuck any more."""


class Completion:
    """Who waits for what, and the results that have arrived and are not due yet."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque()
        self._queries: deque[WaitingQuery] = deque()
        self._ready: list[Any] = []
        self._completed = 0
        self._refused: dict[int, CopycatError] = {}
        self._finished: list[Finished] = []
        self.deadline_ms = FOREVER_MS
        """No caller of a command gives up earlier."""

    @property
    def has_queries(self) -> bool:
        """True while a query waits."""
        return bool(self._queries)

    def expect(self, future: Any, sequence: int, operation: object, deadline_ms: int) -> Call:
        """A command was submitted. Deadlines other than FOREVER_MS never go back."""
        call = Call(future, sequence, operation, None, deadline_ms)
        self._calls.append(call)
        if self.deadline_ms == FOREVER_MS:  # else this one is no earlier
            self.deadline_ms = deadline_ms
        return call

    def expect_many(
        self, future: Any, first: int, operations: Sequence[object], deadline_ms: int
    ) -> Call:
        """Neighbouring commands were submitted; one future takes the list of results."""
        call = Call(future, first, operations, [], deadline_ms)
        self._calls.append(call)
        self.deadline_ms = min(self.deadline_ms, deadline_ms)
        return call

    def expect_query(self, waiting: WaitingQuery) -> None:
        """A query was submitted."""
        self._queries.append(waiting)

    def expect_refused(self, sequence: int, error: CopycatError) -> None:
        """This command was emptied, since no server takes it: its caller must know."""
        self._refused[sequence] = error

    # --- callers that gave up --------------------------------------------------------------

    def overdue(self, now_ms: int) -> list[Call]:
        """Calls whose deadline has passed, in order; sets when to look again."""
        overdue: list[Call] = []
        self.deadline_ms = FOREVER_MS
        for call in self._calls:
            if call.deadline_ms > now_ms:
                if call.deadline_ms == FOREVER_MS:
                    continue
                self.deadline_ms = call.deadline_ms
                break
            overdue.append(call)
        return overdue

    def first_waiting(self) -> int:
        """The first sequence of a command whose caller waits; FOREVER_MS when none does."""
        return next((call.first for call in self._calls if call.future is not None), FOREVER_MS)

    def complete_early(self, call: Call) -> bool:
        """Its caller's time is over, and all its results are here: they are delivered although
        a query before it waits. False when a result is missing."""
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
        self._finished.append(finished)
        call.future, call.deadline_ms = None, FOREVER_MS
        return True

    def fail(self, call: Call, error: CopycatError) -> None:
        """Its caller waits no longer, and hears why; what was sent keeps its place."""
        self._finished.append(Finished(call.future, error, failed=True))
        call.future, call.deadline_ms = None, FOREVER_MS

    def drop(self, last_attempted: int) -> list[int]:
        """Take out the commands above `last_attempted` that nobody waits for.

        Returns their sequences, ascending.

        None of those was ever sent, nor what was submitted after them: that moves up, so that
        no sequence of the session is missing.
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
        """A query is decided: its caller hears of it when all before it are."""
        query.finished = finished
        if query.overtakes and finished.future is not None:
            self._finished.append(finished)
            query.finished = Finished(None, None, failed=False)
        self.advance()

    def results(self, results: list[Any]) -> None:
        """The results of the next commands, in order of sequence, without a gap."""
        self._ready += results
        self.advance()

    def take_finished(self) -> list[Finished]:
        """What was decided since the last call, in order."""
        finished, self._finished = self._finished, []
        return finished

    def advance(self) -> None:
        """Complete everything that is next in the order of submission."""
        while True:
            count = len(self._ready)
            if self._queries:
                query = self._queries[0]
                count = min(count, query.after - self._completed)
                if query.after == self._completed:
                    if query.finished is None:
                        return
                    self._queries.popleft()
                    self._finished.append(query.finished)
                    continue
            if count == 0:
                return
            results, self._ready = self._ready[:count], self._ready[count:]
            self._replace_refused(results, self._completed + 1)
            for sequence in [s for s in self._refused if s <= self._completed + count]:
                del self._refused[sequence]
            self._complete(results)
            self._completed += count

    def _complete(self, results: list[Any]) -> None:
        calls, finished, at = self._calls, self._finished, 0
        while at < len(results):
            call = calls[0]
            if call.results is None:
                value = results[at]
                finished.append(Finished(call.future, value, isinstance(value, CopycatError)))
                calls.popleft()
                at += 1
                continue
            take = min(call.count - len(call.results), len(results) - at)
            call.results += results[at : at + take]
            at += take
            if len(call.results) == call.count:
                calls.popleft()
                finished.append(_finish_many(call.future, call.results))

    def _replace_refused(self, results: list[Any], first: int) -> None:
        """Of results from sequence `first` on: those that stand for commands that were emptied."""
        for sequence, error in self._refused.items():
            at = sequence - first
            # An answer that is no error comes from a member that took it all the same.
            if 0 <= at < len(results) and isinstance(results[at], CopycatError):
                results[at] = error

    # --- the end ---------------------------------------------------------------------------

    def outcomes(
        self, call: Call, last_answered: int, last_attempted: int
    ) -> tuple[Sequence[object], Sequence[object]]:
        """Of its operations: those with an unknown outcome, those that were never sent."""
        operations, first = call.operation_list(), call.first
        known = min(max(0, last_answered + 1 - first), call.count)
        sent = min(max(0, last_attempted + 1 - first), call.count)
        return operations[known:sent], operations[sent:]

    def end(
        self, last_answered: int, last_attempted: int, failure_factory: FailureFactory
    ) -> None:
        """Nothing more will arrive: complete what has arrived, fail the rest.

        last_answered, last_attempted: highest sequence answered, and ever sent.
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
            self._finished.append(Finished(call.future, error, failed=True))
        self._finished += [query.finished for query in self._queries if query.finished]
        self._calls.clear()
        self._queries.clear()


def _finish_many(future: Any, results: list[Any]) -> Finished:
    for value in results:
        if isinstance(value, CopycatError):
            # All of them took effect; the first error carries the others' results.
            value.results = results  # type: ignore[attr-defined]  # a field of the error
            return Finished(future, value, failed=True)
    return Finished(future, results, failed=False)


def unknown_outcome(pending: tuple[object, ...]) -> str | None:
    """The line of an error's state about what was sent and not answered."""
    if not pending:
        return None
    more = f" and {len(pending) - 1} more" if len(pending) > 1 else ""
    return f"Unknown outcome: {pending[0]!r}{more}"
