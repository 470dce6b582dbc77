"""Which segments a log directory holds now, also between two syncs of a running server."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from os import PathLike, fspath

from copycat.errors import StorageError
from copycat.log._native import Env
from copycat.log.inspect_walk import StoredEntry, Walk
from copycat.log.records import Row, manifest_generation, read_manifest
from copycat.paths import real_path

__all__ = ["follow_rows", "log_directory", "named_place", "rows_of", "settle"]

_PENDING = re.compile(r"manifest-(\d+)\.pending")


def named_place(path: str | PathLike[str], env: Env | None) -> str:
    """What a caller means by `path` now; on an Env of its own, as it is. ConfigurationError."""
    return real_path(path) if env is None else fspath(path)


def log_directory(env: Env, path: str) -> str:
    """`path`, or its `log/` when it is a member's."""
    return f"{path}/log" if env.exists(f"{path}/log") else path


def rows_of(env: Env, directory: str) -> list[Row]:
    """The manifest's rows, or those of a pending one that no sync made durable so far.

    CorruptLogError, FormatVersionError; FileNotFoundError when no log is there.
    """
    path = f"{directory}/manifest"
    while True:
        data = env.read_file(path)
        rows = _newest_rows(env, directory, data)
        if env.read_file(path) == data:
            return rows  # else a pending one may have taken its place unseen: the log went on


def _newest_rows(env: Env, directory: str, data: bytes) -> list[Row]:
    rows = read_manifest(data, f"{directory}/manifest")
    proven = {row.id for row in rows if row.sealed}
    for generation in sorted(_pending(env, directory), reverse=True):
        if generation <= manifest_generation(data):
            break
        newer = _whole_rows(env, directory, generation, proven)
        if newer is not None:
            return newer
    return rows


def follow_rows(env: Env, directory: str, first: int = 1) -> Iterator[tuple[Row, Walk]]:
    """Each row that may hold an index from `first` on, with a walk to make and to `settle`.

    After a walk that was settled as replaced, the newest manifest's rows behind what was read.
    """
    rows = rows_of(env, directory)
    position = first
    while rows:
        row, *rows = rows
        if row.sealed and row.last_index < position:
            continue
        walk = Walk(env, directory, row)
        yield row, walk
        position = max(position, walk.position[1])
        if walk.is_replaced:
            rows = rows_of(env, directory)


def settle(env: Env, directory: str, row: Row, walk: Walk) -> bool:
    """After a walk: False when its file was rewritten or trimmed away meanwhile (no damage).

    Only a file that the newest manifest names is missed.
    """
    if walk.is_gone and row not in rows_of(env, directory):
        walk.is_replaced = True
        walk.damage = None
    return not walk.is_replaced


def _pending(env: Env, directory: str) -> list[int]:
    names = (_PENDING.fullmatch(name) for name in env.list(directory))
    return [int(match[1]) for match in names if match]


def _whole_rows(env: Env, directory: str, generation: int, proven: set[int]) -> list[Row] | None:
    """The rows of a pending manifest, if all that they name beyond `proven` can be read."""
    path = f"{directory}/manifest-{generation}.pending"
    try:
        rows = read_manifest(env.read_file(path), path)
    except (StorageError, FileNotFoundError):
        return None  # torn, or its sync has come meanwhile
    for row in rows:
        if row.id in proven:
            continue
        walk = Walk(env, directory, row)
        drain: deque[StoredEntry] = deque(maxlen=0)
        drain.extend(walk)
        if walk.damage is not None:
            return None
    return rows
