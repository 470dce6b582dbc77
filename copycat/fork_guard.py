"""A handle that a fork carried into a child process must not be used there.

Sockets and threads do not survive a fork, and two processes that append to one log would destroy
it. So each log, client and server owns a `ForkGuard`, and asks it before it does anything.
"""

from __future__ import annotations

import os
from _weakref import ref

from copycat.errors import ForkedProcessError

__all__ = ["ForkGuard"]


class ForkGuard:
    """Remembers that a handle was opened in another process. Any thread."""

    __slots__ = ("__weakref__", "_pid", "is_child")

    def __init__(self) -> None:
        self._pid = os.getpid()
        self.is_child = False
        """True when this process was forked since the handle was opened."""
        _guards.add(ref(self, _guards.discard))

    def check(self, what: str) -> None:
        """ForkedProcessError in a child process; `what` names the handle."""
        if self.is_child:
            raise ForkedProcessError(
                f"{what} was opened by process {self._pid}, from which this one ({os.getpid()})"
                " was forked since; only that one may use it",
                pid=os.getpid(),
            )


_guards: set[ref[ForkGuard]] = set()
# The fork itself marks them: a read of the log that had to compare process ids would pay for it.


def _mark_guards() -> None:
    for one in list(_guards):
        guard = one()
        if guard is not None:
            guard.is_child = True


os.register_at_fork(after_in_child=_mark_guards)
