"""The configurations that the log holds, as a table over it (C35).

The table is a base and one row for each configuration entry above it. It changes shape whenever
the log does: an append adds a row, a truncation drops all rows above it, be it two at once, and a
snapshot that is installed becomes the base. Which row is committed is a question to the commit
index; the table remembers no answer, so nothing of it has to be taken back.

Beside it is the configuration that a leader told this member, or that its directory kept, when
the log does not reach so far: a member that joins, a reserve, and a member with its log in memory
know it from there. It counts while its name is above that of every row: names of committed entries
rise in the order of Raft, and an entry that was not committed is followed by one of a higher term.
"""

from __future__ import annotations

from collections.abc import Iterable

from copycat.errors import require
from copycat.raft.configuration import BOOTSTRAP, Configuration, name_of
from copycat.types import INDEX_END, NO_ENTRY, EntryId

__all__ = ["ConfigurationTable"]

_UNKNOWN = Configuration(NO_ENTRY, (), ())
"""The base of a member that was no founder: nobody is a member, and nothing is a majority."""


class ConfigurationTable:
    """A base, the rows above it, and perhaps one that is newer than the log.

    Invariant: names rise from row to row, and the base is committed.
    """

    __slots__ = ("announced", "rows")

    def __init__(
        self,
        first: Configuration,
        rows: Iterable[Configuration] = (),
        announced: Configuration | None = None,
    ) -> None:
        """first: the founders' configuration; or, for a member that was no founder, the one that
        it was given, which no log of its own holds so far."""
        is_founders = first.entry == BOOTSTRAP
        self.rows = [first if is_founders else _UNKNOWN]
        """The base, and each configuration entry of the log above it."""
        given = [each for each in (announced, None if is_founders else first) if each is not None]
        self.announced = max(given, key=name_of, default=None)
        """A newer one that the log does not hold; None when there is none."""
        for row in rows:
            if row.entry != BOOTSTRAP:
                self.append(row)

    @property
    def base(self) -> Configuration:
        """The newest one at or below the oldest snapshot; committed."""
        return self.rows[0]

    @property
    def newest(self) -> Configuration:
        """The newest that this member knows, committed or not: it says who votes."""
        newest, announced = self.rows[-1], self.announced
        if announced is not None and announced.entry > newest.entry:
            return announced
        return newest

    def at(self, index: int) -> Configuration:
        """The one in force at `index`: what a snapshot of that index holds, and the newest
        committed one of the log when `index` is the commit index."""
        for row in reversed(self.rows):
            if row.entry.index <= index:
                return row
        return self.base

    def above(self, index: int) -> list[Configuration]:
        """Those of entries above `index`, oldest first."""
        return [row for row in self.rows[1:] if row.entry.index > index]

    def next_index(self, commit_index: int) -> int:
        """Index of the first row that is not committed; above every index when there is none."""
        for row in self.rows[1:]:
            if row.entry.index > commit_index:
                return row.entry.index
        return INDEX_END

    def append(self, row: Configuration) -> None:
        """The log has one more configuration entry."""
        require(
            row.entry > self.rows[-1].entry and row.entry.index > self.rows[-1].entry.index,
            "configurations of a log rise",
            row=row.entry,
            newest=self.rows[-1].entry,
        )
        self.rows.append(row)

    def truncate(self, after: int) -> bool:
        """Entries above `after` were deleted; True when a row went with them."""
        size = len(self.rows)
        self.rows[1:] = [row for row in self.rows[1:] if row.entry.index <= after]
        return len(self.rows) < size

    def install(self, base: Configuration, index: int, *, continues: bool) -> None:
        """A snapshot of `index` is here and holds `base`; the log continues after it, or not."""
        self.rows = [base, *(self.above(index) if continues else ())]

    def trim(self, first_index: int) -> None:
        """The log begins at `first_index`: what was in force below it is the base."""
        base = self.at(first_index - 1)
        self.rows = [base, *self.above(first_index - 1)]

    def announce(self, configuration: Configuration) -> bool:
        """A leader says that this one is committed; True when it is newer than all before."""
        if configuration.entry <= self.newest.entry:
            return False
        self.announced = configuration
        return True

    def forget_announced(self, last: EntryId) -> bool:
        """The log ends with `last` now: from that name on it holds what was announced, or shows
        that it was never committed. True when nothing is announced any more."""
        if self.announced is None or last < self.announced.entry:
            return False
        self.announced = None
        return True
