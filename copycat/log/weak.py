"""The file `weak-promises`: this member's log may lack entries that it has acknowledged.

It stands in a member's directory while the log is in memory, or while entries are acknowledged
before they are synced (durability "interval" and "os"), and goes with a clean stop. Whoever
opens the directory then knows what may be missing (docs/decisions/0016):

* a log in memory is gone with its process;
* an unsynced one is whole as long as the machine was not restarted: the page cache outlives
  a process. The id of the boot says which it was;
* after a write or a sync that failed not even that: such pages may be marked clean and dropped
  (F9). The boot's id is then taken out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from copycat.errors import ConfigurationError, CorruptLogError, DiskError
from copycat.log.unreadable import is_unreadable
from copycat.types import Durability, StorageLevel

if TYPE_CHECKING:
    from copycat.log._native import Env

__all__ = [
    "WEAK_FILE",
    "WeakPromises",
    "check_level",
    "clear_weak",
    "doubt_weak",
    "read_weak",
    "write_weak",
]

WEAK_FILE = "weak-promises"
_TEXT_MAX = 256


class WeakPromises(NamedTuple):
    """What the last owner of a directory promised without the disk."""

    was_in_memory: bool
    boot: str
    """Of the machine, when the promises began; empty when nothing vouches for its page cache."""

    def may_be_broken(self, boot: str) -> bool:
        """Whether acknowledged entries may be missing for a process that starts in `boot`."""
        return self.was_in_memory or not boot or boot != self.boot


def read_weak(env: Env, directory: str) -> WeakPromises | None:
    """None: every promise waited for the disk. What cannot be read promises the least."""
    if not env.exists(f"{directory}/{WEAK_FILE}"):
        return None
    words = _words(env, directory)
    boot = words[1] if len(words) > 1 else ""
    return WeakPromises(words[:1] == [StorageLevel.MEMORY], boot)


def _words(env: Env, directory: str) -> list[str]:
    """What the file says; nothing when it cannot be read."""
    try:
        text = env.read_file(f"{directory}/{WEAK_FILE}")[:_TEXT_MAX]
    except DiskError as error:
        if not is_unreadable(error):
            raise
        return []
    return text.decode("utf-8", "replace").split()


def write_weak(
    env: Env, directory: str, level: StorageLevel, durability: Durability, boot: str
) -> None:
    """Say it, durably, when promises do not wait for the disk from here on."""
    if level is not StorageLevel.MEMORY and durability is Durability.FSYNC:
        return
    mode = level if level is StorageLevel.MEMORY else durability
    env.replace_file(f"{directory}/{WEAK_FILE}", f"{mode.value} {boot}\n".encode())


def doubt_weak(env: Env, directory: str) -> None:
    """The disk failed under these promises: that the machine runs on proves nothing now (F9)."""
    mode = "".join(_words(env, directory)[:1])
    env.replace_file(f"{directory}/{WEAK_FILE}", f"{mode}\n".encode())


def clear_weak(env: Env, directory: str) -> None:
    """Everything that was promised is on the disk. A removal that is lost does no harm."""
    path = f"{directory}/{WEAK_FILE}"
    if env.exists(path):
        env.remove(path)


def check_level(
    weak: WeakPromises | None, level: StorageLevel, directory: str, *, has_log: bool
) -> None:
    """A member must not forget its log, or take an absent one for empty. ConfigurationError.

    CorruptLogError for a log that should be there: the identity is written after it (F3, F27).
    """
    was_in_memory = weak is not None and weak.was_in_memory
    if level is StorageLevel.MEMORY and has_log:
        raise ConfigurationError(
            f'storage.level ("{level}"): {directory} holds a log on disk, which a member with its'
            " log in memory would forget",
            hint=f'use level "{StorageLevel.DISK}", or another directory for a new member',
        )
    if level is not StorageLevel.MEMORY and was_in_memory:
        raise ConfigurationError(
            f'storage.level ("{level}"): the member of {directory} kept its log in memory, and'
            " that is gone",
            hint=f'use level "{StorageLevel.MEMORY}", or another directory for a new member',
        )
    if level is not StorageLevel.MEMORY and not has_log:
        raise CorruptLogError(
            f"{directory}: an identity, but no log: what this member acknowledged is lost (F3)",
            path=f"{directory}/log",
        )
