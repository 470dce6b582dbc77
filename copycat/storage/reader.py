"""Looking into a log directory without opening it: while its server runs, or after.

Nothing is locked, made or repaired. `entries`, `verify` and `compare` take a log's directory or
a member's (whose log lies in `log/`). Every frame's checksum is computed from its bytes.
"""

from __future__ import annotations

import errno
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, NamedTuple, cast

from copycat.errors import CorruptLogError, DiskError, StorageError
from copycat.paths import path_text, real_path
from copycat.storage._native import Env, crc32c
from copycat.storage.disk_format import (
    DATA_OFFSET,
    FRAME,
    GAP,
    KIND_GAP,
    KIND_MARK,
    MARK_SIZE,
    Mark,
    SegmentInfo,
    manifest_generation,
    read_manifest,
    read_mark,
    read_segment_header,
    segment_size,
)

if TYPE_CHECKING:
    from copycat.storage._native import File

__all__ = [
    "Damage",
    "Difference",
    "SegmentReader",
    "StoredEntry",
    "compare",
    "confirm_current",
    "damage_of",
    "entries",
    "follow_rows",
    "last_records",
    "log_directory",
    "named_place",
    "records",
    "rows_of",
    "segments",
]

_HEADER = FRAME.size
_LAST_ENTRY_KIND = 11
_ZEROS = bytes(8)
_READ_BYTES = 4096
"""Of the end of a segment, the first time; each further read doubles what is at hand."""
_AGAIN_BYTES = 1 << 16
"""What is read twice to see whether a file grows."""
_END = "the file ends"
_REFUSALS = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""What the system says of the process that asks, and not of the bytes."""


class StoredEntry(NamedTuple):
    """One frame as it lies on the disk: an entry, or a gap (kind GAP) of deleted entries."""

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

    @property
    def is_gap(self) -> bool:
        """True when it stands for entries that were deleted (C3)."""
        return self.kind == KIND_GAP

    @property
    def end(self) -> int:
        """One past the last index that it covers."""
        return self.index + 1 if self.kind != KIND_GAP else self._gap[0]

    @property
    def valid_from(self) -> int:
        """Of a gap: from here on a replay over it equals the full log (C22); else 0."""
        return self._gap[1] if self.kind == KIND_GAP else 0

    @property
    def _gap(self) -> tuple[int, int]:
        end, valid_from = GAP.unpack_from(self.frame, _HEADER)
        return end, valid_from


_make = cast("Callable[[type[StoredEntry], tuple[object, ...]], StoredEntry]", tuple.__new__)
# Builds an entry without the Python frame of its own constructor.


class Damage(NamedTuple):
    """Bytes that were durable once and cannot be read now. `index` is 0 when unknown.

    `row` names the fault (docs/guide/tools.md says what to do for each): F2 an entry, F3 a
    file or manifest, F5 one of two copies, F6 both copies of the vote, F7 the identity, F14 an
    index file (nothing is lost), F17 a snapshot.
    """

    path: str
    offset: int
    index: int  # type: ignore[assignment]  # shadows tuple.index on purpose
    what: str
    row: str = "F2"


def damage_of(error: Exception, path: str, index: int = 0, row: str = "F2") -> Damage:
    """What a reader raised, as damage.

    A DiskError that says nothing of the bytes is raised again: who may not read a file, or has
    no descriptor or memory left for it, does not know whether it is whole.
    """
    if isinstance(error, DiskError) and error.errno in _REFUSALS:
        raise error
    if isinstance(error, CorruptLogError):
        return Damage(error.path or path, error.offset, error.index or index, str(error), row)
    return Damage(path, -1, index, str(error), row)


class _Moved(Exception):
    """The file changed under the reader: what looked like damage is to be read again."""


class SegmentReader:
    """The entries and gaps of one segment, in order; afterwards what stopped it.

    start: (offset, index) of a record that an earlier walk of the same row ended at.

    only_new: for a follower that has read everything before `start`. Of the file nothing before
    that offset is read but the header, and behind the end no more than a block: a stretch of
    zeros there is not searched for marks that prove it to be damage. Whoever looks for damage
    must not set it.
    """

    def __init__(
        self,
        env: Env,
        directory: str,
        row: SegmentInfo,
        start: tuple[int, int] | None = None,
        *,
        only_new: bool = False,
    ) -> None:
        self.path = f"{directory}/{row.name}"
        self.damage: Damage | None = None
        self.is_missing = False
        """The file is not there (any more): it was rewritten, trimmed, or lost."""
        self.is_replaced = False
        """Deleted, and no manifest names it any more (`confirm_current`)."""
        self.torn_bytes = 0
        self.nbytes = 0
        """Of the file."""
        self.position = start or (DATA_OFFSET, row.first_index)
        """(offset, index) of where the next record stands, or would stand."""
        self._block: tuple[int, str] | None = None
        """(offset, what) of the first bad block of a packed segment."""
        self._row = row
        self._env = env
        self._only_new = only_new and not row.packed
        self._data = b""
        self._base = 0
        """Offset in the plain segment of the first byte of `_data`."""
        self._size = 0
        """Bytes of the plain segment."""
        self._size_min = 0
        """Bytes that the plain segment should have, as its header says."""
        self._file: File | None = None
        """Where the rest of the segment is read from; None when `_data` is all of it."""

    def __iter__(self) -> Iterator[StoredEntry]:
        while True:
            try:
                self._open()
            except (StorageError, FileNotFoundError) as error:
                self.is_missing = isinstance(error, FileNotFoundError)
                row = "F3" if self.is_missing else "F2"
                self.damage = damage_of(error, self.path, self._row.first_index, row)
                return
            try:
                yield from self._records()
            except _Moved:
                continue
            self._data = b""
            return

    def _open(self) -> None:
        """Read the header, and the rest of the segment unless it is read piece by piece."""
        if self._only_new:
            self._file = self._env.open(self.path)
            self._size = self.nbytes = self._file.size()
            self._data = self._file.read(0, DATA_OFFSET)
        else:
            self._data = self._read()
            self._size = len(self._data)
        read_segment_header(self._data, self._row, self.path)
        self._size_min = segment_size(self._data)
        if self._only_new:
            self._data = b""
            self._base = self.position[0]

    def _more(self, end: int) -> bytes:
        """`_data`, with all bytes below offset `end` that there are, and some more."""
        begin = self._base + len(self._data)
        if self._file is not None and begin < min(end, self._size):
            size = max(end - begin, len(self._data), _READ_BYTES)
            self._data += self._file.read(begin, min(size, self._size - begin))
        return self._data

    def _read(self) -> bytes:
        """The plain segment; what a damaged block of a packed one cut short is told later."""
        data = self._env.read_file(self.path)
        self.nbytes = len(data)
        if not self._row.packed:
            return data
        from copycat.storage.disk_format import unpacked  # noqa: PLC0415 - lz4

        content = unpacked(data, self._row, self.path)
        if content.offset >= 0:
            self._block = (content.offset, content.fault)
            if len(content.data) < DATA_OFFSET:
                raise CorruptLogError(
                    f"{self.path}: {content.fault}",
                    path=self.path,
                    offset=content.offset,
                    index=self._row.first_index,
                )
        return content.data

    def _records(self) -> Iterator[StoredEntry]:
        row, data, base = self._row, self._data, self._base
        limit = min(row.end_offset if row.sealed else self._size, self._size)
        offset, index = self.position
        fault = _END
        mark: Mark | None = None
        group, sums = 0, bytearray()
        while offset + _HEADER <= limit:
            if row.sealed and index > row.last_index:
                break
            if self._file is not None:
                data = self._more(offset + _HEADER)
                size = _payload_size(data, offset - base)
                data = self._more(offset + _HEADER + ((size + 7) & ~7))
                if len(data) < offset - base + _HEADER:
                    break  # the file became shorter
            if data[offset - base + 30] == KIND_MARK:
                mark = read_mark(data, offset, row.uuid, base)
                if mark is None:
                    fault = "a mark fails its checksum"
                    break
                offset += MARK_SIZE
                group = offset
                sums.clear()
                continue
            entry, fault = _frame(data, offset, index, self.path, base)
            if entry is None:
                break
            yield entry
            if mark is not None:
                sums += data[offset - base : offset - base + 4]
            offset += (len(entry.frame) + 7) & ~7
            index = entry.end
            self.position = (offset, index)
            if mark is not None and offset - group >= mark.size:
                if offset - group == mark.size and crc32c(sums) != mark.frames_hash:
                    offset, index = group - MARK_SIZE, mark.first_index
                    fault = "these are not the frames that their mark covers"
                    break
                mark = None
        self._stopped(offset, index, fault)

    def _stopped(self, offset: int, index: int, fault: str) -> None:
        """Nothing readable at `offset`, where entry `index` would be: an end, torn, or rot?"""
        if self._row.sealed:
            if index <= self._row.last_index:
                at, what = self._block or (offset, fault)
                self.damage = Damage(self.path, at, index, what)
            return
        at = offset - self._base
        if any(self._data[at : at + _HEADER]):
            self._more(self._size)
        data = self._data
        if _is_proven_durable(data, at, index, self._row.uuid, self._base):
            if self._is_growing(data[at : at + _AGAIN_BYTES], offset):
                raise _Moved
            self.damage = Damage(self.path, offset, index, f"{fault}, and it was durable")
            return
        if self._size < self._size_min:
            # It had all of them before the manifest named it (check_header).
            what = f"the file has {self._size:,} of at least {self._size_min:,} bytes"
            self.damage = Damage(self.path, self._size, index, what, "F3")
            return
        self.torn_bytes = len(data[at:].rstrip(b"\0"))

    def _is_growing(self, data: bytes, offset: int) -> bool:
        """One read of a file is no snapshot of it: its front may be older than its back."""
        again = self._env.open(self.path).read(offset, _AGAIN_BYTES)
        return again != data[: len(again)]


def _payload_size(data: bytes, at: int) -> int:
    """What the frame whose header is at `at` says of its payload; 0 without a header."""
    return int(FRAME.unpack_from(data, at)[1]) if at + _HEADER <= len(data) else 0


def _frame(
    data: bytes, offset: int, index: int, path: str, base: int
) -> tuple[StoredEntry, str] | tuple[None, str]:
    """The frame at `offset` of a segment of which `data` begins at `base`."""
    at = offset - base
    crc, size, frame_index, term, time_low, time_high, kind, flags = FRAME.unpack_from(data, at)
    end = at + _HEADER + size
    if end > len(data):
        return None, f"a frame of {size} bytes crosses the end of the file"
    if crc != crc32c(data[at + 4 : end]):
        return None, f"checksum {crc:08x} does not fit"
    padding = -end % 8
    if flags or (padding and data[end : end + padding] != _ZEROS[:padding]):
        return None, "its padding or flags are not zero"
    is_gap = (
        kind == KIND_GAP and size == GAP.size and GAP.unpack_from(data, end - 16)[0] > frame_index
    )
    if frame_index != index or not (1 <= kind <= _LAST_ENTRY_KIND or is_gap):
        return None, f"a frame of kind {kind} with index {frame_index} stands here"
    time_ms = time_high << 16 | time_low
    frame = data[at:end]
    return _make(StoredEntry, (index, term, kind, time_ms, crc, frame, path, offset)), _END


def _is_proven_durable(data: bytes, at: int, index: int, uuid: bytes, base: int) -> bool:
    """C6: whether a later mark of this very file says that entry `index` was durable.

    `at`: where in `data`, which begins at offset `base` of the segment.
    """
    position = data.find(KIND_MARK, at + 30)
    while position >= 0:
        begin = position - 30
        if begin % 8 == 0:
            mark = read_mark(data, base + begin, uuid, base)
            if mark is not None and mark.durable_upto >= index:
                return True
        position = data.find(KIND_MARK, position + 1)
    return False


_PENDING = re.compile(r"manifest-(\d+)\.pending")


def named_place(path: str | PathLike[str], env: Env | None) -> str:
    """What a caller means by `path` now; on an Env of its own, as it is. ConfigurationError."""
    return real_path(path) if env is None else fspath(path)


def log_directory(env: Env, path: str) -> str:
    """`path`, or its `log/` when it is a member's."""
    return f"{path}/log" if env.exists(f"{path}/log") else path


