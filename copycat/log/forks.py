"""Handles that a fork carried into a child must not be used there: both would append."""

from __future__ import annotations

import os
from _weakref import ref

from copycat.errors import ForkedProcessError

__all__ = ["ForkGuard"]


class ForkGuard:
    """Remembers that a handle was opened in another process."""

    __slots__ = ("__weakref__", "_pid", "is_child")

    def __init__(self) -> None:
        self._pid = os.getpid()
        self.is_child = False
        """True when this process was forked since the handle was opened."""
        _guards.add(ref(self, _guards.discard))

    def check(self, what: str) -> None:
        """ForkedProcessError in a child; `what` names the handle."""
        if self.is_child:
            raise ForkedProcessError(
                f"{what} was opened by process {self._pid}, from which this one ({os.getpid()})"
                " was forked since; only that one may use it",
                pid=os.getpid(),
            )


_guards: set[ref[ForkGuard]] = set()
# Told by the fork, since a read that had to ask would pay for it each time.


def _tell_guards() -> None:
    for one in list(_guards):
        guard = one()
        if guard is not None:
            guard.is_child = True


os.register_at_fork(after_in_child=_tell_guards)
