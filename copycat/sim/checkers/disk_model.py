"""What one member's directory holds, as an observer outside knows it: I3, I10, I12 and I24.

A log that begins behind a snapshot is whole here, and so is one with gaps: what a snapshot covers
or a compaction deleted is what was committed. Which entries are gaps is kept beside it (`Gaps`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from copycat.sim.checkers.compaction import (
    NOTHING_GOES,
    Cleanable,
    CompactionLaws,
    Frozen,
    Gaps,
    walk,
)
from copycat.sim.checkers.log_history import Frame, Gap, LogHistory, contents, violated
from copycat.sim.checkers.losses import Loss
from copycat.storage.interface import Batch
from copycat.types import NO_ENTRY, CompactionLimits, EntryId, Release, TermRun

__all__ = ["DiskModel"]


class _Older(NamedTuple):
    """The log before a reset, which a power cut brings back until a sync ends (C24)."""

    entries: list[tuple[int, int]]
    durable: int
    least: int
    most: int
    since: dict[int, int]


class DiskModel:
    """What one member's directory holds, as far as an observer outside can know.

    entries: (term, crc) of index 1, 2, ..., those too that only a snapshot covers; `durable`: a
    power cut now keeps at least these in the log, but for what was trimmed.
    """

    def __init__(self, member: int, history: LogHistory) -> None:
        self.member = member
        self.history = history
        self.entries: list[tuple[int, int]] = []
        self.durable = 0
        self.promised = 0
        """The highest match_index that left this member and was not truncated since."""
        self.hard_state = (0, 0)
        self.forgotten_term = 0
        """An older copy of the disk forgot votes of terms up to this one (F8)."""
        """Durable (term, vote)."""
        self.saving: list[tuple[int, int]] = []
        """Saves that were begun and whose end is not known: a crash keeps any of them."""
        self.role: Callable[[], tuple[bool, int]] = lambda: (False, 0)
        """Whether the member leads, and its commit index, at the moment of the call."""
        self.snapshot = NO_ENTRY
        """What the newest snapshot that is durable here covers."""
        self.has_unseen_damage = False
        """Bytes of the log were damaged, and no start has seen it yet."""
        self.loss = Loss(self)
        """What was durable and must be recovered (C12, F8)."""
        self.snapshot_indexes: set[int] = set()
        """Indexes of all snapshots that may still be there."""
        self.truncations = self.resets = 0
        self.older: list[_Older] = []
        self.least = 0
        """The log begins right after this one or a later one; `most`: at the latest."""
        self.most = self._most_before = 0
        self.tickets: list[SyncInFlight] = []
        self.gaps_fed = 0
        self.gaps = Gaps()
        self.laws: CompactionLaws = NOTHING_GOES
        self.last_applied: Callable[[], int] = lambda: 0
        self.valid_from: Callable[[], int] = lambda: 0
        """How far the member's machine is, and when the replay of its log is over (C22)."""

    @property
    def last_index(self) -> int:
        return len(self.entries)

    @property
    def index_after_power_loss(self) -> int:
        """A power cut now keeps the entries up to this, in the log or in a snapshot (I3)."""
        return max(self.durable, self.snapshot.index)

    @property
    def had(self) -> int:
        """The member once had all entries up to this one on its disk: no deletion waits for it
        (C23)."""
        return max(self.index_after_power_loss, len(self.loss.entries_before))

    @property
    def term_floor(self) -> int:
        """The least term in which this member wakes up after a power cut now."""
        return max(self.hard_state[0], self.term_at(self.durable))

    def term_at(self, index: int) -> int:
        """Term of the entry at `index`; 0 before the first."""
        return self.entries[index - 1][0] if index else 0

    def announce(self, batch: Batch) -> Sequence[Frame]:
        """These frames may be on the disk from now on, even if the append does not return."""
        frames: Sequence[Frame] = batch.checksums()
        first = self.last_index + 1
        gaps: list[Gap] = []
        if len(frames) != batch.span.length:
            frames, gaps = self._filled([batch])
            self.laws.appended(self, gaps)
            self.gaps_fed += len(gaps)
        if [index for index, _, _ in frames] != list(range(first, first + len(frames))):
            raise violated("I4", "append not at the end", member=self.member, last=first - 1)
        prev_term = self.term_at(self.last_index)
        self.history.appended(self.member, prev_term, frames)
        self.gaps.appended(first, first + len(frames), gaps)
        return frames

    def _filled(self, batches: Iterable[Batch]) -> tuple[Sequence[Frame], list[Gap]]:
        frames, gaps = contents(batches)
        return self.history.filled(self.member, frames, gaps), gaps

    def append(self, frames: Sequence[Frame]) -> None:
        self.entries.extend([(term, crc) for _, term, crc in frames])

    def truncate(self, after: int) -> None:
        leads, commit_index = self.role()
        if after < commit_index:
            raise violated(
                "I10",
                "truncation below the commit index",
                member=self.member,
                after=after,
                commit_index=commit_index,
            )
        if leads:
            raise violated("I10", "a leader truncates its own log", member=self.member)
        del self.entries[after:]
        self.truncations += 1
        self.durable = min(self.durable, after)
        self.promised = min(self.promised, after)
        self.loss.truncated(after)
        for ticket in self.tickets:
            ticket.upto = min(ticket.upto, after)

    def published(self, entry: EntryId) -> None:
        """A snapshot of the state after `entry` is durable now, read back whole (I12)."""
        self._require_committed(entry)
        self.snapshot = max(self.snapshot, entry, key=lambda one: one.index)
        self.snapshot_indexes.add(entry.index)

    def discarding(self, entries: Iterable[EntryId]) -> None:
        """The files of these snapshots are deleted; that of the newest only if it was not
        installed, since no other member was told of it then (F13)."""
        left = max(self.snapshot_indexes - {entry.index for entry in entries}, default=0)
        if left < self.snapshot.index:
            self.snapshot = EntryId(self.term_at(left), left)

    def discarded(self, entries: Iterable[EntryId]) -> None:
        """The files of these snapshots were deleted."""
        self.snapshot_indexes -= {entry.index for entry in entries}

    @property
    def replayed_after(self) -> int:
        """Whichever snapshots are damaged, a replay begins above this entry (F17)."""
        return max(self.most, min(self.snapshot_indexes, default=0))

    def _require_committed(self, entry: EntryId) -> None:
        committed = self.history.committed
        if not 1 <= entry.index <= len(committed) or committed[entry.index - 1][0] != entry.term:
            raise violated(
                "I12",
                "a snapshot of what was not committed",
                member=self.member,
                entry=entry,
                committed=len(committed),
            )

    def trim(self, before: int) -> None:
        """Entries below `before` are deleted: a durable snapshot must hold them (C24). If the
        power is cut before `trimmed` says how far, any of them may be missing."""
        if before > self.snapshot.index + 1:
            raise violated(
                "I12",
                "a log is trimmed above its snapshot",
                member=self.member,
                before=before,
                snapshot=self.snapshot,
            )
        self._most_before = self.most
        self.most = max(self.most, before - 1)

    def trimmed(self, first_index: int) -> None:
        """The log begins at `first_index`, after a crash perhaps still where it began before."""
        self.most = max(self._most_before, first_index - 1)

    def reset(self, entry: EntryId) -> None:
        """The log begins anew after `entry`; until a sync a crash may bring the old one back."""
        leads, commit_index = self.role()
        if entry.index > self.snapshot.index:
            raise violated(
                "I12",
                "a log is reset above its snapshot",
                member=self.member,
                entry=entry,
                snapshot=self.snapshot,
            )
        if leads or entry.index < commit_index:
            raise violated(
                "I10",
                "a reset of a leader's log, or below the commit index",
                member=self.member,
                entry=entry,
                commit_index=commit_index,
            )
        self._require_committed(entry)
        self.resets += 1
        self._begin_after(entry)

    def _begin_after(self, entry: EntryId) -> None:
        if self.least != entry.index or self.last_index > entry.index:
            self.older.append(
                _Older(self.entries, self.durable, self.least, self.most, self.gaps.since)
            )
        self.entries = self.history.committed[: entry.index]
        self.gaps.since = {}
        self.durable = self.least = self.most = entry.index
        self.promised = min(self.promised, entry.index)
        self.loss.truncated(entry.index)
        for ticket in self.tickets:
            ticket.upto = 0

    def cut(self, before: EntryId, last_index: int, lost_upto: EntryId, term: int) -> None:
        """The log was damaged, and a start cut it: it begins after `before` and ends so.

        lost_upto: what the directory says that it held; NO_ENTRY for nothing.  term: that its
        hard state was raised to for it. C12: it may not say less than was durable.
        """
        self.has_unseen_damage = False
        last = max(last_index, before.index)
        last_durable = EntryId(self.term_at(self.durable), self.durable)
        if last < self.durable and lost_upto < last_durable:
            raise violated(
                "C12",
                "a damaged log says that it held less than it did",
                member=self.member,
                last_index=last,
                lost_upto=lost_upto,
                last_durable=last_durable,
            )
        if before.index > max(self.most, self.snapshot.index):
            raise violated("I24", "a cut log begins nowhere", member=self.member, before=before)
        if lost_upto != NO_ENTRY:
            self.loss.cut()
            self.saving.append((term, 0))
        del self.entries[last:]
        self.durable = min(self.durable, last)
        self.promised = min(self.promised, last)
        self.loss.truncated(last)
        self.least = self.most = before.index

    def crashed(self) -> None:
        """The process ended: nothing in flight will be reported any more."""
        self.tickets.clear()
        self.role = lambda: (False, 0)
        self.last_applied = self.valid_from = lambda: 0

    def recovered(
        self,
        frames: Sequence[Frame],
        hard_state: tuple[int, int],
        *,
        gaps: Sequence[Gap] = (),
        before: EntryId = NO_ENTRY,
        snapshots: Sequence[EntryId] = (),
    ) -> None:
        """Compare what an open found with what had to be there (I3, I24); then adopt it.

        before: the entry below the log's front.  snapshots: all that the directory lists.
        """
        self._recovered_front(before)
        frames = self.history.filled(self.member, frames, gaps)
        front = before.index
        recovered = self.entries[:front] + [(term, crc) for _, term, crc in frames]
        durable = self.entries[: self.durable]
        if recovered[: self.durable] != durable:
            lost = next(
                (
                    at
                    for at, one in enumerate(durable)
                    if at >= len(recovered) or recovered[at] != one
                ),
                0,
            )
            raise violated(
                "I3" if self.promised > lost else "I24",
                "a durable entry is missing after a crash",
                member=self.member,
                index=lost + 1,
                durable=self.durable,
                promised=self.promised,
                recovered_last=len(recovered),
            )
        for at in range(self.durable, len(recovered)):
            if at < front:
                continue
            index, term, crc = frames[at - front]
            prev_term = recovered[at - 1][0] if at else 0
            self.history.require_known(self.member, index, prev_term, term, crc)
        if hard_state not in (self.hard_state, *self.saving):
            raise violated(
                "I24",
                "recovery found a hard state that was never saved, or an older one",
                member=self.member,
                actual=hard_state,
                durable=self.hard_state,
                in_flight=self.saving,
            )
        self._recovered_gaps(gaps, front)
        self.entries = recovered
        self.durable = len(recovered)
        self.hard_state = hard_state
        self.saving.clear()
        self.least = self.most = front
        self.older.clear()
        self._recovered_snapshots(snapshots)
        self.laws.check_order(self)

    def _recovered_front(self, before: EntryId) -> None:
        """The log begins where it may: where it began, where it was trimmed, or reset to."""
        for older in reversed(self.older):
            if before.index < self.least:
                self.entries, self.durable, self.least, self.most, self.gaps.since = older
        if not self.least <= before.index <= self.most or before.term != self.term_at(
            before.index
        ):
            raise violated(
                "I24",
                "recovery found a log that begins elsewhere",
                member=self.member,
                before=before,
                least=self.least,
                most=self.most,
            )

    def _recovered_gaps(self, gaps: Sequence[Gap], front: int) -> None:
        """F16: what the installs left. Above what was proven, only where another log has a gap."""
        valid_from_of = {at: gap.valid_from for gap in gaps for at in range(gap.first, gap.end)}
        unread = self.gaps.unread
        extra = self.gaps.recovered(set(valid_from_of), front, self.durable)
        if unread is not None:
            self.laws.dropped(
                self, unread, {index: valid_from_of[index] for index in sorted(extra)}
            )
            self.gaps.unread = None
        self.gaps.released.clear()
        self.laws.appended(self, [gap for gap in gaps if gap.first > self.durable])

    def _recovered_snapshots(self, snapshots: Sequence[EntryId]) -> None:
        if self.snapshot != NO_ENTRY and self.snapshot not in snapshots:
            raise violated(
                "I24",
                "a durable snapshot is missing after a crash",
                member=self.member,
                snapshot=self.snapshot,
                actual=list(snapshots),
            )
        self.snapshot_indexes.clear()
        for entry in snapshots:
            self.published(entry)
        entry = self.snapshot
        if entry.index > self.last_index or self.term_at(entry.index) != entry.term:
            self._begin_after(entry)  # as the member does before anything else (C24)

    # --- cleaning ---------------------------------------------------------------------------

    def released(self, r: int, releases: Iterable[tuple[Release, Iterable[int]]]) -> None:
        """The machine of this member released these entries after entry `r`."""
        self.gaps.note_released(r, releases)

    def freeze(self, limits: CompactionLimits, first: int, last: int, *, is_major: bool) -> Frozen:
        """A rewrite of the segments from `first` to `last` is frozen now."""
        return self.laws.freeze(self, limits, (first, last), is_major=is_major)

    def installing(self, frozen: Frozen) -> None:
        """The rewrite was swapped in. From now on a crash leaves the old segments or these."""
        self.gaps.installs += 1
        self.gaps.unread = frozen

    def installed(self, log: Cleanable, frozen: Frozen) -> int:
        """Read what is there now; how many entries were deleted. The others must be unchanged."""
        first = max(frozen.first, log.first_index)
        end = min(frozen.last, log.last_index) + 1
        frames, gaps = self._filled(walk(log, first, end))
        for index, (at, term, crc) in enumerate(frames, first):
            if at != index or self.entries[index - 1] != (term, crc):
                raise violated(
                    "I23",
                    "a rewrite changed what it kept, or left out what is not in a gap",
                    member=self.member,
                    index=index,
                    actual=(at, term, crc),
                    before=self.entries[index - 1],
                )
        valid_from_of = {at: gap.valid_from for gap in gaps for at in range(gap.first, gap.end)}
        back = [
            at for at in range(first, end) if at in self.gaps.since and at not in valid_from_of
        ]
        if len(frames) != end - first or back:
            raise violated("I23", "a rewrite lost or brought back entries", back=back[:8])
        new = {
            at: valid_from for at, valid_from in valid_from_of.items() if at not in self.gaps.since
        }
        self.gaps.since.update(dict.fromkeys(new, self.gaps.installs))
        self.gaps.unread = None
        self.laws.dropped(self, frozen, new)
        self.check_terms(log)
        return len(new)

    def check_terms(self, log: Cleanable) -> None:
        """The log answers for the term of every index as before."""
        expected: list[TermRun] = []
        for index in range(log.first_index, self.last_index + 1):
            term = self.entries[index - 1][0]
            if not expected or expected[-1].term != term:
                expected.append(TermRun(term, index))
        if log.term_runs() != expected:
            raise violated(
                "I23",
                "a cleaned log has other terms",
                member=self.member,
                actual=log.term_runs(),
                expected=expected,
            )


class SyncInFlight(Protocol):
    """A sync that was begun; `upto` is what it makes durable."""

    upto: int