def rows_of(
    env: Env, directory: str, verified: dict[str, bytes] | None = None
) -> list[SegmentInfo]:
    """The manifest's rows, or those of a pending one that no sync made durable so far.

    A pending manifest counts when all that it names can be read. verified: pending manifests
    whose files were read, by path, so that the next call need not read them again.
    CorruptLogError, FormatVersionError; FileNotFoundError when no log is there.
    """
    if verified is None:
        verified = {}
    path = f"{directory}/manifest"
    while True:
        data = env.read_file(path)
        rows = _newest_rows(env, directory, data, verified)
        if env.read_file(path) == data:
            return rows  # else a pending one may have taken its place unseen: the log continued


def _newest_rows(
    env: Env, directory: str, data: bytes, verified: dict[str, bytes]
) -> list[SegmentInfo]:
    rows = read_manifest(data, f"{directory}/manifest")
    proven = {row.id for row in rows if row.sealed}
    for generation in sorted(_pending(env, directory), reverse=True):
        if generation <= manifest_generation(data):
            break
        newer = _whole_rows(env, directory, generation, proven, verified)
        if newer is not None:
            return newer
    return rows


def follow_rows(
    env: Env, directory: str, first: int = 1
) -> Iterator[tuple[SegmentInfo, SegmentReader]]:
    """Each row that may hold an index from `first` on, with a reader whose end
    is to be checked by `confirm_current`.

    After a file that was replaced meanwhile, the newest manifest's rows behind what was read.
    """
    rows = rows_of(env, directory)
    position = first
    while rows:
        row, *rows = rows
        if row.sealed and row.last_index < position:
            continue
        walk = SegmentReader(env, directory, row)
        yield row, walk
        position = max(position, walk.position[1])
        if walk.is_replaced:
            rows = rows_of(env, directory)


