"""Small binary files: a header with a checksum and a version, then a body.

Little-endian: magic 8 bytes, crc u32, format version u32, body size u32, zero u32, body. The crc
is CRC32C of everything behind itself; it is checked before the version, so that rot never looks
like an upgrade. This header stays as it is in every later format version.
"""

from __future__ import annotations

import struct

from copycat.errors import CorruptLogError, FormatVersionError
from copycat.storage._native import crc32c

__all__ = ["seal", "unseal"]

_HEADER = struct.Struct("<8sIIII")
_CRC_END = 12


def seal(magic: bytes, version: int, body: bytes) -> bytes:
    """The whole file."""
    rest = struct.pack("<III", version, len(body), 0) + body
    return magic + struct.pack("<I", crc32c(rest)) + rest


def unseal(
    data: bytes, magic: bytes, versions: tuple[int, ...], path: str, what: str
) -> tuple[int, bytes]:
    """(format version, body) of a file. what: what it should be, for errors.

    CorruptLogError; FormatVersionError for a version that is not one of `versions`.
    """
    if len(data) < _HEADER.size:
        raise CorruptLogError(f"{path}: {len(data)} bytes are no {what}", path=path)
    actual_magic, crc, version, size, zero = _HEADER.unpack_from(data)
    if actual_magic != magic or crc != crc32c(data[_CRC_END:]):
        raise CorruptLogError(f"{path}: its checksum does not fit", path=path, offset=0)
    if version not in versions:
        readable = " and ".join(map(str, versions))
        raise FormatVersionError(
            f"{path} has format version {version}; this copycat reads {readable}",
            path=path,
            version=version,
            supported=versions[-1],
        )
    body = data[_HEADER.size :]
    if zero or size != len(body):
        raise CorruptLogError(f"{path}: body of {len(body)} bytes, not {size}", path=path)
    return version, body
