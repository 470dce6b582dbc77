"""last_applied goes to commit_index, slice by slice, in the apply thread.

One slice is outstanding at a time: the user's code may block without stalling heartbeats, and
the executor belongs to one thread (RULINGS, "the user's code"). A slice holds up to
`SLICE_COMMANDS` commands, so that replies flow while a long backlog is applied.
"""

from __future__ import annotations

from collections.abc import Callable

from copycat.errors import require
from copycat.machine.executor import Executor
from copycat.machine.outcome import Outcome
from copycat.replica.host import Host
from copycat.replica.shipping import RecentBatches
from copycat.types import Run

__all__ = ["SLICE_COMMANDS", "Applier"]

SLICE_COMMANDS = 256


class Applier:
    """Feeds committed entries to the executor and hands its outcomes back, in log order."""

    def __init__(
        self,
        executor: Executor,
        recent: RecentBatches,
        host: Host,
        done: Callable[[Outcome], None],
    ) -> None:
        self._executor = executor
        self._recent = recent
        self._host = host
        self._done = done
        self._busy = False
        self.last_applied = executor.last_applied
        self.commit_index = executor.last_applied

    def commit(self, index: int) -> None:
        """Entries up to `index` may be applied."""
        require(index >= self.commit_index, "commit went back", old=self.commit_index, new=index)
        self.commit_index = index

    def advance(self) -> None:
        """Start the next slice unless one is outstanding or nothing is committed."""
        if self._busy or self.last_applied >= self.commit_index:
            return
        first = self.last_applied + 1
        end = min(self.commit_index + 1, first + SLICE_COMMANDS)
        runs: list[Run] = []
        for batch in self._recent.walk(first, end):
            runs += batch.runs(batch.span.first, batch.span.end)
        self._busy = True
        executor = self._executor
        self._host.apply(lambda: executor.apply(runs), self._done)

    def finished(self, outcome: Outcome) -> None:
        """The outstanding slice came back (called in a turn)."""
        require(
            self._busy and self.last_applied < outcome.last_applied <= self.commit_index,
            "an outcome that was not asked for",
            last_applied=self.last_applied,
            outcome=outcome.last_applied,
            commit_index=self.commit_index,
        )
        self._busy = False
        self.last_applied = outcome.last_applied
