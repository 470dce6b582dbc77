"""A run of commands on the wire, cut where the leader's log already has its beginning."""

from __future__ import annotations

from struct import unpack_from

from copycat.errors import require
from copycat.protocol.client import Commands

__all__ = ["take_new"]


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
