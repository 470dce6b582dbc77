"""The network between the namespaces: a TCP proxy with one link for each ordered pair of places.

In the namespace of each place, the proxy listens on the addresses of all other members. It
sends the bytes of a connection over two links: what the dialler sends over the link to the
other, and what is answered over the link back. So a link that is cut in one direction holds up
one half of a connection only, and its end too: neither bytes nor a close arrive.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import cast

from copycat.seeded_random import SimRandom
from tests.chaos.namespaces import Namespace

__all__ = ["Link", "Network"]

_WAITING_MAX = 1 << 20
"""Bytes that wait for one half of a connection; then the sender is not read any more."""
_RESENT_AFTER_S = 0.2
"""After so long TCP sends a lost packet again; each further time takes twice as long."""
_DIAL_S = 3.0
_LINGER_RESET = struct.pack("ii", 1, 0)
_MILLION = 1_000_000


class Link:
    """One direction between two places. A fault sets the fields, and then calls `changed`.

    cuts: how many faults cut this link now. loss: lost packets in a million. delay_s: the
    longest delay of a piece. resets: whether a lost packet may end the connection.
    """

    def __init__(self, random: SimRandom) -> None:
        self.cuts = 0
        self.loss = 0
        self.delay_s = 0.0
        self.resets = False
        self.resent_after_s = _RESENT_AFTER_S
        self._random = random
        self._is_open = asyncio.Event()
        self._is_open.set()

    def changed(self) -> None:
        """Let waiting bytes pass, or hold them, as the fields now say."""
        if self.cuts:
            self._is_open.clear()
        else:
            self._is_open.set()

    async def passes(self) -> None:
        """Wait until the next piece has passed. ConnectionResetError when it never will."""
        if self.delay_s:
            await asyncio.sleep(self.delay_s * self._random.below(1000) / 1000)
        after = self.resent_after_s
        while self._random.chance(self.loss):
            if self.resets and self._random.chance(_MILLION // 4):
                raise ConnectionResetError
            await asyncio.sleep(after)
            after *= 2
        await self._is_open.wait()


class _Half(asyncio.Protocol):
    """One socket of a connection: takes what it reads, and writes what the other has taken."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.has_ended = False
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._news = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()

    def itself(self) -> _Half:
        """As the factory that asyncio asks for."""
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._waiting += len(data)
        if self._waiting > _WAITING_MAX and self.transport is not None:
            self.transport.pause_reading()
        self._news.set()

    def eof_received(self) -> bool:
        self.has_ended = True
        self._news.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.has_ended = True
        self._may_write.set()
        self._news.set()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    async def take(self) -> bytes:
        """What was read; empty at the end."""
        while not self._pieces and not self.has_ended:
            self._news.clear()
            await self._news.wait()
        if not self._pieces:
            return b""
        piece = self._pieces.popleft()
        self._waiting -= len(piece)
        if self._waiting <= _WAITING_MAX and self.transport and not self.transport.is_closing():
            self.transport.resume_reading()
        return piece

    async def write(self, data: bytes) -> None:
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError
        self.transport.write(data)
        await self._may_write.wait()

    def close(self) -> None:
        """Close, once what was written is sent."""
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        """Have the kernel send a reset, so that whoever is there hears of it."""
        if self.transport is not None and not self.transport.is_closing():
            its_socket = self.transport.get_extra_info("socket")
            its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
            self.transport.abort()


async def _forward(source: _Half, target: _Half, link: Link) -> None:
    """Bring what one end sends to the other, until the end of it has passed as well."""
    while data := await source.take():
        await link.passes()
        await target.write(data)
    await link.passes()
    if target.transport is not None and not target.transport.is_closing():
        target.transport.write_eof()


class Network:
    """Links between places, each of which is a namespace; some places have a member.

    members: the address of the member at a place. random: decides what a lossy link loses.
    """

    def __init__(
        self,
        namespaces: dict[str, Namespace],
        members: dict[str, tuple[str, int]],
        random: SimRandom,
    ) -> None:
        self._namespaces = namespaces
        self._members = members
        self.links = {
            (one, other): Link(SimRandom(random.next()))
            for one in namespaces
            for other in namespaces
            if one != other and (one in members or other in members)
        }
        self._servers: list[asyncio.Server] = []
        self._connections: dict[asyncio.Task[None], tuple[str, str]] = {}
        self.connections = 0
        """How many were made."""

    async def open(self) -> None:
        """Listen in every namespace."""
        loop = asyncio.get_running_loop()
        for place, namespace in self._namespaces.items():
            for other, address in self._members.items():
                if other == place:
                    continue
                with namespace.entered():
                    listening = socket.create_server(address, backlog=256)
                accepting = self.accepting(place, other)
                self._servers.append(await loop.create_server(accepting, sock=listening))

    async def close(self) -> None:
        """End every connection, and listen no more."""
        for server in self._servers:
            server.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def reset(self, one: str, other: str) -> None:
        """End the connections between two places, for both ends at once."""
        for task, places in self._connections.items():
            if places in {(one, other), (other, one)}:
                task.cancel()

    def accepting(self, place: str, other: str) -> Callable[[], asyncio.Protocol]:
        """What makes a protocol for each connection from one place to the member at another."""
        return _Accepting(self, place, other)

    def accepted(self, dialler: _Half, place: str, other: str) -> None:
        """A connection from one place to the member at another has begun."""
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._connect(dialler, place, other))
        self._connections[task] = (place, other)
        task.add_done_callback(self._connections.pop)

    async def _connect(self, dialler: _Half, place: str, other: str) -> None:
        forth, back = self.links[place, other], self.links[other, place]
        answerer = _Half()
        try:
            await forth.passes()
            await back.passes()
            if dialler.has_ended:  # it gave up before the connection was there
                return
            await self._dial(answerer, other)
            async with asyncio.TaskGroup() as both:
                both.create_task(_forward(dialler, answerer, forth))
                both.create_task(_forward(answerer, dialler, back))
            dialler.close()
            answerer.close()
        except* OSError:
            pass  # what ended one half ends the other, below
        finally:
            dialler.reset()
            answerer.reset()

    async def _dial(self, answerer: _Half, other: str) -> None:
        loop = asyncio.get_running_loop()
        with self._namespaces[other].entered():
            dialling = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        dialling.setblocking(False)
        try:
            async with asyncio.timeout(_DIAL_S):
                await loop.sock_connect(dialling, self._members[other])
            await loop.create_connection(answerer.itself, sock=dialling)
        except BaseException:
            dialling.close()
            raise


class _Accepting:
    """Makes a half for each connection that one place makes to another."""

    def __init__(self, network: Network, place: str, other: str) -> None:
        self._network = network
        self._places = place, other

    def __call__(self) -> asyncio.Protocol:
        return _Dialler(self._network, *self._places)


class _Dialler(_Half):
    """The half that was accepted."""

    def __init__(self, network: Network, place: str, other: str) -> None:
        super().__init__()
        self._network = network
        self._places = place, other

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._network.accepted(self, *self._places)
