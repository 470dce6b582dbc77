"""TCP as members and clients use it: dial, serve, write, and notice a peer that vanished.

* `dial` connects to an address that may be a name with several numbers behind it. The numbers are
  tried side by side, each a moment after the one before (the idea of RFC 8305), and each attempt
  has its own time limit; the first that answers wins. A name is resolved anew at each dial. A
  `Dialler` remembers where somebody else answered, and has the other numbers tried first.
* `serve` opens the one port on which a member listens, and says why when it cannot.
* `WriteBuffer` joins what one turn writes to a connection.
* `watch_socket` has the kernel close a connection whose peer vanished. A peer that disappears
  without a FIN (a machine that lost its power, a cable, a firewall that forgot the connection)
  says nothing more. The kernel probes an idle connection, and closes one whose data nobody
  acknowledges.

Whether an address may be used in plaintext is decided before, when the settings are checked
(`plaintext_problems` in `copycat/config.py`).
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from copycat.config import Address
from copycat.errors import AddressInUseError, ConfigurationError, CopycatError

__all__ = [
    "ATTEMPT_S",
    "DELAY_S",
    "JOIN_NBYTES_MAX",
    "SILENCE_S_MAX",
    "DialError",
    "Dialler",
    "WriteBuffer",
    "dial",
    "escaped",
    "loss_reason",
    "serve",
    "unacknowledged",
    "watch_socket",
]

RESOLVE_S = 5.0
"""For a name to be resolved."""
ATTEMPT_S = 2.0
"""For one number to answer."""
DELAY_S = 0.25
"""The next number is tried beside the others when none has answered for so long."""
UNACKED_MS_MAX = 10_000
"""A peer whose kernel acknowledges nothing for so long is unreachable (TCP_USER_TIMEOUT)."""
SILENCE_S_MAX = 5.0
"""A server or a peer whose kernel acknowledges nothing for so long is unreachable."""
BACKLOG = 1024
"""Connections that the kernel completes before this process accepts them."""
JOIN_NBYTES_MAX = 16 << 10
"""Parts below this size are joined: copying one is then cheaper than a second system call."""

_PROBES = 3
_KEEPALIVE_S_MAX = 32767
"""The most that Linux takes for TCP_KEEPIDLE and TCP_KEEPINTVL."""

_LISTEN = "0A"


# --- dialling ----------------------------------------------------------------------------


class DialError(ConnectionError):
    """Nobody answered: the text says why, for each number of the name."""


class _Target(NamedTuple):
    family: int
    where: Any


async def dial(address: Address, last: Collection[str] = ()) -> socket.socket:
    """A connected, non-blocking socket. Raises DialError.

    last: numbers that are tried after all others.
    """
    targets = _interleaved(await _resolve(address))
    targets.sort(key=partial(_is_in, last))
    loop = asyncio.get_running_loop()
    failures: dict[str, str] = {}
    left = deque(targets)
    running: dict[asyncio.Task[socket.socket], str] = {}
    try:
        while left or running:
            if left:
                target = left.popleft()
                running[loop.create_task(_attempt(target))] = str(target.where[0])
            done, _ = await asyncio.wait(
                running, timeout=DELAY_S if left else None, return_when="FIRST_COMPLETED"
            )
            for task in done:
                number = running[task]
                cause = task.exception()
                if cause is None:
                    del running[task]
                    return task.result()
                failures[number] = _reason(cause)
                del running[task]
    finally:
        await _give_up(running)
    if len(failures) == 1 and len(targets) == 1:
        raise DialError(next(iter(failures.values())))
    raise DialError("; ".join(f"{number}: {reason}" for number, reason in failures.items()))


def _is_in(numbers: Collection[str], target: _Target) -> bool:
    return target.where[0] in numbers


class Dialler:
    """Dials one address again and again. Behind one of the numbers of a name somebody else may
    listen: then the others are tried first at the next dial, so that each one has its turn."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._others: set[str] = set()
        """Numbers at which somebody else answered."""
        self._number = ""
        """The number that was dialled last."""

    async def dial(self) -> socket.socket:
        """See `dial`."""
        self._number = ""
        sock = await dial(self.address, self._others)
        self._number = sock.getpeername()[0]
        return sock

    def reached(self) -> None:
        """Who answered the last dial is who was meant."""
        self._number = ""

    def failed(self) -> None:
        """The last dial failed, or somebody else answered it, or nobody who says Hello."""
        if not self._number:
            return
        if self._number in self._others:  # all numbers were tried: begin again with another one
            self._others.clear()
        self._others.add(self._number)


