"""tests/native/short_calls.cpp: built once, preloaded under a process, driven from inside it."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.tidy.tree import ROOT

__all__ = ["ShortCalls", "run_under"]

_SOURCE = ROOT / "tests" / "native" / "short_calls.cpp"
_CALLS = ("open", "map", "new", "thread", "write", "sync")


def _library() -> Path:
    """The shared object of the source as it is now."""
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    made = ROOT / "build" / "short_calls" / f"{digest}.so"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        aside = made.with_suffix(f".{os.getpid()}")
        compiler = os.environ.get("CXX", "g++").split()
        flags = ["-std=c++20", "-O1", "-shared", "-fPIC"]
        subprocess.run([*compiler, *flags, "-o", aside, _SOURCE], check=True)
        aside.rename(made)
    return made


def run_under(*arguments: str) -> str:
    """What `python ARGUMENTS` prints with the library under it; AssertionError when it fails."""
    environment = os.environ | {"LD_PRELOAD": str(_library()), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class ShortCalls:
    """The library under this process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._seed = 0
        for name in ("cuts", "interruptions"):
            getattr(self._library, f"short_calls_{name}").restype = ctypes.c_uint64
        self._library.short_calls_left.restype = ctypes.c_int64
        self._library.short_calls_begin.argtypes = [ctypes.c_uint64]
        self._library.short_calls_fail.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int]

    @contextmanager
    def cut(self, seed: int) -> Iterator[None]:
        """Inside, calls are cut short and interrupted, by `seed`; with 0 they are not."""
        before, self._seed = self._seed, seed
        self._library.short_calls_begin(seed)
        try:
            yield
        finally:
            self._seed = before
            self._library.short_calls_begin(before)

    @property
    def cuts(self) -> int:
        """Reads and writes that did less than they were asked for."""
        return int(self._library.short_calls_cuts())

    @property
    def interruptions(self) -> int:
        """Calls that a signal interrupted before they did anything."""
        return int(self._library.short_calls_interruptions())

    def fail(self, call: str, nth: int, error: str) -> None:
        """The nth `call` from now (1 is the next) fails with `error`, an errno's name or SHORT."""
        number = -1 if error == "SHORT" else getattr(errno, error)
        self._library.short_calls_fail(_CALLS.index(call), nth, number)

    def is_met(self, call: str) -> bool:
        """Whether the failure that was asked for has come; it is forgotten otherwise."""
        is_met = int(self._library.short_calls_left(_CALLS.index(call))) == 0
        self._library.short_calls_fail(_CALLS.index(call), 0, 0)
        return is_met

    def set_full(self, full: bool) -> None:
        """No disk has free space for whoever asks."""
        self._library.short_calls_full(full)
