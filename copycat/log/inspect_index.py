"""A sealed segment's index file, held against the segment itself (D7, F14)."""

from __future__ import annotations

import struct

from copycat.errors import StorageError
from copycat.log._native import Env, crc32c
from copycat.log.inspect_walk import Damage, damage_of
from copycat.log.records import FORMAT_VERSION, Row

__all__ = ["Slot", "index_damage"]

Slot = tuple[int, int, int, bool]
"""(index, offset of its frame, size of its payload, whether it is a hole) of one record."""

_HEADER = struct.Struct("<8sII16sQIIQQQQII")
"""magic, format version, crc, uuid, id, version, runs, first index, end, largest valid_from,
count, crc of slots, flags."""
_RUN = 16
_SLOT = struct.Struct("<II")
_START = struct.Struct("<I")
_HOLE = 1 << 31
_SPARSE = 1
_CRC_FROM = 16


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
        if not data:
            return None  # made, and its one write is still to come, or never came
        if fault is not None and data == seen:
            return Damage(path, fault[0], row.first_index, fault[1], "F14")
        fault, seen = _fault(data, row, slots), data  # read twice: a write may be under way
        if fault is None:
            return None


def _fault(data: bytes, row: Row, slots: list[Slot]) -> tuple[int, str] | None:
    """(offset, what) of the first thing that is wrong."""
    if len(data) < _HEADER.size:
        return 0, f"{len(data)} bytes are no index"
    magic, version, crc, uuid, id_, row_version, runs, first, _, _, count, slots_crc, flags = (
        _HEADER.unpack_from(data)
    )
    if magic != b"COPYIDX\0" or version != FORMAT_VERSION:
        return 0, "it does not begin as an index of this format does"
    head = _HEADER.size + runs * _RUN
    is_sparse = bool(flags & _SPARSE)
    nbytes = count * (_SLOT.size + (_START.size if is_sparse else 0))
    if len(data) != head + nbytes:
        return 0, f"{len(data)} bytes for {count} slots and {runs} runs of terms"
    if crc != crc32c(data[_CRC_FROM:head]):
        return 12, "its header fails its checksum"
    if (uuid, id_, row_version, first) != (row.uuid, row.id, row.version, row.first_index):
        return 16, "it is the index of another segment"
    if slots_crc != crc32c(data[head:]):
        return head, "its slots fail their checksum"
    end = head + count * _SLOT.size
    starts = [start for (start,) in _START.iter_unpack(data[end:])]
    found = dict(zip(starts or range(count), _SLOT.iter_unpack(data[head:end]), strict=True))
    for position, (index, offset, size, is_hole) in enumerate(slots):
        expected = (offset, size | (_HOLE if is_hole else 0))
        slot = found.get(index - row.first_index)
        if slot != expected:
            what = f"its slot of entry {index} is {slot or 'none'}, not {expected}"
            return head + position * _SLOT.size, what
    return None
