"""One operation at its place in the log, as a handler sees it, and may keep it.

An entry is live until it is released. A machine that does not use keys keeps the commits that
its state was made of and releases each when a later one replaces it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from copycat.errors import ApplicationError
from copycat.machine.release_tracker import ReleaseTracker, release_of
from copycat.machine.sessions import ServerSession

__all__ = ["Commit", "CommitState", "commit_state", "log_datetime"]

O_co = TypeVar("O_co", covariant=True)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def log_datetime(time_ms: int) -> datetime:
    """Log time as a datetime in UTC, exact to the millisecond."""
    return _EPOCH + timedelta(milliseconds=time_ms)


class CommitState:
    """What a `Commit` shows, and what only the executor may change. For this package alone.

    tracker: takes the releases; None for a query, which has no entry.
    """

    __slots__ = (
        "index",
        "is_snapshot_only",
        "operation",
        "references",
        "release_tracker",
        "session",
        "time_ms",
    )

    def __init__(
        self,
        index: int,
        time_ms: int,
        session: ServerSession,
        operation: Any,
        tracker: ReleaseTracker | None = None,
    ) -> None:
        self.index = index
        self.time_ms = time_ms
        self.session = session
        self.operation = operation
        self.release_tracker = tracker
        self.references = 0 if tracker is None else 1
        self.is_snapshot_only = False
        """The entry's application touched a timer (C20): only a snapshot may delete the entry."""


class Commit(Generic[O_co]):
    """The operation that is being applied, at its place in the log.

    For a query: the query, at the index of the newest entry that was applied.
    """

    __slots__ = ("_state",)

    def __init__(self, state: CommitState) -> None:
        self._state = state

    @property
    def index(self) -> int:
        """Index of the entry in the log."""
        return self._state.index

    @property
    def time(self) -> datetime:
        """Log time: the same on every member, never decreases (C25)."""
        return log_datetime(self._state.time_ms)

    @property
    def session(self) -> ServerSession:
        """Who submitted it."""
        return self._state.session

    @property
    def operation(self) -> O_co:
        """The operation itself."""
        operation: O_co = self._state.operation
        return operation

    @property
    def command(self) -> O_co:
        """The operation, where it is a command."""
        operation: O_co = self._state.operation
        return operation

    @property
    def query(self) -> O_co:
        """The operation, where it is a query."""
        operation: O_co = self._state.operation
        return operation

    @property
    def references(self) -> int:
        """How often it must be released; 0 when it is released, and of a query."""
        return self._state.references

    @property
    def is_keyed(self) -> bool:
        """True when one of the references is its key's, which copycat releases."""
        return getattr(type(self._state.operation), "__key__", None) is not None

    def acquire(self) -> Self:
        """Keep the entry until it is released once more.

        ApplicationError outside of an entry's application, or when it was released already.
        """
        tracker = self._writable("acquired")
        if self._state.references < 1:
            raise ApplicationError(
                f"entry {self._state.index} was released before: it may be deleted already",
                hint="acquire() a commit before you release() it",
            )
        self._state.references += 1
        if self.is_keyed:
            tracker.acquired.setdefault(self._state.index, None)
        return self

    def release(self) -> bool:
        """Release the entry; True when this was the last reference, False when it had none.

        ApplicationError outside of an entry's application, and where only its key is left.
        """
        tracker = self._writable("released")
        if self._state.references == 0:
            return False
        if self.is_keyed:
            return self._release_keyed(tracker)
        self._state.references -= 1
        if self._state.references:
            return False
        operation = self._state.operation
        policy = release_of(
            operation.compaction(), keyed=False, snapshottable=tracker.snapshottable
        )
        is_snapshot_only = self._state.is_snapshot_only
        tracker.release_by_hand(
            self._state.index, policy, self._state.session.id, is_snapshot_only=is_snapshot_only
        )
        return True

    def _release_keyed(self, tracker: ReleaseTracker) -> bool:
        if self._state.references == 1:
            raise ApplicationError(
                f"entry {self._state.index} belongs to its key: copycat releases it when the next "
                "command of the key is applied",
                hint="call release() only after acquire(), or leave key= out of the @command",
            )
        self._state.references -= 1
        if self._state.references == 1:
            tracker.release_acquired(self._state.index)
        return False

    def close(self) -> None:
        """Release it, unless that was done."""
        self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _writable(self, what: str) -> ReleaseTracker:
        if self._state.release_tracker is None or not self._state.release_tracker.is_open:
            raise ApplicationError(
                f"a commit is {what} while no entry is applied (from a query or a thread)",
                hint="do it in a @command, a session callback or a scheduled callback",
            )
        return self._state.release_tracker

    def __repr__(self) -> str:
        index, session, operation = self.index, self.session.id, self.operation
        return f"Commit(index={index}, session={session}, operation={operation!r})"


commit_state: Callable[[Commit[Any]], CommitState] = attrgetter("_state")
"""What stands behind a commit."""
