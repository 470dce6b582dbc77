"""Opens one TCP connection to an address that may be a name with several numbers behind it.

The numbers are asked side by side, each a moment after the last (the idea of RFC 8305), and each
has its own time; the first that answers wins. A name is resolved anew at each dial.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from contextlib import suppress
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from copycat.config import Address

__all__ = ["ATTEMPT_S", "DELAY_S", "DialError", "dial"]

RESOLVE_S = 5.0
"""For a name to be resolved."""
ATTEMPT_S = 2.0
"""For one number to answer."""
DELAY_S = 0.25
"""The next number is tried beside the others when none has answered for so long."""
UNACKED_MS_MAX = 10_000
"""A peer whose kernel acknowledges nothing for so long is gone (TCP_USER_TIMEOUT)."""


class DialError(ConnectionError):
    """Nobody answered: the text says why, for each number of the name."""


class _Target(NamedTuple):
    family: int
    where: Any


async def dial(address: Address) -> socket.socket:
    """A connected, non-blocking socket. Raises DialError."""
    targets = _interleaved(await _resolve(address))
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
                if task.exception() is None:
                    del running[task]
                    return task.result()
                failures[number] = _reason(task.exception())
                del running[task]
    finally:
        await _give_up(running)
    if len(failures) == 1 and len(targets) == 1:
        raise DialError(next(iter(failures.values())))
    raise DialError("; ".join(f"{number}: {reason}" for number, reason in failures.items()))


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
            found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except TimeoutError:
        reason = f"the name {address.host!r} was not resolved within {RESOLVE_S:g} s"
        raise DialError(reason) from None
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise DialError(f"the name {address.host!r} cannot be resolved: {why}") from error
    targets = [_Target(family, where) for family, _, _, _, where in found]
    if not targets:
        raise DialError(f"the name {address.host!r} stands for no number")
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


def _reason(error: BaseException | None) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(error, TimeoutError):
        return f"no answer within {ATTEMPT_S:g} s"
    strerror = getattr(error, "strerror", None)
    return str(strerror or error) or type(error).__name__
