"""The public log: durable entries of bytes for one process, without asyncio or a cluster."""

from __future__ import annotations

import time
from _thread import RLock
from _weakref import ref
from collections.abc import Iterable, Iterator
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, NoReturn, Self, Unpack

from copycat.errors import ConfigurationError, DirectoryInUseError, ResourceError
from copycat.log._native import Env, NativeLog, encode_batch, open_log, run_locked
from copycat.log.background import SyncTimer, Upkeep
from copycat.log.bodies import Data, Item, bodies, body_of, check_sizes
from copycat.log.cleaning import LogCleaning
from copycat.log.entry import Entry, Segment
from copycat.log.forks import ForkGuard
from copycat.log.indexes import IndexLike, position_of, term_of
from copycat.log.reading import LogReading
from copycat.log.recent import RecentEntries
from copycat.types import Durability, StorageLevel

if TYPE_CHECKING:
    from copycat.config import LogOptions, Storage
    from copycat.log._native import SyncTicket
    from copycat.log.compactor import Compactor
    from copycat.log.memory import MemoryTicket
    from copycat.log.tail import Tail
    from copycat.log.volatile import VolatileLog

__all__ = ["Entry", "Log", "Segment"]


class Log(LogReading, LogCleaning):
    """A durable, segmented log in one directory; indexes are contiguous from 1.

    Threads may share it: an append waits for the disk once for all who wait at that moment.
    A process that is forked from the one that opened it may not use it.
    A call that an exception from a signal handler ends (KeyboardInterrupt) was done or not, as
    the log then says; an interrupted `close` is to be called again.
    """

    # What is true of the log is asked of the native one, whose calls are each done or not. What
    # is kept beside it may lag, but must never be wrong: it forgets before the log drops
    # something, and is told of what was added afterwards. Locks are taken by run_locked alone.

    def __init__(
        self, native: NativeLog | VolatileLog, path: str, storage: Storage, *, read_only: bool
    ) -> None:
        self._native = native
        self._path = path
        self._read_only = read_only
        self._durability = Durability(storage.durability)
        self._max_entry_size = storage.max_entry_size
        self._lock = RLock()  # the log's shape; never held while the disk is waited for
        self._sync_lock = RLock()  # one sync in flight; taken before _lock
        self._fork_guard = ForkGuard()
        self._recent = RecentEntries(storage.entry_buffer_size)
        self._upkeep = Upkeep(native)
        # Nothing here refers back to the log: dropped, it lets go of its directory at once.
        self._timer = SyncTimer(partial(_sync_of, ref(self)), storage.sync_interval)
        self._compactor: Compactor | None = None
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
        """Open the log in directory `path`, which is made when it is missing.

        Options are the fields of `Storage`; those that govern members do nothing here. A relative
        path is meant as of now: what the working directory or a link is later changes nothing, and
        a directory that is renamed while it is open stays this log's, wherever it is then.
        With level "memory" nothing is on the disk, and `close` lets go of all.
        After a crash a torn tail that was never durable is dropped; bytes that were durable
        and cannot be read are a CorruptLogError, and nothing is changed on disk.
        read_only: changes nothing, and may stand beside a process that writes. It shows the log
        of this moment; where a compaction, trim or truncation has removed a file since, a read
        is a StorageError: open it anew.
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
                native.close()  # nobody else could let go of the directory
            raise

    @staticmethod
    def _native_log(directory: str, settings: Storage, *, read_only: bool) -> NativeLog:
        from copycat.log.options import (  # noqa: PLC0415
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
            from copycat.log.holders import with_holder  # noqa: PLC0415

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

        With durability "fsync" it is on disk when this returns. `term` is the last entry's
        (or 1) unless told; a lower one is a ValueError. EntryTooLargeError above
        max_entry_size; DiskFullError leaves the log as it was.
        """
        return self._append([body_of(data)], term).start

    def append_many(self, items: Iterable[Data], *, term: IndexLike | None = None) -> range:
        """Append all `items` with one sync for all of them; the range of their indexes.

        All items are taken and checked before the first is appended. After a DiskFullError
        those below `next_index` are in the log.
        """
        return self._append(list(bodies(items)), term)

    def _append(self, items: list[Item], term: IndexLike | None) -> range:
        for item in items:
            check_sizes(item, self._max_entry_size)
        indexes = run_locked(self._lock, self._grow, items, term)
        self._after_append(indexes)
        return indexes

    def _grow(self, items: list[Item], term: IndexLike | None) -> range:
        native = self._writable()
        last = native.last_entry
        first = last.next
        chosen = max(last.term, 1) if term is None else term_of(term)
        now_ms = time.time_ns() // 1_000_000
        if items:
            self._before_append()
        for item in items:
            batch = encode_batch(chosen, native.last_entry.next, now_ms, [item])
            native.append(batch)
            self._recent.add(batch)
        self._upkeep.look()
        return range(first, native.last_entry.next)

    def _before_append(self) -> None:
        """Under the lock, which the sync waits for: what an interrupted append wrote is synced
        in time too."""
        if self._durability is Durability.INTERVAL:
            self._timer.start(self)

    def _after_append(self, indexes: range) -> None:
        if not indexes:
            return
        if self._durability is Durability.FSYNC:
            self._sync(indexes[-1])
        self._wake_tails()

    def sync(self) -> int:
        """Force everything appended so far to the disk; returns `durable_index`."""
        durable_index = self._sync(run_locked(self._lock, self._end))
        run_locked(self._lock, self._mark_idle)  # else a crash has the next start copy this tail
        return durable_index

    def _end(self) -> int:
        return self._writable().last_index

    def _mark_idle(self) -> None:
        self._writable().mark_idle()

    def _sync(self, upto: int) -> int:
        """Threads that wait here together are answered by one sync (group commit)."""
        return run_locked(self._sync_lock, self._sync_alone, upto)

    def _sync_alone(self, upto: int) -> int:
        while True:
            ticket = run_locked(self._lock, self._ticket, upto)
            if ticket is None:
                return run_locked(self._lock, self._durable)
            ticket.run()
            run_locked(self._lock, self._end_sync, ticket)

    def _ticket(self, upto: int) -> SyncTicket | MemoryTicket | None:
        """A sync to run; None when all up to `upto` is durable, and the log's shape too."""
        native = self._writable()
        # Left by a caller whom a signal interrupted (KeyboardInterrupt).
        left = native.sync_in_flight()
        if left is not None:
            return left
        is_durable = native.durable_index >= min(upto, native.last_index)
        return None if is_durable and not native.wants_sync() else native.begin_sync()

    def _end_sync(self, ticket: SyncTicket | MemoryTicket) -> None:
        self._native.end_sync(ticket)
        if self._native.has_orphans():  # spares were looked for by the append
            self._upkeep.look()

    # --- shrinking and the end ---------------------------------------------------------------

    def truncate(self, after: IndexLike) -> None:
        """Drop every entry above `after`. IndexError below the log."""
        position = position_of(after)
        run_locked(self._lock, self._cut, position)
        if self._durability is Durability.FSYNC:
            self._sync(position)

    def _cut(self, after: int) -> None:
        native = self._writable()
        for follower in self._followers():
            follower.expect(native.truncations, after)
        self._recent.truncate(after)
        native.truncate(after)

    def trim(self, before: IndexLike) -> None:
        """Let entries below `before` go, by whole segments: `first_index` <= `before`."""
        run_locked(self._lock, self._shorten, position_of(before))
        self._sync(0)

    def _shorten(self, before: int) -> None:
        native = self._writable()
        self._recent.trim(before)
        native.trim(before)

    def close(self) -> None:
        """Sync and let go of the directory. A second close is nothing; so is a child's."""
        if self._fork_guard.is_child:
            return
        self._timer.stop()
        self._upkeep.stop()
        if self._compactor is not None:
            self._compactor.stop()
        run_locked(self._sync_lock, run_locked, self._lock, self._end_all)
        self._wake_tails()

    def _end_all(self) -> None:
        self._closed = True  # if an exception comes here, the next `close` goes on
        self._recent.clear()
        try:
            self._native.close()
        except ResourceError:  # the log is open still: a second close may follow
            self._closed = False
            raise

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

    # --- who follows it ----------------------------------------------------------------------

    def _follow(self, follower: Tail) -> None:
        self._tails = [one for one in self._tails if one() is not None] + [ref(follower)]

    def _followers(self) -> Iterator[Tail]:
        found = (one() for one in self._tails)
        return (follower for follower in found if follower is not None)

    def _wake_tails(self) -> None:
        for follower in self._followers():
            follower.wake()


def _sync_of(log: ref[Log]) -> int:
    found = log()
    return found.sync() if found is not None else 0
