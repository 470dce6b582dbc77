"""The verbs of a bare log that let entries go: a part of `Log`, which alone derives from it."""

from __future__ import annotations

import sys
import time
from _thread import RLock
from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

from copycat.log._native import NativeLog, encode_gap, run_locked
from copycat.log.indexes import INDEX_MAX, IndexLike, index_of, position_of
from copycat.types import Release

if TYPE_CHECKING:
    from copycat.config import Storage
    from copycat.log.compactor import Compactor
    from copycat.log.recent import RecentEntries
    from copycat.log.volatile import VolatileLog

__all__ = ["LogCleaning"]


class LogCleaning:
    """What `Log` gives to it: the lock of the log's shape, the settings, how to sync."""

    _native: NativeLog | VolatileLog
    _lock: RLock
    _storage: Storage
    _compactor: Compactor | None
    _recent: RecentEntries

    if TYPE_CHECKING:

        def _writable(self) -> NativeLog | VolatileLog: ...
        def _before_append(self) -> None: ...
        def _after_append(self, indexes: range) -> None: ...
        def sync(self) -> int: ...

    @property
    def compactor(self) -> Compactor:
        """Rewrites segments without what was released, on demand and by itself."""
        return run_locked(self._lock, self._cleaner)  # one for all threads: it runs one rewrite

    def _cleaner(self) -> Compactor:
        if self._compactor is None:
            from copycat.log.compactor import Compactor  # noqa: PLC0415 - only who cleans pays

            self._compactor = Compactor(
                self._writable(),
                self._storage,
                lock=self._lock,
                sync=self.sync,
                swaps=self._recent.clear,  # it may hold what is to be gone
                free_space=self._free_space,
            )
        return self._compactor

    def _free_space(self) -> int:
        native = self._native
        return native.free_space if isinstance(native, NativeLog) else sys.maxsize

    def release(self, index: IndexLike) -> None:
        """Entry `index` is needed no more: a compaction may let it go. IndexError above the log.

        Not remembered across restarts: release again what you replay (L19).
        """
        self.release_many((index,))

    def release_many(self, indexes: Iterable[IndexLike]) -> None:
        """The same for all of them at once; those that are gone already are passed over.

        IndexError and TypeError before any of them was released.
        """
        run_locked(self._lock, self._release, _indexes(indexes))

    def _release(self, indexes: array[int]) -> None:
        self._writable().release(indexes, Release.ANY)
        self._cleaner().released(len(indexes))

    def commit(self, index: IndexLike) -> None:
        """Entries up to `index` will not be truncated: from now on no compaction goes above."""
        run_locked(self._lock, self._commit, position_of(index))

    def _commit(self, index: int) -> None:
        self._cleaner().commit(index)

    def skip(self, entries: IndexLike) -> None:
        """Leave out the next `entries` indexes: a hole, as if they had been let go (L12)."""
        count = index_of(entries)
        if count < 1:
            raise ValueError(f"skip({count}): at least one entry")
        self._after_append(run_locked(self._lock, self._skip, count))

    def _skip(self, entries: int) -> range:
        native = self._writable()
        last = native.last_entry
        term, end = max(last.term, 1), last.next + entries
        if end > INDEX_MAX + 1:
            raise IndexError(f"skip({entries}): no log reaches entry {end - 1}")
        now_ms = time.time_ns() // 1_000_000
        self._before_append()
        native.append(encode_gap(term, last.next, end, now_ms, end - 1))
        return range(last.next, end)


def _indexes(indexes: Iterable[IndexLike]) -> array[int]:
    """Each as one that the log may be asked for. IndexError, TypeError."""
    if isinstance(indexes, array) and indexes.typecode == "Q":
        return indexes
    told = indexes if isinstance(indexes, Sequence) else list(indexes)
    if isinstance(told, range) or set(map(type, told)) <= {int}:  # no work an index
        try:
            return array("Q", cast("Sequence[int]", told))
        except OverflowError:
            pass  # the first that is out of range is named below
    return array("Q", map(position_of, told))
