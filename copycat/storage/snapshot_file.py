"""One snapshot as bytes in a file: written once, read back, shipped as it lies (F28).

    header      64 bytes, its own CRC32C, then the configuration
    chunks      each: stored u32, raw u32, crc u32, then `stored` bytes (LZ4 block, or raw
                when both sizes are equal); one of no bytes ends them
    footer      offset u64 of every chunk, SHA-256 of the raw bytes, CRC32C, end magic

All integers are little-endian. Every byte lies under a checksum, and no size is believed
before the checksum over it: a chunk allocates at most `CHUNK_BYTES_MAX`, whatever a file says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import lz4.block

from copycat.errors import CorruptLogError, FormatVersionError
from copycat.storage._native import crc32c
from copycat.types import EntryId

if TYPE_CHECKING:
    from copycat.storage._native import Env, File

__all__ = ["CHUNK_BYTES", "CHUNK_BYTES_MAX", "Snapshot", "Writer", "load", "verify", "write"]

CHUNK_BYTES = 1 << 20
"""Raw bytes of a chunk that is written."""
CHUNK_BYTES_MAX = 4 << 20
"""Raw bytes of a chunk that is read; more is no snapshot of ours (F28)."""
SYNC_BYTES = 8 << 20
"""A snapshot shares the disk with the log: it is synced in pieces, not in one flood."""

_MAGIC = b"COPYSNP\0"
_END_MAGIC = b"COPYSNE\0"
_VERSION_1 = 1
_VERSION = 2
_HEADER = Struct("<8sIIQQQQIIII")
"""magic, crc of what follows and of the configuration, version, index, term, time_ms, raw
size, chunk size, chunk count, configuration size, zero. Since version 2 raw size and chunk count
are zero: they are not known when the header is written."""
_CRC_END = 12
_CHUNK = Struct("<III")
_END_CHUNK = _CHUNK.pack(0, 0, crc32c(bytes(8)))
"""Behind the last chunk, since version 2."""
_OFFSET = Struct("<Q")
_FOOTER_END = Struct("<32sI8s")


class Snapshot(NamedTuple):
    """A whole snapshot on the disk. Sizes in bytes."""

    entry: EntryId
    """The last entry that it covers."""
    time_ms: int
    """Log time at that entry (C25)."""
    raw_nbytes: int
    nbytes: int
    """Of its file: what is shipped."""
    digest: bytes
    """SHA-256 of the raw bytes."""
    configuration: bytes
    """Newest committed configuration at the entry, encoded; empty while there is none (C4)."""


class _Writer:
    """Appends to a new file and syncs now and then; nothing is written twice (house rule 6)."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._unsynced = 0
        self.offset = 0

    def put(self, data: bytes) -> None:
        self._file.write(self.offset, data)
        self.offset += len(data)
        self._unsynced += len(data)
        if self._unsynced >= SYNC_BYTES:
            self.sync()

    def sync(self) -> None:
        self._file.sync()
        self._unsynced = 0


