"""What the standard library raises where the system has no thread or descriptor left."""

from __future__ import annotations

import errno

from copycat.errors import ResourceError

__all__ = ["SHORTAGES", "shortage"]

SHORTAGES = OSError, RuntimeError, MemoryError
"""What a thread or an event loop that cannot be started raises."""


def shortage(what: str, error: BaseException) -> ResourceError:
    """The ResourceError that says that `what` could not be started."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        number = errno.ENOMEM if isinstance(error, MemoryError) else errno.EAGAIN
    return ResourceError(
        f"{what} cannot be started: {error or type(error).__name__}",
        operation="thread",
        errno=number,
    )
