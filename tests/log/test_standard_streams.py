"""A process without standard streams: what prints must not write into a file of the log."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from copycat import Log
from tests.tidy.tree import ROOT

_PROGRAM = """
import os, sys
from contextlib import suppress
from copycat import Log

with Log.open(sys.argv[1]) as log:
    log.append(b"before")
    for number in (0, 1, 2):
        with suppress(OSError):
            os.write(number, b"printed by somebody" * 100)
    log.append(b"after")
    log.sync()
    held = []
    for number in (0, 1, 2):
        with suppress(OSError):
            held.append(os.readlink(f"/proc/self/fd/{number}"))
sys.exit(3 if any(name.startswith(sys.argv[1]) for name in held) else 0)
"""


def close_all() -> None:
    """In the child, before it begins."""
    for number in range(3):
        os.close(number)


def test_no_file_of_a_log_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    directory = str(tmp_path / "log")
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, directory],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=close_all,
        check=False,
    )
    assert done.returncode == 0
    with Log.open(directory) as log:
        assert [entry.data for entry in log] == [b"before", b"after"]
