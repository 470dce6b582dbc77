"""Looking into a log directory without opening it: while its server runs, or after.

Nothing is locked, made or repaired. `entries`, `verify` and `compare` take a log's directory or
a member's (whose log lies in `log/`). Every frame's checksum is computed from its bytes.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from os import PathLike, fspath
from typing import NamedTuple, cast

from copycat.errors import CorruptLogError, StorageError
from copycat.log._native import Env, crc32c
from copycat.log.hard_state import HARD_STATE_FILES, read_copy
from copycat.log.records import (
    DATA_OFFSET,
    FRAME,
    GAP,
    KIND_GAP,
    KIND_MARK,
    MARK_SIZE,
    Row,
    manifest_generation,
    read_manifest,
    read_mark,
    read_segment_header,
)

__all__ = [
    "Damage",
    "Difference",
    "StoredEntry",
    "VerifyReport",
    "compare",
    "entries",
    "segments",
    "verify",
]

_HEADER = FRAME.size
_LAST_ENTRY_KIND = 10
_ZEROS = bytes(8)
_END = "the file ends"
_PENDING = re.compile(r"manifest-(\d+)\.pending")


class StoredEntry(NamedTuple):
    """One frame as it lies on the disk."""

    index: int  # type: ignore[assignment]  # shadows tuple.index on purpose
    term: int
    kind: int
    time_ms: int
    crc: int
    frame: bytes
    """Header and payload, without padding: byte for byte what every member must hold."""
    path: str
    offset: int

    @property
    def payload(self) -> bytes:
        """Without the header; a command's begins with its envelope."""
        return self.frame[_HEADER:]


_make = cast("Callable[[type[StoredEntry], tuple[object, ...]], StoredEntry]", tuple.__new__)
# Builds an entry without the Python frame of its own constructor.


class Damage(NamedTuple):
    """Bytes that were durable once and cannot be read now. `index` is 0 when unknown."""

    path: str
    offset: int
    index: int  # type: ignore[assignment]  # shadows tuple.index on purpose
    what: str


class VerifyReport(NamedTuple):
    """What a walk over every frame found. Sizes in bytes."""

    path: str
    segments: int
    first_index: int
    last_index: int
    last_term: int
    nbytes: int
    torn_bytes: int
    """Behind the last good frame of the tail; never durable, dropped at the next open."""
    damage: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        """True when nothing that was durable is unreadable."""
        return not self.damage


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
    return _rows(disk, _log_directory(disk, fspath(path)))


def entries(
    path: str | PathLike[str], first: int = 1, *, env: Env | None = None
) -> Iterator[StoredEntry]:
    """Entries from `first` on, each one checked. CorruptLogError at the first damage."""
    disk = env or Env()
    directory = _log_directory(disk, fspath(path))
    for row in _rows(disk, directory):
        if row.sealed and row.last_index < first:
            continue
        walk = _Walk(disk, directory, row)
        if row.first_index >= first:
            yield from walk
        else:
            yield from (entry for entry in walk if entry.index >= first)
        if walk.damage is not None:
            raise CorruptLogError(
                f"{walk.damage.path}: entry {walk.damage.index} at offset {walk.damage.offset}: "
                f"{walk.damage.what}",
                path=walk.damage.path,
                offset=walk.damage.offset,
                index=walk.damage.index,
            )


def verify(path: str | PathLike[str], *, env: Env | None = None) -> VerifyReport:
    """Read every byte that counts and name each damage by file, offset and index."""
    disk = env or Env()
    directory = _log_directory(disk, fspath(path))
    damage: list[Damage] = []
    try:
        rows = _rows(disk, directory)
    except StorageError as error:
        rows = []
        damage.append(_damage_of(error, f"{directory}/manifest"))
    first_index = rows[0].first_index if rows else 0
    last_index, last_term, nbytes, torn = first_index - 1 if rows else 0, 0, 0, 0
    for row in rows:
        walk = _Walk(disk, directory, row)
        for entry in walk:
            last_index, last_term = entry.index, entry.term
            nbytes += len(entry.frame)
        torn += walk.torn_bytes
        if walk.damage is not None:
            damage.append(walk.damage)
    damage += _member_damage(disk, fspath(path))
    return VerifyReport(
        path=fspath(path),
        segments=len(rows),
        first_index=first_index,
        last_index=last_index,
        last_term=last_term,
        nbytes=nbytes,
        torn_bytes=torn,
        damage=tuple(damage),
    )


def compare(
    paths: Sequence[str | PathLike[str]], upto: int, *, first: int = 1, env: Env | None = None
) -> Difference | None:
    """The first of entries [first, upto] that is not byte-identical in all `paths`, or None.

    An entry that one log lacks, trimmed or not yet there, is a difference.
    """
    names = [fspath(path) for path in paths]
    walks = [entries(path, first, env=env) for path in names]
    expected = first
    for found in zip_longest(*walks):
        if expected > upto:
            return None
        frames = {entry.frame if entry is not None else b"" for entry in found}
        if len(frames) != 1 or found[0] is None or found[0].index != expected:
            here = tuple(
                (name, entry if entry is not None and entry.index == expected else None)
                for name, entry in zip(names, found, strict=True)
            )
            return Difference(expected, here)
        expected += 1
    if expected > upto:
        return None
    return Difference(expected, tuple((name, None) for name in names))


