"""A member cuts unreadable entries out of its log and records them as lost (F2, F3, F11, C12).

The order makes every crash harmless: first the record of the lost entries is durable, then the
entries that stay are written to a log of their own and synced, and only then the two logs change
names. The damaged log stays beside the repaired one. A member without other members may cut only
what a snapshot covers (docs/decisions/0017).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from copycat.errors import CorruptLogError, DiskError, DiskFullError
from copycat.member.damage_scan import LogScan, Loss, scan
from copycat.member.markers import INDEX_MAX, LostEntries, clear_note, read_lost_entries, read_note
from copycat.storage._native import Batch, NativeLog, open_log
from copycat.storage.in_memory import InMemoryLog
from copycat.storage.reader import StoredEntry, damage_of
from copycat.storage.unreadable import is_unreadable, unreadable_is_corrupt
from copycat.types import NO_ENTRY, EntryId, EntryKind, MemberId, Span

if TYPE_CHECKING:
    from copycat.storage._native import Env
    from copycat.storage.interface import HardStateStore
    from copycat.storage.snapshot_store import SnapshotStore

__all__ = [
    "AnyLog",
    "LogRepair",
    "TruncationPlan",
    "batches",
    "complete_repair",
    "plan_cut",
    "write_log",
]

_log = logging.getLogger("copycat.log")

AnyLog: TypeAlias = NativeLog | InMemoryLog
_Read = TypeVar("_Read")

_NEW = "log-new"
_REPAIRED = "log-repaired"
_BATCH_BYTES = 1 << 20


class TruncationPlan(NamedTuple):
    """Which entries of a damaged log stay, and which are lost."""

    start: EntryId
    """The new log begins right after this entry: NO_ENTRY, the old one's, or a snapshot's."""
    end: int
    """One past the last entry that stays; `start.next` when none does."""
    lost_upto: EntryId
    """The last entry that the log is known to have held, if that entry is cut; else NO_ENTRY."""


def plan_cut(env: Env, log_scan: LogScan, base: EntryId, current_term: int) -> TruncationPlan:
    """How to cut a log of which `log_scan` is readable, so that the fewest entries are lost.

    base: what the newest snapshot that was read back whole covers; NO_ENTRY for none.
    current_term: the hard state's; no entry of a later term was ever acknowledged.
    """
    start, first_bad = log_scan.before, log_scan.last_index + 1
    if base.index < start.index:
        start, first_bad = base, base.next  # no snapshot reaches to where the log begins (F17)
    else:
        if any(loss.first <= base.index for loss in log_scan.losses):
            start = base
            if log_scan.term_at(env, base.index) != base.term:
                first_bad = base.next  # whether the rest continues this snapshot, nobody knows
        for loss in log_scan.losses:
            if loss.end > start.next:
                first_bad = min(first_bad, max(loss.first, start.next))
    new_last = start
    if first_bad > start.next:
        new_last = EntryId(log_scan.term_at(env, first_bad - 1), first_bad - 1)
    last_written = EntryId(log_scan.last_term or current_term, log_scan.last_index)
    return TruncationPlan(start, first_bad, NO_ENTRY if new_last >= last_written else last_written)


class LogRepair:
    """Opens the log of the member's directory `path`, after a repair if it is damaged.

    store: the member's snapshots; None to use none.  current_term: the hard state's.  sizes: of
    the log's segments, in bytes and in entries.  is_alone: the cluster has no other members, so
    no entry may be cut.  The caller holds the lock of the directory.
    """

    def __init__(
        self,
        env: Env,
        path: str,
        store: SnapshotStore | None,
        current_term: int,
        sizes: tuple[int, int],
        *,
        is_alone: bool,
    ) -> None:
        self._env = env
        self._path = path
        self._store = store
        self._current_term = current_term
        self._is_alone = is_alone
        self._sizes = sizes
        self.lost_entries = read_lost_entries(env, path, current_term)
        """The entries that this member lost and no leader has sent again; None for none."""

    def open(self, opened: Callable[[], AnyLog]) -> AnyLog:
        """The log that `opened` opens. The log is repaired first if `opened` raises
        CorruptLogError or a DiskError of bytes that cannot be read, or if a running member noted
        damage (F11).

        CorruptLogError when a member alone would lose entries (F2), or when there is nothing to
        cut; the log is unchanged then. DiskFullError when the repaired log does not fit on the
        disk. FormatVersionError, DiskError.
        """
        note = read_note(self._env, self._path)
        try:
            log = _twice(opened)
        except CorruptLogError as cause:
            if not self._repair(cause):
                raise
            log = opened()
        else:
            if note is not None:
                log.close()
                self._repair(note)
                log = opened()
        clear_note(self._env, self._path)
        if self._is_alone or self._store is None:
            return log
        base = self._base()
        is_torn = base == NO_ENTRY and bool(self._store.bad) and log.valid_from > 0
        if log.before.index > base.index or is_torn:
            log.close()
            self._repair(_out_of_reach(log, base))
            self._store.set_aside()
            log = opened()
        return log

    def _base(self) -> EntryId:
        newest = self._store.look() if self._store is not None else None
        return newest[0].entry if newest is not None else NO_ENTRY

    def _repair(self, cause: CorruptLogError) -> bool:
        """Replace the log by one without its damaged entries; False when nothing is damaged. The
        damage that `cause` names counts even if its bytes look good now."""
        env, path, base = self._env, self._path, self._base()
        log_scan = self._scan(cause)
        if not log_scan.losses and base.index >= log_scan.before.index:
            return False
        cut = plan_cut(env, log_scan, base, self._current_term)
        if cut.lost_upto != NO_ENTRY:
            if self._is_alone:
                if not cause.index and log_scan.losses:  # the scan knows what the sector held
                    cause.index = log_scan.losses[0].damage.index
                raise cause
            self.lost_entries = self._new_lost_entries(cut)
            self.lost_entries.write()
        try:
            write_log(env, f"{path}/{_NEW}", cut, log_scan, self._sizes)
        except DiskFullError as error:
            raise DiskFullError(
                f"{path}: no room for the repaired log, which is a new file: {error}",
                state="The damaged log was not changed.",
                hint="free some space, then start this member again",
                path=path,
            ) from error
        env.rename(f"{path}/{_NEW}", f"{path}/{_REPAIRED}")
        env.sync_directory(path)
        damaged = complete_repair(env, path)
        for loss in log_scan.losses:
            _log.warning("%s: entry %d: %s", loss.damage.path, loss.first, loss.damage.what)
        _log.warning(
            "%s: the log was damaged: it begins after entry %d and ends with %d, %s; it is kept"
            " as it was in %s",
            path,
            cut.start.index,
            cut.end - 1,
            "nothing is missing"
            if cut.lost_upto == NO_ENTRY
            else f"the others must give {self.lost_entries}",
            damaged or "no place: its file was missing",
        )
        return True

    def _scan(self, cause: CorruptLogError) -> LogScan:
        directory = f"{self._path}/log"
        try:
            return _twice(lambda: scan(self._env, directory, cause))
        except CorruptLogError as error:
            # The directory or its manifest cannot be read: as if the manifest were missing (F3).
            loss = Loss(1, INDEX_MAX, damage_of(error, directory, row="F3"))
            return LogScan(directory, NO_ENTRY, (), (loss,), INDEX_MAX, 0)

    def _new_lost_entries(self, cut: TruncationPlan) -> LostEntries:
        lost_upto, first, earlier = cut.lost_upto, cut.end, self.lost_entries
        if earlier is not None:
            lost_upto, first = max(lost_upto, earlier.lost_upto), min(first, earlier.first_index)
        term = max(self._current_term, lost_upto.term) + 1
        return LostEntries(self._env, self._path, lost_upto, first_index=first, term=term)

    def remaining_loss(self, log: AnyLog, hard_state: HardStateStore) -> LostEntries | None:
        """The entries that the open log still lacks; raises the term of the hard state to the one
        in their record. Called before the member sends anything."""
        lost_entries = self.lost_entries
        if lost_entries is None:
            return None
        if log.last_entry >= lost_entries.lost_upto and not lost_entries.is_accepted:
            lost_entries.clear()
            return None
        if hard_state.current_term < lost_entries.term:
            ticket = hard_state.begin_save(lost_entries.term, MemberId(0))
            ticket.run()
            hard_state.end_save(ticket)
        return lost_entries


def _twice(read: Callable[[], _Read]) -> _Read:
    """Call `read`, and once more after a read error, since a disk may fail once; CorruptLogError
    when the second call fails too."""
    try:
        return read()
    except DiskError as error:
        if not is_unreadable(error):
            raise
        _log.warning("%s: the log is read once more", error)
    with unreadable_is_corrupt():
        return read()


def _out_of_reach(log: AnyLog, base: EntryId) -> CorruptLogError:
    return CorruptLogError(
        f"the log begins at {log.first_index}, with gaps up to {log.valid_from}, and the newest"
        f" snapshot that can be read covers {base.index} entries (F17)",
        index=log.before.index or log.first_index,
    )


def complete_repair(env: Env, path: str) -> str:
    """Move a repaired log into place, if there is one. Returns the directory in which the damaged
    log is kept; empty for none. A crash in between does no harm: the next start calls it again."""
    repaired, current, damaged = f"{path}/{_REPAIRED}", f"{path}/log", ""
    if not env.exists(repaired):
        return damaged
    if env.exists(current):
        number = 1
        while env.exists(f"{path}/log-damaged-{number}"):
            number += 1
        damaged = f"{path}/log-damaged-{number}"
        env.sync_directory(current)  # so that the whole directory moves, whatever a crash keeps
        env.rename(current, damaged)
        env.sync_directory(path)
    env.rename(repaired, current)
    env.sync_directory(path)
    return damaged


def write_log(
    env: Env, directory: str, cut: TruncationPlan, log_scan: LogScan, sizes: tuple[int, int]
) -> None:
    """Write the entries that stay to a new log in `directory`, durably.

    DiskFullError; DiskError when an entry that the scan could read cannot be read again.
    """
    env.make_directory(directory)
    for name in env.list(directory):  # left by an earlier attempt
        env.remove(f"{directory}/{name}")
    new_log = open_log(
        env,
        directory,
        max_segment_size=sizes[0],
        max_entries_per_segment=sizes[1],
    )
    with closing(new_log):
        if cut.start != NO_ENTRY:
            new_log.reset(cut.start)
            ticket = new_log.begin_sync()
            ticket.run()
            new_log.end_sync(ticket)
        for batch in batches(_kept_records(env, cut, log_scan), cut.start.next, cut.end):
            new_log.append(batch)
    env.sync_directory(directory)


def _kept_records(env: Env, cut: TruncationPlan, log_scan: LogScan) -> Iterator[StoredEntry]:
    """The records that stay. DiskError when one of them cannot be read a second time."""
    index = cut.start.next
    for record in log_scan.records(env, index, cut.end):
        if record.index > index:
            break
        yield record
        index = record.end
    if index < cut.end:
        what = f"{log_scan.directory}: entry {index} could be read, and cannot be read again"
        raise DiskError(what, path=log_scan.directory, operation="read", index=index)


def batches(records: Iterator[StoredEntry], first: int, end: int) -> Iterator[Batch]:
    """The frames of [first, end), byte for byte, in batches of one term each, and configurations
    alone (C4); a gap that reaches beyond [first, end) is cut there."""
    group: list[StoredEntry] = []
    nbytes = 0
    for record in records:
        if group and (
            record.term != group[0].term
            or nbytes > _BATCH_BYTES
            or EntryKind.CONFIGURATION in (record.kind, group[-1].kind)
        ):
            yield _batch(group, first, end)
            group, nbytes = [], 0
        group.append(record)
        nbytes += len(record.frame)
    if group:
        yield _batch(group, first, end)


def _batch(group: list[StoredEntry], first: int, end: int) -> Batch:
    frames = b"".join(record.frame + bytes(-len(record.frame) % 8) for record in group)
    span = Span(group[0].term, group[0].index, group[-1].end)
    batch = Batch.from_wire(frames, span)
    return batch.slice(max(span.first, first), min(span.end, end))
