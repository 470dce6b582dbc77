"""One operation at its place in the log, as a handler sees it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from copycat.machine.sessions import ServerSession

__all__ = ["Commit", "log_datetime"]

O_co = TypeVar("O_co", covariant=True)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def log_datetime(time_ms: int) -> datetime:
    """Log time as a datetime in UTC, exact to the millisecond."""
    return _EPOCH + timedelta(milliseconds=time_ms)


class Commit(Generic[O_co]):
    """What is applied now. For a query: the newest entry applied, and the query."""

    __slots__ = ("_index", "_operation", "_session", "_time_ms")

    def __init__(self, index: int, time_ms: int, session: ServerSession, operation: O_co) -> None:
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

    def __repr__(self) -> str:
        operation: Any = self._operation
        return f"Commit(index={self._index}, session={self._session.id}, operation={operation!r})"
