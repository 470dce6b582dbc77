"""The log under watch: what each member's disk really holds, kept beside the member.

`WatchedLog`, and `WatchedHardState` in `watched.py`, stand between the replica and the native
log. They change nothing; they see every append, truncation and sync, and keep a `Shadow` of the
directory that outlives the member's process. I3, I5, I10, I12 and I24 are decided against the
shadow. A log that begins behind a snapshot is whole here: what the snapshot covers is what was
committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from copycat.errors import InvariantError
from copycat.log.interface import Batch, ReplicaLog, Rewrite, SyncTicket
from copycat.types import (
    NO_ENTRY,
    CompactionLimits,
    CompactionResult,
    EntryId,
    Release,
    SegmentStats,
    TermRun,
)

__all__ = ["LogHistory", "Shadow", "WatchedLog", "violated"]


def violated(rule: str, message: str, **values: object) -> InvariantError:
    """The error of a broken rule; `rule` is its number in faults.md section 3."""
    detail = ", ".join(f"{name}={value!r}" for name, value in values.items())
    return InvariantError(f"{rule}: {message} ({detail})", rule=rule)


class LogHistory:
    """Every entry that was ever appended anywhere: (index, term) names one content (I5)."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], tuple[int, int]] = {}
        self.committed: list[tuple[int, int]] = []
        """(term, crc) of everything that was ever committed, from index 1 on."""

    def appended(self, who: int, prev_term: int, frames: Sequence[tuple[int, int, int]]) -> None:
        """`frames` (index, term, crc) were appended by `who` after an entry of prev_term."""
        seen = self._seen
        for index, term, crc in frames:
            content = (crc, prev_term)
            if seen.setdefault((index, term), content) != content:
                raise violated(
                    "I5",
                    "one (index, term), two contents or predecessors",
                    member=who,
                    index=index,
                    term=term,
                    crc_and_prev_term=content,
                    before=seen[(index, term)],
                )
            prev_term = term

    def require_known(self, who: int, index: int, prev_term: int, term: int, crc: int) -> None:
        """A recovered entry must once have been appended by somebody (I24)."""
        if self._seen.get((index, term)) != (crc, prev_term):
            raise violated(
                "I24",
                "recovery invented an entry",
                member=who,
                index=index,
                term=term,
                prev_term=prev_term,
                crc=crc,
                known=self._seen.get((index, term)),
            )


class _Older(NamedTuple):
    """The log before a reset, which a power cut brings back until a sync ends (C24)."""

    entries: list[tuple[int, int]]
    durable: int
    least: int
    most: int


