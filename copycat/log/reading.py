"""The verbs of a bare log that read: a part of `Log`, which alone derives from it."""

from __future__ import annotations

from _thread import RLock
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, overload

from copycat.log._native import Batch, NativeLog, run_locked
from copycat.log.beside import removed_since
from copycat.log.entry import Entry, Segment, entries_of
from copycat.log.forks import ForkGuard
from copycat.log.indexes import INDEX_MAX, IndexLike, bounds_of, index_of, position_of
from copycat.log.recent import RecentEntries
from copycat.types import NO_LIMITS, Durability, SegmentStats

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from typing_extensions import TypeVarTuple, Unpack

    from copycat.log.tail import Tail
    from copycat.log.volatile import VolatileLog

    _Arguments = TypeVarTuple("_Arguments")
    _Result = TypeVar("_Result")

__all__ = ["LogReading"]

READ_BYTES = 256 << 10
TAIL_BYTES = 64 << 10
"""What a tail has ahead: it is made in the event loop."""
_BACKWARDS = 64
"""Entries that are read at a time from the end on."""


class LogReading:
    """What `Log` gives to it: the native log, the lock of its shape, and what is in memory.

    Whatever is read under the lock is one call: an exception from a signal handler leaves no
    lock taken, and there is nothing here that could be half-done.
    """

    _path: str
    _native: NativeLog | VolatileLog
    _lock: RLock
    _recent: RecentEntries
    _fork_guard: ForkGuard
    _durability: Durability
    _read_only: bool

    if TYPE_CHECKING:

        @property
        def closed(self) -> bool: ...
        def _usable(self) -> NativeLog | VolatileLog: ...
        def _follow(self, follower: Tail) -> None: ...

    def _read_locked(
        self, function: Callable[[Unpack[_Arguments]], _Result], *arguments: *_Arguments
    ) -> _Result:
        """Call `function` under the lock; a file that a writer removed since is named as such."""
        try:
            return run_locked(self._lock, function, *arguments)
        except FileNotFoundError as error:
            if not self._read_only:
                raise
            raise removed_since(self._path, error) from error

    # --- where it stands ---------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """The lowest index kept; `next_index` when the log is empty."""
        return run_locked(self._lock, self._bounds)[0]

    @property
    def last_index(self) -> int:
        """0 in a new log."""
        return run_locked(self._lock, self._bounds)[1] - 1

    @property
    def next_index(self) -> int:
        """What the next append returns."""
        return run_locked(self._lock, self._bounds)[1]

    def _bounds(self) -> tuple[int, int]:
        native = self._usable()
        return native.first_index, native.last_index + 1  # one past the last

    @property
    def durable_index(self) -> int:
        """Entries up to here survive a power loss."""
        return run_locked(self._lock, self._durable)

    def _durable(self) -> int:
        return self._usable().durable_index

    @property
    def size(self) -> int:
        """Bytes that all files of the log take on the disk, allocated ahead or written."""
        return self._read_locked(self._disk_usage)

    def _disk_usage(self) -> int:
        return self._usable().disk_usage

    @property
    def content_size(self) -> int:
        """Bytes of the segments' headers and records: `size` without all the rest."""
        return run_locked(self._lock, self._content)

    def _content(self) -> int:
        return self._usable().size

    @property
    def segments(self) -> Sequence[Segment]:
        """The files, oldest first; the last one is written to."""
        return [
            Segment(
                row.id,
                row.version,
                row.first_index,
                row.last_index,
                row.nbytes,
                row.entries,
                row.is_sealed,
                row.released,
            )
            for row in self._read_locked(self._stats)
        ]

    def _stats(self) -> list[SegmentStats]:
        return self._usable().segment_stats(NO_LIMITS)

    def __len__(self) -> int:
        """How many entries an iteration gives: what was let go is none."""
        return self._read_locked(self._count)

    def _count(self) -> int:
        return self._usable().entries

    # --- single entries ----------------------------------------------------------------------

    def term(self, index: IndexLike) -> int:
        """The term of entry `index`; IndexError outside the log."""
        return run_locked(self._lock, self._term, index_of(index))

    def _term(self, index: int) -> int:
        first, end = self._bounds()
        if not first <= index < end:
            held = f"holds {first} to {end - 1}" if first < end else f"is empty, {end} comes next"
            raise IndexError(f"entry {index}: the log {held}")
        runs = self._native.term_runs()
        return runs[bisect_right([run.first for run in runs], index) - 1].term

    def get(self, index: IndexLike) -> Entry | None:
        """Entry `index`, or None outside the log and in a gap. TypeError for what is no int."""
        return self._read_locked(self._get, index_of(index))

    def _get(self, index: int) -> Entry | None:
        first, end = self._bounds()
        if not first <= index < end:
            return None
        # From memory while it is one of the newest; else its checksum is verified again.
        batch = self._recent.find(index) if index >= self._recent.first_index else None
        return self._native.entry(index, Entry) if batch is None else batch.entry(index, Entry)

    @overload
    def __getitem__(self, index: IndexLike) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: IndexLike | slice) -> Entry | list[Entry]:
        """Entry `index`, or the entries of a slice of indexes (not of positions).

        IndexError outside the log, in a gap and for what is counted from the end; a slice takes
        what the log has of it. TypeError for what is no int.
        """
        found: Entry | None
        if type(index) is not int or index < 0:
            if isinstance(index, slice):
                return self._slice(index)
            index = position_of(index)
        if index < self._recent.first_index and not self._fork_guard.is_child:
            try:  # most are: one call, and no search
                found = self._native.entry_locked(self._lock, min(index, INDEX_MAX), Entry)
            except FileNotFoundError:
                found = self.get(index)  # it says why
            except IndexError:
                found = None
        else:
            found = self._read_locked(self._get, index)
        if found is None:
            self.term(index)  # an IndexError outside the log
            raise IndexError(f"entry {index} is in a gap: it was let go")
        return found

    def __contains__(self, index: object) -> bool:
        """Whether `log[index]` is there; of an entry, whether this very one is in the log."""
        if isinstance(index, Entry):
            return self.get(index.index) == index
        if isinstance(index, bool) or not hasattr(index, "__index__"):
            return False
        return self._read_locked(self._holds, index_of(index))

    def _holds(self, index: int) -> bool:
        first, end = self._bounds()
        if not first <= index < end:
            return False
        return not (self._native.valid_from and self._native.read(index, index + 1, 1).has_gaps)

    # --- many of them ------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Entry]:
        return self.read()

    def __reversed__(self) -> Iterator[Entry]:
        first, end = run_locked(self._lock, self._bounds)
        while end > first:
            begin = max(first, end - _BACKWARDS)
            yield from reversed(self[begin:end])
            end = begin

    def _slice(self, part: slice) -> list[Entry]:
        begin, end = bounds_of(part, *run_locked(self._lock, self._bounds))
        return list(self._entries(begin, end))

    def read(
        self, start: IndexLike | None = None, stop: IndexLike | None = None
    ) -> Iterator[Entry]:
        """Entries from `start` (or the first) up to and without `stop` (or the end of now).

        `stop` may lie beyond the end, `start` may be `next_index`; a `start` outside
        [first_index, next_index] is an IndexError: what was trimmed is not passed over.
        TypeError for what is no int. What is truncated while an iteration goes on may still come
        out of it, or end it with an IndexError; appends never do.
        """
        first, end = run_locked(self._lock, self._bounds)
        begin = first if start is None else index_of(start)
        if not first <= begin <= end:
            raise IndexError(f"read from {begin}: the log holds [{first}, {end})")
        return self._entries(begin, end if stop is None else min(position_of(stop), end))

    def _entries(self, first: int, end: int) -> Iterator[Entry]:
        while first < end:
            batch = self._read_locked(self._batch, first, end)
            yield from entries_of(batch)
            first = batch.span.end

    def _batch(self, first: int, end: int) -> Batch:
        return self._usable().read(first, end, READ_BYTES)

    def index_array(self, segment: Segment | IndexLike) -> np.ndarray[Any, np.dtype[np.void]]:
        """Where each entry of a segment lies: fields `offset` and `size`, both u4, in bytes.

        `offset` is where its frame begins in the plain file, `size` that of its data, which
        follows the 32 bytes of the frame's header (docs/reference/disk-format.md). One row an
        entry from `segment.first_index` on, read-only. A sealed segment's array is its mapped
        index file itself, without a copy; the writable one's is a copy. Imports numpy. IndexError
        when there is no such segment (any more).
        """
        number = position_of(segment.id if isinstance(segment, Segment) else segment)
        return self._read_locked(self._index_array, number)

    def _index_array(self, number: int) -> np.ndarray[Any, np.dtype[np.void]]:
        return self._usable().index_array(number)

    # --- as it grows -------------------------------------------------------------------------

    def tail(self, start: IndexLike | None = None) -> AsyncIterator[Entry]:
        """Entries from `start` (or the next one) on, as they come; ends at `close`.

        Must be called in a running event loop. IndexError below the log, or above all indexes.
        Of a log that was opened read-only: what the process that writes it appends.
        """
        from copycat.log.tail import Tail  # noqa: PLC0415 - asyncio costs 45 ms

        first, end = run_locked(self._lock, self._bounds)
        begin = end if start is None else index_of(start)
        if not first <= begin <= INDEX_MAX:
            raise IndexError(f"tail from {begin}: the log begins at {first}")
        if self._read_only:
            from copycat.log.tail_beside import TailBeside  # noqa: PLC0415 - the same

            return TailBeside(self, begin, path=self._path, end=end)
        follower = Tail(self, begin)
        run_locked(self._lock, self._follow, follower)
        return follower

    def feed(self, follower: Tail) -> None:
        """Give a tail what it may show now, of one read, and where it stands then.

        In a hole there is nothing to show, but it ends with this read, however long it is.
        """
        self._read_locked(self._feed, follower)  # a truncation comes before or after all of it

    def _feed(self, follower: Tail) -> None:
        native = self._usable()
        if follower.settle(native.truncations):
            return  # it was in doubt only
        waits = self._durability is Durability.FSYNC
        last = native.durable_index if waits else native.last_index
        first = max(follower.position, native.first_index)
        if first > last:
            follower.take([], first)
            return
        batch = native.read(first, last + 1, TAIL_BYTES)
        follower.take(entries_of(batch), min(batch.span.end, last + 1))
