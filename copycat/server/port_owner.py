"""Who holds a TCP port, as far as /proc tells."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["holder_of"]

_LISTEN = "0A"


def holder_of(port: int) -> tuple[int, str] | None:
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
    found = set()
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(path).read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == _LISTEN:
                    found.add(f"socket:[{fields[9]}]")
    return found


def _has_socket(process: Path, inodes: set[str]) -> bool:
    with suppress(OSError):
        for fd in (process / "fd").iterdir():
            with suppress(OSError):
                if str(fd.readlink()) in inodes:
                    return True
    return False
