"""What waits to be written to one transport, and how a turn's writes are joined.

A header and a view are joined while that is cheaper than a second system call; above
`JOIN_NBYTES_MAX` the view goes out by itself, without a copy (RULINGS section 3, item 1).
"""

from __future__ import annotations

import asyncio

__all__ = ["JOIN_NBYTES_MAX", "WriteBuffer"]

JOIN_NBYTES_MAX = 16 << 10


class WriteBuffer:
    """Frames queued during a turn, and the transport that takes them at its end."""

    __slots__ = ("_nbytes", "_parts", "_transport", "written")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._parts: list[bytes | memoryview] = []
        self._nbytes = 0
        self.written = 0
        """Bytes given to the transport so far."""

    @property
    def nbytes(self) -> int:
        """Queued here and in the transport, not yet taken by the kernel."""
        return self._nbytes + self._transport.get_write_buffer_size()

    def put(self, part: bytes | memoryview) -> None:
        """Queue; nothing is written before `flush`."""
        self._parts.append(part)
        self._nbytes += len(part)

    def flush(self) -> None:
        """Write what is queued: small neighbours in one piece, large views as they are."""
        parts, self._parts = self._parts, []
        self.written += self._nbytes
        self._nbytes = 0
        if self._transport.is_closing():
            return
        if len(parts) == 1:
            self._transport.write(parts[0])
            return
        small: list[bytes | memoryview] = []
        for part in parts:
            if len(part) < JOIN_NBYTES_MAX:
                small.append(part)
                continue
            if small:
                self._transport.write(b"".join(small))
                small.clear()
            self._transport.write(part)
        if small:
            self._transport.write(b"".join(small))
