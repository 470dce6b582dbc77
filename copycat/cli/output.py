"""Writes lines in a thread, so that a reader that is slow, stuck or has ended never blocks a
member.

The thread writes to the file descriptor. Python's buffer would keep the bytes of a failed write,
and would fail again when the process ends, which would change the exit code.
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
"""How many lines may wait for the reader; further ones are dropped."""
LEVELS = ("debug", "info", "warning", "error", "critical")


class Lines:
    """Writes lines to a stream in order; drops lines that cannot be written.

    name: of the thread.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._queue: queue.Queue[str | None] = queue.Queue(WAITING_MAX)
        self._thread = threading.Thread(target=self._write_all, name=name, daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Have a line written soon. From any thread; never blocks, never raises."""
        with suppress(queue.Full):  # the reader has not read for long: the line is dropped
            self._queue.put_nowait(line)

    def close(self, timeout_s: float = 1.0) -> None:
        """Wait until all lines are written, but at most `timeout_s` seconds."""
        with suppress(queue.Full):  # then the thread ends with the process
            self._queue.put(None, timeout=timeout_s)
        self._thread.join(timeout_s)

    def _write_all(self) -> None:
        while (line := self._queue.get()) is not None:
            try:
                self._write(line + "\n")
            except BrokenPipeError:
                return  # the reader has ended
            except (OSError, ValueError):
                continue  # a full disk may have room for the next line

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
    """Replaces stdout or stderr, so that a `print` of the application never fails and never waits.

    A `print` that raises in a command would make its result differ between members.
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
    """Replace stdout and stderr, until the end of the block, by streams that threads write."""
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
    """Write log records of copycat from `level` on to `lines`, until the end of the block.

    When the application has configured logging, its handlers get the records instead.
    """
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
