"""What one process of a member sees of the world: nothing any more once it is gone.

A replica whose disk failed in the middle of a turn still runs to the end of that turn. What it
asks for then comes from a dead process, and must not reach the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from copycat.log.interface import SaveTicket, SyncTicket
from copycat.replica.host import REPLY_ROOM, Body
from copycat.types import MemberId

if TYPE_CHECKING:
    from copycat.sim.host import SimHost

__all__ = ["Life"]

T = TypeVar("T")


class Life:
    """`copycat.replica.host.Host` for one life of `host`."""

    def __init__(self, host: SimHost) -> None:
        self._host = host
        self._life = host.life

    @property
    def _lives(self) -> bool:
        return self._host.life == self._life

    def wake(self) -> None:
        if self._lives:
            self._host.wake()

    def send(self, peer: MemberId, header: bytes, body: Body | None) -> bool:
        return self._lives and self._host.send(peer, header, body)

    def reply(self, connection: int, frame: bytes) -> None:
        if self._lives:
            self._host.reply(connection, frame)

    def has_room(self, peer: MemberId, connection: int, unsent_max: int = REPLY_ROOM) -> bool:
        return True  # what is sent is on its way at once, however much it is

    def disconnect(self, connection: int, reason: str) -> None:
        if self._lives:
            self._host.disconnect(connection, reason)

    def flush(self) -> None:
        if self._lives:
            self._host.flush()

    def sync(self, ticket: SyncTicket) -> None:
        if self._lives:
            self._host.workers.sync(ticket)

    def save(self, ticket: SaveTicket) -> None:
        if self._lives:
            self._host.workers.save(ticket)

    def apply(self, work: Callable[[], T], done: Callable[[T], None]) -> None:
        if self._lives:
            self._host.workers.apply(work, done)

    def aside(self, work: Callable[[], T], done: Callable[[T], None]) -> None:
        if self._lives:
            self._host.workers.aside(work, done)

    def compact(self, work: Callable[[], T], done: Callable[[T], None]) -> None:
        if self._lives:
            self._host.workers.compact(work, done)

    def stop(self, reason: BaseException) -> None:
        if self._lives:
            self._host.stop(reason)
