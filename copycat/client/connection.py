"""A connection to one server, which writes and reads frames, whatever session they are of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self, cast

from copycat.config import Address
from copycat.errors import ProtocolError
from copycat.net import SILENCE_S_MAX, WriteBuffer, dial, loss_reason, watch_socket
from copycat.protocol.framing import PEER_LIMIT, Frame, FrameBuffer

__all__ = ["CLOSED", "Connection"]

CLOSED = "the connection was closed"


class Connection(asyncio.BufferedProtocol):
    """A connection to one server.

    on_frames: called with all frames that one read completed (`SessionDriver.on_frames`).
    on_writable: called when a socket that was full takes bytes again. `lost`: a future that is
    done when the connection is closed.
    """

    def __init__(
        self,
        address: str,
        on_frames: Callable[[list[Frame]], None],
        on_writable: Callable[[], None],
    ) -> None:
        self.address = address
        self._on_frames = on_frames
        self._on_writable = on_writable
        self._frames = FrameBuffer(PEER_LIMIT, PEER_LIMIT)
        self._transport: asyncio.Transport | None = None
        self._writes: WriteBuffer | None = None
        self.is_paused = False
        self.reason = CLOSED
        self.is_protocol_violated = False
        """True when the server sent bytes that are not of this protocol version."""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(
        cls,
        address: str,
        on_frames: Callable[[list[Frame]], None],
        on_writable: Callable[[], None],
    ) -> Self:
        """Connect to `address`. DialError says why that failed."""
        sock = await dial(Address.parse(address))
        loop = asyncio.get_running_loop()
        made = partial(cls, address, on_frames, on_writable)
        try:
            _, protocol = await loop.create_connection(made, sock=sock)
        except BaseException:
            sock.close()
            raise
        return protocol

    def write(self, frames: Sequence[bytes]) -> None:
        """Send frames: small ones are joined into one write, large ones are not copied."""
        if self._writes is None:
            return
        for frame in frames:
            self._writes.put(frame)
        self._writes.flush()

    def close(self, reason: str) -> None:
        """Close at once. Unsent bytes are dropped: the session sends its commands again."""
        self.reason = reason
        if self._transport is not None:
            self._transport.abort()

    def finish(self) -> None:
        """Close after everything that was written has been sent."""
        if self._transport is not None:
            self._transport.close()

    # --- asyncio's side --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes, but have all of its methods.
        self._transport = transport = cast("asyncio.Transport", transport)
        self._writes = WriteBuffer(transport)
        watch_socket(transport, SILENCE_S_MAX)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._frames.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        try:
            frames = self._frames.buffer_updated(nbytes)
            if frames:
                self._on_frames(frames)
        except ProtocolError as error:
            self.is_protocol_violated = True
            self.close(str(error))

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        self._on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.reason = loss_reason(exc)
        self._transport = self._writes = None
        if not self.lost.done():
            self.lost.set_result(None)