def confirm_current(env: Env, directory: str, row: SegmentInfo, walk: SegmentReader) -> bool:
    """After a walk: False when its file was rewritten or trimmed away meanwhile (no damage).

    Only a file that the newest manifest names is missed.
    """
    if walk.is_missing and row not in rows_of(env, directory):
        walk.is_replaced = True
        walk.damage = None
    return not walk.is_replaced


def _pending(env: Env, directory: str) -> list[int]:
    names = (_PENDING.fullmatch(name) for name in env.list(directory))
    return [int(match[1]) for match in names if match]


def _whole_rows(
    env: Env, directory: str, generation: int, proven: set[int], verified: dict[str, bytes]
) -> list[SegmentInfo] | None:
    """The rows of a pending manifest, if all that they name beyond `proven` can be read."""
    path = f"{directory}/manifest-{generation}.pending"
    try:
        data = env.read_file(path)
        rows = read_manifest(data, path)
    except (StorageError, FileNotFoundError):
        return None  # torn, or its sync has come meanwhile
    if verified.get(path) == data:
        return rows
    for row in rows:
        if row.id in proven:
            continue
        walk = SegmentReader(env, directory, row)
        drain: deque[StoredEntry] = deque(maxlen=0)
        drain.extend(walk)
        if walk.damage is not None:
            return None
    verified.clear()  # an older one is not asked for again
    verified[path] = data
    return rows


