"""The log under watch: what each member's disk really holds, kept beside the member.

`WatchedLog`, and `WatchedHardState` in `watched.py`, stand between the replica and the native
log. They change nothing; they see every append, truncation, sync, rewrite and install, and keep
a `Shadow` of the directory that outlives the member's process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from copycat.errors import require
from copycat.log.interface import Batch, ReplicaLog, Rewrite, SyncTicket
from copycat.sim.checkers_gaps import Frozen
from copycat.sim.checkers_log import violated
from copycat.sim.checkers_shadow import Shadow
from copycat.types import (
    CompactionLimits,
    CompactionResult,
    EntryId,
    Release,
    SegmentStats,
    TermRun,
)

__all__ = ["WatchedLog"]


class _WatchedSync:
    """A sync ticket that tells the shadow what became durable when it ran."""

    def __init__(self, inner: SyncTicket, shadow: Shadow) -> None:
        self.inner = inner
        self.upto = shadow.last_index
        self._older = len(shadow.older)
        self._installs = shadow.holes.installs
        self._front = shadow.most
        self._shadow = shadow
        shadow.tickets.append(self)

    def run(self) -> None:
        self.inner.run()
        shadow = self._shadow
        if self in shadow.tickets:
            shadow.tickets.remove(self)
            shadow.durable = max(shadow.durable, self.upto)
            shadow.holes.durable = max(shadow.holes.durable, self._installs)
            del shadow.older[: self._older]
            if not shadow.older:
                shadow.least = max(shadow.least, self._front)


class _WatchedRewrite:
    """A rewrite with the facts of the moment at which it was frozen."""

    def __init__(self, inner: Rewrite, frozen: Frozen) -> None:
        self.inner = inner
        self.frozen = frozen

    def run(self) -> None:
        self.inner.run()

    def abandon(self) -> None:
        self.inner.abandon()


class WatchedLog:
    """A `ReplicaLog` that passes everything on and lets the shadow see it."""

    def __init__(
        self,
        inner: ReplicaLog,
        shadow: Shadow,
        told: Callable[[int], None] = lambda _: None,
        kept: Callable[[Rewrite], None] = lambda _: None,
        did: Callable[[str], None] = lambda _: None,
    ) -> None:
        """told: called with how many entries each install let go.  kept: takes every rewrite,
        which must not end before the simulated disk does.  did: called with the kind of work
        that a thread does here (`workers.KINDS`)."""
        self.inner = inner
        self._shadow = shadow
        self._told = told
        self._kept = kept
        self._did = did

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
        self._did("segment prepared")
        self.inner.prepare_spare()

    def has_orphans(self) -> bool:
        return self.inner.has_orphans()

    def remove_orphans(self) -> None:
        self._did("files removed")
        self.inner.remove_orphans()

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
        self.inner.release(indexes, how)

    def segment_stats(self, limits: CompactionLimits) -> list[SegmentStats]:
        return self.inner.segment_stats(limits)

    def rewrite(
        self, groups: Sequence[Sequence[int]], limits: CompactionLimits, *, major: bool
    ) -> Rewrite:
        rows = {row.id: row for row in self.inner.segment_stats(limits)}
        first = min(rows[id].first_index for group in groups for id in group)
        last = max(rows[id].last_index for group in groups for id in group)
        frozen = self._shadow.freeze(limits, first, last, is_major=major)
        inner = self.inner.rewrite(groups, limits, major=major)
        self._kept(inner)
        return _WatchedRewrite(inner, frozen)

    def install(self, rewrite: Rewrite) -> CompactionResult:
        """The laws are held against what can be read now. A power cut leaves that to recovery."""
        require(isinstance(rewrite, _WatchedRewrite), "a rewrite of another log")
        assert isinstance(rewrite, _WatchedRewrite)  # noqa: S101  # for the type checker
        result = self.inner.install(rewrite.inner)
        if result.segments_after:
            self._shadow.installing(rewrite.frozen)
            gone = self._shadow.installed(self.inner, rewrite.frozen)
            self._told(gone)
        return result

    def mark_idle(self) -> None:
        self.inner.mark_idle()

    def close(self) -> None:
        self.inner.close()
