"""What the replica asks of a log, verb by verb. `NativeLog` and `MemoryLog` implement it.

One suite (`tests/log/contract.py`) holds both to every sentence here. The loop thread alone
calls these, but for those that say "any thread": they block and release the GIL. After a failed
write or sync the log is poisoned: every later verb raises `LogPoisonedError` with the first
cause (F9, F10).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from copycat.types import (
    CompactionLimits,
    CompactionResult,
    EntryId,
    MemberId,
    Release,
    Run,
    SegmentStats,
    Span,
    TermRun,
)

__all__ = [
    "Batch",
    "EncodeItem",
    "HardStateStore",
    "ReplicaLog",
    "Rewrite",
    "SaveTicket",
    "SyncTicket",
]

EncodeItem = tuple[int, int, int, int, int, bytes | memoryview]
"""(kind, session, first_sequence, acked_sequence, count, body): what `encode_batch` takes.

COMMAND and DATA: `body` is `lengths u32[count]` (little-endian), then the operations (a bare
log's entries); it becomes `count` entries. Every other kind: count is 1 and `body` is the
payload. The session fields are 0 for all but COMMAND.
"""


class Batch(Protocol):
    """The frames of one span, gaps among them, as bytes; immutable; supports the buffer protocol.

    The batch, and each memoryview of it, keeps the bytes alive.
    """

    @property
    def span(self) -> Span: ...
    @property
    def nbytes(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def slice(self, first: int, end: int) -> Batch:
        """The frames of [first, end), sharing the bytes unless a gap must be cut.

        IndexError outside the span.
        """
        ...

    def runs(self, first: int, end: int) -> list[Run]:
        """Entries and gaps of [first, end) cut to runs, in order (see `Run`)."""
        ...

    @property
    def last_time_ms(self) -> int:
        """Log time of the last entry (C25)."""
        ...

    def checksums(self) -> list[tuple[int, int, int]]:
        """(index, term, crc) of every entry, gaps left out: what I5 compares."""
        ...

    @property
    def has_gaps(self) -> bool:
        """True when some of its indexes are in a gap (C3)."""
        ...

    def gaps(self) -> list[tuple[int, int, int]]:
        """(first, end, valid_from) of every gap, in order (C3, C22)."""
        ...


class SyncTicket(Protocol):
    """One sync in flight. `run` blocks without the GIL, in any thread; raises DiskError."""

    def run(self) -> None: ...


class Rewrite(Protocol):
    """Sealed segments that are being written anew, from copies of what the log knew.

    `run` blocks without the GIL, in any thread: it copies live frames verbatim, puts gaps for
    the rest, syncs, reads back and verifies. DiskFullError, DiskError and CorruptLogError leave
    no file behind and do not poison the log (F13).
    """

    def run(self) -> None: ...
    def abandon(self) -> None:
        """Give up, from any thread: a run ends soon and leaves nothing."""
        ...


class ReplicaLog(Protocol):
    """A durable log of frames. Frames and gaps tile first_index .. last_index."""

    @property
    def first_index(self) -> int:
        """1 in a new log; 1 + the trimmed prefix later. last_index + 1 when empty."""
        ...

    @property
    def last_index(self) -> int: ...
    @property
    def last_entry(self) -> EntryId: ...
    @property
    def before(self) -> EntryId:
        """The entry just below first_index: its term is known, its bytes were deleted.

        NO_ENTRY in a whole log.
        """
        ...

    @property
    def valid_from(self) -> int:
        """The largest valid_from of any gap in the log; 0 for none (C22)."""
        ...

    @property
    def durable_index(self) -> int:
        """What *this process* saw synced (C1, C7); after open everything that is kept."""
        ...

    def term_runs(self) -> list[TermRun]:
        """Runs of terms of the whole log, oldest first; from footers, not from entries."""
        ...

    def append(self, batch: Batch) -> None:
        """Write `batch` at last_index + 1 (else ValueError); its term is >= the last one's.

        Not durable until a sync begun later ends. DiskFullError leaves the log unchanged
        (F12); any other disk error poisons it.
        """
        ...

    def begin_sync(self) -> SyncTicket:
        """A ticket that covers everything appended so far. At most one is in flight."""
        ...

    def end_sync(self, ticket: SyncTicket) -> int:
        """After `ticket.run()`: moves durable_index, clamped by truncations since (C6)."""
        ...

    def wants_sync(self) -> bool:
        """True while a roll, truncation or trim waits for a sync to make it durable (C8)."""
        ...

    def read(self, first: int, end: int, max_bytes: int) -> Batch:
        """Frames from `first`, at most `end` and about `max_bytes`, but at least one.

        Never crosses a segment, a term or a CONFIGURATION entry (C4). IndexError outside
        the log; CorruptLogError when a frame's checksum is wrong.
        """
        ...

    def truncate(self, after: int) -> None:
        """Drop every entry above `after`: seals the tail there and starts a new one."""
        ...

    def trim(self, before: int) -> None:
        """Delete every entry below `before`, by whole segments; durable with the next sync."""
        ...

    def reset(self, entry: EntryId) -> None:
        """Begin anew, empty, right after `entry`, which a durable snapshot holds (C24, I12).

        first_index is entry.index + 1; `before` and `last_entry` are `entry`. Durable with the
        next sync that begins: a crash before it leaves either the old log or the new one.
        """
        ...

    def release(self, indexes: Sequence[int], policy: Release) -> None:
        """Release these entries: they are deleted as soon as `policy` allows.

        Idempotent: a stricter class never replaces a looser one. Indexes below first_index and
        in gaps are ignored; one above last_index is an IndexError, and nothing is done. Not
        written down: a replay after a restart releases them again.
        """
        ...

    def segment_stats(self, limits: CompactionLimits) -> list[SegmentStats]:
        """What a compaction within `limits` would find, oldest first, the tail last.

        Nothing above durable_index and never the last entry is removable.
        """
        ...

    def rewrite(
        self, groups: Sequence[Sequence[int]], limits: CompactionLimits, *, major: bool
    ) -> Rewrite:
        """Freeze what is to be deleted of all groups; each group becomes one new segment.

        A group is the ids of neighbouring segments whose stats say is_sealed, else ValueError.
        """
        ...

    def install(self, rewrite: Rewrite) -> CompactionResult:
        """Swap in what a rewrite that was run wrote, with later releases carried over.

        Durable with the next sync that begins: a crash before it leaves exactly the old
        segments (F16). A group that was truncated, trimmed or reset meanwhile is dropped. Behind
        one of which some index is still in the log nothing is installed, and the result says
        is_cut_short: a deletion must not be deleted before what it deleted. An error changes
        nothing. InvariantError before its run ended, or for another log's.
        """
        ...

    def has_room(self, nbytes: int, *, entries: int = 1, in_new_segment: bool = False) -> bool:
        """Whether a batch of `nbytes` could be appended now without DiskFullError (F12).

        in_new_segment: in a segment of its own, as after a truncation. An estimate that errs
        towards False; quick while the tail has the room.
        """
        ...

    def wants_spare(self) -> bool:
        """True when the next segment should be prepared (zero-filled) in the background."""
        ...

    def prepare_spare(self) -> None:
        """Blocking, without the GIL, any thread: allocate and zero-fill a segment ahead."""
        ...

    def has_obsolete_files(self) -> bool:
        """True while files wait to be removed that the durable manifest names no more.

        To free a segment's blocks takes milliseconds: no sync waits for that. Any thread.
        """
        ...

    def remove_obsolete_files(self) -> None:
        """Blocking, without the GIL, any thread: remove a few of them.

        DiskError: that one stays until the next open (F4); the log is as good as before.
        """
        ...

    def mark_idle(self) -> None:
        """Nothing was appended for a while: write down what is durable."""
        ...

    def close(self) -> None:
        """Sync, write the close mark that proves a clean stop (C7), release the lock.

        A poisoned log is closed without a sync. If one still hangs in the disk, the directory
        stays locked until that is over: who opens it before gets a DirectoryInUseError.
        """
        ...


class SaveTicket(Protocol):
    """One hard-state save in flight. `run` blocks, without the GIL, in any thread; DiskError."""

    def run(self) -> None: ...


class HardStateStore(Protocol):
    """current_term and voted_for in two files, each replaced whole (C9)."""

    @property
    def current_term(self) -> int: ...
    @property
    def voted_for(self) -> MemberId: ...
    def begin_save(self, term: int, voted_for: MemberId) -> SaveTicket:
        """Durable when the ticket's `run` returned; the properties move in `end_save`."""
        ...

    def end_save(self, ticket: SaveTicket) -> None: ...
