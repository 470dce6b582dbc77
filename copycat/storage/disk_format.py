"""The disk formats, read a second time: by the inspector and the demo's separate verifier.

csrc/format.hpp is where they are written down. This reader shares only the checksum function
with the log, never its code, and opens nothing for writing.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import lz4.block

from copycat.errors import CorruptLogError, FormatVersionError
from copycat.storage._native import crc32c

__all__ = [
    "DATA_OFFSET",
    "FORMAT_VERSION",
    "FRAME",
    "GAP",
    "KIND_GAP",
    "KIND_MARK",
    "MARK_SIZE",
    "PACKED_VERSION",
    "Mark",
    "SegmentInfo",
    "Unpacked",
    "manifest_generation",
    "read_manifest",
    "read_mark",
    "read_segment_header",
    "segment_size",
    "unpacked",
]

FORMAT_VERSION = 2
PACKED_VERSION = 3
"""Of packed segments, and of a manifest that names one."""
DATA_OFFSET = 4096
KIND_MARK = 14
KIND_GAP = 15
MARK_SIZE = 32

FRAME = struct.Struct("<IIQQHIBB")
"""crc, size, index, term, time_ms (low 16 bits, high 32 bits), kind, flags."""

GAP = struct.Struct("<QQ")
"""end, valid_from: the payload of a gap."""

_MARK = struct.Struct("<IIQQIHBB")
_MANIFEST = struct.Struct("<8sIIQQII")
_ROW = struct.Struct("<16sQIIQQQQQ")
_SEGMENT = struct.Struct("<8sII16sQIIQQ")
_SEALED = 1
_PACKED = 2
_CRC_FROM = 16
_UUID = slice(16, 32)


class SegmentInfo(NamedTuple):
    """One segment of the manifest. An unsealed tail has no end of its own: both are 0."""

    uuid: bytes
    id: int
    version: int
    sealed: bool
    first_index: int
    last_index: int
    end_offset: int
    prev_term: int
    valid_from: int
    packed: bool = False
    """Its file holds the segment in LZ4 blocks (copycat.storage.disk_format)."""

    @property
    def name(self) -> str:
        """The segment's file name."""
        return f"{self.id}-{self.version}.log"


class Mark(NamedTuple):
    """A local record before the frames of one append (C5)."""

    size: int
    first_index: int
    durable_upto: int
    frames_hash: int
    flags: int


def _check(
    data: bytes, path: str, magic: bytes, end: int, versions: tuple[int, ...] = (FORMAT_VERSION,)
) -> None:
    actual_magic, version, crc = struct.unpack_from("<8sII", data)
    if actual_magic != magic:
        raise CorruptLogError(f"{path}: it does not begin with {magic!r}", path=path, offset=0)
    if version not in versions:
        readable = " and ".join(map(str, versions))
        raise FormatVersionError(
            f"{path} has format version {version}; this copycat reads {readable}",
            path=path,
            version=version,
        )
    if crc != crc32c(data[_CRC_FROM:end]):
        raise CorruptLogError(f"{path}: its header fails its checksum", path=path, offset=12)


def manifest_generation(data: bytes) -> int:
    """Which of several manifests is the newest; of bytes that `read_manifest` accepts."""
    return int(_MANIFEST.unpack_from(data)[3])


def read_manifest(data: bytes, path: str) -> list[SegmentInfo]:
    """The rows, oldest first. CorruptLogError, FormatVersionError."""
    if len(data) < _MANIFEST.size:
        raise CorruptLogError(f"{path}: {len(data)} bytes are no manifest", path=path, offset=0)
    _check(data, path, b"COPYMAN\0", len(data), (FORMAT_VERSION, PACKED_VERSION))
    _, _, _, _, next_id, count, _ = _MANIFEST.unpack_from(data)
    if len(data) != _MANIFEST.size + count * _ROW.size:
        raise CorruptLogError(f"{path}: {len(data)} bytes for {count} rows", path=path, offset=32)
    rows: list[SegmentInfo] = []
    for position in range(count):
        uuid, id_, version, flags, first, *rest = _ROW.unpack_from(
            data, _MANIFEST.size + position * _ROW.size
        )
        row = SegmentInfo(uuid, id_, version, bool(flags & _SEALED), first, *rest)
        row = row._replace(packed=bool(flags & _PACKED))
        if rows and (row.first_index != rows[-1].last_index + 1 or not rows[-1].sealed):
            raise CorruptLogError(
                f"{path}: segment {row.name} begins at {row.first_index}, the one before ends "
                f"at {rows[-1].last_index}",
                path=path,
                index=row.first_index,
            )
        if not 0 < row.id < next_id:
            raise CorruptLogError(f"{path}: segment id {row.id} was never given", path=path)
        rows.append(row)
    version = PACKED_VERSION if any(row.packed for row in rows) else FORMAT_VERSION
    if int.from_bytes(data[8:12], "little") != version:
        raise CorruptLogError(f"{path}: its version does not fit its rows", path=path, offset=8)
    return rows


