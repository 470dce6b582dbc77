"""Three member processes on loopback, and their CPU time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

__all__ = ["Processes", "free_addresses"]


def free_addresses(count: int) -> list[str]:
    """Loopback addresses that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for open_socket in sockets:
        open_socket.close()
    return addresses


class Processes:
    """Members as child processes; use as a context manager."""

    def __init__(self, directory: Path, module: str = "bench.member") -> None:
        self.addresses = free_addresses(3)
        self.children = [
            subprocess.Popen(
                [sys.executable, "-m", module, str(directory / f"n{n}"), address, *self.addresses],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for n, address in enumerate(self.addresses, 1)
        ]

    def __enter__(self) -> Processes:
        for child in self.children:
            line = _pipe(child.stdout).readline()
            if line.strip() != b"ready":
                self.__exit__()
                raise RuntimeError(f"a member did not start: {line!r}")
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.children:
            if child.stdin is not None:
                child.stdin.close()
        for child in self.children:
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            _pipe(child.stdout).close()

    def order(self, number: int, text: str) -> str:
        """Give a member an order and wait for its line."""
        child = self.children[number]
        _pipe(child.stdin).write(f"{text}\n".encode())
        _pipe(child.stdin).flush()
        return _pipe(child.stdout).readline().decode().strip()

    def leader(self) -> int:
        """Which child leads now."""
        states = [self.order(number, "state") for number in range(3)]
        return states.index("leader")

    def load(self, number: int, mode: str, window: int, seconds: float) -> dict[str, Any]:
        """Run the load inside a member."""
        result: dict[str, Any] = json.loads(self.order(number, f"load {mode} {window} {seconds}"))
        return result

    def cpu_s(self) -> float:
        """User and system seconds of the members so far."""
        stats = [Path(f"/proc/{child.pid}/stat").read_text() for child in self.children]
        ticks = sum(sum(map(int, stat.rpartition(")")[2].split()[11:13])) for stat in stats)
        return ticks / os.sysconf("SC_CLK_TCK")


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("a child without pipes")
    return stream
