"""One operation at its place in the log, as a handler sees it, and may keep it.

An entry is live until it is released. A machine that does not use keys keeps the commits that
its state was made of and releases each when a later one replaces it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from copycat.errors import ApplicationError
from copycat.machine.release_tracker import ReleaseTracker, release_of
from copycat.machine.sessions import ServerSession

__all__ = ["Commit", "log_datetime"]

O_co = TypeVar("O_co", covariant=True)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def log_datetime(time_ms: int) -> datetime:
    """Log time as a datetime in UTC, exact to the millisecond."""
    return _EPOCH + timedelta(milliseconds=time_ms)


class Commit(Generic[O_co]):
    """What is applied now. For a query: the newest entry applied, and the query.

    tracker: where releases go; None for a query, which has no entry.
    """

    __slots__ = (
        "_index",
        "_is_snapshot_only",
        "_operation",
        "_references",
        "_release_tracker",
        "_session",
        "_time_ms",
    )

    def __init__(
        self,
        index: int,
        time_ms: int,
        session: ServerSession,
        operation: O_co,
        tracker: ReleaseTracker | None = None,
    ) -> None:
        self._release_tracker = tracker
        self._references = 0 if tracker is None else 1
        self._is_snapshot_only = False
        self._index = index
        self._time_ms = time_ms
        self._session = session
        self._operation = operation

    @property
    def index(self) -> int:
        """Index of the entry in the log."""
        return self._index

    @property
    def time(self) -> datetime:
        """Log time: the same on every member, never goes back (C25)."""
        return log_datetime(self._time_ms)

    @property
    def session(self) -> ServerSession:
        """Who submitted it."""
        return self._session

    @property
    def operation(self) -> O_co:
        """The operation itself."""
        return self._operation

    @property
    def command(self) -> O_co:
        """The operation, where it is a command."""
        return self._operation

    @property
    def query(self) -> O_co:
        """The operation, where it is a query."""
        return self._operation

    @property
    def references(self) -> int:
        """How often it must be released; 0 when it is released, and of a query."""
        return self._references

    @property
    def is_keyed(self) -> bool:
        """True when one of the references is its key's, which copycat releases."""
        return getattr(type(self._operation), "__key__", None) is not None

    def acquire(self) -> Self:
        """Keep the entry until it is released once more.

        ApplicationError outside of an entry's application, or when it was released already.
        """
        tracker = self._writable("acquired")
        if self._references < 1:
            raise ApplicationError(
                f"entry {self._index} was released before: it may be gone from the log",
                hint="acquire() a commit before you release() it",
            )
        self._references += 1
        if self.is_keyed:
            tracker.acquired.setdefault(self._index, None)
        return self

    def release(self) -> bool:
        """Let go of the entry; True when this was the last reference, False when it had none.

        ApplicationError outside of an entry's application, and where only its key is left.
        """
        tracker = self._writable("released")
        if self._references == 0:
            return False
        if self.is_keyed:
            return self._release_keyed(tracker)
        self._references -= 1
        if self._references:
            return False
        operation: Any = self._operation
        policy = release_of(
            operation.compaction(), keyed=False, snapshottable=tracker.snapshottable
        )
        snapshot_only_index = self._is_snapshot_only
        tracker.release_by_hand(
            self._index, policy, self._session.id, is_snapshot_only=snapshot_only_index
        )
        return True

    def _release_keyed(self, tracker: ReleaseTracker) -> bool:
        if self._references == 1:
            raise ApplicationError(
                f"entry {self._index} belongs to its key: copycat releases it when the next "
                "command of the key is applied",
                hint="release() only what you acquire(), or leave key= out of the @command",
            )
        self._references -= 1
        if self._references == 1:
            tracker.release_acquired(self._index)
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
        if self._release_tracker is None or not self._release_tracker.is_open:
            raise ApplicationError(
                f"a commit is {what} while no entry is applied (from a query or a thread)",
                hint="do it in a @command, a session callback or a scheduled callback",
            )
        return self._release_tracker

    @property
    def time_ms(self) -> int:
        """Log time in milliseconds."""
        return self._time_ms

    @property
    def is_snapshot_only(self) -> bool:
        """Whether its application touched a timer (C20)."""
        return self._is_snapshot_only

    def restore(self, references: int, *, is_snapshot_only: bool) -> None:
        """As it was when a snapshot was taken. For the executor only."""
        self._references = references
        self._is_snapshot_only = is_snapshot_only

    def mark_snapshot_only(self) -> None:
        """Its application touched a timer (C20). For the executor only."""
        self._is_snapshot_only = True

    def __repr__(self) -> str:
        operation: Any = self._operation
        return f"Commit(index={self._index}, session={self._session.id}, operation={operation!r})"