class Shadow:
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
        """Durable (term, vote)."""
        self.saving: list[tuple[int, int]] = []
        """Saves that were begun and whose end is not known: a crash keeps any of them."""
        self.role: Callable[[], tuple[bool, int]] = lambda: (False, 0)
        """Whether the member leads, and its commit index, asked at the very moment."""
        self.snapshot = NO_ENTRY
        """What the newest snapshot that is durable here covers."""
        self.truncations = 0
        self.resets = 0
        self.older: list[_Older] = []
        self.least = 0
        """The log begins right after this one or a later one; `most`: at the latest."""
        self.most = 0
        self.tickets: list[_WatchedSync] = []

    @property
    def last_index(self) -> int:
        return len(self.entries)

    @property
    def platter(self) -> int:
        """A power cut now keeps the entries up to this, in the log or in a snapshot (I3)."""
        return max(self.durable, self.snapshot.index)

    @property
    def term_floor(self) -> int:
        """The least term in which this member wakes up after a power cut now."""
        return max(self.hard_state[0], self.term_at(self.durable))

    def term_at(self, index: int) -> int:
        """Term of the entry at `index`; 0 before the first."""
        return self.entries[index - 1][0] if index else 0

    def announce(self, batch: Batch) -> list[tuple[int, int, int]]:
        """These frames may be on the disk from now on, even if the append does not return."""
        frames = batch.checksums()
        first = self.last_index + 1
        if [index for index, _, _ in frames] != list(range(first, first + len(frames))):
            raise violated("I4", "append not at the end", member=self.member, last=first - 1)
        prev_term = self.term_at(self.last_index)
        self.history.appended(self.member, prev_term, frames)
        return frames

    def append(self, frames: Sequence[tuple[int, int, int]]) -> None:
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
        for ticket in self.tickets:
            ticket.upto = min(ticket.upto, after)

    def published(self, entry: EntryId) -> None:
        """A snapshot of the state after `entry` is durable now, read back whole (I12)."""
        self._require_committed(entry)
        self.snapshot = max(self.snapshot, entry, key=lambda one: one.index)

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
        """Entries below `before` may go: a durable snapshot must hold them (C24)."""
        if before > self.snapshot.index + 1:
            raise violated(
                "I12",
                "a log is trimmed above its snapshot",
                member=self.member,
                before=before,
                snapshot=self.snapshot,
            )

    def trimmed(self, first_index: int) -> None:
        """The log begins at `first_index`, after a crash perhaps still where it began before."""
        self.most = max(self.most, first_index - 1)

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
            self.older.append(_Older(self.entries, self.durable, self.least, self.most))
        self.entries = self.history.committed[: entry.index]
        self.durable = self.least = self.most = entry.index
        self.promised = min(self.promised, entry.index)
        for ticket in self.tickets:
            ticket.upto = 0

    def crashed(self) -> None:
        """The process is gone: nothing in flight will be reported any more."""
        self.tickets.clear()
        self.role = lambda: (False, 0)

    def recovered(
        self,
        frames: Sequence[tuple[int, int, int]],
        hard_state: tuple[int, int],
        *,
        before: EntryId = NO_ENTRY,
        snapshots: Sequence[EntryId] = (),
    ) -> None:
        """Compare what an open found with what had to be there (I3, I24); then believe it.

        before: the entry below the log's front.  snapshots: all that the directory lists.
        """
        self._recovered_front(before)
        front = before.index
        found = self.entries[:front] + [(term, crc) for _, term, crc in frames]
        kept = self.entries[: self.durable]
        if found[: self.durable] != kept:
            lost = next(
                (at for at, one in enumerate(kept) if at >= len(found) or found[at] != one), 0
            )
            raise violated(
                "I3" if self.promised > lost else "I24",
                "a durable entry is gone after a crash",
                member=self.member,
                index=lost + 1,
                durable=self.durable,
                promised=self.promised,
                recovered_last=len(found),
            )
        for at in range(self.durable, len(found)):
            if at < front:
                continue
            index, term, crc = frames[at - front]
            prev_term = found[at - 1][0] if at else 0
            self.history.require_known(self.member, index, prev_term, term, crc)
        if hard_state not in (self.hard_state, *self.saving):
            raise violated(
                "I24",
                "recovery found a hard state that was never saved, or an older one",
                member=self.member,
                found=hard_state,
                durable=self.hard_state,
                in_flight=self.saving,
            )
        self.entries = found
        self.durable = len(found)
        self.hard_state = hard_state
        self.saving.clear()
        self.least = self.most = front
        self.older.clear()
        self._recovered_snapshots(snapshots)

    def _recovered_front(self, before: EntryId) -> None:
        """The log begins where it may: where it began, where it was trimmed, or reset to."""
        for older in reversed(self.older):
            if before.index < self.least:
                self.entries, self.durable, self.least, self.most = older
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

    def _recovered_snapshots(self, snapshots: Sequence[EntryId]) -> None:
        if self.snapshot != NO_ENTRY and self.snapshot not in snapshots:
            raise violated(
                "I24",
                "a durable snapshot is gone after a crash",
                member=self.member,
                snapshot=self.snapshot,
                found=list(snapshots),
            )
        for entry in snapshots:
            self.published(entry)
        entry = self.snapshot
        if entry.index > self.last_index or self.term_at(entry.index) != entry.term:
            self._begin_after(entry)  # as the member does before anything else (C24)


