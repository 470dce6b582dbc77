"""Settings of a bare log, taken from `Storage` or from keywords; refused before the disk."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import msgspec

from copycat.config import Storage
from copycat.errors import ConfigurationError
from copycat.paths import real_path

if TYPE_CHECKING:
    from copycat.storage.in_memory import InMemoryLog

__all__ = ["log_in_memory", "storage_of"]


def storage_of(
    directory: str | PathLike[str], storage: Storage | None, options: Mapping[str, Any]
) -> Storage:
    """`storage` with `options` over it, and its directory without links.

    ConfigurationError with all problems at once.
    """
    if storage is not None and not isinstance(storage, Storage):
        raise ConfigurationError(
            f"storage ({storage!r}) must be a copycat.Storage, not {type(storage).__name__}",
            hint='pass storage=Storage(level="disk"), or the options themselves: level="disk"',
        )
    names = [f.name for f in msgspec.structs.fields(Storage)]
    options = dict(options)
    strangers = sorted(set(options) - set(names) | set(options) & {"directory"})
    problems = [f"storage.{name}: there is no such option" for name in strangers]
    for name in strangers:
        options.pop(name)
    base = msgspec.structs.asdict(storage) if storage is not None else {}
    try:
        settings = Storage(**(base | options | {"directory": directory}))
    except ConfigurationError as error:
        problems.append(str(error))
    if problems:
        names.remove("directory")
        hint = f"the options are {', '.join(names)}" if strangers else None
        raise ConfigurationError("; ".join(problems), hint=hint)
    return msgspec.structs.replace(settings, directory=real_path(settings.directory))


def log_in_memory(settings: Storage, read_only: bool) -> InMemoryLog:
    if read_only:
        raise ConfigurationError(
            "a log in memory is new and empty: read_only=True would leave nothing to do",
            hint='use level="disk" to read an existing log',
        )
    from copycat.storage.in_memory import InMemoryLog  # noqa: PLC0415 - only who asks pays

    return InMemoryLog(
        max_segment_size=settings.max_segment_size,
        max_entries_per_segment=settings.max_entries_per_segment,
    )
