"""The two lazy threads of a bare log: one prepares segments ahead, one syncs by interval.

`threading` is imported by the first of them: a log that needs neither does not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from copycat.errors import StorageError

if TYPE_CHECKING:
    import threading

    from copycat.log._native import NativeLog
    from copycat.log.volatile import VolatileLog

__all__ = ["SpareMaker", "SyncTimer"]


class SpareMaker:
    """Zero-fills the next segment in a thread of its own, one segment at a time."""

    def __init__(self, native: NativeLog | VolatileLog) -> None:
        self._native = native
        self._thread: threading.Thread | None = None
        self.failure: StorageError | None = None
        """Why no more spares are made; the next roll meets the same disk and raises itself."""

    def look(self) -> None:
        """Begin a spare when the log wants one and none is being made."""
        if self.failure is not None or not self._native.wants_spare():
            return
        if self._thread is not None and self._thread.is_alive():
            return
        import threading  # noqa: PLC0415 - see the module's first lines

        self._thread = threading.Thread(target=self._prepare, name="copycat-spare", daemon=True)
        self._thread.start()

    def _prepare(self) -> None:
        try:
            self._native.prepare_spare()
        except StorageError as error:
            self.failure = error

    def stop(self) -> None:
        """Wait for the spare that is being made."""
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
        """Something was appended."""
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
