"""What a log promised so far, and whether what a recovery gave back keeps it (I24).

The oracle is told each verb before it runs, so that a power loss inside a verb finds both
outcomes allowed: the state before, and the state after.
"""

from __future__ import annotations

from copycat.log._native import NativeLog, encode_batch
from copycat.types import EntryKind, MemberId
from tests.log.contract import contents

__all__ = ["Oracle", "Row"]

Row = tuple[int, int, bytes]
"""index, term, payload."""


class Oracle:
    """The log as it should be, all branches it ever had, and what must never be lost."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.first = 1
        self.branches: list[list[Row]] = []
        self.must: dict[int, Row] = {}
        self.saved: tuple[int, MemberId] = (0, MemberId(0))
        self.saving: tuple[int, MemberId] | None = None

    @property
    def last_index(self) -> int:
        return self.rows[-1][0] if self.rows else 0

    # --- verbs, told before they run; `log` None only tells ------------------------------------

    def append(self, log: NativeLog, *sizes: int, term: int) -> None:
        first = self.last_index + 1
        payloads = [
            (b"%d:%d." % (term, first + step)).ljust(size, b"x") for step, size in enumerate(sizes)
        ]
        self.rows += [(first + step, term, data) for step, data in enumerate(payloads)]
        items = [(int(EntryKind.TICK), 0, 0, 0, 1, data) for data in payloads]
        log.append(encode_batch(term, first, 1, items))

    def sync(self, log: NativeLog) -> None:
        ticket = log.begin_sync()
        ticket.run()
        self.synced(log.end_sync(ticket))

    def synced(self, durable_index: int) -> None:
        self.must = {row[0]: row for row in self.rows if self.first <= row[0] <= durable_index}

    def truncate(self, log: NativeLog, after: int) -> None:
        self.branches.append(list(self.rows))
        self.rows = self.rows[:after]
        self.must = {index: row for index, row in self.must.items() if index <= after}
        log.truncate(after)

    def trim(self, log: NativeLog, before: int) -> None:
        self.first = max(self.first, before)
        self.must = {index: row for index, row in self.must.items() if index >= before}
        log.trim(before)

    # --- after a recovery ----------------------------------------------------------------------

    def check(self, log: NativeLog) -> list[Row]:
        """The recovered rows, after AssertionErrors for each promise that they break."""
        found = contents(log)
        assert log.durable_index == log.last_index
        assert log.last_index == log.first_index - 1 + len(found)
        assert log.first_index <= max(self.first, 1), "more was trimmed than was asked"
        held = {row[0]: row for row in found}
        lost = [row for index, row in self.must.items() if held.get(index) != row]
        assert not lost, f"acknowledged entries lost: {lost[:3]}; recovered {found[-3:]}"
        if found:
            begin, end = found[0][0] - 1, found[-1][0]
            histories = [*self.branches, self.rows]
            assert any(rows[begin:end] == found for rows in histories), f"invented: {found[-3:]}"
        return found

    def check_hard_state(self, current_term: int, voted_for: MemberId) -> None:
        """Term and vote are those of the last save, or of the one that was under way."""
        allowed = {self.saved} | ({self.saving} if self.saving else set())
        assert (current_term, voted_for) in allowed, f"{(current_term, voted_for)} not {allowed}"

    def adopt(self, found: list[Row], last_index: int) -> None:
        """Go on from what was recovered: all of it is durable now."""
        histories = [self.rows, *self.branches]
        begin = found[0][0] - 1 if found else last_index
        known = next(rows for rows in histories if rows[begin:last_index] == found)
        self.rows = known[:last_index]
        self.branches = []
        self.must = {row[0]: row for row in found if row[0] >= self.first}
