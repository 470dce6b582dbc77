"""Which processes hold a directory, as far as /proc tells."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from copycat.errors import DirectoryInUseError

__all__ = ["Holder", "holders_of", "with_holder"]

_COMMAND_MAX = 120


class Holder(NamedTuple):
    """A process that has the lock file open."""

    pid: int
    command: str
    parent: int

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})" if self.command else f"process {self.pid}"


def holders_of(path: str) -> list[Holder]:
    """Those that have the file `path` open; what cannot be seen is left out."""
    holders: list[Holder] = []
    try:
        target = Path(path).stat()
    except OSError:
        return holders
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _has_open(process, target):
            with suppress(OSError, ValueError, IndexError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                command = b" ".join(words).decode("utf-8", "replace").strip()
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                holders.append(Holder(int(process.name), command[:_COMMAND_MAX], parent))
    return sorted(holders)


def _has_open(process: Path, target: os.stat_result) -> bool:
    with suppress(OSError):
        for fd in (process / "fd").iterdir():
            with suppress(OSError):
                if os.path.samestat(fd.stat(), target):
                    return True
    return False


def with_holder(lock: str, error: DirectoryInUseError) -> DirectoryInUseError:
    """The same error, which says which process holds the lock file `lock`, and how.

    A child of a fork has the lock of its parent as long as it lives, also when that one ended.
    """
    holders = holders_of(lock)
    if not holders:
        return error
    directory, recorded = error.path, error.pid
    holder = next((one for one in holders if one.pid == recorded), holders[0])
    hint = None
    if holder.pid == os.getpid():
        what = f"this very process ({holder.pid}), which has the directory open in another object"
        hint = "close that object first, or share it: several threads may use it"
    elif holder.pid != recorded and recorded:
        what = (
            f"{holder}, which was forked from process {recorded} while that had the directory open"
        )
        hint = f"end process {holder.pid}: until then it holds the files that it inherited"
    else:
        what = str(holder)
    return DirectoryInUseError(
        f"directory {directory} is in use by {what}", hint=hint, path=directory, pid=holder.pid
    )
