"""The public log: durable entries of bytes for one process, without asyncio or a cluster."""

from __future__ import annotations

import time
from _thread import RLock
from bisect import bisect_right
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Self, Unpack, cast

from copycat.errors import ConfigurationError, ResourceError
from copycat.log._native import Env, NativeLog, encode_batch, open_log
from copycat.log.background import SyncTimer, Upkeep
from copycat.log.beside import Beside
from copycat.log.bodies import Item, bodies, body_of, check_sizes
from copycat.log.cleaning import LogCleaning
from copycat.log.entry import Entry, Segment, entries_of
from copycat.log.forks import ForkGuard
from copycat.log.recent import RecentEntries
from copycat.types import NO_LIMITS, Durability, StorageLevel

if TYPE_CHECKING:
    import numpy as np

    from copycat.config import LogOptions, Storage
    from copycat.log.compactor import Compactor
    from copycat.log.tail import Tail
    from copycat.log.volatile import VolatileLog

__all__ = ["Entry", "Log", "Segment"]

_READ_BYTES = 256 << 10
_TAIL_BYTES = 64 << 10
"""What a tail has ahead: it is made in the event loop."""


class Log(LogCleaning):
    """A durable, segmented log in one directory; indexes are contiguous from 1.

    Threads may share it: an append waits for the disk once for all who wait at that moment.
    A process that is forked from the one that opened it may not use it.
    """

    def __init__(
        self, native: NativeLog | VolatileLog, path: str, storage: Storage, *, read_only: bool
    ) -> None:
        self._native = native
        self._path = path
        self._read_only = read_only
        self._files = Beside(path, read_only=read_only)
        self._durability = Durability(storage.durability)
        self._max_entry_size = storage.max_entry_size
        self._lock = RLock()  # the log's shape; never held while the disk is waited for
        self._sync_lock = RLock()  # one sync in flight; taken before _lock
        self._fork_guard = ForkGuard()
        self._recent = RecentEntries(storage.entry_buffer_size)
        self._upkeep = Upkeep(native)
        self._timer = SyncTimer(self.sync, storage.sync_interval)
        self._compactor: Compactor | None = None
        self._storage = storage
        self._tails: Collection[Tail] = ()
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
        """Open the log in directory `path`, which is made when it is missing.

        Options are the fields of `Storage`; those that govern members do nothing here. A relative
        path is meant as of now: what the working directory or a link is later changes nothing.
        With level "memory" nothing is on the disk, and `close` lets go of all.
        After a crash a torn tail that was never durable is dropped; bytes that were durable
        and cannot be read are a CorruptLogError, and nothing is changed on disk.
        read_only: changes nothing, and may stand beside a process that writes. It shows the log
        of this moment; where a compaction, trim or truncation has removed a file since, a read
        is a StorageError: open it anew.
        Errors: ConfigurationError, DirectoryInUseError, WrongDirectoryError (a member's
        directory), CorruptLogError, FormatVersionError, DiskError.
        """
        from copycat.log.options import (  # noqa: PLC0415
            log_in_memory,
            refuse_member_directory,
            storage_of,
        )

        settings = storage_of(path, storage, options)
        directory = settings.directory
        if settings.level is StorageLevel.MEMORY:
            return cls(
                log_in_memory(settings, read_only), directory, settings, read_only=read_only
            )
        env = Env()
        if not read_only:
            refuse_member_directory(env, directory)
            env.make_directory(directory)
        opened = open_log(
            env,
            directory,
            max_segment_size=settings.max_segment_size,
            max_entries_per_segment=settings.max_entries_per_segment,
            min_free_space=settings.min_free_space,
            read_only=read_only,
            mapped=settings.level is StorageLevel.MAPPED,
            compress=settings.compression == "lz4",
        )
        return cls(opened, directory, settings, read_only=read_only)

    # --- where it stands ---------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """The lowest index kept; `next_index` when the log is empty."""
        with self._lock:
            return self._usable().first_index

    @property
    def last_index(self) -> int:
        """0 in a new log."""
        with self._lock:
            return self._usable().last_index

    @property
    def next_index(self) -> int:
        """What the next append returns."""
        with self._lock:
            return self._usable().last_entry.next

    @property
    def durable_index(self) -> int:
        """Entries up to here survive a power loss."""
        with self._lock:
            return self._usable().durable_index

    @property
    def size(self) -> int:
        """Bytes that all files of the log take on the disk, allocated ahead or written."""
        with self._lock:
            return self._usable().disk_usage

    @property
    def content_size(self) -> int:
        """Bytes of the segments' headers and records: `size` without all the rest."""
        with self._lock:
            return self._usable().size

    @property
    def segments(self) -> Sequence[Segment]:
        """The files, oldest first; the last one is written to."""
        with self._lock:
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
                for row in self._usable().segment_stats(NO_LIMITS)
            ]

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._closed

    def __len__(self) -> int:
        with self._lock:
            native = self._usable()
            return native.last_index - native.first_index + 1

    def __repr__(self) -> str:
        return f"<Log {self._path!r}{' closed' if self._closed else ''}>"

    # --- growth ------------------------------------------------------------------------------

    def append(self, data: bytes | memoryview, *, term: int | None = None) -> int:
        """Append one entry and return its index.

        With durability "fsync" it is on disk when this returns. `term` is the last entry's
        (or 1) unless told; a lower one is a ValueError. EntryTooLargeError above
        max_entry_size; DiskFullError leaves the log as it was.
        """
        return self._append([body_of(data)], term).start

    def append_many(
        self, items: Iterable[bytes | memoryview], *, term: int | None = None
    ) -> range:
        """Append all `items` with one sync for all of them; the range of their indexes.

        All items are taken and checked before the first is appended. After a DiskFullError
        those below `next_index` are in the log.
        """
        return self._append(list(bodies(items)), term)

    def _append(self, items: list[Item], term: int | None) -> range:
        for item in items:
            check_sizes(item, self._max_entry_size)
        with self._lock:
            native = self._writable()
            if self._durability is Durability.INTERVAL:  # first what may fail without a trace
                self._timer.begin()
            last = native.last_entry
            first = last.next
            chosen = max(last.term, 1) if term is None else term
            now_ms = time.time_ns() // 1_000_000
            for item in items:
                batch = encode_batch(chosen, native.last_entry.next, now_ms, [item])
                native.append(batch)
                self._recent.add(batch)
            indexes = range(first, native.last_entry.next)
            self._upkeep.look()
        self._after_append(indexes)
        return indexes

    def _after_append(self, indexes: range) -> None:
        if not indexes:
            return
        if self._durability is Durability.FSYNC:
            self._sync(indexes[-1])
        elif self._durability is Durability.INTERVAL:
            with self._lock:  # threads that append at once begin one timer
                self._timer.start()
        self._wake_tails()

    def sync(self) -> int:
        """Force everything appended so far to the disk; returns `durable_index`."""
        with self._lock:
            last_index = self._writable().last_index
        durable_index = self._sync(last_index)
        with self._lock:
            self._writable().mark_idle()  # else a crash has the next start copy this tail
        return durable_index

    def _sync(self, upto: int) -> int:
        """Threads that wait here together are answered by one sync (group commit)."""
        with self._sync_lock:
            while True:
                with self._lock:
                    native = self._writable()
                    # Left by a caller whom a signal interrupted (KeyboardInterrupt).
                    ticket = native.sync_in_flight()
                    if ticket is None:
                        is_durable = native.durable_index >= min(upto, native.last_index)
                        if is_durable and not native.wants_sync():  # the shape counts too
                            return native.durable_index
                        ticket = native.begin_sync()
                ticket.run()
                with self._lock:
                    native.end_sync(ticket)
                    if native.has_orphans():  # spares were looked for by the append
                        self._upkeep.look()

    # --- reading -----------------------------------------------------------------------------

    def term(self, index: int) -> int:
        """The term of entry `index`; IndexError outside the log."""
        with self._lock:
            native = self._usable()
            self._check_index(index)
            runs = native.term_runs()
        return runs[bisect_right([run.first for run in runs], index) - 1].term

    def get(self, index: int) -> Entry | None:
        """Entry `index`, or None outside the log and in a gap."""
        with self._lock, self._files:
            native = self._usable()
            is_there = native.first_index <= index <= native.last_index
            return self._entry(native, index) if is_there else None

    def _entry(self, native: NativeLog | VolatileLog, index: int) -> Entry | None:
        """From memory while it is one of the newest; else its checksum is verified again."""
        batch = self._recent.find(index) if index >= self._recent.first_index else None
        if batch is None or index < native.first_index:
            return native.entry(index, Entry)
        return batch.entry(index, Entry)

    def __getitem__(self, index: int) -> Entry:
        self._lock.acquire()  # a tenth of a random read quicker than `with`
        try:
            if self._closed or self._fork_guard.is_child:
                self._usable()
            if index < self._recent.first_index:  # most are: two calls less
                found = self._native.entry(index, Entry)
            else:
                found = self._entry(self._native, index)
        except OverflowError:
            raise IndexError(f"entry {index}: indexes begin at 1") from None
        except FileNotFoundError:
            found = self.get(index)  # it says why
        finally:
            self._lock.release()
        if found is None:
            raise IndexError(f"entry {index} is in a gap: it was let go")
        return found

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and self.first_index <= index <= self.last_index

    def __iter__(self) -> Iterator[Entry]:
        return self.read()

    def read(self, start: int | None = None, stop: int | None = None) -> Iterator[Entry]:
        """Entries from `start` (or the first) up to and without `stop` (or the end of now).

        `stop` may lie beyond the end, `start` may be `next_index`; a `start` outside
        [first_index, next_index] is an IndexError: what was trimmed is not passed over.
        """
        with self._lock:
            native = self._usable()
            end = native.last_entry.next
            first = native.first_index if start is None else start
            if not native.first_index <= first <= end:
                raise IndexError(f"read from {first}: the log holds [{native.first_index}, {end})")
        return self._entries(first, end if stop is None else min(stop, end))

    def _entries(self, first: int, end: int) -> Iterator[Entry]:
        while first < end:
            with self._lock, self._files:
                batch = self._usable().read(first, end, _READ_BYTES)
            yield from entries_of(batch)
            first = batch.span.end

    def index_array(self, segment: Segment | int) -> np.ndarray[Any, np.dtype[np.void]]:
        """Where each entry of a segment lies: fields `offset` and `size`, both u4, in bytes.

        `offset` is where its frame begins in the plain file, `size` that of its data, which
        follows the 32 bytes of the frame's header (docs/reference/disk-format.md). One row an
        entry from `segment.first_index` on, read-only. A sealed segment's array is its mapped
        index file itself, without a copy; the writable one's is a copy. Imports numpy. IndexError
        when there is no such segment (any more).
        """
        with self._lock, self._files:
            number = segment.id if isinstance(segment, Segment) else segment
            return self._usable().index_array(number)

    def tail(self, start: int | None = None) -> AsyncIterator[Entry]:
        """Entries from `start` (or the next one) on, as they come; ends at `close`.

        Must be called in a running event loop.
        """
        from weakref import WeakSet  # noqa: PLC0415 - only who tails pays

        from copycat.log.tail import Tail  # noqa: PLC0415 - asyncio costs 45 ms

        if start is not None and start < self.first_index:
            raise IndexError(f"tail from {start}: the log begins at {self.first_index}")
        follower = Tail(self, self.next_index if start is None else start)
        with self._lock:
            if not self._tails:
                self._tails = WeakSet()
            cast("WeakSet[Tail]", self._tails).add(follower)
        return follower

    def feed(self, follower: Tail) -> None:
        """Give a tail what it may show now, of one read, and where it stands then.

        In a hole there is nothing to show, but it ends with this read, however long it is.
        """
        with self._lock, self._files:  # a truncation comes before or after all of it
            native = self._usable()
            waits = self._durability is Durability.FSYNC and not self._read_only
            last = native.durable_index if waits else native.last_index
            first = max(follower.position, native.first_index)
            if first > last:
                follower.take([], first)
                return
            batch = native.read(first, last + 1, _TAIL_BYTES)
            follower.take(entries_of(batch), min(batch.span.end, last + 1))

    # --- shrinking and the end ---------------------------------------------------------------

    def truncate(self, after: int) -> None:
        """Drop every entry above `after`."""
        with self._lock:
            self._writable().truncate(after)
            self._recent.truncate(after)
            for follower in list(self._tails):
                follower.rewind(after)
        if self._durability is Durability.FSYNC:
            self._sync(after)

    def trim(self, before: int) -> None:
        """Let entries below `before` go, by whole segments: `first_index` <= `before`."""
        with self._lock:
            self._writable().trim(before)
        self._sync(0)

    def close(self) -> None:
        """Sync and let go of the directory. A second close is nothing; so is a child's."""
        if self._closed or self._fork_guard.is_child:
            return
        self._timer.stop()
        self._upkeep.stop()
        if self._compactor is not None:
            self._compactor.stop()
        with self._sync_lock, self._lock:
            self._closed = True
            try:
                self._native.close()
            except ResourceError:  # the log is open still: a second close may follow
                self._closed = False
                raise
        self._wake_tails()

    def __enter__(self) -> Self:
        self._usable()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- checks ------------------------------------------------------------------------------

    def _usable(self) -> NativeLog | VolatileLog:
        if self._fork_guard.is_child:  # the message is made when it is needed
            self._fork_guard.check(f"the log {self._path}")
        if self._closed:
            raise ValueError(f"the log {self._path} is closed")
        return self._native

    def _writable(self) -> NativeLog | VolatileLog:
        if self._read_only:
            raise ConfigurationError(
                f"the log {self._path} was opened with read_only=True",
                hint="open it without read_only to change it",
            )
        return self._usable()

    def _check_index(self, index: int) -> None:
        first, last = self._native.first_index, self._native.last_index
        if not first <= index <= last:
            raise IndexError(f"entry {index}: the log holds {first} to {last}")

    def _wake_tails(self) -> None:
        for follower in list(self._tails):
            follower.wake()