def read_segment_header(data: bytes, row: SegmentInfo, path: str) -> None:
    """CorruptLogError unless the file is the one that the manifest's row means."""
    if len(data) < DATA_OFFSET:
        raise CorruptLogError(
            f"{path}: {len(data)} bytes are no segment",
            path=path,
            offset=len(data),
            index=row.first_index,
        )
    _check(data, path, b"COPYSEG\0", _SEGMENT.size)
    _, _, _, uuid, id_, version, _, first_index, _ = _SEGMENT.unpack_from(data)
    actual, expected = (
        (uuid, id_, version, first_index),
        (row.uuid, row.id, row.version, row.first_index),
    )
    if actual != expected:
        raise CorruptLogError(
            f"{path} is another segment: {actual}, not {expected}",
            path=path,
            offset=16,
            index=row.first_index,
        )


def segment_size(data: bytes) -> int:
    """How many bytes the segment whose header `data` begins with should have; 0 without one."""
    return int(_SEGMENT.unpack_from(data)[8]) if len(data) >= _SEGMENT.size else 0


def read_mark(data: bytes, offset: int, uuid: bytes, base: int = 0) -> Mark | None:
    """The mark at `offset` of this segment's file; None when there is none (C5).

    base: the offset of the first byte of `data`.
    """
    at = offset - base
    if at + MARK_SIZE > len(data) or data[at + 30] != KIND_MARK:
        return None
    crc, size, first, durable_upto, frames_hash, zero, _, flags = _MARK.unpack_from(data, at)
    covered = data[at + 4 : at + MARK_SIZE] + uuid + offset.to_bytes(8, "little")
    if zero or crc != crc32c(covered):
        return None
    return Mark(size, first, durable_upto, frames_hash, flags)


_HEADER = struct.Struct("<8sII16sQIIQQQII")
"""magic, format version, crc, uuid, id, version, bytes of a block, first index, bytes of the
plain segment, where the table begins, blocks, crc of the table."""
_BLOCK = struct.Struct("<III")
"""offset, stored size, crc."""
_CRC_FROM = 16
_PLAIN_MAX = 1 << 16
"""A block stands for no more: nothing larger is ever allocated for one (F28)."""


class Unpacked(NamedTuple):
    """The plain segment, up to the first block that cannot be read."""

    data: bytes
    offset: int
    """Of that block in the file; -1 when all was read."""
    fault: str


def unpacked(data: bytes, row: SegmentInfo, path: str) -> Unpacked:
    """What the packed file of `row` stands for. CorruptLogError, FormatVersionError: nothing."""
    block_bytes, plain_size, table = _table(data, row, path)
    plain = bytearray()
    for number, (offset, size, crc) in enumerate(table):
        stored = data[offset : offset + size]
        plain_nbytes = min(block_bytes, plain_size - len(plain))
        place = row.uuid + number.to_bytes(4, "little")
        if crc != crc32c(stored, crc32c(place)):
            return Unpacked(bytes(plain), offset, f"block {number} fails its checksum")
        if size == plain_nbytes:
            plain += stored
            continue
        try:
            plain += lz4.block.decompress(stored, uncompressed_size=plain_nbytes)
        except lz4.block.LZ4BlockError as error:
            return Unpacked(bytes(plain), offset, f"block {number} is no LZ4 block: {error}")
    return Unpacked(bytes(plain), -1, "")


def _table(
    data: bytes, row: SegmentInfo, path: str
) -> tuple[int, int, list[tuple[int, int, int]]]:
    """(bytes of a block, bytes of the plain segment, each block's offset, size and crc)."""

    def refuse(offset: int, what: str) -> CorruptLogError:
        return CorruptLogError(f"{path}: {what}", path=path, offset=offset, index=row.first_index)

    if len(data) < _HEADER.size:
        raise refuse(len(data), f"{len(data)} bytes are no packed segment")
    magic, version, crc, *named, block_bytes, first, plain, at, count, table_crc = (
        _HEADER.unpack_from(data)
    )
    if magic != b"COPYPAK\0":
        raise refuse(0, f"it begins with {magic!r}, not as a packed segment")
    if version != PACKED_VERSION:
        raise FormatVersionError(
            f"{path} has format version {version}; this copycat reads {PACKED_VERSION}",
            path=path,
            version=version,
        )
    if crc != crc32c(data[_CRC_FROM : _HEADER.size]):
        raise refuse(12, "its header fails its checksum")
    if [*named, first] != [row.uuid, row.id, row.version, row.first_index]:
        raise refuse(16, "it is another segment than the manifest names")
    if not 0 < block_bytes <= _PLAIN_MAX or count != -(-plain // block_bytes):
        raise refuse(40, f"{count} blocks of {block_bytes} bytes for {plain} bytes")
    if plain < row.end_offset or len(data) != at + count * _BLOCK.size:
        raise refuse(56, f"{len(data)} bytes in the file, for {plain} bytes in {count} blocks")
    if table_crc != crc32c(data[at:]):
        raise refuse(at, "its table fails its checksum")
    return block_bytes, plain, list(_BLOCK.iter_unpack(data[at:]))
