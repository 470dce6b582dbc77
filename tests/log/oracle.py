"""What a log promised so far, and whether what a recovery gave back keeps it (I24).

The oracle is told each verb before it runs, so that a power loss inside a verb finds both
outcomes allowed: the state before, and the state after. What a compaction dropped is worked out
here from the rules, not asked of the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from copycat.storage._native import NativeLog, Rewrite, SyncTicket, encode_batch
from copycat.types import NO_ENTRY, CompactionLimits, EntryId, EntryKind, MemberId, Release
from tests.log.contract import contents

__all__ = ["EntryRow", "Layout", "Oracle", "PendingRewrite", "State"]

EntryRow = tuple[int, int, bytes]
"""index, term, payload."""


class Layout(NamedTuple):
    """What compactions had dropped after the nth change of the kind."""

    number: int
    dropped_indexes: frozenset[int]

    def up_to(self, last: int) -> Layout:
        return Layout(
            self.number, frozenset(index for index in self.dropped_indexes if index <= last)
        )


class State(NamedTuple):
    """A log as a start may find it: any end of it, and any front that a trim may have left."""

    before: EntryId
    rows: list[EntryRow]
    """Right after `before`, without a gap: what a compaction dropped is here too."""
    layouts: list[Layout]
    """The newest last; a crash may bring back an older one, under whatever was appended since."""
    first: int
    """What is below may be trimmed."""

    @property
    def last_index(self) -> int:
        return self.rows[-1][0] if self.rows else self.before.index

    def all_between(self, first: int, last: int) -> list[EntryRow]:
        """Dropped ones too."""
        base = self.before.index + 1
        return self.rows[max(0, first - base) : max(0, last + 1 - base)]

    def between(self, first: int, last: int) -> list[EntryRow]:
        dropped_indexes = self.layouts[-1].dropped_indexes
        return [row for row in self.all_between(first, last) if row[0] not in dropped_indexes]

    def entry(self, index: int) -> EntryId:
        if index == self.before.index:
            return self.before
        return EntryId(self.rows[index - self.before.index - 1][1], index)

    def explains(self, log: NativeLog, rows_read: list[EntryRow]) -> State | None:
        """This one, or what is left of it, if it is the log that holds `rows_read`."""
        first, last = log.first_index, log.last_index
        if not (
            self.before.index < first <= max(self.first, self.before.index + 1)
            and first - 1 <= last <= self.last_index
            and log.before == self.entry(first - 1)
        ):
            return None
        rows = self.rows[: last - self.before.index]
        for layout in reversed(self.layouts):
            left = self._replace(rows=rows, layouts=[layout.up_to(last)])
            if rows_read == left.between(first, last):
                return left
        return None


class Group(NamedTuple):
    """Segments that become one, and what goes of them."""

    first: int
    last: int
    drops: frozenset[int]


class PendingRewrite:
    """A rewrite that is not installed yet, and what the rules say that it will drop."""

    def __init__(self, rewrite: Rewrite, groups: list[Group]) -> None:
        self.rewrite = rewrite
        self.groups = groups
        self.was_run = False

    def run(self) -> None:
        self.rewrite.run()
        self.was_run = True


class Oracle:
    """The log as it should be, all branches it ever had, and what must never be lost."""

    def __init__(self) -> None:
        self.before = NO_ENTRY
        self.rows: list[EntryRow] = []
        self.layouts = [Layout(0, frozenset())]
        self.first = 1
        self.branches: list[State] = []
        """What a crash may bring back: no sync that began later has ended."""
        self.covered = (0, 0)
        """So many branches, and the shapes below such a number, are over when the sync that was
        begun has ended."""
        self.must: dict[int, EntryRow] = {}
        self.releases: dict[int, Release] = {}
        self.pending: PendingRewrite | None = None
        self.saved: tuple[int, MemberId] = (0, MemberId(0))
        self.saving: tuple[int, MemberId] | None = None

    @property
    def state(self) -> State:
        """As it is now."""
        return State(self.before, list(self.rows), list(self.layouts), self.first)

    @property
    def dropped_indexes(self) -> frozenset[int]:
        """What compactions dropped."""
        return self.layouts[-1].dropped_indexes

    @property
    def last_index(self) -> int:
        return self.rows[-1][0] if self.rows else self.before.index

    @property
    def is_layout_new(self) -> bool:
        """Whether a compaction or a reset waits for the next sync: until then a kill undoes it."""
        return len(self.layouts) > 1 or any(old.before != self.before for old in self.branches)

    # --- verbs, told before they run -----------------------------------------------------------

    def append(self, log: NativeLog, *sizes: int, term: int) -> None:
        first = self.last_index + 1
        payloads = [
            (b"%d:%d." % (term, first + step)).ljust(size, b"x") for step, size in enumerate(sizes)
        ]
        self.rows += [(first + step, term, data) for step, data in enumerate(payloads)]
        items = [(int(EntryKind.TICK), 0, 0, 0, 1, data) for data in payloads]
        log.append(encode_batch(term, first, 1, items))

    def begin_sync(self, log: NativeLog) -> SyncTicket:
        self.covered = len(self.branches), self.layouts[-1].number
        return log.begin_sync()

    def sync(self, log: NativeLog) -> None:
        ticket = self.begin_sync(log)
        ticket.run()
        self.synced(log.end_sync(ticket))
        while log.has_obsolete_files():
            log.remove_obsolete_files()

    def synced(self, durable_index: int) -> None:
        """The sync ended. What shape the log had when it began does not come back."""
        branches, number = self.covered
        del self.branches[:branches]
        for layouts in (self.layouts, *(state.layouts for state in self.branches)):
            layouts[:] = [layout for layout in layouts if layout.number >= number] or layouts[-1:]
        self.covered = (0, number)
        rows = self.state.between(self.first, durable_index)
        self.must = {row[0]: row for row in rows}

    def close(self, log: NativeLog) -> None:
        """Everything is durable, and what was only in memory is over."""
        self.covered = len(self.branches), self.layouts[-1].number
        log.close()
        self.synced(self.last_index)
        self.releases, self.pending = {}, None

    def truncate(self, log: NativeLog, after: int) -> None:
        self.branches.append(self.state)
        del self.rows[max(0, after - self.before.index) :]
        self.layouts = [layout.up_to(after) for layout in self.layouts]
        self.must = {index: row for index, row in self.must.items() if index <= after}
        self.releases = {
            index: policy for index, policy in self.releases.items() if index <= after
        }
        if self.pending:
            self.pending.groups = [group for group in self.pending.groups if group.last <= after]
        log.truncate(after)

    def trim(self, log: NativeLog, before: int) -> None:
        self.first = max(self.first, before)
        self.branches = [state._replace(first=max(state.first, before)) for state in self.branches]
        self.must = {index: row for index, row in self.must.items() if index >= before}
        log.trim(before)

    def reset(self, log: NativeLog, entry: EntryId) -> None:
        self.branches.append(self.state)
        self.before, self.rows = entry, []
        self.layouts = [Layout(self.layouts[-1].number + 1, frozenset())]
        self.first = entry.index + 1
        self.must, self.releases = {}, {}
        if self.pending:
            self.pending.groups = []
        log.reset(entry)

    # --- cleaning ------------------------------------------------------------------------------

    def release(self, log: NativeLog, indexes: Sequence[int], policy: Release) -> None:
        """A looser class replaces a stricter one; what is not there is ignored."""
        for index in indexes:
            if index >= log.first_index and index not in self.dropped_indexes:
                self.releases[index] = min(policy, self.releases.get(index, policy))
        log.release(indexes, policy)

    def removable(self, log: NativeLog, limits: CompactionLimits, *, major: bool) -> set[int]:
        """What each mode allows (C22), never the last entry. The caller leaves out the tail."""
        top = min(limits.horizon, log.durable_index, log.last_index - 1)
        stable = min(top, limits.deletion_floor)
        reach = {
            Release.ANY: top,
            Release.STABLE: stable,
            Release.SEQUENTIAL: stable if major else 0,
            Release.SNAPSHOT: min(top, limits.snapshot_index),
            Release.UNKNOWN: min(stable, limits.snapshot_index) if major else 0,
        }
        return {index for index, policy in self.releases.items() if index <= reach[policy]}

    def rewrite(
        self,
        log: NativeLog,
        groups: list[list[int]],
        limits: CompactionLimits,
        *,
        major: bool,
    ) -> PendingRewrite:
        """Freeze what goes, of each list of ids of segments."""
        stats = {row.id: row for row in log.segment_stats(limits)}
        drops = self.removable(log, limits, major=major)
        frozen = []
        for ids in groups:
            first, last = stats[ids[0]].first_index, stats[ids[-1]].last_index
            inside = frozenset(index for index in drops if first <= index <= last)
            frozen.append(Group(first, last, inside))
        self.pending = PendingRewrite(log.rewrite(groups, limits, major=major), frozen)
        return self.pending

    def install(self, log: NativeLog) -> frozenset[int]:
        """What a crash before the next sync may bring back, and nothing else, goes."""
        assert self.pending is not None
        pending, self.pending = self.pending, None
        groups = [group for group in pending.groups if group.last >= log.first_index]
        if groups and groups[0].first < log.first_index:  # what it was to lose is there still
            groups = []
        drops = frozenset().union(*(group.drops for group in groups))
        self.layouts.append(Layout(self.layouts[-1].number + 1, self.dropped_indexes | drops))
        self.must = {index: row for index, row in self.must.items() if index not in drops}
        self.releases = {
            index: policy for index, policy in self.releases.items() if index not in drops
        }
        assert log.install(pending.rewrite).entries_dropped == len(drops)
        return drops

    # --- after a recovery ----------------------------------------------------------------------

    def check(self, log: NativeLog) -> list[EntryRow]:
        """The recovered rows, after AssertionErrors for each promise that they break."""
        rows = contents(log)
        assert log.durable_index == log.last_index
        pending = {row[0]: row for row in rows}
        lost = [row for index, row in self.must.items() if pending.get(index) != row]
        assert not lost, f"acknowledged entries lost: {lost[:3]}; recovered {rows[-3:]}"
        self._origin(log, rows)
        return rows

    def _origin(self, log: NativeLog, rows: list[EntryRow]) -> State:
        states = [self.state, *self.branches]
        first = max(max(state.first, state.before.index + 1) for state in states)
        assert log.first_index <= first, "more was trimmed than was asked"
        for state in states:
            left = state.explains(log, rows)
            if left is not None:
                return left
        raise AssertionError(
            f"invented: {rows[-3:]} from {log.first_index} to {log.last_index} after {log.before}"
        )

    def check_hard_state(self, current_term: int, voted_for: MemberId) -> None:
        """Term and vote are those of the last save, or of the one that was under way."""
        allowed = {self.saved} | ({self.saving} if self.saving else set())
        assert (current_term, voted_for) in allowed, f"{(current_term, voted_for)} not {allowed}"

    def adopt(self, log: NativeLog) -> None:
        """Check, and continue from what was recovered: all of it is durable now."""
        rows = self.check(log)
        self.before, self.rows, self.layouts, self.first = self._origin(log, rows)
        self.branches, self.covered = [], (0, 0)
        self.releases, self.pending = {}, None
        self.must = {row[0]: row for row in rows if row[0] >= self.first}
