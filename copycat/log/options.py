"""Settings of a bare log, taken from `Storage` or from keywords; refused before the disk."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

import msgspec

from copycat.config import Storage
from copycat.errors import ConfigurationError, WrongDirectoryError
from copycat.log._native import Env
from copycat.types import StorageLevel

__all__ = ["refuse_level", "refuse_member_directory", "storage_of"]


def storage_of(directory: str, storage: Storage | None, options: Mapping[str, Any]) -> Storage:
    """`storage` with `options` over it. ConfigurationError with all problems at once."""
    names = [f.name for f in msgspec.structs.fields(Storage)]
    options = dict(options)
    strangers = sorted(set(options) - set(names) | set(options) & {"directory"})
    problems = [f"storage.{name}: there is no such option" for name in strangers]
    for name in strangers:
        options.pop(name)
    base = msgspec.structs.asdict(storage) if storage is not None else {}
    try:
        found = Storage(**(base | options | {"directory": directory}))
    except ConfigurationError as error:
        problems.append(str(error))
    if problems:
        names.remove("directory")
        hint = f"the options are {', '.join(names)}" if strangers else None
        raise ConfigurationError("; ".join(problems), hint=hint)
    refuse_level(found.level)
    return found


def refuse_level(level: StorageLevel) -> None:
    """ConfigurationError for a level that is not built."""
    if level is StorageLevel.MAPPED:
        raise ConfigurationError(
            f'storage.level ("{level}") is not built yet',
            hint=f'use "{StorageLevel.DISK}", or "{StorageLevel.MEMORY}" for what may be lost',
            level=level,
        )


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
