"""Formats numbers, sizes, times and tables for the output of the tools."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

__all__ = [
    "clock_of",
    "date_of",
    "file_system_of",
    "fitted",
    "paint",
    "share_of",
    "size_of",
    "table",
]

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "dim": 2, "bold": 1}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size_of(nbytes: float) -> str:
    """A number of bytes as `1.4 MiB`, at most seven columns before the unit."""
    value = float(nbytes)
    for unit in _UNITS[:-1]:
        if value < 1024:
            return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} {_UNITS[-1]}"


def file_system_of(path: Path) -> str:
    """The type of the file system that `path` is on, from the kernel's own list."""
    best = ("", "unknown")
    mounts = Path("/proc/self/mounts")
    rows = mounts.read_text(encoding="utf-8").splitlines() if mounts.exists() else []
    for row in rows:
        _, mount, kind = row.split()[:3]
        if path.resolve().is_relative_to(mount) and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1]


def share_of(part: int, whole: int) -> str:
    """A share as `4 %`; `–` when `whole` is 0."""
    return f"{part / whole:.0%}".replace("%", " %") if whole else "–"


def date_of(time_ms: int) -> str:
    """The day of a log time, in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d")


def clock_of(time_ms: int) -> str:
    """The time of day of a log time, in UTC."""
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return f"{moment:%H:%M:%S}.{time_ms % 1000:03d}"


def paint(text: str, colour: str) -> str:
    """The text in a colour, if stdout is a terminal and NO_COLOR is not set."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def fitted(line: str) -> str:
    """A line, cut at the width of the terminal if stdout is one."""
    if not sys.stdout.isatty():
        return line
    columns = shutil.get_terminal_size().columns
    return line if len(line) <= columns else line[: columns - 1] + "…"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table. A column whose head begins with `<` is aligned left, else right."""
    names = [name.removeprefix("<") for name in head]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    left = [name.startswith("<") for name in head]

    def line(cells: Sequence[str]) -> str:
        parts = (
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, width, is_left in zip(cells, widths, left, strict=True)
        )
        return "  ".join(parts).rstrip()

    return [line(names), *map(line, rows)]
