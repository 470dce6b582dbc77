"""Network namespaces with nothing but a loopback device, made without any tool.

All of 127.0.0.0/8 is local to such a namespace. So in the namespace of member 1, the address
127.0.0.2 may be the proxy of the link from 1 to 2, while in the namespace of member 2 the same
address is member 2. A socket stays in the namespace that it was made in, so one process has
sockets in all of them. A namespace ends with its last process and descriptor.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Namespace", "NamespacesNotAllowed", "make_namespaces"]

_CLONE_NEWNET = 0x40000000
_CLONE_NEWUSER = 0x10000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x41
_OWN = "/proc/thread-self/ns/net"


class NamespacesNotAllowed(Exception):
    """This process may not make network namespaces."""


class Namespace:
    """One network namespace. home: the descriptor of the one to come back to."""

    def __init__(self, name: str, descriptor: int, home: int) -> None:
        self.name = name
        self._descriptor = descriptor
        self._home = home

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets and processes that this thread makes meanwhile belong to this namespace."""
        _call("setns", self._descriptor, _CLONE_NEWNET)
        try:
            yield
        finally:
            _call("setns", self._home, _CLONE_NEWNET)


def make_namespaces(names: list[str]) -> dict[str, Namespace]:
    """New namespaces with these names. NamespacesNotAllowed when the kernel refuses.

    Without the right to make them, this process first moves into a user namespace of its own,
    which works only while it has one thread.
    """
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    made: dict[str, Namespace] = {}
    try:
        _allow()
        home_of_all = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        for name in names:
            _call("unshare", _CLONE_NEWNET)
            _loopback_up()
            made[name] = Namespace(name, os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC), home_of_all)
        _call("setns", home_of_all, _CLONE_NEWNET)
    except OSError as cause:
        raise NamespacesNotAllowed(
            f"{cause.filename or 'the kernel'}: {cause.strerror}"
        ) from cause
    finally:
        os.close(home)
    return made


def _allow() -> None:
    """Leave this thread in a network namespace of its own, from which it may make others."""
    try:
        _call("unshare", _CLONE_NEWNET)
    except PermissionError:
        user, group = os.getuid(), os.getgid()
        _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET)
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    _loopback_up()


def _loopback_up() -> None:
    request = struct.pack("16sH14x", b"lo", _IFF_UP_RUNNING)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)


def _call(name: str, *arguments: int) -> None:
    """A function of the C library, which Python 3.11 does not have. OSError as usual."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