class _WatchedSync:
    """A sync ticket that tells the shadow what became durable when it ran."""

    def __init__(self, inner: SyncTicket, shadow: Shadow) -> None:
        self.inner = inner
        self.upto = shadow.last_index
        self._older = len(shadow.older)
        self._front = shadow.most
        self._shadow = shadow
        shadow.tickets.append(self)

    def run(self) -> None:
        self.inner.run()
        shadow = self._shadow
        if self in shadow.tickets:
            shadow.tickets.remove(self)
            shadow.durable = max(shadow.durable, self.upto)
            del shadow.older[: self._older]
            if not shadow.older:
                shadow.least = max(shadow.least, self._front)


class WatchedLog:
    """A `ReplicaLog` that passes everything on and lets the shadow see it."""

    def __init__(self, inner: ReplicaLog, shadow: Shadow) -> None:
        self.inner = inner
        self._shadow = shadow

    @property
    def first_index(self) -> int:
        return self.inner.first_index

    @property
    def last_index(self) -> int:
        return self.inner.last_index

    @property
    def last_entry(self) -> EntryId:
        return self.inner.last_entry

    @property
    def before(self) -> EntryId:
        return self.inner.before

    @property
    def valid_from(self) -> int:
        return self.inner.valid_from

    @property
    def durable_index(self) -> int:
        return self.inner.durable_index

    def read(self, first: int, end: int, max_bytes: int) -> Batch:
        return self.inner.read(first, end, max_bytes)

    def term_runs(self) -> list[TermRun]:
        return self.inner.term_runs()

    def has_room(self, nbytes: int, *, entries: int = 1, in_new_segment: bool = False) -> bool:
        return self.inner.has_room(nbytes, entries=entries, in_new_segment=in_new_segment)

    def wants_sync(self) -> bool:
        return self.inner.wants_sync()

    def wants_spare(self) -> bool:
        return self.inner.wants_spare()

    def prepare_spare(self) -> None:
        self.inner.prepare_spare()

    def trim(self, before: int) -> None:
        self._shadow.trim(before)
        self.inner.trim(before)
        self._shadow.trimmed(self.inner.first_index)

    def append(self, batch: Batch) -> None:
        frames = self._shadow.announce(batch)
        self.inner.append(batch)
        self._shadow.append(frames)

    def begin_sync(self) -> SyncTicket:
        return _WatchedSync(self.inner.begin_sync(), self._shadow)

    def end_sync(self, ticket: SyncTicket) -> int:
        durable = self.inner.end_sync(ticket.inner if isinstance(ticket, _WatchedSync) else ticket)
        if durable > self._shadow.durable:
            raise violated(
                "I3",
                "the log claims more than was synced",
                member=self._shadow.member,
                durable_index=durable,
                platter=self._shadow.durable,
            )
        return durable

    def truncate(self, after: int) -> None:
        self._shadow.truncate(after)
        self.inner.truncate(after)

    def reset(self, entry: EntryId) -> None:
        self._shadow.reset(entry)
        self.inner.reset(entry)

    def release(self, indexes: Sequence[int], how: Release) -> None:
        """Nothing is cleaned in the simulator: the checkers compare whole logs."""

    def segment_stats(self, limits: CompactionLimits) -> list[SegmentStats]:
        """No segment is offered, so every run of the cleaning ends before it begins."""
        return []

    def rewrite(
        self, groups: Sequence[Sequence[int]], limits: CompactionLimits, *, major: bool
    ) -> Rewrite:
        return self.inner.rewrite(groups, limits, major=major)

    def install(self, rewrite: Rewrite) -> CompactionResult:
        return self.inner.install(rewrite)

    def mark_idle(self) -> None:
        self.inner.mark_idle()

    def close(self) -> None:
        self.inner.close()
