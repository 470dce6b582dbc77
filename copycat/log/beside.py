"""A log that is read beside the process that writes it."""

from __future__ import annotations

from copycat.errors import StorageError

__all__ = ["removed_since"]


def removed_since(path: str, error: FileNotFoundError) -> StorageError:
    """A file that is not there any more, as what it is: the writer of the log removed it.

    A reader knows the files of the moment when it opened the log, and keeps none of them.
    """
    return StorageError(
        f"the log {path} was opened with read_only=True, and {error.filename} was removed since"
        " by the process that writes it",
        state="A compaction, a trim or a truncation removes files; no damage is known of.",
        hint="open the log anew and go on at the next entry that you want",
        path=error.filename,
    )