class _Walk:
    """The entries of one segment, in order; afterwards what stopped it."""

    def __init__(self, env: Env, directory: str, row: Row) -> None:
        self.path = f"{directory}/{row.name}"
        self.damage: Damage | None = None
        self.torn_bytes = 0
        self._row = row
        self._env = env

    def __iter__(self) -> Iterator[StoredEntry]:
        row = self._row
        try:
            data = self._env.read_file(self.path)
            read_segment_header(data, row, self.path)
        except (StorageError, FileNotFoundError) as error:
            self.damage = _damage_of(error, self.path, row.first_index)
            return
        end = row.end_offset if row.sealed else len(data)
        offset, index, fault = DATA_OFFSET, row.first_index, _END
        while offset + _HEADER <= min(end, len(data)):
            if row.sealed and index > row.last_index:
                return
            if data[offset + 30] == KIND_MARK:
                fault = "a mark fails its checksum"
                if read_mark(data, offset, row.uuid) is None:
                    break
                offset += MARK_SIZE
                continue
            entry, fault = _frame(data, offset, index, self.path)
            if entry is None:
                break
            offset += (len(entry.frame) + 7) & ~7
            if entry.kind == KIND_GAP:
                index = GAP.unpack(entry.payload)[0]
                continue
            yield entry
            index += 1
        self._stopped(data, offset, index, fault)

    def _stopped(self, data: bytes, offset: int, index: int, fault: str) -> None:
        """Nothing readable at `offset`, where entry `index` would be: an end, torn, or rot?"""
        if self._row.sealed:
            if index <= self._row.last_index:
                self.damage = Damage(self.path, offset, index, fault)
            return
        rest = data[offset:].rstrip(b"\0")
        if not rest:
            return
        if _convicted(data, offset, index, self._row.uuid):
            self.damage = Damage(self.path, offset, index, f"{fault}, and it was durable")
        else:
            self.torn_bytes = len(rest)


def _frame(
    data: bytes, offset: int, index: int, path: str
) -> tuple[StoredEntry, str] | tuple[None, str]:
    crc, size, found, term, time_low, time_high, kind, flags = FRAME.unpack_from(data, offset)
    end = offset + _HEADER + size
    if end > len(data):
        return None, f"a frame of {size} bytes crosses the end of the file"
    if crc != crc32c(data[offset + 4 : end]):
        return None, f"checksum {crc:08x} does not fit"
    padding = -end % 8
    if flags or (padding and data[end : end + padding] != _ZEROS[:padding]):
        return None, "its padding or flags are not zero"
    is_gap = (
        kind == KIND_GAP and size == GAP.size and GAP.unpack(data[end - size : end])[0] > index
    )
    if found != index or not (is_gap or 1 <= kind <= _LAST_ENTRY_KIND):
        return None, f"a frame of kind {kind} with index {found} stands here"
    time_ms = time_high << 16 | time_low
    frame = data[offset:end]
    return _make(StoredEntry, (index, term, kind, time_ms, crc, frame, path, offset)), _END


def _convicted(data: bytes, offset: int, index: int, uuid: bytes) -> bool:
    """C6: only a later mark of this very file, whose durable_upto reaches it, convicts."""
    position = data.find(KIND_MARK, offset + 30)
    while position >= 0:
        begin = position - 30
        if begin % 8 == 0:
            mark = read_mark(data, begin, uuid)
            if mark is not None and mark.durable_upto >= index:
                return True
        position = data.find(KIND_MARK, position + 1)
    return False


def _log_directory(env: Env, path: str) -> str:
    return f"{path}/log" if env.exists(f"{path}/log") else path


def _rows(env: Env, directory: str) -> list[Row]:
    """The manifest's rows, or those of a pending one that no sync made durable so far."""
    path = f"{directory}/manifest"
    data = env.read_file(path)
    rows = read_manifest(data, path)
    proven = {row.id for row in rows if row.sealed}
    for generation in sorted(_pending(env, directory), reverse=True):
        if generation <= manifest_generation(data):
            break
        newer = _whole_rows(env, directory, generation, proven)
        if newer is not None:
            return newer
    return rows


def _pending(env: Env, directory: str) -> list[int]:
    names = (_PENDING.fullmatch(name) for name in env.list(directory))
    return [int(match[1]) for match in names if match]


def _whole_rows(env: Env, directory: str, generation: int, proven: set[int]) -> list[Row] | None:
    """The rows of a pending manifest, if all that they name beyond `proven` can be read."""
    path = f"{directory}/manifest-{generation}.pending"
    try:
        rows = read_manifest(env.read_file(path), path)
    except (StorageError, FileNotFoundError):
        return None  # torn, or its sync has come meanwhile
    for row in rows:
        if row.id in proven:
            continue
        walk = _Walk(env, directory, row)
        deque(walk, maxlen=0)
        if walk.damage is not None:
            return None
    return rows


def _damage_of(error: Exception, path: str, index: int = 0) -> Damage:
    if isinstance(error, CorruptLogError):
        return Damage(error.path or path, error.offset, error.index or index, str(error))
    return Damage(path, -1, index, str(error))


def _member_damage(env: Env, path: str) -> list[Damage]:
    """What is unreadable beside the log in a member's directory."""
    from copycat.log.identity import IDENTITY_FILES, Identity  # noqa: PLC0415 - msgspec

    found: list[Damage] = []
    for name in (*HARD_STATE_FILES, *IDENTITY_FILES):
        file = f"{path}/{name}"
        if not env.exists(file):
            continue
        try:
            if name in HARD_STATE_FILES:
                read_copy(env, file)
            else:
                Identity.decode(env.read_file(file), file)
        except StorageError as error:
            found.append(_damage_of(error, file))
    return found
