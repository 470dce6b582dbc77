"""In which order a session's callers hear of their results. Sans-IO, no clock.

Everything completes strictly in submission order (Q11, B15): a query after the commands that
were submitted before it, and before those submitted after it. Replies arrive in any order; what
is early waits here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from copycat.errors import CopycatError, EntryTooLargeError

__all__ = ["Completion", "Ending", "Finished", "Waiting", "unknown_outcome"]

Ending = Callable[[tuple[object, ...], tuple[object, ...]], CopycatError]
"""(operations with unknown outcome, operations that were never sent) -> a new error."""


class Finished(NamedTuple):
    """One thing that a caller waits for is decided. `failed`: value is the exception."""

    sink: Any
    value: Any
    failed: bool


class _Call:
    """A `submit` (results is None) or a `submit_many` that waits for its last result."""

    __slots__ = ("count", "first", "operations", "results", "sink")

    def __init__(
        self, sink: Any, first: int, count: int, operations: Any, results: list[Any] | None
    ) -> None:
        self.sink = sink
        self.first = first
        self.count = count
        self.operations = operations
        self.results = results


class Waiting:
    """A query's place in the order: right after the command with sequence `after`."""

    __slots__ = ("after", "finished", "sink")

    def __init__(self, sink: Any, after: int) -> None:
        self.sink = sink
        self.after = after
        self.finished: Finished | None = None


class Completion:
    """Who waits for what, and the results that have arrived and are not due yet."""

    def __init__(self) -> None:
        self._calls: deque[_Call] = deque()
        self._queries: deque[Waiting] = deque()
        self._ready: list[Any] = []
        self._completed = 0
        self._too_large: dict[int, int] = {}
        self._finished: list[Finished] = []

    @property
    def has_queries(self) -> bool:
        """True while a query waits."""
        return bool(self._queries)

    def expect(self, sink: Any, sequence: int, operation: object) -> None:
        """A command was submitted."""
        self._calls.append(_Call(sink, sequence, 1, operation, None))

    def expect_many(self, sink: Any, first: int, operations: Sequence[object]) -> None:
        """Neighbouring commands were submitted; one sink takes the list of results."""
        self._calls.append(_Call(sink, first, len(operations), operations, []))

    def expect_query(self, waiting: Waiting) -> None:
        """A query was submitted."""
        self._queries.append(waiting)

    def expect_too_large(self, sequence: int, nbytes: int) -> None:
        """This command was emptied, since no server takes `nbytes`: its caller must know."""
        self._too_large[sequence] = nbytes

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
            if self._too_large:
                self._mark_too_large(results)
            self._complete(results)
            self._completed += count

    def _complete(self, results: list[Any]) -> None:
        calls, finished, at = self._calls, self._finished, 0
        while at < len(results):
            call = calls[0]
            if call.results is None:
                value = results[at]
                finished.append(Finished(call.sink, value, isinstance(value, CopycatError)))
                calls.popleft()
                at += 1
                continue
            take = min(call.count - len(call.results), len(results) - at)
            call.results += results[at : at + take]
            at += take
            if len(call.results) == call.count:
                calls.popleft()
                finished.append(_finish_many(call.sink, call.results))

    def _mark_too_large(self, results: list[Any]) -> None:
        first = self._completed + 1
        for sequence in [s for s in self._too_large if first <= s < first + len(results)]:
            nbytes = self._too_large.pop(sequence)
            # An answer that is no error comes from a member whose limit let it through.
            if isinstance(results[sequence - first], CopycatError):
                results[sequence - first] = EntryTooLargeError(
                    f"command {sequence} of the session is {nbytes} bytes encoded, above the"
                    " servers' storage.max_entry_size; it was not applied"
                )

    def end(self, answered: int, attempted: int, ending: Ending) -> None:
        """Nothing more will arrive: complete what has arrived, fail the rest.

        answered, attempted: highest sequence answered, and ever sent.
        """
        pending: list[object] = []
        unsent: list[object] = []
        for call in self._calls:
            operations = [call.operations] if call.results is None else call.operations
            for sequence, operation in enumerate(operations, call.first):
                if sequence > attempted:
                    unsent.append(operation)
                elif sequence > answered:
                    pending.append(operation)
        lists = tuple(pending), tuple(unsent)
        for query in self._queries:
            if query.finished is None:
                query.finished = Finished(query.sink, ending(*lists), failed=True)
        self.advance()
        for call in self._calls:
            self._finished.append(Finished(call.sink, ending(*lists), failed=True))
        self._finished += [query.finished for query in self._queries if query.finished]
        self._calls.clear()
        self._queries.clear()


def _finish_many(sink: Any, results: list[Any]) -> Finished:
    for value in results:
        if isinstance(value, CopycatError):
            # All of them took effect; the first error carries the others' results.
            value.results = results  # type: ignore[attr-defined]  # a field of the error
            return Finished(sink, value, failed=True)
    return Finished(sink, results, failed=False)


def unknown_outcome(pending: tuple[object, ...]) -> str | None:
    """The line of an error's state about what was sent and not answered."""
    if not pending:
        return None
    more = f" and {len(pending) - 1} more" if len(pending) > 1 else ""
    return f"Unknown outcome: {pending[0]!r}{more}"
