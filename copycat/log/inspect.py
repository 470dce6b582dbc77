"""Looking into a log directory without opening it: while its server runs, or after.

Nothing is locked, made or repaired. `entries`, `verify` and `compare` take a log's directory or
a member's (whose log lies in `log/`). Every frame's checksum is computed from its bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from typing import NamedTuple

from copycat.errors import CorruptLogError
from copycat.log._native import Env
from copycat.log.inspect_rows import follow_rows, log_directory, named_place, rows_of, settle
from copycat.log.inspect_verify import VerifyReport, verify
from copycat.log.inspect_walk import Damage, StoredEntry, Walk
from copycat.log.records import Row
from copycat.paths import path_text

__all__ = [
    "Damage",
    "Difference",
    "StoredEntry",
    "VerifyReport",
    "compare",
    "entries",
    "last_records",
    "records",
    "segments",
    "verify",
]


class Difference(NamedTuple):
    """The first index at which several logs do not hold the same bytes."""

    index: int  # type: ignore[assignment]  # shadows tuple.index on purpose
    entries: tuple[tuple[str, StoredEntry | None], ...]
    """Each log's path with its entry; None where the log has none."""

    def describe(self) -> str:
        """One line a log."""
        lines = [f"entry {self.index} differs:"]
        for path, entry in self.entries:
            told = (
                "no such entry"
                if entry is None
                else f"term {entry.term} kind {entry.kind} crc {entry.crc:08x} "
                f"{entry.frame.hex(' ', 8)[:200]}"
            )
            lines.append(f"  {path}: {told}")
        return "\n".join(lines)


def segments(path: str | PathLike[str], *, env: Env | None = None) -> list[Row]:
    """The manifest's rows, oldest first; the last one is the tail."""
    disk = env or Env()
    return rows_of(disk, log_directory(disk, path_text(path)))


def records(
    path: str | PathLike[str], first: int = 1, *, env: Env | None = None
) -> Iterator[StoredEntry]:
    """Entries and holes that reach to `first` or beyond, in order, each one checked.

    A hole may begin below `first`. CorruptLogError at the first damage.
    """
    named = named_place(path, env)  # now, not at the first entry
    return _records(env or Env(), named, first)


def _records(disk: Env, named: str, first: int) -> Iterator[StoredEntry]:
    position = first
    directory = log_directory(disk, named)
    for row, walk in follow_rows(disk, directory, first):
        for record in walk:
            if record.end > position:
                yield record
                position = record.end
        if settle(disk, directory, row, walk):
            _refuse(walk)


def entries(
    path: str | PathLike[str], first: int = 1, *, env: Env | None = None
) -> Iterator[StoredEntry]:
    """Entries from `first` on, without the holes. CorruptLogError at the first damage."""
    return (record for record in records(path, first, env=env) if not record.is_hole)


def last_records(
    path: str | PathLike[str],
    count: int,
    wanted: Callable[[StoredEntry], bool] | None = None,
    *,
    env: Env | None = None,
) -> list[StoredEntry]:
    """The last `count` records that are `wanted`, in order; reads no more segments than needed.

    CorruptLogError at the first damage in those.
    """
    disk = env or Env()
    directory = log_directory(disk, path_text(path))
    found: list[StoredEntry] = []
    rows = rows_of(disk, directory)
    while rows and len(found) < count:
        row = rows.pop()
        walk = Walk(disk, directory, row)
        kept: deque[StoredEntry] = deque(maxlen=count - len(found))
        kept.extend(record for record in walk if wanted is None or wanted(record))
        if not settle(disk, directory, row, walk):
            return last_records(path, count, wanted, env=disk)
        _refuse(walk)
        found[:0] = kept
    return found


def compare(
    paths: Sequence[str | PathLike[str]], upto: int, *, first: int = 1, env: Env | None = None
) -> Difference | None:
    """The first of entries [first, upto] that is not byte-identical in all `paths`, or None.

    An entry that one log lacks, trimmed or not yet there, is a difference; one that cleaning
    let go in any log (a hole) is not compared.
    """
    names = [path_text(path) for path in paths]
    cursors = [_Cursor(records(path, first, env=env)) for path in names]
    for index in range(first, upto + 1):
        found = [cursor.at(index) for cursor in cursors]
        if None not in found and any(record and record.is_hole for record in found):
            continue
        frames = {record.frame if record is not None else b"" for record in found}
        if len(frames) != 1 or found[0] is None:
            return Difference(index, tuple(zip(names, found, strict=True)))
    return None


class _Cursor:
    """The record that covers an index, of indexes that only grow."""

    def __init__(self, source: Iterator[StoredEntry]) -> None:
        self._source = source
        self._now: StoredEntry | None = next(source, None)

    def at(self, index: int) -> StoredEntry | None:
        while self._now is not None and self._now.end <= index:
            self._now = next(self._source, None)
        return self._now if self._now is not None and self._now.index <= index else None


def _refuse(walk: Walk) -> None:
    if walk.damage is not None:
        raise CorruptLogError(
            f"{walk.damage.path}: entry {walk.damage.index} at offset {walk.damage.offset}: "
            f"{walk.damage.what}",
            path=walk.damage.path,
            offset=walk.damage.offset,
            index=walk.damage.index,
        )
