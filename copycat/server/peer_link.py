"""The outgoing connection to one peer, which is opened again whenever it breaks.

A link connects, sends HELLO, waits for the answer, and then only writes frames.

The first attempt is made at once; between attempts the wait doubles from 50 ms to 1 s, with
jitter. A HELLO that arrives from the peer ends the wait, since it shows that the peer runs.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Protocol, cast

from copycat.config import Address
from copycat.errors import CopycatError, ProtocolError, require
from copycat.net import (
    SILENCE_S_MAX,
    DialError,
    Dialler,
    WriteBuffer,
    escaped,
    loss_reason,
    watch_socket,
)
from copycat.protocol.codec_hello import decode_hello_refused
from copycat.protocol.framing import HANDSHAKE_LIMIT, Frame, FrameBuffer
from copycat.protocol.peer import HelloRefused
from copycat.protocol.wire import FrameType
from copycat.raft.events import Reachable
from copycat.replica.host import REPLY_ROOM
from copycat.replica.replica import Replica
from copycat.types import MemberId

__all__ = ["Link", "LinkHost", "greeting"]

log = logging.getLogger("copycat.server")

WAIT_MIN_S = 0.05
WAIT_MAX_S = 1.0
HELLO_S = 5.0


class LinkHost(Protocol):
    """What a link needs of its host, which is an `AsyncHost`."""

    is_stopped: bool

    def link_up(self, peer: MemberId, write_buffer: WriteBuffer) -> None: ...
    def link_down(self, peer: MemberId) -> None: ...
    def check_write_buffers(self) -> None: ...
    def refused(self, refusal: HelloRefused) -> None: ...


class Link:
    """Keeps the connection to one peer open until `close`."""

    def __init__(self, peer: MemberId, address: str, host: LinkHost, replica: Replica) -> None:
        self._peer = peer
        self._address = Address.parse(address)
        self._dialler = Dialler(self._address)
        self._host = host
        self._replica = replica
        self._retry = asyncio.Event()
        self._logged_reason = ""
        self.is_up = False
        self.reason = "not tried yet"
        """Why the link is down, or was down last."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def address(self) -> str:
        """The address of the peer."""
        return str(self._address)

    @property
    def is_closed(self) -> bool:
        """It was cancelled, and its connection is closed."""
        return self._task.done()

    def retry_now(self) -> None:
        """The peer has just connected to this member: connect to it without further wait."""
        self._retry.set()

    def cancel(self) -> None:
        """Begin to close: no further attempt is made."""
        self._task.cancel()

    async def close(self) -> None:
        """Close the connection, and make no further attempt; returns when it is closed."""
        self.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        wait = WAIT_MIN_S
        while True:
            is_refused = False
            self._retry.clear()
            try:
                await self._connect_once()
                wait = WAIT_MIN_S
            except (OSError, UnicodeError, CopycatError) as error:
                self.reason = str(error) or type(error).__name__
                is_refused = isinstance(error, CopycatError)
                self._dialler.failed()
                self._replica.outage.link_failed(self._peer, self.reason)
            except Exception as error:  # a link that is given up would cut off a member for good
                self.reason = f"{type(error).__name__}: {error}"
                if self.reason != self._logged_reason:
                    log.exception("the link to %s met an error of this program", self._address)
                self._replica.outage.link_failed(self._peer, self.reason)
            if self.reason != self._logged_reason:
                self._logged_reason = self.reason
                level = logging.WARNING if is_refused else logging.INFO
                log.log(level, "no link to %s: %s", self._address, escaped(self.reason))
            # Jitter, so that members that lost a connection together do not all connect together.
            pause = wait * random.uniform(0.75, 1.25)
            wait = min(2 * wait, WAIT_MAX_S)
            if is_refused:
                # Of two members that refuse each other, each HELLO must not cause another at once.
                await asyncio.sleep(pause)
                continue
            # Not wait_for: on 3.11 it loses a cancellation that comes together with `_retry`.
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._retry.wait()
                wait = WAIT_MIN_S

    async def _connect_once(self) -> None:
        async with greeting(self._dialler, self._host, self._replica) as (outbound, frame):
            write_buffer = WriteBuffer(outbound.transport)
            self._up(write_buffer, self._replica.check_hello(self._peer, frame))
            try:
                self.reason = await outbound.lost
            finally:
                self._down()

    def _up(self, write_buffer: WriteBuffer, event: Reachable) -> None:
        self.is_up = True
        self._dialler.reached()
        self._logged_reason = ""
        log.info("link to %s is up", self._address)
        self._host.link_up(self._peer, write_buffer)
        self._replica.peer_up(event)

    def _down(self) -> None:
        self.is_up = False
        self._host.link_down(self._peer)
        if not self._host.is_stopped:
            self._replica.peer_down(self._peer)


@asynccontextmanager
async def greeting(
    dialler: Dialler, host: LinkHost, replica: Replica
) -> AsyncIterator[tuple[Outbound, Frame]]:
    """A new connection on which HELLO was sent, and the answer, which nobody has judged so far;
    closed at the end. OSError, ProtocolError."""
    loop = asyncio.get_running_loop()
    sock = await dialler.dial()
    try:
        _, outbound = await loop.create_connection(
            partial(Outbound, host.check_write_buffers), sock=sock
        )
    except BaseException:
        sock.close()
        raise
    transport = outbound.transport
    try:
        watch_socket(transport, SILENCE_S_MAX)
        transport.set_write_buffer_limits(high=REPLY_ROOM - 1)
        transport.write(replica.hello())
        frame = await _first_answer(outbound)
        if frame.type == FrameType.HELLO_REFUSED:
            refused = decode_hello_refused(frame)
            host.refused(refused)
            raise ProtocolError(f"it refused this member ({refused.code}): {refused.reason}")
        yield outbound, frame
    finally:
        transport.abort()


async def _first_answer(outbound: Outbound) -> Frame:
    try:
        async with asyncio.timeout(HELLO_S):
            return await outbound.answer
    except TimeoutError:
        # A DialError, since the peer has refused nothing.
        raise DialError(f"connected, but no answer within {HELLO_S:g} s") from None


class Outbound(asyncio.BufferedProtocol):
    """This member's end of a link. One frame arrives, the answer to its HELLO, and none after
    it."""

    def __init__(self, check_write_buffers: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._check_write_buffers = check_write_buffers
        self._frames = FrameBuffer(HANDSHAKE_LIMIT)
        self._transport: asyncio.Transport | None = None
        self._reason = "the peer closed the connection"
        self.answer: asyncio.Future[Frame] = loop.create_future()
        self.lost: asyncio.Future[str] = loop.create_future()

    @property
    def transport(self) -> asyncio.Transport:
        """Of the connection, once it is made."""
        require(self._transport is not None, "the connection is not made yet")
        assert self._transport is not None  # noqa: S101  (for the type checker)
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes, but have all of its methods.
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._frames.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        try:
            frames = self._frames.buffer_updated(nbytes)
        except ProtocolError as error:
            self._abort(str(error))
            return
        for frame in frames:
            if self.answer.done():
                self._abort(f"it sent a frame of type {frame.type} after its answer to HELLO")
                return
            self.answer.set_result(frame)

    def resume_writing(self) -> None:
        self._check_write_buffers()

    def _abort(self, reason: str) -> None:
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._reason = loss_reason(exc)
        if not self.answer.done():
            self.answer.set_exception(ConnectionResetError(self._reason))
            self.answer.exception()  # retrieved here, in case nobody waits any more
        if not self.lost.done():
            self.lost.set_result(self._reason)
