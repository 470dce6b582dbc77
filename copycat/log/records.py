"""The disk formats, read a second time: by the inspector and the demo's separate verifier.

csrc/format.hpp is where they are written down. This reader shares only the checksum function
with the log, never its code, and opens nothing for writing.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from copycat.errors import CorruptLogError, FormatVersionError
from copycat.log._native import crc32c

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
    "Row",
    "manifest_generation",
    "read_manifest",
    "read_mark",
    "read_segment_header",
    "segment_size",
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


class Row(NamedTuple):
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
    """Its file holds the segment in LZ4 blocks (copycat.log.inspect_packed)."""

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
    found, version, crc = struct.unpack_from("<8sII", data)
    if found != magic:
        raise CorruptLogError(f"{path}: it does not begin with {magic!r}", path=path, offset=0)
    if version not in versions:
        told = " and ".join(map(str, versions))
        raise FormatVersionError(
            f"{path} has format version {version}; this copycat reads {told}",
            path=path,
            found=version,
        )
    if crc != crc32c(data[_CRC_FROM:end]):
        raise CorruptLogError(f"{path}: its header fails its checksum", path=path, offset=12)


def manifest_generation(data: bytes) -> int:
    """Which of several manifests is the newest; of bytes that `read_manifest` accepts."""
    return int(_MANIFEST.unpack_from(data)[3])


def read_manifest(data: bytes, path: str) -> list[Row]:
    """The rows, oldest first. CorruptLogError, FormatVersionError."""
    if len(data) < _MANIFEST.size:
        raise CorruptLogError(f"{path}: {len(data)} bytes are no manifest", path=path, offset=0)
    _check(data, path, b"COPYMAN\0", len(data), (FORMAT_VERSION, PACKED_VERSION))
    _, _, _, _, next_id, count, _ = _MANIFEST.unpack_from(data)
    if len(data) != _MANIFEST.size + count * _ROW.size:
        raise CorruptLogError(f"{path}: {len(data)} bytes for {count} rows", path=path, offset=32)
    rows: list[Row] = []
    for position in range(count):
        uuid, id_, version, flags, first, *rest = _ROW.unpack_from(
            data, _MANIFEST.size + position * _ROW.size
        )
        row = Row(uuid, id_, version, bool(flags & _SEALED), first, *rest)
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


def read_segment_header(data: bytes, row: Row, path: str) -> None:
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
    found, told = (
        (uuid, id_, version, first_index),
        (row.uuid, row.id, row.version, row.first_index),
    )
    if found != told:
        raise CorruptLogError(
            f"{path} is another segment: {found}, not {told}",
            path=path,
            offset=16,
            index=row.first_index,
        )


def segment_size(data: bytes) -> int:
    """How many bytes the segment whose header `data` begins with should have; 0 without one."""
    return int(_SEGMENT.unpack_from(data)[8]) if len(data) >= _SEGMENT.size else 0


def read_mark(data: bytes, offset: int, uuid: bytes) -> Mark | None:
    """The mark at `offset` of this segment's file; None when there is none (C5)."""
    if offset + MARK_SIZE > len(data) or data[offset + 30] != KIND_MARK:
        return None
    crc, size, first, durable_upto, frames_hash, zero, _, flags = _MARK.unpack_from(data, offset)
    covered = data[offset + 4 : offset + MARK_SIZE] + uuid + offset.to_bytes(8, "little")
    if zero or crc != crc32c(covered):
        return None
    return Mark(size, first, durable_upto, frames_hash, flags)