async def _give_up(running: dict[asyncio.Task[socket.socket], str]) -> None:
    """Those that are too late: none of their sockets stays open."""
    for task in running:
        task.add_done_callback(_close_late)
        task.cancel()
    if running:
        await asyncio.wait(running)


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _resolve(address: Address) -> list[_Target]:
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError, ValueError):  # not a number of this family
            socket.inet_pton(family, address.host)
            return [_Target(family, (address.host, address.port))]
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_S):
            infos = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except TimeoutError:
        reason = f"the name {address.host!r} was not resolved within {RESOLVE_S:g} s"
        raise DialError(reason) from None
    except (OSError, UnicodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise DialError(f"the name {address.host!r} cannot be resolved: {why}") from error
    targets = [_Target(family, where) for family, _, _, _, where in infos]
    if not targets:
        raise DialError(f"the name {address.host!r} has no address")
    return list(dict.fromkeys(targets))


def _interleaved(targets: list[_Target]) -> list[_Target]:
    """In the order of the system, but IPv6 and IPv4 by turns: often only one of them works."""
    first = targets[0].family
    same = [target for target in targets if target.family == first]
    others = [target for target in targets if target.family != first]
    return [target for target in chain(*zip_longest(same, others)) if target is not None]


async def _attempt(target: _Target) -> socket.socket:
    sock = socket.socket(target.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKED_MS_MAX)
        # A small frame is sent at once, and does not wait until the peer has acknowledged the one
        # before. asyncio sets this only for sockets that it has made itself.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(ATTEMPT_S):
            await asyncio.get_running_loop().sock_connect(sock, target.where)
        _refuse_itself(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def _refuse_itself(sock: socket.socket) -> None:
    """A free port of this machine may be dialled from that very port, and answers itself."""
    if sock.getsockname() == sock.getpeername():
        raise ConnectionRefusedError


def _reason(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(error, TimeoutError):
        return f"no answer within {ATTEMPT_S:g} s"
    return loss_reason(error)


def loss_reason(error: BaseException) -> str:
    """Why a connection was lost, in words and without the number of an error."""
    strerror = error.strerror if isinstance(error, OSError) else None
    return str(strerror or error) or type(error).__name__


# --- listening ---------------------------------------------------------------------------


async def serve(bind: Address, protocol: Callable[[], asyncio.BaseProtocol]) -> asyncio.Server:
    """Listen on `bind`; each connection that is accepted gets a `protocol` of its own.

    Raises AddressInUseError, or ConfigurationError for an address that is not this machine's.
    """
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(protocol, bind.host, bind.port, backlog=BACKLOG)
    except OSError as error:
        raise _cannot_listen(bind, error) from error


def _cannot_listen(bind: Address, error: OSError) -> CopycatError:
    if isinstance(error, socket.gaierror):
        return ConfigurationError(
            f"address {bind}: {error.strerror}",
            hint="give a name or an address of this machine (bind=, copycat serve: --bind)",
        )
    # asyncio of Python 3.13 passes over the addresses that no interface has, and says of none
    # left with an error that has no number.
    if error.errno in (errno.EADDRNOTAVAIL, None):
        return ConfigurationError(
            f"cannot listen on {bind}: no interface of this machine has {bind.host}",
            hint=f"when others reach this machine by {bind.host} (NAT, a container), keep it as"
            f' address= and add bind="0.0.0.0:{bind.port}" (copycat serve: --bind)',
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConfigurationError(
            f"cannot listen on {bind}: this process may not use port {bind.port}",
            hint="ports below 1024 need a privilege: take a higher one",
        )
    if error.errno != errno.EADDRINUSE:
        return ConfigurationError(
            f"cannot listen on {bind}: {os.strerror(error.errno)}",
            hint="give an address of this machine (bind=)",
        )
    holder = _holder_of(bind.port)
    who = "something has it"
    if holder is not None:
        who = f"pid {holder[0]} ({escaped(holder[1])!r}) has it"
        who += ", this process" if holder[0] == os.getpid() else ""
    return AddressInUseError(
        f"cannot listen on {bind}: {who}",
        address=str(bind),
        pid=holder[0] if holder else None,
        hint="stop that process, or give this server another address",
    )


def _holder_of(port: int) -> tuple[int, str] | None:
    """(pid, command line) of a process that listens on `port`; None when it cannot be seen."""
    inodes = _listening(port)
    if not inodes:
        return None
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _has_socket(process, inodes):
            with suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                return int(process.name), b" ".join(words).decode("utf-8", "replace").strip()
    return None


def _listening(port: int) -> set[str]:
    inodes = set()
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(path).read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == _LISTEN:
                    inodes.add(f"socket:[{fields[9]}]")
    return inodes


def _has_socket(process: Path, inodes: set[str]) -> bool:
    with suppress(OSError):
        for fd in (process / "fd").iterdir():
            with suppress(OSError):
                if str(fd.readlink()) in inodes:
                    return True
    return False


# --- writing -----------------------------------------------------------------------------


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


# --- the state of a connection ----------------------------------------------------------


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


def unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes that were written and that the peer's kernel has not acknowledged."""
    waiting = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
            waiting += struct.unpack("i", answer)[0]
    return waiting


def escaped(text: str) -> str:
    """Text that somebody else sent, made fit for one line of a log: no control characters."""
    return repr(text)[1:-1][:500]
