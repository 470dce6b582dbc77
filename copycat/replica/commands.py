"""A run of commands on the wire, as the leader logs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from struct import pack, unpack_from

from copycat.errors import require
from copycat.protocol.client import Commands

__all__ = ["Admission", "take_first", "take_new"]


class Admission:
    """Keeps out of the log what the leader's machine cannot read, and nothing else.

    Of a run with a bad command the good ones keep their sequences and effects: the bad one's
    place is taken by a stand-in, which has no effect on any member and whose result says why.

    refusals: for commands in order, the bytes to log in place of some (`OperationReader`).
    """

    def __init__(
        self, refusals: Callable[[Sequence[bytes]], dict[int, bytes]], max_entry_size: int
    ) -> None:
        self._refusals = refusals
        self._max_entry_size = max_entry_size

    def take(
        self, message: Commands, expected: int, count_max: int = sys.maxsize
    ) -> tuple[int, bytes | memoryview]:
        """(count, body) to log of the commands from sequence `expected` on."""
        count, body = take_first(*take_new(message, expected), count_max)
        operations = split(count, body)
        refused = self._refusals(operations)
        if not refused:
            return count, body
        for at, stand_in in refused.items():
            # Empty is a stand-in too, and fits below any limit.
            operations[at] = stand_in if len(stand_in) <= self._max_entry_size else b""
        lengths = pack(f"<{count}I", *map(len, operations))
        return count, b"".join([lengths, *operations])


def split(count: int, body: bytes | memoryview) -> list[bytes]:
    """The operations of a run whose lengths add up."""
    lengths = unpack_from(f"<{count}I", body)
    data = bytes(body)
    return [data[start:end] for start, end in pairwise(accumulate(lengths, initial=4 * count))]


def take_first(
    count: int, body: bytes | memoryview, count_max: int
) -> tuple[int, bytes | memoryview]:
    """The same of the first `count_max` commands at most."""
    if count <= count_max:
        return count, body
    taken = sum(unpack_from(f"<{count_max}I", body))
    view = memoryview(body)
    return count_max, b"".join([view[: 4 * count_max], view[4 * count :][:taken]])


def take_new(message: Commands, expected: int) -> tuple[int, bytes | memoryview]:
    """(count, body) of the commands from sequence `expected` on.

    A client that resends cuts its runs where it likes, so a run may begin with commands that
    are logged and end with new ones. `body` is `lengths u32[count]`, then the operations.
    """
    skip = expected - message.first_sequence
    require(0 <= skip < message.count, "no new command", skip=skip, count=message.count)
    if skip == 0:
        return message.count, message.body
    body = memoryview(message.body)
    lengths_end = 4 * message.count
    skipped = sum(unpack_from(f"<{skip}I", body))
    new = body[4 * skip : lengths_end].tobytes() + body[lengths_end + skipped :].tobytes()
    return message.count - skip, new
