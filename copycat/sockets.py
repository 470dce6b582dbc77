"""What every TCP socket of a member is set to, so that a peer that vanished is found out.

A peer that goes away without a FIN (a machine that lost its power, a cable, a firewall that forgot
the connection) says nothing more. The kernel probes an idle connection, and gives up one whose
data nobody acknowledges.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from contextlib import suppress

__all__ = ["untaken", "watch_socket"]

_PROBES = 3
_KEEPALIVE_S_MAX = 32767
"""The most that Linux takes for TCP_KEEPIDLE and TCP_KEEPINTVL."""


def watch_socket(transport: asyncio.Transport, silence_s: float) -> None:
    """Have the kernel close the connection when its peer was not heard for `silence_s` seconds.

    Probes begin after half of it. An acknowledgement counts, so a live peer may say nothing for
    as long as it likes. TCP_KEEPIDLE counts whole seconds: below 4 s it takes up to 4 s.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    idle = max(1, min(int(silence_s / 2), _KEEPALIVE_S_MAX))
    interval = max(1, min(int(silence_s / 2 / _PROBES), _KEEPALIVE_S_MAX))
    unacknowledged_ms = max(1, min(round(silence_s * 1000), 0x7FFFFFFF))
    with suppress(OSError):  # it is closed already; whoever uses it hears that
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unacknowledged_ms)


def untaken(transport: asyncio.Transport) -> int:
    """Bytes that were written and that the peer's kernel has not acknowledged."""
    waiting = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
            waiting += struct.unpack("i", answer)[0]
    return waiting
