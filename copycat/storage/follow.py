"""Following a log that another process writes: polls, and a truncation is told."""

from __future__ import annotations

from os import PathLike
from typing import NamedTuple

from copycat.errors import CorruptLogError
from copycat.storage._native import Env
from copycat.storage.disk_format import SegmentInfo
from copycat.storage.reader import (
    SegmentReader,
    StoredEntry,
    confirm_current,
    is_there,
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


class Follower:
    """Records from `first` on, as they are appended (durable or not)."""

    def __init__(self, path: str | PathLike[str], first: int, *, env: Env | None = None) -> None:
        self._env = env or Env()
        named = named_place(path, env)
        self._directory = log_directory(self._env, named)
        self._next = first
        self._seen = {row.uuid for row in rows_of(self._env, self._directory)}
        self._tail: tuple[bytes, tuple[int, int]] | None = None
        """(uuid, position) of where the last walk of an unsealed segment ended."""

    def poll(self) -> News:
        """What was appended since the last poll. CorruptLogError at damage."""
        rows = rows_of(self._env, self._directory)
        rewound_to = self._rewind(rows)
        found: list[StoredEntry] = []
        for row in rows:
            if row.sealed and row.last_index < self._next:
                continue
            walk = self._walk(row)
            if walk is None:
                continue
            found += [record for record in walk if record.end > self._next]
            if not confirm_current(self._env, self._directory, row, walk):
                break  # the next poll reads what replaced it
            self._next = max(self._next, walk.position[1])
            self._tail = (row.uuid, walk.position)
            if walk.damage is not None:
                raise CorruptLogError(
                    f"{walk.path}: entry {walk.damage.index}: {walk.damage.what}",
                    path=walk.path,
                    offset=walk.damage.offset,
                    index=walk.damage.index,
                )
        return News(rewound_to, found)

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
        self._tail = None
        return self._next - 1

    def _walk(self, row: SegmentInfo) -> SegmentReader | None:
        """A walk from where the last one ended; None while nothing new stands there."""
        if self._tail is None or self._tail[0] != row.uuid:
            return SegmentReader(self._env, self._directory, row)
        position = self._tail[1]
        if not row.sealed and not is_there(self._env, self._directory, row, position):
            return None
        return SegmentReader(self._env, self._directory, row, position)
