"""Child processes in the network namespace of a place."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos.namespaces import Namespace
from tests.tidy.tree import ROOT

__all__ = ["ProcessFailed", "ended", "launch", "until"]

_WORDS_SHOWN = 15


class ProcessFailed(Exception):
    """A process ended by itself, or did not do in time what it always has to do."""


def launch(
    namespace: Namespace, words: Sequence[str], output: Path, errors: Path | None = None
) -> subprocess.Popen[bytes]:
    """Run `python -m words`. What it prints is added to `output`; its stdin is a pipe.

    errors: for its stderr; None for `output`. Ctrl-C interrupts the parent only.
    """
    with output.open("ab") as out, (errors or output).open("ab") as err, namespace.entered():
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            process_group=0,
        )


async def until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait until `condition()`; ProcessFailed when it does not hold for so long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ProcessFailed(f"{what}: not within {seconds:.0f} s")
        await asyncio.sleep(0.02)


async def ended(process: subprocess.Popen[bytes], what: str, seconds: float) -> int:
    """Wait for the end of a process; its exit code."""
    await until(_HasEnded(process), f"{what} ends", seconds)
    return process.returncode


class _HasEnded:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def __call__(self) -> bool:
        return self._process.poll() is not None


def last_words(path: Path) -> str:
    """The last lines of a file, for a report."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-_WORDS_SHOWN:])
