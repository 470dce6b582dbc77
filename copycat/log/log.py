"""The public log: durable entries of bytes for one process, without asyncio or a cluster."""

from __future__ import annotations

import time
from _weakref import ref
from array import array
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, Unpack, overload

from copycat.errors import ConfigurationError, DirectoryInUseError, ResourceError
from copycat.fork_guard import ForkGuard
from copycat.log.background import FileMaintenance, SyncTimer
from copycat.log.entries import (
    Data,
    Entry,
    Item,
    Segment,
    check_sizes,
    encode_payload,
    encode_payloads,
    entries_of,
    segment_of,
)
from copycat.log.indexes import (
    INDEX_MAX,
    IndexLike,
    bounds_of,
    index_of,
    indexes_of,
    position_of,
    term_of,
)
from copycat.storage._native import (
    Batch,
    Env,
    NativeLog,
    ReentrantLock,
    encode_batch,
    encode_gap,
    open_log,
    run_locked,
)
from copycat.storage.recent_batches import RecentBatches
from copycat.storage.unreadable import removed_since
from copycat.types import NO_LIMITS, Durability, Release, SegmentStats, StorageLevel

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from typing_extensions import TypeVarTuple, Unpack

    from copycat.config import Storage
    from copycat.log.compactor import CompactionThread, Compactor
    from copycat.log.tail import Tail
    from copycat.storage.in_memory import InMemoryLog
    from copycat.storage.recent_batches import RecentBatches

    _Arguments = TypeVarTuple("_Arguments")
    _Result = TypeVar("_Result")
    from copycat.config import LogOptions
    from copycat.storage._native import SyncTicket
    from copycat.storage.memory import MemoryTicket

__all__ = ["Entry", "Log", "Segment"]


READ_BYTES = 256 << 10
TAIL_BYTES = 64 << 10
"""Bytes that a tail reads at a time, in the event loop."""
_BACKWARDS = 64
"""Entries that are read at a time from the end on."""


