"""What a replica asks of the world, and the queue of all that the world has for its next turn.

asyncio and the simulator each implement `Host`. No method calls back before it returns, except for
a quick sync (see `Host.sync`), and what it calls back only queues.

Everything that happens to a replica between two turns is put into the `Inbox`, and nothing else
is done with it: a frame that arrived, a link that broke, an answer of a thread. `Replica.turn`
takes it. So a call never meets a replica in the middle of another one, and an exception in any of
them ends in `Replica.failed`, which stops the member.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol, TypeVar, TypeVarTuple

from copycat.storage.interface import Batch, SaveTicket, SyncTicket
from copycat.types import MemberId

__all__ = ["REPLY_ROOM", "Body", "Host", "Inbox", "Lane"]

Body = Batch | bytes
"""What follows a header on a link: frames of a log, or bytes of a snapshot file."""

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

REPLY_ROOM = 1 << 20
"""Unsent bytes of a connection below which it has room for one more reply, of whatever size."""


class Lane(Enum):
    """Which thread of the host does a piece of work (`Host.run`)."""

    APPLY = "apply"
    """First in, first out, one at a time. The user's code runs here and nowhere else."""
    ASIDE = "aside"
    """Slow work on files: zero-filling, removing, snapshots. In any order."""
    COMPACT = "compact"
    """The rewrite of a segment, beside all else. Several may run, and end in any order."""


class Host(Protocol):
    """The operations that differ between a real process and a simulated one."""

    def wake(self) -> None:
        """Something was queued: call `Replica.turn` soon. Many wakes make one turn."""
        ...

    def send(self, peer: MemberId, header: bytes, body: Body | None) -> bool:
        """Queue one frame (header, then the body's bytes) on the link to `peer`.

        False when there is no link or its buffer is full; the replica then tells the core
        `Unreachable`. Nothing is written before `write_queued`, or the end of the turn.
        """
        ...

    def connect(self, peer: MemberId, address: str) -> None:
        """Keep a link to `peer` open from now on: dial `address`, and again whenever the link
        breaks. Nothing happens when that address is dialled already. The replica hears of it by
        `Replica.peer_up` and `Replica.peer_down`."""
        ...

    def disconnect_peer(self, peer: MemberId) -> None:
        """Close the link to `peer`, who is no member any more or has another address, and dial no
        more. What was queued for it is dropped, and `send` to it is refused. A `peer_down` may
        follow, as for any link that broke."""
        ...

    def close_inbound(self, peer: MemberId) -> None:
        """Close the connection that `peer` dialled, if there is one: that peer notices it, and
        dials again. `disconnect_peer` leaves it open, and without it a peer to which there is no
        link any more would write for ever to somebody who cannot answer."""
        ...

    def reply(self, connection: int, frame: bytes) -> None:
        """Queue one frame to a client connection; dropped when the connection is closed."""
        ...

    def has_room(self, peer: MemberId, connection: int, unsent_max: int = REPLY_ROOM) -> bool:
        """Whether less than `unsent_max` bytes wait on the link to `peer` (0: on a client's
        connection). After a False the replica is woken when there is room; a closed connection has
        room, since what is sent to it is dropped."""
        ...

    def disconnect(self, connection: int, reason: str) -> None:
        """Close a client connection that broke the protocol; the reason is logged."""
        ...

    def write_queued(self) -> None:
        """Write what is queued: the leader's entries leave before its own sync begins."""
        ...

    def sync(self, ticket: SyncTicket) -> None:
        """Run the ticket, inline or in the sync thread; then `Replica.synced(ticket)`.

        After a failure the host calls `Replica.failed(cause)`.
        """
        ...

    def save(self, ticket: SaveTicket) -> None:
        """Run the ticket in the hard state's own thread; then `Replica.saved(ticket)`."""
        ...

    def run(self, lane: Lane, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Run `work` in a thread of `lane`; then call `done(result)` in the loop's thread, never
        before this call returns. When `work` raises, the host calls `Replica.failed(cause)`.

        Only `Inbox.run` calls this: its `done` puts the answer into the replica's inbox.
        """
        ...

    def stop(self, reason: BaseException) -> None:
        """Stop this member after a failure: it acknowledges nothing any more."""
        ...

    def restart(self) -> None:
        """Close this replica and its directory, and start again from what the directory says: the
        member has no right to its log and its state any more. No further promise leaves."""
        ...


class Inbox:
    """The only way from outside of a turn, and from a thread, into a turn."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def put(self, call: Callable[[*Arguments], None], *arguments: *Arguments) -> None:
        """Call `call(*arguments)` in the next turn, after what is here already."""
        self._calls.append((call, arguments))
        self._host.wake()

    def run(self, lane: Lane, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Have `work` done by a thread of `lane`; then call `done(result)` in a turn."""

        def answered(result: T) -> None:
            self.put(done, result)

        self._host.run(lane, work, answered)

    def take(self) -> None:
        """Make the calls that are here now; those that they put here wait for the next turn."""
        for _ in range(len(self._calls)):
            call, arguments = self._calls.popleft()
            call(*arguments)
