"""Directories that are not what somebody takes them for."""

from __future__ import annotations

import posixpath
from os.path import isdir

from copycat.errors import ConfigurationError, WrongDirectoryError
from copycat.storage._native import Env

__all__ = ["refuse_file", "refuse_member_directory"]


def refuse_member_directory(env: Env, directory: str) -> None:
    """WrongDirectoryError when `directory` is a cluster member's: its log has one writer."""
    parent = posixpath.dirname(posixpath.abspath(directory))
    inside = posixpath.basename(posixpath.abspath(directory)) == "log"
    for place in (directory, parent) if inside else (directory,):
        if env.exists(f"{place}/identity-a") or env.exists(f"{place}/identity-b"):
            raise WrongDirectoryError(
                f"{directory} holds a cluster member's log; a bare Log must not write to it",
                hint="use another directory, or read_only=True with its log/ directory",
                path=directory,
            )


def refuse_file(env: Env, directory: str) -> None:
    """ConfigurationError when `directory`, or what it is to be made in, is a file."""
    place = directory
    while not env.exists(place) and posixpath.dirname(place) != place:
        place = posixpath.dirname(place)
    if not isdir(place):  # noqa: PTH112 - a log that is opened does not import pathlib
        raise ConfigurationError(
            f"{place} is a file, not a directory",
            hint="name a directory; a missing directory is created",
        )