class Log:
    """A durable, segmented log in one directory; indexes are contiguous from 1.

    Threads may share a log: one sync serves all appends that wait at that moment.
    A process that was forked from the process that opened the log must not use it.
    If an exception from a signal handler (KeyboardInterrupt) ends a call, the call took effect as
    a whole or not at all, and the log shows which; call an interrupted `close` again.
    """

    # The native log is the only source of truth, and each of its calls takes effect as a whole or
    # not at all. Copies that this object keeps beside it may be behind, but must never be wrong:
    # they drop an entry before the native log does, and add an entry after the native log did.
    # Locks are taken by run_locked alone.

    def __init__(
        self, native: NativeLog | InMemoryLog, path: str, storage: Storage, *, read_only: bool
    ) -> None:
        self._native = native
        self._path = path
        self._read_only = read_only
        durability = Durability(storage.durability)
        self._syncs_appends = durability is Durability.FSYNC
        self._syncs_by_interval = durability is Durability.INTERVAL
        self._max_entry_size = storage.max_entry_size
        self._lock = ReentrantLock()  # for every call of _native; never held during a sync
        self._sync_lock = ReentrantLock()  # one sync in flight; taken before _lock
        self._fork_guard = ForkGuard()
        self._recent = RecentBatches[Batch](storage.entry_buffer_size)
        self._maintenance = FileMaintenance(native)
        # No object here refers back to the log, so a log that nobody refers to any more is
        # freed, and its directory unlocked, at once.
        self._timer = SyncTimer(partial(_sync_of, ref(self)), storage.sync_interval)
        self._compaction: CompactionThread | None = None
        self._storage = storage
        self._tails: list[ref[Tail]] = []
        self._closed = False

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        *,
        storage: Storage | None = None,
        read_only: bool = False,
        **options: Unpack[LogOptions],
    ) -> Self:
        """Open the log in directory `path`, which is created if it is missing.

        Options are the fields of `Storage`; those for members have no effect here. A relative
        path is resolved once, now: later changes of the working directory or of a link do not
        matter, and a directory that is renamed while it is open still belongs to this log.
        With level "memory" nothing is on the disk, and `close` frees everything.
        After a crash, a torn tail that was never durable is dropped; if bytes that were durable
        cannot be read, CorruptLogError is raised and nothing on the disk is changed.
        read_only: changes nothing, and works while another process writes the log. It shows the
        log as it was when it was opened; after the other process deleted a file by a compaction,
        trim or truncation, a read of that file raises StorageError: open the log again.
        Errors: ConfigurationError, DirectoryInUseError, WrongDirectoryError (a member's
        directory), CorruptLogError, FormatVersionError, DiskError.
        """
        from copycat.log.options import log_in_memory, storage_of  # noqa: PLC0415

        if not isinstance(read_only, bool):
            raise ConfigurationError(f"read_only ({read_only!r}) must be True or False")
        settings = storage_of(path, storage, options)
        directory = settings.directory
        if settings.level is StorageLevel.MEMORY:
            return cls(
                log_in_memory(settings, read_only), directory, settings, read_only=read_only
            )
        native = None
        try:
            native = cls._native_log(directory, settings, read_only=read_only)
            return cls(native, directory, settings, read_only=read_only)
        except BaseException:
            if native is not None:
                native.close()  # nothing else would unlock the directory
            raise

    @staticmethod
    def _native_log(directory: str, settings: Storage, *, read_only: bool) -> NativeLog:
        from copycat.member.refusals import (  # noqa: PLC0415
            refuse_file,
            refuse_member_directory,
        )

        env = Env()
        refuse_file(env, directory)
        if not read_only:
            refuse_member_directory(env, directory)
            env.make_directory(directory)
        try:
            return open_log(
                env,
                directory,
                max_segment_size=settings.max_segment_size,
                max_entries_per_segment=settings.max_entries_per_segment,
                min_free_space=settings.min_free_space,
                read_only=read_only,
                mapped=settings.level is StorageLevel.MAPPED,
                compress=settings.compression == "lz4",
            )
        except DirectoryInUseError as error:
            from copycat.member.holders import with_holder  # noqa: PLC0415

            raise with_holder(f"{directory}/lock", error) from error

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._closed

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """TypeError: two objects cannot share a log, and no other process has its files open."""
        raise TypeError("a Log cannot be copied or pickled: give its path, and open it there")

    def __repr__(self) -> str:
        return f"<Log {self._path!r}{' closed' if self._closed else ''}>"

    # --- growth ------------------------------------------------------------------------------

    def append(self, data: Data, *, term: IndexLike | None = None) -> int:
        """Append one entry and return its index.

        With durability "fsync" the entry is on the disk when the call returns. `term` defaults to
        the last entry's (1 in a new log); a lower one raises ValueError. EntryTooLargeError above
        max_entry_size; a DiskFullError leaves the log as it was.
        """
        return self._append([encode_payload(data)], term).start

    def append_many(self, items: Iterable[Data], *, term: IndexLike | None = None) -> range:
        """Append all `items` with one sync for all of them, and return their indexes.

        All items are read and checked before the first one is appended. After a DiskFullError
        the items with an index below `next_index` are in the log.
        """
        return self._append(list(encode_payloads(items)), term)

    def _append(self, items: list[Item], term: IndexLike | None) -> range:
        for item in items:
            if len(item[5]) > self._max_entry_size:  # tested here: a call for each item costs time
                check_sizes(item, self._max_entry_size)
        first, end = run_locked(self._lock, self._grow, items, term)
        self._after_append(first, end)
        return range(first, end)

    def _grow(self, items: list[Item], term: IndexLike | None) -> tuple[int, int]:
        native = self._writable()
        last_term, last_index = native.last_entry
        chosen = (last_term or 1) if term is None else term_of(term)
        first = end = last_index + 1
        now_ms = time.time_ns() // 1_000_000
        if items and self._syncs_by_interval:
            self._timer.start(self)  # first, in case this call is interrupted
        for item in items:
            batch = encode_batch(chosen, end, now_ms, [item])
            native.append(batch)
            self._recent.add(batch)
            end = native.last_index + 1
        self._maintenance.start_if_needed()
        return first, end

    def _after_append(self, first: int, end: int) -> None:
        if first == end:
            return
        if self._syncs_appends:
            self._sync(end - 1)
        if self._tails:
            self._wake_tails()

    def sync(self) -> int:
        """Sync everything that was appended so far; returns `durable_index`."""
        durable_index = self._sync(run_locked(self._lock, self._end))
        run_locked(self._lock, self._mark_idle)  # saves the next start from copying the tail
        return durable_index

    def _end(self) -> int:
        return self._writable().last_index

    def _mark_idle(self) -> None:
        self._writable().mark_idle()

    def _sync(self, upto: int) -> int:
        """Sync the entries up to `upto`. One sync serves all threads that wait here (group
        commit)."""
        return run_locked(self._sync_lock, self._sync_alone, upto)

    def _sync_alone(self, upto: int) -> int:
        step = run_locked(self._lock, self._next_sync, upto)
        while not isinstance(step, int):
            step.run()
            step = run_locked(self._lock, self._end_sync, step, upto)
        return step

    def _next_sync(self, upto: int) -> SyncTicket | MemoryTicket | int:
        """A sync to run; `durable_index` when all up to `upto` is durable, and the list of
        segments too."""
        native = self._writable()
        # A caller that a signal interrupted (KeyboardInterrupt) may have left a sync to end.
        if (left := native.sync_in_flight()) is not None:
            return left
        durable_index = native.durable_index
        is_durable = durable_index >= upto or durable_index >= native.last_index
        return durable_index if is_durable and not native.wants_sync() else native.begin_sync()

    def _end_sync(
        self, ticket: SyncTicket | MemoryTicket, upto: int
    ) -> SyncTicket | MemoryTicket | int:
        """End `ticket`, and return what `_next_sync` does."""
        self._native.end_sync(ticket)
        if self._native.has_obsolete_files():  # the append already asked about spare files
            self._maintenance.start_if_needed()
        return self._next_sync(upto)

    # --- shrinking and the end ---------------------------------------------------------------

    def truncate(self, after: IndexLike) -> None:
        """Drop every entry above `after`. IndexError below the log."""
        position = position_of(after)
        run_locked(self._lock, self._cut, position)
        if self._syncs_appends:
            self._sync(position)

    def _cut(self, after: int) -> None:
        native = self._writable()
        for follower in self._followers():
            follower.expect(native.truncations, after)
        self._recent.truncate(after)
        native.truncate(after)

    def trim(self, before: IndexLike) -> None:
        """Delete entries below `before`, in whole segments only, so that `first_index` may stay
        below `before`."""
        run_locked(self._lock, self._shorten, position_of(before))
        self._sync(0)

    def _shorten(self, before: int) -> None:
        native = self._writable()
        self._recent.trim(before)
        native.trim(before)

    def close(self) -> None:
        """Sync everything and unlock the directory. A second close does nothing, and neither does
        a close in a forked child."""
        if self._fork_guard.is_child:
            return
        self._timer.stop()
        self._maintenance.stop()
        if self._compaction is not None:
            self._compaction.stop()
        run_locked(self._sync_lock, run_locked, self._lock, self._end_all)
        self._wake_tails()

    def _end_all(self) -> None:
        self._closed = True  # set first: after an exception here, `close` can be called again
        self._recent.clear()
        try:
            self._native.close()
        except ResourceError:  # the log is still open, and `close` can be called again
            self._closed = False
            raise

    def __enter__(self) -> Self:
        self._usable()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- checks ------------------------------------------------------------------------------

    def _usable(self) -> NativeLog | InMemoryLog:
        if self._fork_guard.is_child:  # tested here, since the message costs time
            self._fork_guard.check(f"the log {self._path}")
        if self._closed:
            raise ValueError(f"the log {self._path} is closed")
        return self._native

    def _writable(self) -> NativeLog | InMemoryLog:
        if self._read_only:
            raise ConfigurationError(
                f"the log {self._path} was opened with read_only=True",
                hint="open it without read_only to change it",
            )
        return self._usable()

    # --- tails -------------------------------------------------------------------------------

    def _follow(self, follower: Tail) -> None:
        self._tails = [one for one in self._tails if one() is not None] + [ref(follower)]

    def _followers(self) -> Iterator[Tail]:
        tails = (one() for one in self._tails)
        return (follower for follower in tails if follower is not None)

    def _wake_tails(self) -> None:
        for follower in self._followers():
            follower.wake()

    # --- reading: one call under the lock each, so an interrupt never leaves the lock taken ---

    def _read_locked(
        self, function: Callable[[Unpack[_Arguments]], _Result], *arguments: *_Arguments
    ) -> _Result:
        """Call `function` under the lock. A read-only log raises its own error for a file that a
        writer deleted."""
        try:
            return run_locked(self._lock, function, *arguments)
        except FileNotFoundError as error:
            if not self._read_only:
                raise
            raise removed_since(self._path, error) from error

    # --- where it stands ---------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """The index of the first entry; `next_index` when the log is empty."""
        return run_locked(self._lock, self._bounds)[0]

    @property
    def last_index(self) -> int:
        """The index of the last entry; 0 in a new log."""
        return run_locked(self._lock, self._bounds)[1] - 1

    @property
    def next_index(self) -> int:
        """The index that the next appended entry gets."""
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
        """Bytes that all files of the log take on the disk, with space that is allocated ahead."""
        return self._read_locked(self._disk_usage)

    def _disk_usage(self) -> int:
        return self._usable().disk_usage

    @property
    def content_size(self) -> int:
        """Bytes of the segments' headers and records alone."""
        return run_locked(self._lock, self._content)

    def _content(self) -> int:
        return self._usable().size

    @property
    def segments(self) -> Sequence[Segment]:
        """The segments, oldest first; appends go to the last one."""
        return list(map(segment_of, self._read_locked(self._stats)))

    def _stats(self) -> list[SegmentStats]:
        return self._usable().segment_stats(NO_LIMITS)

    def __len__(self) -> int:
        """The number of entries in the log; deleted ones do not count."""
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
            extent = (
                f"holds {first} to {end - 1}" if first < end else f"is empty, {end} comes next"
            )
            raise IndexError(f"entry {index}: the log {extent}")
        runs = self._native.term_runs()
        return runs[bisect_right([run.first for run in runs], index) - 1].term

    def get(self, index: IndexLike) -> Entry | None:
        """Entry `index`, or None outside the log and in a gap. TypeError for what is no int."""
        return self._read_locked(self._get, index_of(index))

    def _get(self, index: int) -> Entry | None:
        first, end = self._bounds()
        if not first <= index < end:
            return None
        # One of the newest entries comes from memory; any other is read and verified.
        batch = self._recent.find(index) if index >= self._recent.first_index else None
        return self._native.entry(index, Entry) if batch is None else batch.entry(index, Entry)

    @overload
    def __getitem__(self, index: IndexLike) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: IndexLike | slice) -> Entry | list[Entry]:
        """Entry `index`, or the entries of a slice of indexes (not of positions).

        IndexError outside the log, in a gap, and for a negative index; a slice gives the entries
        that the log has. TypeError for an index that is no int.
        """
        entry: Entry | None
        if type(index) is not int:
            if isinstance(index, slice):
                return self._slice(index)
            index = position_of(index)
        if index < self._recent.first_index and not self._fork_guard.is_child:
            try:  # the usual case: one call, without a search in memory
                entry = self._native.entry_locked(self._lock, index, Entry)
            except FileNotFoundError:
                entry = self.get(index)  # raises the error that explains it
            except (IndexError, OverflowError):  # outside the log, or no 64-bit number
                position_of(index)  # raises what explains a negative one
                entry = None
        else:
            entry = self._read_locked(self._get, index)
        if entry is None:
            self.term(index)  # an IndexError outside the log
            raise IndexError(f"entry {index} is in a gap: it was deleted")
        return entry

    def __contains__(self, index: object) -> bool:
        """Whether the log has an entry `index`; for an Entry, whether exactly it is in the log."""
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
        """The entries from `start` (default: the first) to below `stop` (default: the end now).

        `stop` may lie beyond the end. IndexError unless `start` is in [first_index, next_index],
        so that trimmed entries are never passed over silently. TypeError for an index that is no
        int. If entries are truncated during an iteration, the iteration may still yield them or
        end with an IndexError. Appends during an iteration do not change it.
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
        """The positions of a segment's entries: fields `offset` and `size`, both u4, in bytes.

        `offset` is where an entry's frame begins in the plain file, and `size` the size of its
        data, which follows the 32 bytes of the frame's header (docs/reference/disk-format.md). The
        array is read-only and has one row for each entry from `segment.first_index` on. For a
        sealed segment it is the mapped index file itself, for the last segment a copy. Imports
        numpy. IndexError when the log has no such segment (any more).
        """
        number = position_of(segment.id if isinstance(segment, Segment) else segment)
        return self._read_locked(self._index_array, number)

    def _index_array(self, number: int) -> np.ndarray[Any, np.dtype[np.void]]:
        return self._usable().index_array(number)

    # --- following the log -------------------------------------------------------------------

    def tail(self, start: IndexLike | None = None) -> AsyncIterator[Entry]:
        """The entries from `start` (default: the next one) on, as they come; ends at `close`.

        Must be called in a running event loop. IndexError below the log, or above all indexes.
        The tail of a read-only log gives the entries that the writing process appends.
        """
        from copycat.log.tail import Tail  # noqa: PLC0415 - asyncio costs 45 ms

        first, end = run_locked(self._lock, self._bounds)
        begin = end if start is None else index_of(start)
        if not first <= begin <= INDEX_MAX:
            raise IndexError(f"tail from {begin}: the log begins at {first}")
        if self._read_only:
            from copycat.log.tail import TailBeside  # noqa: PLC0415 - the same

            return TailBeside(self, begin, self._feed, path=self._path, end=end)
        follower = Tail(self, begin, self._feed)
        run_locked(self._lock, self._follow, follower)
        return follower

    def _feed(self, follower: Tail) -> None:
        """Give a tail the entries of one read, as far as it may show them, and its new position.

        A gap gives no entries, but moves the position to its end, however long it is.
        """
        # Under the lock, so that no truncation comes in between.
        self._read_locked(self._feed_locked, follower)

    def _feed_locked(self, follower: Tail) -> None:
        native = self._usable()
        if follower.confirm_truncation(native.truncations):
            return  # entries that were in doubt may be shown after all
        last = native.durable_index if self._syncs_appends else native.last_index
        first = max(follower.position, native.first_index)
        if first > last:
            follower.take([], first)
            return
        batch = native.read(first, last + 1, TAIL_BYTES)
        follower.take(entries_of(batch), min(batch.span.end, last + 1))

    # --- releasing entries -------------------------------------------------------------------

    @property
    def compactor(self) -> Compactor:
        """The compactor, which rewrites segments without released entries, on demand and in a
        thread of its own."""
        return run_locked(self._lock, self._compaction_thread).compactor

    def _compaction_thread(self) -> CompactionThread:
        """The thread of compactions, which all threads share: it runs one rewrite at a time."""
        if self._compaction is None:
            from copycat.log.compactor import CompactionThread  # noqa: PLC0415 - only who cleans

            self._compaction = CompactionThread(
                self._writable(),
                self._storage,
                lock=self._lock,
                sync=self.sync,
                recent=self._recent,
            )
        return self._compaction

    def release(self, index: IndexLike) -> None:
        """Entry `index` is not needed any more: a compaction may delete it. IndexError above the
        log.

        A release is not stored: after a restart, release the entries again.
        """
        self.release_many((index,))

    def release_many(self, indexes: Iterable[IndexLike]) -> None:
        """Release all entries in `indexes` at once; entries that are deleted already are ignored.

        After an IndexError or a TypeError none of them is released.
        """
        run_locked(self._lock, self._release, indexes_of(indexes))

    def _release(self, indexes: array[int]) -> None:
        self._writable().release(indexes, Release.ANY)
        self._compaction_thread().release(len(indexes))

    def commit(self, index: IndexLike) -> None:
        """Promise that entries up to `index` will not be truncated. From the first call on, no
        compaction deletes an entry above the highest such `index`."""
        run_locked(self._lock, self._commit, position_of(index))

    def _commit(self, index: int) -> None:
        self._compaction_thread().commit(index)

    def skip(self, entries: IndexLike) -> None:
        """Append a gap instead of the next `entries` entries, as if these had been deleted."""
        count = index_of(entries)
        if count < 1:
            raise ValueError(f"skip({count}): at least one entry")
        self._after_append(*run_locked(self._lock, self._skip, count))

    def _skip(self, entries: int) -> tuple[int, int]:
        native = self._writable()
        last = native.last_entry
        term, end = max(last.term, 1), last.next + entries
        if end > INDEX_MAX + 1:
            raise IndexError(f"skip({entries}): no log reaches entry {end - 1}")
        now_ms = time.time_ns() // 1_000_000
        if self._syncs_by_interval:
            self._timer.start(self)
        native.append(encode_gap(term, last.next, end, now_ms, end - 1))
        return last.next, end


def _sync_of(log: ref[Log]) -> int:
    target = log()
    return target.sync() if target is not None else 0
