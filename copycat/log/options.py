"""Settings of a bare log, taken from `Storage` or from keywords; refused before the disk."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

import msgspec

from copycat.config import Storage
from copycat.errors import ConfigurationError, WrongDirectoryError
from copycat.log._native import Env
from copycat.types import Durability, StorageLevel

__all__ = ["refuse_member_directory", "storage_of"]


def storage_of(directory: str, storage: Storage | None, options: Mapping[str, Any]) -> Storage:
    """`storage` with `options` over it. ConfigurationError with all problems at once."""
    fields = [f.name for f in msgspec.structs.fields(Storage) if f.name != "directory"]
    unknown = sorted(set(options) - set(fields))
    if unknown:
        raise ConfigurationError(
            f"no such storage option: {', '.join(unknown)}",
            hint=f"the options are {', '.join(fields)}",
        )
    base = msgspec.structs.asdict(storage) if storage is not None else {}
    told = base | dict(options) | {"directory": directory}
    try:
        found = msgspec.convert(told, Storage)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ConfigurationError):
            raise error.__cause__ from None
        raise ConfigurationError(f"storage: {error}") from error
    if found.level is not StorageLevel.DISK:
        raise ConfigurationError(
            f'storage.level ("{found.level}"): only "{StorageLevel.DISK}" is built so far',
            hint=f'leave it at "{StorageLevel.DISK}"; MemoryLog keeps a log in memory for tests',
            level=found.level,
        )
    if found.durability not in set(Durability):
        raise ConfigurationError(f"storage.durability ({found.durability!r}) is unknown")
    return found


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
