"""Files that nothing needs any more are deleted a few at a time, beside whoever writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from copycat.errors import StorageError

if TYPE_CHECKING:
    from copycat.storage.interface import ReplicaLog

__all__ = ["remove_obsolete_files"]


def remove_obsolete_files(log: ReplicaLog) -> None:
    """Remove a few files that nothing needs any more; any thread. One that cannot be removed is
    named in the log of this process, and the next start tries again (F4)."""
    try:
        log.remove_obsolete_files()
    except StorageError as error:
        import logging  # noqa: PLC0415 - who meets no error does not pay for it

        text = "a file that nothing needs stays: %s"
        logging.getLogger("copycat.log").warning(text, error)
