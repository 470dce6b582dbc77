"""Applies committed entries, slice by slice, in the apply thread.

One slice is outstanding at a time: the user's code may block without stalling heartbeats, and
the executor belongs to one thread. A slice holds up to `SLICE_COMMANDS` commands or
`SLICE_NBYTES`, so that replies flow while a long backlog is applied and memory is bounded. Where
nobody waits for replies, a member that catches up takes larger ones.
"""

from __future__ import annotations

from copycat.errors import ConfigurationError, require
from copycat.machine.apply_result import ApplyResult
from copycat.storage.recent_batches import BatchReader
from copycat.types import Run, SkippedEntry, Span

__all__ = ["BACKLOG_COMMANDS", "PATIENCE_MS", "SLICE_COMMANDS", "SLICE_NBYTES", "Applier"]

SLICE_COMMANDS = 256
BACKLOG_COMMANDS = 4096
"""With more than so many to apply, and nobody who waits, a slice holds half of that: a slice of
256 costs half as much as what it applies, for it is passed to a thread and back."""
SLICE_NBYTES = 4 << 20
"""Entries of so many bytes are a slice, too; one batch of the log at least."""
PATIENCE_MS = 5
"""Only readers wait for a follower's state: there few commands are applied at most this often,
since each slice is passed to a thread and back, which costs as much as a sync
(docs/decisions/0008)."""
NEVER_MS = 1 << 62


class Applier:
    """Feeds committed entries to the executor and hands its outcomes back, in log order."""

    def __init__(
        self, batch_reader: BatchReader, last_applied: int, skips: tuple[SkippedEntry, ...] = ()
    ) -> None:
        self._batch_reader = batch_reader
        self._skips = skips
        self._busy = False
        self.last_applied = self.dispatched_index = last_applied
        """`dispatched_index`: the last entry that was handed to the executor."""
        self.commit_index = last_applied
        self.nbytes = 0
        """Bytes of log that were handed to the executor: how much a restart would replay."""
        self.is_paused = False
        """A snapshot is being installed: no slice starts before that is done."""
        self.due_ms = NEVER_MS
        """When entries that wait for more entries must be applied all the same."""

    def commit(self, index: int) -> None:
        """Entries up to `index` may be applied."""
        require(
            index >= self.commit_index,
            "the commit index decreased",
            old=self.commit_index,
            new=index,
        )
        self.commit_index = index

    def next_slice(self, now_ms: int, *, eager: bool) -> list[Run]:
        """The entries to apply now; empty while a slice is outstanding or nothing is committed.

        The caller has the executor apply them and then calls `finished`.  eager: somebody waits
        for it. Otherwise less than a slice may wait a little for more.
        """
        waiting = self.commit_index - self.last_applied
        if self._busy or self.is_paused or waiting <= 0:
            return []
        if not eager and waiting < SLICE_COMMANDS:
            self.due_ms = min(self.due_ms, now_ms + PATIENCE_MS)
            if now_ms < self.due_ms:
                return []
        self.due_ms = NEVER_MS
        first = self.last_applied + 1
        is_behind = waiting > BACKLOG_COMMANDS and not eager
        commands = BACKLOG_COMMANDS // 2 if is_behind else SLICE_COMMANDS
        end = min(self.commit_index + 1, first + commands)
        runs: list[Run] = []
        nbytes = 0
        for batch in self._batch_reader.walk(first, end):
            runs += batch.runs(batch.span.first, batch.span.end)
            if self._skips:
                self._check_skips(batch.span)
            nbytes += batch.nbytes
            if nbytes >= SLICE_NBYTES:
                break
        self.nbytes += nbytes
        self._busy = True
        self.dispatched_index = runs[-1].end - 1
        return runs

    def _check_skips(self, span: Span) -> None:
        """ConfigurationError if an entry to skip has another term here, and so is another
        entry."""
        for skip in self._skips:
            if span.first <= skip.index < span.end and skip.term != span.term:
                raise ConfigurationError(
                    f"entry {skip.index} is of term {span.term}; the one that this member is to"
                    f" skip is of term {skip.term}, and was never committed",
                    hint="delete the file skipped-entries of this member and of the other members",
                )

    def finished(self, outcome: ApplyResult) -> None:
        """The outstanding slice was applied (called in a turn)."""
        require(
            self._busy and self.last_applied < outcome.last_applied <= self.commit_index,
            "an outcome that was not asked for",
            last_applied=self.last_applied,
            outcome=outcome.last_applied,
            commit_index=self.commit_index,
        )
        self._busy = False
        self.last_applied = outcome.last_applied
        self._batch_reader.applied_up_to(self.last_applied)

    def pause(self) -> None:
        """Start no slice until `installed`; an outstanding one is still finished."""
        self.is_paused = True

    def installed(self, index: int) -> None:
        """A snapshot was installed: the executor's state is now that after entry `index`."""
        require(
            self.is_paused and not self._busy and index >= self.last_applied,
            "a snapshot was installed over newer state",
            index=index,
            last_applied=self.last_applied,
        )
        self.is_paused = False
        self.last_applied = self.dispatched_index = index
        self._batch_reader.applied_up_to(index)
        self.commit_index = max(self.commit_index, index)
        self.due_ms = NEVER_MS
