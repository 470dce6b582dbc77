"""The files of a log beside those that it writes: the next segment, and what is obsolete.

A segment is allocated and filled with zeros before it is needed, and obsolete files are deleted a
few at a time, both by another thread than the one that appends. A bare log has a thread of its own
for that (`copycat/log/background.py`), a member a lane of its host
(`copycat/replica/maintenance.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from copycat.errors import DiskFullError, ResourceError, StorageError

if TYPE_CHECKING:
    from copycat.storage.in_memory import InMemoryLog
    from copycat.storage.interface import ReplicaLog

__all__ = ["SpareSegment", "remove_obsolete_files"]

RETRY_MS = 1000
"""How long no spare is tried after one for which there was no room, or no descriptor."""


class SpareSegment:
    """When the next segment is prepared. No thread and no clock: the caller has both."""

    def __init__(self, log: ReplicaLog | InMemoryLog) -> None:
        self._log = log
        self._not_before_ms = 0.0

    def is_due(self, now_ms: float) -> bool:
        """Whether `prepare` is to be called now."""
        return now_ms >= self._not_before_ms and self._log.wants_spare()

    def prepare(self) -> bool:
        """Any thread: allocate and zero-fill the segment. False when there is no room for it;
        other errors of the disk are raised."""
        try:
            self._log.prepare_spare()
        except (DiskFullError, ResourceError):
            return False
        return True

    def retry_later(self, now_ms: float) -> None:
        """There was no room: try again after a while."""
        self._not_before_ms = now_ms + RETRY_MS


def remove_obsolete_files(log: ReplicaLog) -> None:
    """Delete a few obsolete files; any thread. One that cannot be deleted is named in the log of
    this process, and the next start tries again (F4)."""
    try:
        log.remove_obsolete_files()
    except StorageError as error:
        import logging  # noqa: PLC0415 - who meets no error does not pay for it

        text = "a file that nothing needs stays: %s"
        logging.getLogger("copycat.log").warning(text, error)
