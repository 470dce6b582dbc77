"""A sealed segment's index file, held against the segment itself (D7, F14)."""

from __future__ import annotations

import struct

from copycat.errors import StorageError
from copycat.log._native import Env, crc32c
from copycat.log.inspect_walk import Damage, damage_of
from copycat.log.records import FORMAT_VERSION, Row

__all__ = ["Slot", "index_damage"]

Slot = tuple[int, int, int]
"""(index, offset of its frame, size of its payload) of one entry, from the segment."""

_HEADER = struct.Struct("<8sII16sQIIQQII")
"""magic, version, crc, uuid, id, version, runs, first index, count, crc of slots, zero."""
_RUN = 16
_SLOT = struct.Struct("<II")
_CRC_FROM = 16
_FRAME_SIZE_AT = 4


def index_damage(env: Env, directory: str, row: Row, slots: list[Slot]) -> Damage | None:
    """What is wrong with the index of a sealed segment; None when it fits or is not there.

    `slots`: what the segment holds. A missing index is none: the next open writes it again.
    """
    path = f"{directory}/{row.id}-{row.version}.idx"
    fault: tuple[int, str] | None = None
    seen = b""
    while True:
        try:
            data = env.read_file(path)
        except FileNotFoundError:
            return None
        except StorageError as error:
            return damage_of(error, path, row.first_index, "F14")
        if fault is not None and data == seen:
            return Damage(path, fault[0], row.first_index, fault[1], "F14")
        fault, seen = _fault(data, row, slots), data  # read twice: one may be under way
        if fault is None:
            return None


def _fault(data: bytes, row: Row, slots: list[Slot]) -> tuple[int, str] | None:
    """(offset, what) of the first thing that is wrong."""
    if len(data) < _HEADER.size:
        return 0, f"{len(data)} bytes are no index"
    magic, version, crc, uuid, id_, row_version, runs, first, count, slots_crc, _ = (
        _HEADER.unpack_from(data)
    )
    if magic != b"COPYIDX\0" or version != FORMAT_VERSION:
        return 0, "it does not begin as an index of this format does"
    head = _HEADER.size + runs * _RUN
    if len(data) != head + count * _SLOT.size:
        return 0, f"{len(data)} bytes for {count} slots and {runs} runs of terms"
    if crc != crc32c(data[_CRC_FROM:head]):
        return 12, "its header fails its checksum"
    if (uuid, id_, row_version, first) != (row.uuid, row.id, row.version, row.first_index):
        return 16, "it is the index of another segment"
    if slots_crc != crc32c(data[head:]):
        return head, "its slots fail their checksum"
    return _slot_fault(data, head, row, slots)


def _slot_fault(data: bytes, head: int, row: Row, slots: list[Slot]) -> tuple[int, str] | None:
    found = list(_SLOT.iter_unpack(data[head:]))
    for index, offset, size in slots:
        position = index - row.first_index
        if position >= len(found) or found[position] != (offset, size):
            told = found[position] if position < len(found) else "none"
            at = head + position * _SLOT.size
            return at, f"its slot of entry {index} is {told}, not {(offset, size)}"
    return None
