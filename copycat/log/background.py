"""The two lazy threads of a bare log: one looks after files, one syncs by interval.

`threading` is imported by the first of them: a log that needs neither does not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from copycat.errors import StorageError

if TYPE_CHECKING:
    import threading

    from copycat.log._native import NativeLog
    from copycat.log.interface import ReplicaLog
    from copycat.log.volatile import VolatileLog

__all__ = ["SyncTimer", "Upkeep", "remove_orphans"]


def remove_orphans(log: ReplicaLog) -> None:
    """Remove a few files that nothing needs any more; any thread. One that cannot be removed is
    named in the log of this process, and the next start tries again (F4)."""
    try:
        log.remove_orphans()
    except StorageError as error:
        import logging  # noqa: PLC0415 - who meets no error does not pay for it

        logging.getLogger("copycat.log").warning("a file that nothing needs stays: %s", error)


class Upkeep:
    """Zero-fills the next segment, and removes files that nothing needs any more (F4)."""

    def __init__(self, native: NativeLog | VolatileLog) -> None:
        self._native = native
        self._thread: threading.Thread | None = None
        self.failure: StorageError | None = None
        """Why no more spares are made; the next roll meets the same disk and raises itself."""

    def look(self) -> None:
        """Begin what the log wants, unless that is being done. Under the log's lock."""
        wants_spare = self.failure is None and self._native.wants_spare()
        if not wants_spare and not self._native.has_orphans():
            return
        if self._thread is not None and self._thread.is_alive():
            return
        import threading  # noqa: PLC0415 - see the module's first lines

        self._thread = threading.Thread(
            target=self._work, args=(wants_spare,), name="copycat-files", daemon=True
        )
        self._thread.start()

    def _work(self, wants_spare: bool) -> None:
        try:
            if wants_spare:
                self._native.prepare_spare()
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

    def start(self) -> None:
        """Something was appended. Under the log's lock: it begins the one thread."""
        if self._dirty is None:
            import threading  # noqa: PLC0415 - see the module's first lines

            self._stopped = threading.Event()
            self._dirty = threading.Event()
            self._thread = threading.Thread(
                target=self._work,
                args=(self._dirty, self._stopped),
                name="copycat-sync",
                daemon=True,
            )
            self._thread.start()
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
            except StorageError as error:
                self.failure = error
                return

    def stop(self) -> None:
        """End the thread; what it did not sync, `close` does."""
        if self._thread is not None and self._stopped is not None and self._dirty is not None:
            self._stopped.set()
            self._dirty.set()
            self._thread.join()
