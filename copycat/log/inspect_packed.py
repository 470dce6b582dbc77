"""A packed segment, read a second time: with the `lz4` package, not with the log's own decoder.

csrc/format.hpp is where its bytes are written down (PackedHeader, PackedBlock).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import lz4.block

from copycat.errors import CorruptLogError, FormatVersionError
from copycat.log._native import crc32c
from copycat.log.records import PACKED_VERSION, Row

__all__ = ["Unpacked", "unpacked"]

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


def unpacked(data: bytes, row: Row, path: str) -> Unpacked:
    """What the packed file of `row` stands for. CorruptLogError, FormatVersionError: nothing."""
    block_bytes, plain_size, table = _table(data, row, path)
    plain = bytearray()
    for number, (offset, size, crc) in enumerate(table):
        stored = data[offset : offset + size]
        wanted = min(block_bytes, plain_size - len(plain))
        place = row.uuid + number.to_bytes(4, "little")
        if crc != crc32c(stored, crc32c(place)):
            return Unpacked(bytes(plain), offset, f"block {number} fails its checksum")
        if size == wanted:
            plain += stored
            continue
        try:
            plain += lz4.block.decompress(stored, uncompressed_size=wanted)
        except lz4.block.LZ4BlockError as error:
            return Unpacked(bytes(plain), offset, f"block {number} is no LZ4 block: {error}")
    return Unpacked(bytes(plain), -1, "")


def _table(data: bytes, row: Row, path: str) -> tuple[int, int, list[tuple[int, int, int]]]:
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
            found=version,
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
