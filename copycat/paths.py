"""A path means what it meant at the call: the working directory may be another one later."""

from __future__ import annotations

import os
from contextlib import suppress

from copycat.errors import ConfigurationError

__all__ = ["absolute_path", "path_text", "real_path"]


def path_text(path: str | os.PathLike[str]) -> str:
    """`path` as it was given. ConfigurationError for what is no path of a log: bytes, an empty
    one, a NUL inside, or text that is not UTF-8."""
    given = os.fspath(path)
    if not _is_text(given):
        raise ConfigurationError(
            f"the path ({given!r}) must be a str in UTF-8: not empty, without NUL",
            hint="os.fsdecode() makes a str of bytes; rename a directory whose name is not UTF-8",
        )
    return given


def absolute_path(path: str | os.PathLike[str]) -> str:
    """`path` from the root on; `~` is the user's home. Links in it are not followed yet.

    In a working directory that was deleted a relative path stays as it is.
    """
    named = os.path.expanduser(os.fspath(path))
    if not named or os.path.isabs(named):
        return named  # an empty path does not mean the working directory
    with suppress(FileNotFoundError):
        # Not `abspath` where the path has `..`: behind a link that is another directory.
        joined = os.path.join(os.getcwd(), named)
        return joined if ".." in named.split("/") else os.path.normpath(joined)
    return named


def real_path(path: str | os.PathLike[str]) -> str:
    """The same with all links followed: for whoever is about to open what is there.

    A link that is changed later must not lead to another directory half-way. ConfigurationError
    for a relative path in a working directory that was deleted, and as `path_text`.
    """
    named = os.path.expanduser(path_text(path))
    try:
        return os.path.realpath(named)
    except FileNotFoundError:
        raise ConfigurationError(
            f"{named} is a relative path, and the working directory was deleted",
            hint="give an absolute path, or change to a directory that is there",
        ) from None


def _is_text(path: str | bytes) -> bool:
    if not isinstance(path, str) or not path or "\0" in path:
        return False
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
