"""Which machine of a member an operation is for: a part of the operation's tag.

The bytes of an operation are a MessagePack array that begins with the operation's name. The id of
the machine stands in front of that array as a MessagePack number; machine 0 has no number, so the
operations of the one machine that a member has today look as they always did. An array never
begins with the byte of a number, so one byte tells which case it is.
"""

from __future__ import annotations

import msgspec

__all__ = ["MACHINE_ID_MAX", "machine_of", "split_tag", "with_machine"]

MACHINE_ID_MAX = 127
"""The largest id: one byte is enough, and a member with so many machines is not in sight."""
_ARRAYS = frozenset([*range(0x90, 0xA0), 0xDC, 0xDD])
"""First bytes of a MessagePack array."""

_encode = msgspec.msgpack.Encoder().encode


def with_machine(operation: bytes, machine_id: int) -> bytes:
    """The bytes of an operation for machine `machine_id`."""
    if not 0 <= machine_id <= MACHINE_ID_MAX:
        raise ValueError(f"{machine_id} is no id of a machine: 0 to {MACHINE_ID_MAX}")
    return _encode(machine_id) + operation if machine_id else operation


def split_tag(payload: bytes) -> tuple[int, bytes]:
    """(id of the machine, the operation without it); (0, all of it) when no machine is named."""
    if len(payload) > 1 and 0 < payload[0] <= MACHINE_ID_MAX and payload[1] in _ARRAYS:
        return payload[0], payload[1:]
    return 0, payload


def machine_of(payload: bytes) -> int:
    """The id of the machine that these bytes of an operation are for."""
    return split_tag(payload)[0]