class Difference(NamedTuple):
    """The first index at which several logs do not hold the same bytes."""

    index: int  # type: ignore[assignment]  # shadows tuple.index on purpose
    entries: tuple[tuple[str, StoredEntry | None], ...]
    """Each log's path with its entry; None where the log has none."""

    def describe(self) -> str:
        """One line a log."""
        lines = [f"entry {self.index} differs:"]
        for path, entry in self.entries:
            text = (
                "no such entry"
                if entry is None
                else f"term {entry.term} kind {entry.kind} crc {entry.crc:08x} "
                f"{entry.frame.hex(' ', 8)[:200]}"
            )
            lines.append(f"  {path}: {text}")
        return "\n".join(lines)


def segments(path: str | PathLike[str], *, env: Env | None = None) -> list[SegmentInfo]:
    """The manifest's rows, oldest first; the last one is the tail."""
    disk = env or Env()
    return rows_of(disk, log_directory(disk, path_text(path)))


def records(
    path: str | PathLike[str], first: int = 1, *, env: Env | None = None
) -> Iterator[StoredEntry]:
    """Entries and gaps that reach to `first` or beyond, in order, each one checked.

    A gap may begin below `first`. CorruptLogError at the first damage.
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
        if confirm_current(disk, directory, row, walk):
            _refuse(walk)


def entries(
    path: str | PathLike[str], first: int = 1, *, env: Env | None = None
) -> Iterator[StoredEntry]:
    """Entries from `first` on, without the gaps. CorruptLogError at the first damage."""
    return (record for record in records(path, first, env=env) if not record.is_gap)


def last_records(
    path: str | PathLike[str],
    count: int,
    predicate: Callable[[StoredEntry], bool] | None = None,
    *,
    env: Env | None = None,
) -> list[StoredEntry]:
    """The last `count` records that satisfy `predicate`, in order. Reads no segment in vain.

    CorruptLogError at the first damage in those.
    """
    disk = env or Env()
    directory = log_directory(disk, path_text(path))
    last: list[StoredEntry] = []
    rows = rows_of(disk, directory)
    while rows and len(last) < count:
        row = rows.pop()
        walk = SegmentReader(disk, directory, row)
        newest: deque[StoredEntry] = deque(maxlen=count - len(last))
        newest.extend(record for record in walk if predicate is None or predicate(record))
        if not confirm_current(disk, directory, row, walk):
            return last_records(path, count, predicate, env=disk)
        _refuse(walk)
        last[:0] = newest
    return last


def compare(
    paths: Sequence[str | PathLike[str]], upto: int, *, first: int = 1, env: Env | None = None
) -> Difference | None:
    """The first of entries [first, upto] that is not byte-identical in all `paths`, or None.

    An entry that one log lacks, trimmed or not yet there, is a difference; an entry that cleaning
    deleted from any of the logs (a gap) is not compared.
    """
    names = [path_text(path) for path in paths]
    cursors = [_Cursor(records(path, first, env=env)) for path in names]
    for index in range(first, upto + 1):
        rows = [cursor.at(index) for cursor in cursors]
        if None not in rows and any(record and record.is_gap for record in rows):
            continue
        frames = {record.frame if record is not None else b"" for record in rows}
        if len(frames) != 1 or rows[0] is None:
            return Difference(index, tuple(zip(names, rows, strict=True)))
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


def _refuse(walk: SegmentReader) -> None:
    if walk.damage is not None:
        raise CorruptLogError(
            f"{walk.damage.path}: entry {walk.damage.index} at offset {walk.damage.offset}: "
            f"{walk.damage.what}",
            path=walk.damage.path,
            offset=walk.damage.offset,
            index=walk.damage.index,
        )
