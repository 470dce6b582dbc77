"""The two lazy threads of a bare log: one looks after files, one syncs by interval.

`threading` is imported by the first of them: a log that needs neither does not pay for it.
A thread that cannot be started is a ResourceError (F29).
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from copycat.errors import ResourceError, StorageError

if TYPE_CHECKING:
    import threading

    from copycat.log._native import NativeLog
    from copycat.log.interface import ReplicaLog
    from copycat.log.volatile import VolatileLog

__all__ = ["SHORTAGE_S", "SyncTimer", "Upkeep", "remove_orphans", "start_thread"]

SHORTAGE_S = 1.0
"""How long what can wait does wait after the system had nothing left for it."""


def start_thread(name: str, work: Callable[..., None], *args: Any) -> threading.Thread:
    """A daemon thread that runs `work(*args)`. ResourceError when none can be started."""
    import threading  # noqa: PLC0415 - see the module's first lines

    thread = threading.Thread(target=work, args=args, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise ResourceError(
            f"thread {name} cannot be started: {error}", operation="thread", errno=errno.EAGAIN
        ) from error
    return thread


def _warn(text: str, error: StorageError) -> None:
    import logging  # noqa: PLC0415 - who meets no error does not pay for it

    logging.getLogger("copycat.log").warning(text, error)


def remove_orphans(log: ReplicaLog) -> None:
    """Remove a few files that nothing needs any more; any thread. One that cannot be removed is
    named in the log of this process, and the next start tries again (F4)."""
    try:
        log.remove_orphans()
    except StorageError as error:
        _warn("a file that nothing needs stays: %s", error)


class Upkeep:
    """Zero-fills the next segment, and removes files that nothing needs any more (F4)."""

    def __init__(self, native: NativeLog | VolatileLog) -> None:
        self._native = native
        self._thread: threading.Thread | None = None
        self.failure: StorageError | None = None
        """Why no more spares are made; the next roll meets the same disk and raises itself."""
        self._waits_until = 0.0

    def look(self) -> None:
        """Begin what the log wants, unless that is being done. Under the log's lock.

        Nobody waits for it: without a thread or a descriptor it is tried again later.
        """
        if self._waits_until and time.monotonic() < self._waits_until:
            return
        wants_spare = self.failure is None and self._native.wants_spare()
        if not wants_spare and not self._native.has_orphans():
            return
        if self._thread is not None and self._thread.is_alive():
            return
        try:
            self._thread = start_thread("copycat-files", self._work, wants_spare)
        except ResourceError as error:
            self._wait(error)

    def _wait(self, error: StorageError) -> None:
        self._waits_until = time.monotonic() + SHORTAGE_S
        _warn("the next segment is prepared later: %s", error)

    def _work(self, wants_spare: bool) -> None:
        try:
            if wants_spare:
                self._native.prepare_spare()
        except ResourceError as error:
            self._wait(error)
        except StorageError as error:
            self.failure = error
        while self._native.has_orphans():
            remove_orphans(self._native)

    def stop(self) -> None:
        """Wait for what is being done."""
        if self._thread is not None:
            self._thread.join()


class SyncTimer:
    """Syncs at most `interval` seconds after an append (durability "interval").

    A sync that fails poisons the log; the next append says so.
    """

    def __init__(self, sync: Callable[[], int], interval: float) -> None:
        self._sync = sync
        self._interval = interval
        self._thread: threading.Thread | None = None
        self._dirty: threading.Event | None = None
        self._stopped: threading.Event | None = None
        self.failure: StorageError | None = None

    def begin(self) -> None:
        """Before the first append, under the log's lock: the one thread. ResourceError."""
        if self._thread is None:
            import threading  # noqa: PLC0415 - see the module's first lines

            dirty, stopped = threading.Event(), threading.Event()
            self._thread = start_thread("copycat-sync", self._work, dirty, stopped)
            self._dirty, self._stopped = dirty, stopped

    def start(self) -> None:
        """Something was appended, after `begin`."""
        self.begin()
        if self._dirty is not None:
            self._dirty.set()

    def _work(self, dirty: threading.Event, stopped: threading.Event) -> None:
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
        if self._thread is not None and self._stopped is not None and self._dirty is not None:
            self._stopped.set()
            self._dirty.set()
            self._thread.join()
            self._thread = None
