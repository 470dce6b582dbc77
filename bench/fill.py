"""Fill an engine in a process of its own: `python -m bench.fill ENGINE DIRECTORY COUNT STOP`.

Entries of 256 B, forced to the disk at the end. STOP is "clean" (closed) or "crash" (SIGKILL).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from bench.engines import ENGINES

__all__ = ["ITEM", "fill"]

ITEM = bytes(255) + b"x"


def fill(engine: str, directory: Path, count: int, stop: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    log = ENGINES[engine](directory, sync=False)
    for first in range(0, count, 1000):
        log.append([ITEM] * min(1000, count - first))
    log.force()
    if stop == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    log.close()


if __name__ == "__main__":
    fill(sys.argv[1], Path(sys.argv[2]).resolve(), int(sys.argv[3]), sys.argv[4])
