"""Shows progress: as a bar on a terminal if `rich` is installed, else as a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

__all__ = ["Progress", "progress"]

Progress = Callable[[int], None]
"""Shows that so many are done; not to be called more often than once per turn of the loop."""

_LINE_EVERY_S = 2.0


@contextmanager
def progress(words: str, total: int) -> Iterator[tuple[Progress, Callable[[str], None]]]:
    """Yield two functions: one shows how many of `total` are done, one prints a line."""
    if sys.stderr.isatty() and find_spec("rich") is not None:
        with _bar(words, total) as pair:
            yield pair
        return
    started = shown = time.monotonic()

    def advance(done: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= _LINE_EVERY_S or done == total:
            shown = now
            rate = done / max(now - started, 1e-9)
            say(f"{words}: {done:,} of {total:,} ({done / total:.0%}), {rate:,.0f} per second")

    yield advance, say


def say(line: str) -> None:
    """Print a line to stderr."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _bar(words: str, total: int) -> Iterator[tuple[Progress, Callable[[str], None]]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn(words),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    started = time.monotonic()
    with RichProgress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(words, total=total, rate="")

        def advance(done: int) -> None:
            rate = done / max(time.monotonic() - started, 1e-9)
            bar.update(task, completed=done, rate=f"{rate:,.0f}/s")

        yield advance, lambda line: bar.console.print(line, highlight=False, markup=False)
