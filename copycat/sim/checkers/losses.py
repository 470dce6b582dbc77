"""What one member lost of a log that was durable, by damage or with an older copy: C12 and F8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from copycat.sim.checkers.log_history import LogHistory, violated

__all__ = ["Loss"]


class DurableLog(Protocol):
    """A log as the observer knows it (`DiskModel`)."""

    member: int
    history: LogHistory
    entries: list[tuple[int, int]]
    durable: int

    @property
    def index_after_power_loss(self) -> int: ...


class Loss:
    """What a member's disk lost, and which of it the member must have again."""

    def __init__(self, log: DurableLog) -> None:
        self._log = log
        self.entries_before: list[tuple[int, int]] = []
        """What was durable before, until the member has it again (C12); else empty."""
        self.bound = 0
        """How many of `entries_before` must be back before the member may say that it has all."""
        self.is_unaware = False
        """The disk is an older copy, and the member does not know it yet (F8)."""
        self._credits: dict[int, int] = {}
        """By member that led: the highest index up to which it counted this log and that was not
        truncated since. While the member does not know that the disk is an older copy: of the log
        before."""

    @property
    def credited(self) -> int:
        """The highest index up to which a leader counted this log and still knows it."""
        return max(self._credits.values(), default=0)

    def counted(self, leader: int, match_index: int, entries: Sequence[tuple[int, int]]) -> None:
        """A leader whose log is `entries` counts this member up to `match_index`.

        Ignored when a later leader replaced these entries by others.
        """
        log, at = self.entries_before if self.is_unaware else self._log.entries, match_index - 1
        if self._credits.get(leader, 0) < match_index <= len(log) and log[at] == entries[at]:
            self._credits[leader] = match_index

    def forgotten(self, leader: int) -> None:
        """The process of `leader` ended. Nobody can tell this member any more what only that
        process had counted: the guide names this limit (docs/guide/tools.md)."""
        self._credits.pop(leader, None)

    def truncated(self, after: int) -> None:
        """The log ends at `after` now, in memory and on the disk."""
        if not self.is_unaware:
            self._limit_credits(after)

    def _limit_credits(self, index: int) -> None:
        self._credits = {leader: min(credit, index) for leader, credit in self._credits.items()}

    def cut(self) -> None:
        """A start found damage and is about to cut the log: it knows how far the log was
        durable."""
        self.bound = self._log.durable
        self.entries_before = self._log.entries[: self.bound]

    def regress(self) -> None:
        """The disk is an older copy from now on: what leaders counted must be recovered.

        More may have been durable. If the acknowledgements of that were lost, or ignored since
        they arrived after the link had broken, then no leader can tell the member of it, and no
        entry was committed because of it.
        """
        self.entries_before, self.is_unaware = self._log.entries[: self._log.durable], True

    def is_done(self, *, lacks_entries: bool, is_recorded: bool = True) -> bool:
        """After a step: whether the member says that it has what it lost again.

        is_recorded: the record of the loss is durable, and so is the term that was raised for it.
        """
        if self.is_unaware:
            has_all = self._is_back(len(self.entries_before))
            self.is_unaware = not (has_all or (lacks_entries and is_recorded))
            if not self.is_unaware:
                self.bound = min(self.credited, len(self.entries_before))
                self._limit_credits(self._log.index_after_power_loss)
        return bool(self.entries_before) and not self.is_unaware and not lacks_entries

    def _is_back(self, end: int) -> bool:
        return (
            self._log.index_after_power_loss >= end
            and self._log.entries[:end] == self.entries_before[:end]
        )

    def recovered(self) -> None:
        """The member says that it has everything again: check that it has what was committed
        (C12)."""
        entries, index_after_power_loss, committed = (
            self._log.entries,
            self._log.index_after_power_loss,
            self._log.history.committed,
        )
        for at in range(min(self.bound, len(committed))):
            entry = committed[at]
            if self.entries_before[at] == entry and (
                at >= index_after_power_loss or entries[at] != entry
            ):
                raise violated(
                    "C12",
                    "a loss is forgotten before a committed entry is back",
                    member=self._log.member,
                    index=at + 1,
                    index_after_power_loss=index_after_power_loss,
                )
        self.entries_before = []
