"""Handles that a fork carried into a child must not be used there: both would append."""

from __future__ import annotations

import os

from copycat.errors import ForkedProcessError

__all__ = ["ForkGuard"]


class _Generation:
    """How many forks lie between the first process and this one."""

    value = 0


def _count_fork() -> None:
    _Generation.value += 1


os.register_at_fork(after_in_child=_count_fork)


class ForkGuard:
    """Remembers in which process a handle was opened."""

    __slots__ = ("_opened",)

    def __init__(self) -> None:
        self._opened = _Generation.value

    @property
    def is_child(self) -> bool:
        """True when this process was forked since the handle was opened."""
        return self._opened != _Generation.value

    def check(self, what: str) -> None:
        """ForkedProcessError in a child; `what` names the handle."""
        if self._opened != _Generation.value:
            raise ForkedProcessError(
                f"{what} was opened before this process was forked; the parent still writes it",
                pid=os.getpid(),
            )
