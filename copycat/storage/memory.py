"""A log in memory: the verified fake. It passes the suite of `NativeLog`, sentence by sentence.

It keeps the same native batches, so bytes, checksums and runs are the shipped ones; only the
disk is missing. `crash` stands for a power loss and `fail` for a disk that answers with an
error, so that whoever is tested over it meets the same reactions (F9, F10, F12).
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

from copycat.errors import DiskError, DiskFullError, LogPoisonedError, require
from copycat.storage._native import Batch
from copycat.storage.memory_rewrite import (
    MemoryRewrite,
    MemorySegment,
    MemorySegments,
    RewriteGroup,
    reach,
)
from copycat.types import (
    CompactionLimits,
    CompactionResult,
    EntryId,
    EntryKind,
    Release,
    SegmentStats,
    Span,
    TermRun,
)

if TYPE_CHECKING:
    from copycat.storage import interface
    from copycat.storage._native import Batch

__all__ = ["MemoryLog", "MemoryTicket"]

_MAX_INDEX = 1 << 62


class MemoryTicket:
    """A sync in flight: a barrier, not work. Which entries it proves was fixed at its begin."""

    def __init__(self, log: MemoryLog, last_index: int) -> None:
        self.last_index = last_index
        self.done = False
        self._log = log

    def run(self) -> None:
        """Make everything below the barrier durable, or raise the injected DiskError."""
        self._log._run(self)  # noqa: SLF001 - a ticket is a part of its log


class MemoryLog:
    """`ReplicaLog` without a disk. Sizes as in `Storage`, so that rolls happen alike."""

    def __init__(
        self, *, max_segment_size: int = 32 << 20, max_entries_per_segment: int = 1 << 20
    ) -> None:
        self._max_segment_size = max_segment_size
        self._max_entries_per_segment = max_entries_per_segment
        self._segments = MemorySegments([MemorySegment(1)])
        self._configurations: list[int] = []
        """Indexes of configuration entries: each is read alone (C4)."""
        self._durable_index = 0
        self._in_flight: MemoryTicket | None = None
        self._faults: dict[str, str] = {}
        self._room: int | None = None
        self._poison: BaseException | None = None
        self._closed = False
        self._numbers = 1
        """Segments that were begun so far; each has its number."""
        self._released: dict[int, Release] = {}
        self._valid_from: int | None = 0
        """Of all gaps; None while it is to be looked for again. It becomes that before a change,
        so an exception between two steps leaves nothing wrong."""

    # --- where it stands ---------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        return self._segments[0].first

    @property
    def last_index(self) -> int:
        return self._segments[-1].end - 1

    @property
    def last_entry(self) -> EntryId:
        return self._segments[-1].last_entry

    @property
    def before(self) -> EntryId:
        return self._segments[0].before

    @property
    def truncations(self) -> int:
        """How often entries were taken off the end."""
        return self._segments.truncations

    @property
    def valid_from(self) -> int:
        if self._valid_from is None:
            gaps = (gap for batch in self._batches() for gap in batch.gaps())
            self._valid_from = max((valid_from for _, _, valid_from in gaps), default=0)
        return self._valid_from

    @property
    def durable_index(self) -> int:
        return self._durable_index

    def term_runs(self) -> list[TermRun]:
        """Runs of terms, oldest first."""
        runs: list[TermRun] = []
        for batch in self._batches():
            if not runs or runs[-1].term != batch.span.term:
                runs.append(TermRun(batch.span.term, batch.span.first))
        return runs

    # --- growth ------------------------------------------------------------------------------

    def append(self, batch: interface.Batch) -> None:
        """Put `batch` behind the last entry; see `ReplicaLog.append`."""
        self._check()
        span = batch.span
        if span.first != self.last_index + 1:
            raise ValueError(f"append at index {span.first}: the log ends at {self.last_index}")
        if span.term < self.last_entry.term:
            last = self.last_entry
            raise ValueError(f"append of term {span.term} after entry {last.index}:{last.term}")
        self._meet_fault("write", "append")
        if self._room is not None:
            if batch.nbytes > self._room:
                raise DiskFullError(
                    f"append of {batch.nbytes} bytes: room for {self._room}", errno=errno.ENOSPC
                )
            self._room -= batch.nbytes
        if span.length:
            self._roll_and_add(batch)

    def _roll_and_add(self, batch: interface.Batch) -> None:
        require(isinstance(batch, Batch), "only native batches are kept", got=type(batch))
        frames = cast("Batch", batch)
        kinds = [(index, kind) for index, kind, _, _ in frames.entries()]
        self._configurations += [i for i, kind in kinds if kind == EntryKind.CONFIGURATION]
        if frames.has_gaps:
            self._valid_from = None
        tail = self._segments[-1]
        full = tail.nbytes + batch.nbytes > self._max_segment_size
        many = tail.count + len(kinds) > self._max_entries_per_segment
        if not tail.is_empty and (full or many):
            tail = self._new_segment(tail.end, tail.last_entry)
            self._segments.append(tail)
        tail.add(frames, len(kinds))

    def _new_segment(self, first: int, before: EntryId) -> MemorySegment:
        self._numbers += 1
        return MemorySegment(first, self._numbers, before=before)

    def begin_sync(self) -> MemoryTicket:
        """A barrier behind everything appended so far."""
        self._check()
        require(self._in_flight is None, "one sync at a time", last_index=self.last_index)
        self._in_flight = MemoryTicket(self, self.last_index)
        return self._in_flight

    def end_sync(self, ticket: interface.SyncTicket) -> int:
        """Move `durable_index` to the ticket's barrier, clamped by truncations since (C6)."""
        self._check()
        ended = self._in_flight
        require(ended is not None and ticket is ended, "this ticket is not in flight")
        ended = cast("MemoryTicket", ended)
        require(ended.done, "the ticket was not run")
        self._durable_index = max(self._durable_index, ended.last_index)
        self._in_flight = None
        return self._durable_index

    def _run(self, ticket: MemoryTicket) -> None:
        self._check()
        self._meet_fault("sync", "sync")
        ticket.done = True

    # --- reading -----------------------------------------------------------------------------

    def read(self, first: int, end: int, max_bytes: int) -> Batch:
        """Frames from `first`; see `ReplicaLog.read`."""
        self._check()
        if not self.first_index <= first < end <= self.last_index + 1:
            raise IndexError(
                f"entries [{first}, {end}) of a log that holds "
                f"[{self.first_index}, {self.last_index + 1})"
            )
        segment = self._segments[bisect_right([s.first for s in self._segments], first) - 1]
        end = min(end, segment.end, self._configuration_border(first))
        parts: list[Batch] = []
        for batch in segment.batches_from(first):
            span = batch.span
            room = max_bytes - sum(part.nbytes for part in parts)
            if span.first >= end or (parts and (span.term != parts[0].span.term or room <= 0)):
                break
            part = batch.slice(max(span.first, first), min(span.end, end))
            fitting = _fitting(part, room)
            if parts and fitting.nbytes > room:
                break
            parts.append(fitting)
            if fitting.span.end < part.span.end:
                break
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _configuration_border(self, first: int) -> int:
        """Where a read that begins at `first` must end for the sake of C4."""
        for index in self._configurations:
            if index >= first:
                return index + 1 if index == first else index
        return self.last_index + 1

    def _batches(self) -> Iterator[Batch]:
        for segment in self._segments:
            yield from segment.batches

    # --- shrinking ---------------------------------------------------------------------------

    def truncate(self, after: int) -> None:
        """Drop every entry above `after`; see `ReplicaLog.truncate`."""
        self._check()
        if after < self.first_index - 1:
            raise IndexError(f"truncate after {after}: the log begins at {self.first_index}")
        if after >= self.last_index:
            return
        if self._room == 0:
            raise DiskFullError(f"truncate after {after}: no room left", errno=errno.ENOSPC)
        segments = [segment for segment in self._segments if segment.first <= after]
        if segments:
            segments[-1] = segments[-1].cut_to(after + 1)
        if not segments or not segments[-1].is_empty:
            before = segments[-1].last_entry if segments else self.before
            segments.append(self._new_segment(after + 1, before))
        self._forget(after)
        self._segments = MemorySegments(segments, self._segments.truncations + 1)

    def _forget(self, after: int) -> None:
        """What is said of entries above `after`. Before they are dropped: if an exception comes in
        between, less is known of entries that are there, and nothing of others."""
        self._valid_from = None
        self._durable_index = min(self._durable_index, after)
        if self._in_flight is not None:
            self._in_flight.last_index = min(self._in_flight.last_index, after)
        self._configurations = [i for i in self._configurations if i <= after]
        self._keep_releases(self.first_index, after)

    def trim(self, before: int) -> None:
        """Delete whole segments below `before`; see `ReplicaLog.trim`."""
        self._check()
        self._valid_from = None
        while len(self._segments) > 1 and self._segments[0].end <= before:
            del self._segments[0]
        self._configurations = [i for i in self._configurations if i >= self.first_index]
        self._keep_releases(self.first_index, self.last_index)

    def reset(self, entry: EntryId) -> None:
        """Begin anew right after `entry`; see `ReplicaLog.reset`."""
        self._check()
        if (entry.index == 0) != (entry.term == 0) or not 0 <= entry.index < _MAX_INDEX:
            raise ValueError(f"a log cannot begin after entry {entry.index} of term {entry.term}")
        if self._room == 0:
            raise DiskFullError(f"reset to {entry.index}: no room left", errno=errno.ENOSPC)
        self._forget(entry.index)
        self._configurations = []
        self._released = {}
        fresh = self._new_segment(entry.index + 1, entry)
        self._segments = MemorySegments([fresh], self._segments.truncations + 1)

    # --- compaction --------------------------------------------------------------------------

    def release(self, indexes: Sequence[int], policy: Release) -> None:
        """These entries may be deleted; see `ReplicaLog.release`."""
        self._check()
        last = self.last_index
        above = [index for index in indexes if index > last]
        if above:
            raise IndexError(f"entry {above[0]} cannot be released: the log ends at {last}")
        gaps = [gap for batch in self._batches() for gap in batch.gaps()]
        for index in indexes:
            if index >= self.first_index and not any(a <= index < b for a, b, _ in gaps):
                self._released[index] = min(policy, self._released.get(index, policy))

    def _keep_releases(self, first: int, last: int) -> None:
        self._released = {i: policy for i, policy in self._released.items() if first <= i <= last}

    def _removable(
        self, segment: MemorySegment, limits: CompactionLimits, *, major: bool
    ) -> frozenset[int]:
        horizon = min(limits.horizon, self._durable_index, self.last_index - 1)
        capped = limits._replace(horizon=horizon)
        return frozenset(
            index
            for index, policy in self._released.items()
            if segment.first <= index < segment.end and index <= reach(capped, policy, major=major)
        )

    def segment_stats(self, limits: CompactionLimits) -> list[SegmentStats]:
        """One row a segment; see `ReplicaLog.segment_stats`."""
        self._check()
        return [self._stats(segment, limits) for segment in self._segments]

    def _stats(self, segment: MemorySegment, limits: CompactionLimits) -> SegmentStats:
        sealed = segment is not self._segments[-1]
        return SegmentStats(
            id=segment.number,
            version=segment.version,
            first_index=segment.first,
            last_index=segment.end - 1,
            nbytes=segment.nbytes,
            entries=segment.count,
            released=sum(segment.first <= i < segment.end for i in self._released),
            removable_minor=len(self._removable(segment, limits, major=False)) if sealed else 0,
            removable_major=len(self._removable(segment, limits, major=True)) if sealed else 0,
            is_sealed=sealed and segment.end - 1 <= self._durable_index,
        )

    def rewrite(
        self, groups: Sequence[Sequence[int]], limits: CompactionLimits, *, major: bool
    ) -> MemoryRewrite:
        """Freeze what is to be deleted; see `ReplicaLog.rewrite`."""
        self._check()
        frozen = []
        for ids in groups:
            chosen = self._neighbours(ids)
            drops = [self._removable(segment, limits, major=major) for segment in chosen]
            batches = [batch for segment in chosen for batch in segment.batches]
            frozen.append(
                RewriteGroup(list(ids), chosen[-1].end, batches, frozenset().union(*drops))
            )
        horizon = min(limits.horizon, self.last_index)
        return MemoryRewrite(frozen, horizon, self._meet_rewrite_fault)

    def _meet_rewrite_fault(self) -> None:
        try:
            self._meet_fault("write", "rewrite")
        finally:
            self._poison = None  # F13: a rewrite that fails is no failure of the log

    def _neighbours(self, ids: Sequence[int]) -> list[MemorySegment]:
        numbers = [segment.number for segment in self._segments[:-1]]
        if not ids or ids[0] not in numbers:
            raise ValueError(f"no sealed segments {list(ids)}")
        begin = numbers.index(ids[0])
        chosen = self._segments[begin : begin + len(ids)]
        is_durable = chosen[-1].end - 1 <= self._durable_index
        if numbers[begin : begin + len(ids)] != list(ids) or not is_durable:
            raise ValueError(f"the segments {list(ids)} are no sealed neighbours")
        return chosen

    def install(self, rewrite: interface.Rewrite) -> CompactionResult:
        """Swap in what was written; see `ReplicaLog.install`."""
        self._check()
        made = cast("MemoryRewrite", rewrite)
        require(made.written is not None, "a rewrite is run before it is installed")
        before: list[MemorySegment] = []
        after: list[MemorySegment] = []
        is_cut_short = False
        for group, batches in zip(made.groups, made.written or [], strict=True):
            old = [s for s in self._segments if s.number in group.ids]
            if [s.number for s in old] != group.ids or old[-1].end != group.end:
                if self.first_index < group.end:
                    is_cut_short = True
                    break
                continue
            version = max(s.version for s in old) + 1
            fresh = MemorySegment(old[0].first, old[0].number, version, before=old[0].before)
            for batch in batches:
                fresh.add(batch, len(batch.entries()))
            begin = self._segments.index(old[0])
            self._valid_from = None
            self._segments[begin : begin + len(old)] = [fresh]
            self._released = {i: w for i, w in self._released.items() if i not in group.drops}
            self._configurations = [i for i in self._configurations if i not in group.drops]
            before += old
            after.append(fresh)
        made.abandon()
        return CompactionResult(
            len(before),
            len(after),
            sum(segment.nbytes for segment in before),
            sum(segment.nbytes for segment in after),
            sum(s.count for s in before) - sum(s.count for s in after),
            is_cut_short,
        )

    # --- spares, the end, and the faults of a disk -------------------------------------------

    def set_room(self, nbytes: int | None) -> None:
        """The disk takes only so many more bytes of frames; None: as many as come (F12)."""
        self._room = nbytes

    def has_room(self, nbytes: int, *, entries: int = 1, in_new_segment: bool = False) -> bool:
        """See `ReplicaLog.has_room`; a full disk has no room for a new segment either."""
        self._check()
        room = self._room
        return room is None or (nbytes <= room and not (in_new_segment and room == 0))

    def wants_sync(self) -> bool:
        """Never: there is no manifest that could fall behind."""
        self._check()
        return False

    def wants_spare(self) -> bool:
        """Never: there is nothing to zero-fill."""
        self._check()
        return False

    def prepare_spare(self) -> None:
        """Nothing to do."""
        self._check()

    def has_obsolete_files(self) -> bool:
        """Never: there are no files."""
        return False

    def remove_obsolete_files(self) -> None:
        """Nothing to do."""
        self._check()

    def mark_idle(self) -> None:
        """Nothing to write down: the barrier is all this log has of a disk."""
        self._check()

    def close(self) -> None:
        """Make everything durable, then refuse every later verb. A second close is nothing."""
        if not self._closed and self._poison is None:
            self._durable_index = self.last_index
        self._closed = True

    def reopen(self) -> None:
        """What a new process would find after `close` or `crash`; durable is what is kept."""
        self._closed = False
        self._poison = None
        self._in_flight = None
        self._faults.clear()
        self._durable_index = self.last_index

    def crash(self) -> None:
        """Power loss: everything that no ended sync proved is lost, and no ticket is in flight."""
        durable_index = self._durable_index
        self.reopen()
        self.truncate(max(durable_index, self.first_index - 1))
        self._durable_index = self.last_index

    def fail(self, operation: str, error: str) -> None:
        """Let the next `operation` ("write" or "sync") fail with `error` ("EIO", "ENOSPC")."""
        require(operation in {"write", "sync"}, "no such operation", operation=operation)
        self._faults[operation] = error

    def _meet_fault(self, operation: str, verb: str) -> None:
        error = self._faults.pop(operation, None)
        if error == "ENOSPC":
            raise DiskFullError(f"{verb}: no space left (injected)", errno=errno.ENOSPC)
        if error is not None:
            failure = DiskError(f"{verb} failed with {error} (injected)", errno=errno.EIO)
            self._poison = failure
            raise failure

    def _check(self) -> None:
        if self._poison is not None:
            raise LogPoisonedError(
                f"the log stopped at an earlier failure: {self._poison}", cause=self._poison
            ) from self._poison
        if self._closed:
            raise ValueError("the log is closed")


def _fitting(batch: Batch, max_bytes: int) -> Batch:
    """The longest head of `batch` within `max_bytes`, at least one frame."""
    first, high = batch.span.first, batch.span.end
    low = next((end for start, end, _ in batch.gaps() if start == first), first + 1)
    while low < high:
        middle = (low + high + 1) // 2
        if batch.slice(first, middle).nbytes <= max_bytes:
            low = middle
        else:
            high = middle - 1
    return batch.slice(first, low)


def _joined(parts: list[Batch]) -> Batch:
    term, first = parts[0].span.term, parts[0].span.first
    return Batch.from_wire(b"".join(parts), Span(term, first, parts[-1].span.end))
