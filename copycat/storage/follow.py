"""Following a log that another process writes: each poll reads what is new, and reports cuts."""

from __future__ import annotations

from os import PathLike
from typing import NamedTuple

from copycat.errors import CorruptLogError
from copycat.storage._native import Env
from copycat.storage.disk_format import FRAME, SegmentInfo
from copycat.storage.reader import (
    SegmentReader,
    StoredEntry,
    confirm_current,
    log_directory,
    named_place,
    rows_of,
)

__all__ = ["Follower", "News"]


class News(NamedTuple):
    """What a poll found."""

    rewound_to: int
    """0, or the last entry that stayed when those above it were truncated and written anew."""
    records: list[StoredEntry]


class _End(NamedTuple):
    """Where the last walk of a segment ended."""

    uuid: bytes
    position: tuple[int, int]
    """(offset, index) of the next record."""
    last: tuple[int, bytes] | None
    """(offset, header) of the record before it; None when there is none."""


def _position_of(record: StoredEntry) -> tuple[int, bytes]:
    return record.offset, record.frame[: FRAME.size]


class Follower:
    """Records from `first` on, as they are appended (durable or not).

    A poll that finds nothing new reads the manifest, and of the newest segment two headers of
    frames: that of the last record, to see that the file is still the same, and where the next
    record would be. Otherwise it reads what follows, and the segment's header once more.
    """

    def __init__(self, path: str | PathLike[str], first: int, *, env: Env | None = None) -> None:
        self._env = env or Env()
        named = named_place(path, env)
        self._directory = log_directory(self._env, named)
        self._next = first
        self._verified: dict[str, bytes] = {}
        """See `rows_of`."""
        rows = rows_of(self._env, self._directory, self._verified)
        self._seen = {row.uuid for row in rows}
        self._end: _End | None = None

    def poll(self) -> News:
        """What was appended since the last poll. CorruptLogError at damage."""
        rows = rows_of(self._env, self._directory, self._verified)
        rewound_to = self._rewind(rows)
        records: list[StoredEntry] = []
        for row in rows:
            if row.sealed and row.last_index < self._next:
                continue
            walk = self._walk(row)
            if walk is None:
                continue
            last_record: StoredEntry | None = None
            for last_record in walk:
                if last_record.end > self._next:
                    records.append(last_record)
            if not confirm_current(self._env, self._directory, row, walk):
                break  # the next poll reads what replaced it
            self._next = max(self._next, walk.position[1])
            last = _position_of(last_record) if last_record else self._last_of(row)
            self._end = _End(row.uuid, walk.position, last)
            if walk.damage is not None:
                raise CorruptLogError(
                    f"{walk.path}: entry {walk.damage.index}: {walk.damage.what}",
                    path=walk.path,
                    offset=walk.damage.offset,
                    index=walk.damage.index,
                )
        return News(rewound_to, records)

    def _rewind(self, rows: list[SegmentInfo]) -> int:
        """A first version of a segment that begins below what was read is a truncation's."""
        begins = [
            row.first_index
            for row in rows
            if row.uuid not in self._seen and row.version == 1 and row.first_index < self._next
        ]
        self._seen = {row.uuid for row in rows}
        if not begins:
            return 0
        self._next = min(begins)
        self._end = None
        return self._next - 1

    def _last_of(self, row: SegmentInfo) -> tuple[int, bytes] | None:
        end = self._end
        return end.last if end is not None and end.uuid == row.uuid else None

    def _walk(self, row: SegmentInfo) -> SegmentReader | None:
        """A walk from where the last one ended; None while nothing new stands there."""
        end = self._end
        if end is None or end.uuid != row.uuid:
            return SegmentReader(self._env, self._directory, row)
        try:
            file = self._env.open(f"{self._directory}/{row.name}")
            if not row.packed and end.last is not None:
                offset, header = end.last
                if file.read(offset, len(header)) != header:  # it is not the file that was read
                    self._end = None
                    return SegmentReader(self._env, self._directory, row)
            if not row.sealed and not any(file.read(end.position[0], FRAME.size)):
                return None
        except FileNotFoundError:
            if not row.sealed:
                return None
        return SegmentReader(self._env, self._directory, row, end.position, only_new=True)
