"""Lines for a reader that may be slow, stuck or gone: it never holds up the member.

A thread of its own writes them, straight to the descriptor: what Python's own buffer keeps of a
failed write would fail again when the process ends, and give it another exit code.
"""

from __future__ import annotations

import io
import logging
import os
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

__all__ = ["LEVELS", "Lines", "logged_to", "unhindered_output"]

WAITING_MAX = 10_000
"""Lines that wait for a reader; more are dropped."""
LEVELS = ("debug", "info", "warning", "error", "critical")


class Lines:
    """Writes lines to a stream in order, and forgets those that cannot be written."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._queue: queue.Queue[str | None] = queue.Queue(WAITING_MAX)
        self._thread = threading.Thread(target=self._write_all, name=name, daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Have it written soon. Any thread; never blocks, never raises."""
        with suppress(queue.Full):  # who does not read for so long misses some
            self._queue.put_nowait(line)

    def close(self, patience: float = 1.0) -> None:
        """Wait until all was written, but for a stuck reader not longer than `patience` s."""
        with suppress(queue.Full):  # then the thread ends with the process
            self._queue.put(None, timeout=patience)
        self._thread.join(patience)

    def _write_all(self) -> None:
        while (line := self._queue.get()) is not None:
            try:
                self._write(line + "\n")
            except BrokenPipeError:
                return  # nobody will ever read again
            except (OSError, ValueError):
                continue  # a full disk may have room for the next one

    def _write(self, text: str) -> None:
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError):  # a stream in memory
            self._stream.write(text)
            return
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        data = memoryview(text.encode(encoding, "backslashreplace"))
        while data:
            data = data[os.write(descriptor, data) :]


class _Stream(io.TextIOBase):
    """In the place of stdout or stderr: what an application prints cannot fail or wait, either.

    A print that raised would be the result of a command on one member and not on the others.
    """

    def __init__(self, lines: Lines, encoding: str) -> None:
        self._lines = lines
        self._encoding = encoding
        self._rest = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._lines.put(line)
        return len(text)


class _LogLines(logging.Handler):
    """Puts log records into `Lines`."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001  (the texts of the user's objects are their code)
            text = f"{record.levelname} {record.name}: {record.msg!r} (its text failed)"
        self._lines.put(text)


@contextmanager
def unhindered_output() -> Iterator[tuple[Lines, Lines]]:
    """Until the end of the block stdout and stderr are written by threads; both of them."""
    streams = sys.stdout, sys.stderr
    out, errors = Lines(sys.stdout, "copycat-stdout"), Lines(sys.stderr, "copycat-stderr")
    sys.stdout = _Stream(out, streams[0].encoding)
    sys.stderr = _Stream(errors, streams[1].encoding)
    try:
        yield out, errors
    finally:
        out.close()
        errors.close()
        sys.stdout, sys.stderr = streams


@contextmanager
def logged_to(lines: Lines, level: str) -> Iterator[None]:
    """Until the end of the block copycat logs from `level` on: to `lines`, unless the
    application has configured where logs go."""
    root, own = logging.getLogger(), logging.getLogger("copycat")
    before = own.level
    own.setLevel(level.upper())
    handler = None if root.handlers else _LogLines(lines)
    if handler is not None:
        root.addHandler(handler)
    try:
        yield
    finally:
        own.setLevel(before)
        if handler is not None:
            root.removeHandler(handler)
