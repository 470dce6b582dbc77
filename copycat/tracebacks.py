"""Errors of other people's code in the log: bounded, whatever text an exception has."""

from __future__ import annotations

import logging
import traceback

__all__ = ["TEXT_MAX", "TRACEBACK_MAX", "log_error", "shortened"]

TEXT_MAX = 4096
"""Characters of one text: an exception's own, a line of a traceback, an object's repr."""
TRACEBACK_MAX = 16 * TEXT_MAX
"""Characters of a traceback with all its causes: its beginning and its end are logged."""


def shortened(text: str, limit: int = TEXT_MAX) -> str:
    """The text, or its beginning and how much more there is."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}... {len(text) - limit} more characters"


def log_error(
    log: logging.Logger, level: int, error: BaseException, message: str, *arguments: object
) -> None:
    """`log.log(level, message, *arguments, exc_info=error)` with a bounded text."""
    if not log.isEnabledFor(level):
        return
    text = message % arguments if arguments else message
    path, line, function, _ = log.findCaller(stacklevel=2)
    record = log.makeRecord(
        log.name,
        level,
        path,
        line,
        shortened(text),
        (),
        (type(error), error, error.__traceback__),
        function,
    )
    record.exc_text = _formatted(error)  # what a formatter finds here it does not make itself
    log.handle(record)


def _formatted(error: BaseException) -> str:
    parts = traceback.TracebackException.from_exception(error, compact=True).format()
    text = "".join(_cut(part) for part in parts).rstrip("\n")
    half = TRACEBACK_MAX // 2
    if len(text) <= TRACEBACK_MAX:
        return text
    middle = f"\n... {len(text) - TRACEBACK_MAX} characters are left out ...\n"
    return f"{text[:half]}{middle}{text[-half:]}"


def _cut(part: str) -> str:
    return part if len(part) <= TEXT_MAX else f"{shortened(part)}\n"
