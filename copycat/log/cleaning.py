"""The verbs of a bare log that let entries go: a part of `Log`, which alone derives from it."""

from __future__ import annotations

import time
from _thread import RLock
from collections.abc import Sequence
from typing import TYPE_CHECKING

from copycat.log._native import Env, NativeLog, encode_gap
from copycat.types import Release

if TYPE_CHECKING:
    from copycat.config import Storage
    from copycat.log.compactor import Compactor
    from copycat.log.recent import RecentEntries
    from copycat.log.volatile import VolatileLog

__all__ = ["LogCleaning"]


class LogCleaning:
    """What `Log` gives to it: the lock of the log's shape, the settings, how to sync."""

    _path: str
    _lock: RLock
    _storage: Storage
    _compactor: Compactor | None
    _recent: RecentEntries

    if TYPE_CHECKING:

        def _writable(self) -> NativeLog | VolatileLog: ...
        def _after_append(self, indexes: range) -> None: ...
        def sync(self) -> int: ...

    @property
    def compactor(self) -> Compactor:
        """Rewrites segments without what was released, on demand and by itself."""
        with self._lock:  # one for all threads: it runs one rewrite at a time
            if self._compactor is None:
                from copycat.log.compactor import Compactor  # noqa: PLC0415 - only who cleans pays

                self._compactor = Compactor(
                    self._writable(),
                    self._storage,
                    lock=self._lock,
                    sync=self.sync,
                    swapped=lambda: self._recent.truncate(0),  # it may hold what is gone now
                    free_space=lambda: Env().free_space(self._path),
                )
            return self._compactor

    def release(self, index: int) -> None:
        """Entry `index` is needed no more: a compaction may let it go. IndexError above the log.

        Not remembered across restarts: release again what you replay (L19).
        """
        self.release_many((index,))

    def release_many(self, indexes: Sequence[int]) -> None:
        """The same for all of them at once; those that are gone already are passed over."""
        with self._lock:
            self._writable().release(indexes, Release.ANY)
            self.compactor.released(len(indexes))

    def commit(self, index: int) -> None:
        """Entries up to `index` will not be truncated: from now on no compaction goes above."""
        with self._lock:
            self.compactor.commit(index)

    def skip(self, entries: int) -> None:
        """Leave out the next `entries` indexes: a hole, as if they had been let go (L12)."""
        if entries < 1:
            raise ValueError(f"skip({entries}): at least one entry")
        with self._lock:
            native = self._writable()
            last = native.last_entry
            term, end = max(last.term, 1), last.next + entries
            now_ms = time.time_ns() // 1_000_000
            native.append(encode_gap(term, last.next, end, now_ms, end - 1))
        self._after_append(range(last.next, end))
