"""A sector that the disk does not give back is damage of what lies there, like a flipped bit.

Only an error of reading that is about the stored bytes counts. A want of descriptors, memory or
permission says nothing about them, and a write or a sync that fails is F9 and F10.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from copycat.errors import CorruptLogError, DiskError, StorageError

__all__ = ["is_unreadable", "removed_since", "unreadable_is_corrupt"]

_READS = ("open", "read", "list")
_NUMBERS = (errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.ENODATA)
"""A device's answer, and what file systems say of a checksum or a structure that is wrong."""


def is_unreadable(error: BaseException) -> bool:
    """Whether the disk says that it cannot give back bytes that it holds."""
    return isinstance(error, DiskError) and error.operation in _READS and error.errno in _NUMBERS


@contextmanager
def unreadable_is_corrupt() -> Iterator[None]:
    """Inside, such an error is a CorruptLogError of its file; every other passes."""
    try:
        yield
    except DiskError as error:
        if not is_unreadable(error):
            raise
        raise CorruptLogError(error.message, path=error.path, offset=error.offset) from error


def removed_since(path: str, error: FileNotFoundError) -> StorageError:
    """A file that is not there any more, as what it is: the writer of the log removed it.

    A reader knows the files of the moment when it opened the log, and keeps none of them.
    """
    return StorageError(
        f"the log {path} was opened with read_only=True, and {error.filename} was deleted"
        " meanwhile by the process that writes the log",
        state="A compaction, trim or truncation deletes files; this is not damage.",
        hint="open the log again, and continue at the next entry that you need",
        path=error.filename,
    )