class Writer:
    """A new file at `path`, written as its bytes come. raw_nbytes: how many; None when that is
    known at the end only.

    Any one thread at a time. DiskFullError, DiskError: the file may be there, unfinished.
    """

    def __init__(
        self,
        env: Env,
        path: str,
        entry: EntryId,
        *,
        time_ms: int,
        raw_nbytes: int | None = None,
        configuration: bytes = b"",
        compress: bool = True,
    ) -> None:
        self.path = path
        self._is_known = raw_nbytes is not None
        self._entry = entry
        self._time_ms = time_ms
        self._configuration = configuration
        self._compress = compress
        self._out = _Writer(env.create(path))
        self._digest = hashlib.sha256()
        self._offsets: list[int] = []
        self._chunk = bytearray()
        self._raw_nbytes = 0
        nbytes = raw_nbytes or 0
        rest = _HEADER.pack(
            _MAGIC,
            0,
            _VERSION if raw_nbytes is None else _VERSION_1,
            entry.index,
            entry.term,
            time_ms,
            nbytes,
            CHUNK_BYTES,
            -(-nbytes // CHUNK_BYTES),
            len(configuration),
            0,
        )[_CRC_END:]
        crc = crc32c(configuration, crc32c(rest))
        self._out.put(b"".join((_MAGIC, crc.to_bytes(4, "little"), rest, configuration)))

    def put(self, data: bytes | memoryview) -> None:
        """The next raw bytes."""
        with memoryview(data) as view:
            at = 0
            while at < len(view):
                part = view[at : at + CHUNK_BYTES - len(self._chunk)]
                self._chunk += part
                at += len(part)
                if len(self._chunk) >= CHUNK_BYTES:
                    self._write_chunk()

    def _write_chunk(self) -> None:
        raw = bytes(self._chunk)
        self._chunk.clear()
        self._digest.update(raw)
        self._raw_nbytes += len(raw)
        self._offsets.append(self._out.offset)
        self._out.put(_encode_chunk(memoryview(raw), compress=self._compress))

    def finish(self) -> Snapshot:
        """That was all: write the rest and sync; the file's name is not durable yet."""
        if self._chunk:
            self._write_chunk()
        out, digest = self._out, self._digest.digest()
        if not self._is_known:
            out.put(_END_CHUNK)
        table = b"".join(map(_OFFSET.pack, self._offsets)) + digest
        crc = crc32c(table)
        out.put(b"".join((table, crc.to_bytes(4, "little"), _END_MAGIC)))
        out.sync()
        return Snapshot(
            self._entry, self._time_ms, self._raw_nbytes, out.offset, digest, self._configuration
        )


def write(
    env: Env,
    path: str,
    entry: EntryId,
    *,
    time_ms: int,
    data: bytes,
    configuration: bytes = b"",
    compress: bool = True,
) -> Snapshot:
    """Write and sync a new file at `path` that holds `data`. Errors as `Writer` has them."""
    writer = Writer(
        env,
        path,
        entry,
        time_ms=time_ms,
        raw_nbytes=len(data),
        configuration=configuration,
        compress=compress,
    )
    writer.put(data)
    return writer.finish()


def _encode_chunk(raw: memoryview, *, compress: bool) -> bytes:
    stored = lz4.block.compress(raw, store_size=False) if compress else b""
    if not compress or len(stored) >= len(raw):
        stored = bytes(raw)
    sizes = _CHUNK.pack(len(stored), len(raw), 0)[:8]
    crc = crc32c(stored, crc32c(sizes))
    return b"".join((sizes, crc.to_bytes(4, "little"), stored))


def load(env: Env, path: str) -> tuple[Snapshot, bytes]:
    """The snapshot and its raw bytes, all checked. CorruptLogError, FormatVersionError."""
    parts: list[bytes] = []
    snapshot = _read(env, path, parts.append)
    return snapshot, b"".join(parts)


def verify(env: Env, path: str) -> Snapshot:
    """Check every byte of the file, in the memory of two chunks. CorruptLogError."""
    return _read(env, path, None)


def _read(env: Env, path: str, take: Callable[[bytes], object] | None) -> Snapshot:
    reader = _Reader(env, path)
    snapshot, count, chunk_bytes = reader.header()
    digest = hashlib.sha256()
    if count is None:
        chunks = reader.chunks_to_end(chunk_bytes)
    else:
        chunks = reader.chunks(snapshot.raw_nbytes, count, chunk_bytes)
    raw_nbytes = 0
    for raw in chunks:
        digest.update(raw)
        raw_nbytes += len(raw)
        if take is not None:
            take(raw)
    reader.footer(digest.digest())
    return snapshot._replace(raw_nbytes=raw_nbytes, nbytes=reader.size, digest=digest.digest())


class _Reader:
    """Reads a file front to back, believing no size before its checksum."""

    def __init__(self, env: Env, path: str) -> None:
        self._path = path
        self._file = env.open(path)
        self.size = self._file.size()
        self._at = 0
        self._offsets: list[int] = []
        self._index = 0

    def bad(self, what: str, offset: int | None = None) -> NoReturn:
        where = self._at if offset is None else offset
        raise CorruptLogError(
            f"{self._path}: byte {where}: {what}",
            path=self._path,
            offset=where,
            index=self._index,
        )

    def _take(self, size: int) -> bytes:
        if size > self.size - self._at:
            self.bad(f"{size} bytes are wanted and {self.size - self._at} are left")
        data = self._file.read(self._at, size)
        if len(data) != size:
            self.bad(f"{len(data)} bytes could be read of {size}")
        self._at += size
        return data

    def header(self) -> tuple[Snapshot, int | None, int]:
        """(the snapshot without size and digest, number of chunks if it is known, raw bytes of
        each but the last)."""
        head = self._take(_HEADER.size)
        magic, crc, version, index, term, time_ms, raw, chunk, count, nbytes, zero = (
            _HEADER.unpack(head)
        )
        if magic != _MAGIC:
            self.bad(f"it begins with {magic!r}, not {_MAGIC!r}", 0)
        configuration = self._take(nbytes) if nbytes <= self.size - self._at else b""
        if crc != crc32c(configuration, crc32c(head[_CRC_END:])) or zero:
            self.bad("the header's checksum does not fit", 0)
        if version not in {_VERSION_1, _VERSION}:
            raise FormatVersionError(
                f"{self._path} has format {version} of a snapshot; this copycat reads"
                f" {_VERSION_1} and {_VERSION}",
                path=self._path,
            )
        self._index = index
        is_known = version == _VERSION_1
        if not 1 <= chunk <= CHUNK_BYTES_MAX or count != (-(-raw // chunk) if is_known else 0):
            self.bad(f"{raw} bytes in {count} chunks of {chunk}", 0)
        entry = EntryId(term, index)
        snapshot = Snapshot(entry, time_ms, raw, self.size, b"", configuration)
        return snapshot, count if is_known else None, chunk

    def chunks(self, raw_nbytes: int, count: int, chunk_bytes: int) -> Iterator[bytes]:
        """Every chunk, decoded."""
        left = raw_nbytes
        for _ in range(count):
            self._offsets.append(self._at)
            expected = min(left, chunk_bytes)
            yield self._chunk(expected)
            left -= expected

    def chunks_to_end(self, chunk_bytes: int) -> Iterator[bytes]:
        """The same until a chunk says that it is the end; all but the last are full."""
        is_last = False
        while True:
            at = self._at
            head = self._take(_CHUNK.size)
            if head == _END_CHUNK:
                return
            if is_last:
                self.bad("a chunk follows one that is not full", at)
            self._at = at
            self._offsets.append(at)
            raw = self._chunk(None, chunk_bytes)
            is_last = len(raw) < chunk_bytes
            yield raw

    def _chunk(self, expected: int | None, most: int = CHUNK_BYTES_MAX) -> bytes:
        """expected: its raw bytes; None: at least one, and `most` at most."""
        at = self._at
        head = self._take(_CHUNK.size)
        nbytes, raw_nbytes, crc = _CHUNK.unpack(head)
        is_good = 1 <= raw_nbytes <= most if expected is None else raw_nbytes == expected
        if nbytes > raw_nbytes or not is_good:
            bound = f"at most {most}" if expected is None else expected
            self.bad(f"a chunk of {raw_nbytes} bytes in {nbytes}, not of {bound}", at)
        stored = self._take(nbytes)
        if crc != crc32c(stored, crc32c(head[:8])):
            self.bad("a chunk's checksum does not fit", at)
        if nbytes == raw_nbytes:
            return stored
        try:
            raw: bytes = lz4.block.decompress(stored, uncompressed_size=raw_nbytes)
        except lz4.block.LZ4BlockError as cause:
            self.bad(f"a chunk cannot be unpacked: {cause}", at)
        if len(raw) != raw_nbytes:
            self.bad(f"a chunk unpacks to {len(raw)} bytes, not {raw_nbytes}", at)
        return raw

    def footer(self, digest: bytes) -> None:
        """The table, the digest and the end of the file."""
        at = self._at
        table = self._take(len(self._offsets) * _OFFSET.size)
        tail = self._take(_FOOTER_END.size)
        stored_digest, crc, magic = _FOOTER_END.unpack(tail)
        if crc != crc32c(tail[:32], crc32c(table)) or magic != _END_MAGIC:
            self.bad("the footer's checksum does not fit", at)
        if table != b"".join(map(_OFFSET.pack, self._offsets)):
            self.bad("the footer names other chunks than there are", at)
        if stored_digest != digest:
            self.bad(f"the digest is {digest.hex()}, not {stored_digest.hex()}", at)
        if self._at != self.size:
            self.bad(f"{self.size - self._at} bytes too many")
