"""What a machine can do at most with files: `cp` plus fsync, and `sendfile` over loopback.

`python -m bench.copies PORT` is the other end of `sendfile_s`: it reads and throws away.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["copy_s", "sealed_segments", "sendfile_s"]

CALL = 64 << 10
"""Bytes of one call of sendfile; larger calls are slower."""


def sealed_segments(directory: Path) -> list[Path]:
    """The segments of the log in a directory, without the one that is appended to."""
    files = sorted(directory.rglob("*.log"))
    return files[:-1] or files


def copy_s(files: Sequence[Path], target: Path) -> float:
    """Seconds of `cp` of the files, and an fsync of each copy. `target` is deleted again."""
    target.mkdir()
    os.sync()
    began = time.perf_counter()
    subprocess.run(["/bin/cp", *map(str, files), str(target)], check=True)
    for file in files:
        copy = os.open(target / file.name, os.O_RDWR)
        os.fsync(copy)
        os.close(copy)
    took = time.perf_counter() - began
    shutil.rmtree(target)
    return took


def sendfile_s(files: Sequence[Path]) -> float:
    """Seconds until another process on this machine has read the files from a socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        receiver = subprocess.Popen([sys.executable, "-m", "bench.copies", str(port)])
        connection, _ = server.accept()
    with connection:
        began = time.perf_counter()
        for path in files:
            with path.open("rb") as file:
                at, size = 0, path.stat().st_size
                while at < size:
                    at += os.sendfile(connection.fileno(), file.fileno(), at, CALL)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
        took = time.perf_counter() - began
    receiver.wait()
    return took


def _receive(port: int) -> None:
    buffer = bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while connection.recv_into(buffer):
            pass


if __name__ == "__main__":
    _receive(int(sys.argv[1]))
