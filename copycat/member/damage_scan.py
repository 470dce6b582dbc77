"""The damage scan: which entries of a damaged log can be read, and which it is known to have held.

The scan changes nothing. It reads every byte with a `SegmentReader`. Behind damage it continues at
the next mark: the checksum of a mark covers the file's uuid and the mark's own offset, so no bytes
that a client stored look like a mark (C5). Where the end of the log is not known, the scan assumes
that the log held more entries (F2, F3).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from copycat.errors import CorruptLogError
from copycat.member.markers import INDEX_MAX
from copycat.storage.disk_format import (
    DATA_OFFSET,
    KIND_MARK,
    Mark,
    SegmentInfo,
    read_mark,
)
from copycat.storage.reader import Damage, SegmentReader, StoredEntry, damage_of, rows_of
from copycat.types import NO_ENTRY, EntryId

if TYPE_CHECKING:
    from copycat.storage._native import Env

__all__ = ["LogScan", "Loss", "Run", "marks", "scan"]


class Run(NamedTuple):
    """Consecutive readable records of one file, of the indexes [first, end)."""

    row: SegmentInfo
    offset: int
    first: int
    end: int


class Loss(NamedTuple):
    """Indexes [first, end) that cannot be read, and why."""

    first: int
    end: int
    damage: Damage


class LogScan(NamedTuple):
    """A log directory as it can be read. Indexes as in `copycat.types`."""

    directory: str
    before: EntryId
    """The entry right before the first one that the manifest knows."""
    runs: tuple[Run, ...]
    losses: tuple[Loss, ...]
    """In order of their first index."""
    last_index: int
    """The last entry that the log is known to have held; INDEX_MAX when that is not known."""
    last_term: int
    """The term of that entry; 0 when it is not known."""

    def term_at(self, env: Env, index: int) -> int:
        """The term of entry `index` if it can be read or is `before`; 0 for any other."""
        if index == self.before.index:
            return self.before.term
        return next((record.term for record in self.records(env, index, index + 1)), 0)

    def records(self, env: Env, first: int, end: int) -> Iterator[StoredEntry]:
        """The readable records that reach into [first, end), in order."""
        for run in self.runs:
            if run.end <= first or run.first >= end:
                continue
            for record in SegmentReader(env, self.directory, run.row, (run.offset, run.first)):
                if record.index >= min(end, run.end):
                    break
                if record.end > first:
                    yield record


def scan(env: Env, directory: str, reported: CorruptLogError | None = None) -> LogScan:
    """Read the whole log in `directory`; nothing is changed.

    reported: damage that an earlier read met; it counts even if the bytes look good now.
    FormatVersionError; DiskError when the directory itself cannot be read.
    """
    try:
        rows = rows_of(env, directory)
    except (CorruptLogError, FileNotFoundError) as error:
        damage = damage_of(error, f"{directory}/manifest", row="F3")
        loss = Loss(1, INDEX_MAX, damage)
        return LogScan(directory, NO_ENTRY, (), (loss,), INDEX_MAX, 0)
    reader = _Reader(env, directory)
    for row in rows:
        reader.read(row)
    if reported is not None:
        reader.add_reported(rows, reported)
    before = EntryId(rows[0].prev_term, rows[0].first_index - 1) if rows else NO_ENTRY
    losses = tuple(sorted(reader.losses))
    return LogScan(directory, before, tuple(reader.runs), losses, *reader.known_end(before))


class _Reader:
    """Collects readable runs and losses, file by file."""

    def __init__(self, env: Env, directory: str) -> None:
        self._env = env
        self._directory = directory
        self.runs: list[Run] = []
        self.losses: list[Loss] = []
        self._last_index = 0
        self._terms: dict[int, int] = {}
        """Terms by index, of entries at which a run ends or that a manifest row names."""

    def known_end(self, before: EntryId) -> tuple[int, int]:
        """(index, term) of the last entry that the log is known to have held; term 0: unknown."""
        if self._last_index <= before.index:
            return before.index, before.term
        return self._last_index, self._terms.get(self._last_index, 0)

    def _knows(self, index: int, term: int = 0) -> None:
        self._last_index = max(self._last_index, index)
        if term:
            self._terms[index] = term

    def read(self, row: SegmentInfo) -> None:
        """Read one segment: add its readable runs, and the losses between and behind them."""
        if row.first_index > 1:
            self._knows(row.first_index - 1, row.prev_term)
        if row.sealed:
            self._knows(row.last_index)
        offset, index = DATA_OFFSET, row.first_index
        while True:
            walk = SegmentReader(self._env, self._directory, row, (offset, index))
            term = 0
            for record in walk:
                term = record.term
            damage = walk.damage
            end = walk.position[1] if damage is None else damage.index
            if row.sealed:
                end = min(end, row.last_index + 1)  # it may have been cut inside its last gap
            if end > index:
                last = term if damage is None else self._term_before(row, offset, index, end)
                self.runs.append(Run(row, offset, index, end))
                self._knows(end - 1, last)
            if damage is None:
                return None
            has_marks = damage.offset >= DATA_OFFSET and not row.packed
            mark = self._next_mark(row, damage) if has_marks else None
            if mark is None:
                return self._lose_rest(row, damage)
            self.losses.append(Loss(damage.index, mark[1].first_index, damage))
            offset, index = mark[0], mark[1].first_index

    def _term_before(self, row: SegmentInfo, offset: int, first: int, end: int) -> int:
        """The term of the last readable record below `end`. The reader may have yielded records
        above `end` before it found that their mark does not cover them."""
        term = 0
        for record in SegmentReader(self._env, self._directory, row, (offset, first)):
            if record.index >= end:
                break
            term = record.term
        return term

    def _next_mark(self, row: SegmentInfo, damage: Damage) -> tuple[int, Mark] | None:
        """The first mark behind the damage from which on the file can be read again."""
        data = self._env.read_file(f"{self._directory}/{row.name}")
        limit = row.end_offset if row.sealed else len(data)
        for offset, mark in marks(data[:limit], damage.offset, row.uuid):
            self._knows(max(mark.durable_upto, mark.first_index - 1))
            is_inside = not row.sealed or mark.first_index <= row.last_index
            if mark.first_index > damage.index and is_inside:
                return offset, mark
        return None

    def _lose_rest(self, row: SegmentInfo, damage: Damage) -> None:
        """Nothing more can be read in this file: the rest of its entries is lost.

        Frames of a tail are damage only if a later mark says that they were durable (C6), and
        reading would continue at that mark. So here the header of the tail is bad, or its file was
        cut or is missing, and how many entries it held is not known.
        """
        last_index = row.last_index if row.sealed else INDEX_MAX
        self._knows(last_index)
        self.losses.append(Loss(damage.index, min(last_index, INDEX_MAX - 1) + 1, damage))

    def add_reported(self, rows: list[SegmentInfo], reported: CorruptLogError) -> None:
        """Add the damage that an earlier read reported, unless this scan met it too."""
        if any(loss.first <= reported.index < loss.end for loss in self.losses):
            return
        if reported.index >= 1:
            if rows and rows[0].first_index <= reported.index <= self._last_index:
                damage = damage_of(reported, self._directory, reported.index)
                self.losses.append(Loss(reported.index, reported.index + 1, damage))
        elif not self.losses:
            self._knows(INDEX_MAX)
            damage = damage_of(reported, self._directory, 1, "F3")
            self.losses.append(Loss(1, INDEX_MAX, damage))


def marks(data: bytes, offset: int, uuid: bytes) -> Iterator[tuple[int, Mark]]:
    """(offset, mark) of every mark of the segment `uuid` in `data`, from `offset` on."""
    position = data.find(KIND_MARK, offset + 30)
    while position >= 0:
        begin = position - 30
        if begin % 8 == 0:
            mark = read_mark(data, begin, uuid)
            if mark is not None:
                yield begin, mark
        position = data.find(KIND_MARK, position + 1)
