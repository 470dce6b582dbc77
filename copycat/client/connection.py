"""One connection to one server: bytes out, frames in. It knows nothing of sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Self, cast

from copycat.config import Address
from copycat.errors import ProtocolError
from copycat.net import SILENCE_S_MAX, WriteBuffer, dial, watch_socket
from copycat.protocol.framing import PEER_LIMIT, Frame, FrameBuffer

__all__ = ["CLOSED", "Connection"]

CLOSED = "the connection was closed"


class Connection(asyncio.BufferedProtocol):
    """`on_frames` gets what one read delivered; `lost` is done when the connection is gone."""

    def __init__(self, address: str, on_frames: Callable[[list[Frame]], None]) -> None:
        self.address = address
        self._on_frames = on_frames
        self._frames = FrameBuffer(PEER_LIMIT, PEER_LIMIT)
        self._transport: asyncio.Transport | None = None
        self._writes: WriteBuffer | None = None
        self.on_writable: Callable[[], None] = lambda: None
        self.is_paused = False
        self.reason = CLOSED
        self.is_protocol_violated = False
        """The other side does not speak the protocol."""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, address: str, on_frames: Callable[[list[Frame]], None]) -> Self:
        """Connect; raises DialError, which says why not."""
        sock = await dial(Address.parse(address))
        loop = asyncio.get_running_loop()
        try:
            _, protocol = await loop.create_connection(lambda: cls(address, on_frames), sock=sock)
        except BaseException:
            sock.close()
            raise
        return protocol

    def write(self, frames: Sequence[bytes]) -> None:
        """Send frames: small ones in one write, large ones without another copy."""
        if self._writes is None:
            return
        for frame in frames:
            self._writes.put(frame)
        self._writes.flush()

    def close(self, reason: str) -> None:
        """Close at once; what is unsent is dropped, since the session sends it again."""
        self.reason = reason
        if self._transport is not None:
            self._transport.abort()

    def finish(self) -> None:
        """Close after what was written has left."""
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
        self.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.reason = str(exc) or type(exc).__name__
        self._transport = self._writes = None
        if not self.lost.done():
            self.lost.set_result(None)
