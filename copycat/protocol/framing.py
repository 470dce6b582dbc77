"""A byte stream cut into frames, and frames put on a stream. Sans-IO.

Frame: `length u32 | type u8 | flags u8 | zero u16 | body`, little-endian; `length` counts the
body only. A stream that breaks this is closed, never resynchronised (F20).
"""

from __future__ import annotations

from struct import Struct
from typing import TypeAlias

import msgspec

from copycat.errors import ProtocolError

__all__ = [
    "BUFFER_SIZE",
    "CLIENT_LIMIT",
    "HANDSHAKE_LIMIT",
    "HEADER_SIZE",
    "LARGE",
    "PEER_LIMIT",
    "Buffer",
    "Frame",
    "FrameBuffer",
    "encode_frame",
    "frame_header",
    "join_frame",
    "split_frame",
]

Buffer: TypeAlias = bytes | bytearray | memoryview

HEADER = Struct("<IBBH")
HEADER_SIZE = HEADER.size
HANDSHAKE_LIMIT = 4096
"""Bytes of body of a connection's first frame, when nobody knows yet who is there."""
CLIENT_LIMIT = 4 << 20
"""Bytes of body of a client's frame; a listener adds its max_entry_size."""
PEER_LIMIT = 64 << 20
"""Bytes of body of a peer's frame."""
BUFFER_SIZE = 64 << 10
LARGE = 32 << 10
"""Bodies above this get a buffer of their own size and are kept without another copy."""

_HTTP = (b"GET ", b"POST", b"HEAD", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"PRI ")


class Frame(msgspec.Struct, frozen=True):
    """One frame. The bytes of `body` stay valid for as long as somebody holds it."""

    type: int
    flags: int
    body: memoryview


def frame_header(type: int, nbytes: int, flags: int = 0) -> bytes:
    """The 8 bytes before a body of `nbytes`."""
    return HEADER.pack(nbytes, type, flags, 0)


def encode_frame(type: int, body: Buffer, flags: int = 0) -> bytes:
    """A whole frame; copies the body once."""
    return b"".join((HEADER.pack(len(body), type, flags, 0), body))


def join_frame(frame: Frame) -> bytes:
    """The frame as it was on the wire."""
    return encode_frame(frame.type, frame.body, frame.flags)


def split_frame(data: Buffer) -> Frame:
    """Exactly one frame, whole, without a copy; ProtocolError when it is more or less."""
    view = memoryview(data)
    if len(view) < HEADER_SIZE:
        raise ProtocolError(f"a frame needs {HEADER_SIZE} bytes of header, got {len(view)}")
    length, kind, flags, zero = HEADER.unpack_from(view)
    if zero or length != len(view) - HEADER_SIZE:
        raise ProtocolError(
            f"a frame of type {kind} says {length} bytes of body (reserved field {zero}), "
            f"{len(view) - HEADER_SIZE} are here"
        )
    return Frame(kind, flags, view[HEADER_SIZE:])


class FrameBuffer:
    """Cuts what a socket delivers into frames.

    As an `asyncio.BufferedProtocol` wants it: `get_buffer`, then `buffer_updated(n)`, which
    returns the frames that became whole; or `feed(data)`. `limit` is the largest body taken
    after the first frame, `first_limit` the largest of the first one: a stranger cannot make
    this side allocate. Both may be moved between two calls. After a ProtocolError the buffer
    is spent: close the connection.
    """

    def __init__(self, limit: int, first_limit: int = HANDSHAKE_LIMIT) -> None:
        self.limit = limit
        self.first_limit = first_limit
        self._buffer = bytearray(BUFFER_SIZE)
        self._view = memoryview(self._buffer)
        self._end = 0  # bytes of the shared buffer that hold an unfinished frame
        self._large: memoryview | None = None  # body of the large frame being received
        self._large_end = 0
        self._large_head = (0, 0)
        self._started = False

    @property
    def pending(self) -> int:
        """Bytes received of a frame that is not whole yet."""
        if self._large is not None:
            return HEADER_SIZE + self._large_end
        return self._end

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go; never empty. `sizehint` is only a hint, and is ignored."""
        if self._large is not None:
            return self._large[self._large_end :]
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> list[Frame]:
        """`nbytes` were written to the buffer of `get_buffer`: the frames that are whole now."""
        if self._large is not None:
            self._large_end += nbytes
            return self._finish_large()
        return self._cut(self._end + nbytes)

    def feed(self, data: Buffer) -> list[Frame]:
        """The same for bytes that are somewhere else."""
        frames: list[Frame] = []
        rest = memoryview(data)
        while rest:
            room = self.get_buffer(len(rest))
            count = min(len(room), len(rest))
            room[:count] = rest[:count]
            rest = rest[count:]
            frames += self.buffer_updated(count)
        return frames

    def _finish_large(self) -> list[Frame]:
        large = self._large
        if large is None or self._large_end < len(large):
            return []
        self._large = None
        return [Frame(*self._large_head, large)]

    def _cut(self, end: int) -> list[Frame]:
        """Frames in the first `end` bytes of the shared buffer; the rest moves to its front."""
        frames: list[Frame] = []
        at, view = 0, self._view
        while end - at >= HEADER_SIZE:
            length, kind, flags, zero = HEADER.unpack_from(view, at)
            if zero or length > (self.limit if self._started else self.first_limit):
                raise self._refusal(at, length, kind, zero)
            body = at + HEADER_SIZE
            if end - body >= length:
                frames.append(Frame(kind, flags, memoryview(bytes(view[body : body + length]))))
            elif length > LARGE:
                self._begin_large(length, kind, flags, view[body:end])
                at = end
                break
            else:
                break
            self._started = True
            at = body + length
        self._end = end - at
        if at and self._end:
            view[: self._end] = bytes(view[at:end])  # a copy first: the two may overlap
        return frames

    def _begin_large(self, length: int, kind: int, flags: int, here: memoryview) -> None:
        self._large = memoryview(bytearray(length))
        self._large[: len(here)] = here
        self._large_end = len(here)
        self._large_head = (kind, flags)
        self._started = True

    def _refusal(self, at: int, length: int, kind: int, zero: int) -> ProtocolError:
        head = bytes(self._view[at : at + HEADER_SIZE])
        if not self._started:
            if head[:4] in _HTTP:
                return ProtocolError(
                    f"plain HTTP ({head!r}...) arrived at copycat's binary port",
                    hint="this port speaks copycat's own protocol: use CopycatClient",
                )
            if head[:2] == b"\x16\x03":
                return ProtocolError(
                    f"a TLS handshake ({head.hex(' ')}) came to a port without TLS",
                    hint="switch TLS off on the other side: copycat has no TLS yet",
                )
        if zero:
            return ProtocolError(
                f"a frame header's reserved field is {zero}, not 0 ({head.hex(' ')})"
            )
        limit = self.limit if self._started else self.first_limit
        which = "a frame" if self._started else "a connection's first frame"
        return ProtocolError(
            f"{which} of type {kind} says {length} bytes; the limit is {limit}",
            length=length,
            limit=limit,
        )
