"""Threads of a bare log that begin when they are needed: one for files, one for syncs.

`threading` is imported by the first of them: a log that needs neither does not pay for it.
A thread that cannot be started is a ResourceError (F29).
"""

from __future__ import annotations

import errno
import time
from _thread import allocate_lock
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from copycat.errors import ResourceError, StorageError
from copycat.storage._native import ReentrantLock, run_locked
from copycat.storage.segment_files import SpareSegment, remove_obsolete_files

if TYPE_CHECKING:
    import threading

    from copycat.storage._native import NativeLog
    from copycat.storage.in_memory import InMemoryLog

__all__ = ["SHORTAGE_S", "FileMaintenance", "Flag", "LazyThread", "SyncTimer"]

SHORTAGE_S = 1.0
"""How long the start of a thread that nobody waits for is put off when the system had none."""


def _warn(text: str, error: StorageError) -> None:
    import logging  # noqa: PLC0415 - who meets no error does not pay for it

    logging.getLogger("copycat.log").warning(text, error)


class Flag:
    """`threading.Event` for one thread that waits.

    A call is one step: an exception from a signal handler inside of Event.set leaves the Event's
    own lock taken, and whoever waits for it would wait for ever.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()

    def is_set(self) -> bool:
        """Whether `wait` would return at once."""
        return not self._lock.locked()

    def set(self) -> None:
        """Let `wait` return, now and until `clear`. Any thread."""
        with suppress(RuntimeError):  # it is set already
            self._lock.release()

    def clear(self) -> None:
        """Let `wait` wait again."""
        self._lock.acquire(blocking=False)

    def wait(self, timeout: float = -1) -> bool:
        """Whether it was set within `timeout` seconds; below 0: however long it takes."""
        is_set = self._lock.acquire(timeout=timeout)
        if is_set:
            self.set()
        return is_set


class LazyThread:
    """A thread that begins when it is needed; there is one at a time.

    Whether it runs is said by a lock that the thread itself holds. So whoever begins it may be
    interrupted anywhere: the next one begins it, or finds it running.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._runs = ReentrantLock()
        self.thread: threading.Thread | None = None

    def begin(self, work: Callable[[], None]) -> None:
        """Unless it runs: `work`, once. ResourceError when no thread can be started."""
        if self._runs.locked() or (self.thread is not None and self.thread.is_alive()):
            return
        import threading  # noqa: PLC0415 - see the module's first lines

        thread = threading.Thread(target=self._run, args=(work,), name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise ResourceError(
                f"thread {self._name} cannot be started: {error}",
                operation="thread",
                errno=errno.EAGAIN,
            ) from error
        self.thread = thread

    def _run(self, work: Callable[[], None]) -> None:
        if not self._runs.acquire(timeout=0):
            return  # another one is there: two callers began it at once
        try:
            work()
        finally:
            self._runs.release()

    def join(self) -> None:
        """Wait until it has ended."""
        if self.thread is not None and self.thread.is_alive():
            self.thread.join()
        run_locked(self._runs, int)


class FileMaintenance:
    """The thread that prepares the next segment and deletes obsolete files (F4)."""

    def __init__(self, native: NativeLog | InMemoryLog) -> None:
        self._native = native
        self._lazy = LazyThread("copycat-files")
        self._spare = SpareSegment(native)
        self._is_spare_due = False
        self.failure: StorageError | None = None
        """Why no more segments are prepared; the next roll meets the same disk, and raises."""
        self._begins_at_ms = 0.0
        """When the next try to start the thread may be."""

    @property
    def thread(self) -> threading.Thread | None:
        """None while it was not needed."""
        return self._lazy.thread

    def start_if_needed(self) -> None:
        """Begin what the log needs, unless that is being done. Under the log's lock.

        Nobody waits for it: without a thread it is tried again later.
        """
        wants_spare = self.failure is None and self._native.wants_spare()
        has_obsolete_files = self._native.has_obsolete_files()
        if not wants_spare and not has_obsolete_files:
            return
        now_ms = time.monotonic() * 1000
        is_due = wants_spare and self._spare.is_due(now_ms)
        if now_ms < self._begins_at_ms or not (is_due or has_obsolete_files):
            return
        self._is_spare_due = is_due
        try:
            self._lazy.begin(self._work)
        except ResourceError as error:
            self._begins_at_ms = now_ms + SHORTAGE_S * 1000
            _warn("the next segment is prepared later: %s", error)

    def _work(self) -> None:
        try:
            if self._is_spare_due and not self._spare.prepare():
                self._spare.retry_later(time.monotonic() * 1000)
        except StorageError as error:
            self.failure = error
        while self._native.has_obsolete_files():
            remove_obsolete_files(self._native)

    def stop(self) -> None:
        """Wait for what is being done."""
        self._lazy.join()


class SyncTimer:
    """Syncs at most `interval` seconds after an append (durability "interval").

    A sync that fails poisons the log; the next append says so.
    """

    def __init__(self, sync: Callable[[], int], interval: float) -> None:
        self._sync = sync
        self._interval = interval
        self._dirty = Flag()
        self._stopped = Flag()
        self._lazy = LazyThread("copycat-sync")
        self.failure: StorageError | None = None

    @property
    def thread(self) -> threading.Thread | None:
        """None while it was not needed."""
        return self._lazy.thread

    def start(self, owner: object = None) -> None:
        """Something is about to be appended. Under the log's lock: it begins the one thread.

        `owner` lives as long as that one. ResourceError: nothing was appended.
        """
        if self.failure is None:
            self._lazy.begin(partial(self._run, owner))
        self._dirty.set()

    def _run(self, owner: object) -> None:
        self._work(self._dirty, self._stopped)

    def _work(self, dirty: Flag | threading.Event, stopped: Flag | threading.Event) -> None:
        while True:
            dirty.wait()
            if stopped.wait(self._interval):
                return
            dirty.clear()
            if stopped.is_set():
                return  # `stop` came in between: what was cleared may have been its wake-up
            try:
                self._sync()
            except ResourceError as error:
                _warn("what was appended is synced later: %s", error)
                dirty.set()
            except StorageError as error:
                self.failure = error
                return

    def stop(self) -> None:
        """End the thread; what it did not sync, `close` does."""
        self._stopped.set()
        self._dirty.set()
        self._lazy.join()
        self._stopped.clear()  # a close that found no resources leaves the log open
