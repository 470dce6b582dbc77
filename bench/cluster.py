"""Member processes on loopback: started, given orders, killed, started again; their CPU time."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

__all__ = ["Processes", "free_addresses"]

ELECTION_S_MAX = 60.0


def free_addresses(count: int) -> list[str]:
    """Loopback addresses that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for open_socket in sockets:
        open_socket.close()
    return addresses


class Processes:
    """Members as child processes, numbered from 0; use as a context manager.

    count: so many founders. absent: founders that are not started so far. options: of
    `bench.member`, for every member.
    """

    def __init__(
        self,
        directory: Path,
        module: str = "bench.member",
        *,
        count: int = 3,
        absent: Sequence[int] = (),
        options: Sequence[str] = (),
    ) -> None:
        self.addresses = free_addresses(count)
        self._founders = tuple(self.addresses)
        self._directory = directory
        self._module = module
        self._options = tuple(options)
        self.children: dict[int, subprocess.Popen[bytes]] = {}
        for number in range(count):
            if number not in absent:
                self._spawn(number)

    def __enter__(self) -> Processes:
        for number in self.children:
            self._wait_ready(number)
        return self

    def __exit__(self, *_: object) -> None:
        running = [child for child in self.children.values() if child.poll() is None]
        for child in running:
            _pipe(child.stdin).close()
        for child in running:
            _wait(child)
        for child in self.children.values():
            _pipe(child.stdout).close()

    # --- starting and stopping ------------------------------------------------------------------

    def _spawn(self, number: int, *more: str) -> None:
        options = (*self._options, *more)
        places = [str(self.directory(number)), self.addresses[number]]
        founders = () if "--wait" in more else self._founders
        self.children[number] = subprocess.Popen(
            [sys.executable, "-m", self._module, *options, *places, *founders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def _wait_ready(self, number: int) -> None:
        line = _pipe(self.children[number].stdout).readline()
        if line.strip() != b"ready":
            self.__exit__()
            raise RuntimeError(f"a member did not start: {line!r}")

    def start(self, number: int) -> None:
        """Start a founder that was absent, killed or stopped; returns when it knows a leader."""
        self._spawn(number)
        self._wait_ready(number)

    def add(self) -> int:
        """Start a process that is no member so far, and takes the order `join`; its number."""
        number = len(self.addresses)
        self.addresses += free_addresses(1)
        self.wait(number)
        return number

    def wait(self, number: int) -> None:
        """Start a process that opens its directory at the order `join` or `start`."""
        self._spawn(number, "--wait")
        self._wait_ready(number)

    def kill(self, number: int) -> float:
        """SIGKILL; the moment right before it, of `time.monotonic`."""
        child = self.children.pop(number)
        moment = time.monotonic()
        child.kill()
        child.wait()
        _pipe(child.stdin).close()
        _pipe(child.stdout).close()
        return moment

    def stop(self, number: int, *, wipe: bool = False) -> None:
        """Stop a member cleanly. wipe: its directory is deleted too."""
        child = self.children.pop(number)
        _pipe(child.stdin).close()
        _wait(child)
        _pipe(child.stdout).close()
        if wipe:
            shutil.rmtree(self.directory(number))

    # --- asking ---------------------------------------------------------------------------------

    def directory(self, number: int) -> Path:
        """What a member keeps on the disk."""
        return self._directory / f"n{number + 1}"

    def order(self, number: int, text: str) -> str:
        """Give a member an order and wait for its line."""
        child = self.children[number]
        _pipe(child.stdin).write(f"{text}\n".encode())
        _pipe(child.stdin).flush()
        return _pipe(child.stdout).readline().decode().strip()

    def ask(self, number: int, text: str) -> dict[str, Any]:
        """The same with a line of JSON."""
        line = self.order(number, text)
        if not line:
            raise RuntimeError(f"the member {number} ended at the order {text!r}")
        result: dict[str, Any] = json.loads(line)
        return result

    def leader(self) -> int:
        """Which child leads now; waits for an election."""
        deadline = time.monotonic() + ELECTION_S_MAX
        while time.monotonic() < deadline:
            for number in list(self.children):
                if self.order(number, "state") == "leader":
                    return number
            time.sleep(0.01)
        raise RuntimeError(f"nobody leads for {ELECTION_S_MAX:g} s")

    def wait_applied(self, *numbers: int, index: int = 0) -> int:
        """Wait until these members have applied so much; 0: all that the leader has now."""
        target = index or int(self.ask(self.leader(), "status")["last_index"])
        for number in numbers:
            while self.ask(number, "status")["last_applied"] < target:
                time.sleep(0.01)
        return target

    def load(self, number: int, mode: str, window: int, seconds: float) -> dict[str, Any]:
        """Run the load inside a member."""
        return self.ask(number, f"load {mode} {window} {seconds}")

    def cpu_s(self, *numbers: int) -> float:
        """User and system seconds of these members so far; of all that run without a number."""
        children = [self.children[number] for number in numbers or self.children]
        stats = [Path(f"/proc/{child.pid}/stat").read_text() for child in children]
        ticks = sum(sum(map(int, stat.rpartition(")")[2].split()[11:13])) for stat in stats)
        return ticks / os.sysconf("SC_CLK_TCK")


def _wait(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(timeout=20)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("a child without pipes")
    return stream
