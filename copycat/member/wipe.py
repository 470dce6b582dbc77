"""Deletes what a member has no right to any more, when a leader made it a reserve or removed it.

The file `configuration` orders it before anything is deleted, and stays, as do identity, term and
vote. A start that was cut short deletes the rest at the next one. When all is deleted, and before
this member can receive anything, the order is taken back (`ConfigurationFile.complete`): what the
member acknowledges after that is never deleted by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from copycat.member.configuration_file import CONFIGURATION_FILES, read_configurations
from copycat.member.identity import Identity, check_identity, read_identity
from copycat.member.markers import (
    ACCEPTED_LOSS_FILE,
    LOST_ENTRIES_FILE,
    NOTE_FILE,
    UNSYNCED_ACKS_FILE,
    write_deleted_log,
)

if TYPE_CHECKING:
    from copycat.storage._native import Env

__all__ = ["complete_wipe"]

_FOLDERS = ("log/lost+found", "log", "snapshots")
_MARKERS = (ACCEPTED_LOSS_FILE, LOST_ENTRIES_FILE, NOTE_FILE, UNSYNCED_ACKS_FILE)


def complete_wipe(env: Env, directory: str, expected: Identity, *, has_log: bool) -> None:
    """At a start: delete log and state if a leader said that this member is to have none.

    has_log: on the disk. WrongDirectoryError for the directory of another member; what
    `read_configurations` raises; DiskError.
    """
    if not any(env.exists(f"{directory}/{name}") for name in CONFIGURATION_FILES):
        return
    identity, _ = read_identity(env, directory)
    if identity is None:
        return
    check_identity(identity, expected, directory)
    stored = read_configurations(env, directory, has_log=has_log)
    if stored.is_wiped:
        write_deleted_log(env, directory, stored.records[0].entry)
        _delete(env, directory)


def _delete(env: Env, directory: str) -> None:
    """The log, the snapshots, and what is recorded of losses of the log."""
    for folder in _FOLDERS:
        path = f"{directory}/{folder}"
        if not env.exists(path):
            continue
        for name in env.list(path):
            if f"{folder}/{name}" not in _FOLDERS:
                env.remove(f"{path}/{name}")
    for name in _MARKERS:
        if env.exists(f"{directory}/{name}"):
            env.remove(f"{directory}/{name}")
