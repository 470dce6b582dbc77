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
from copycat.member.checked_line import encode_line, read_line
from copycat.storage.unreadable import is_unreadable
from copycat.types import Durability, EntryId, StorageLevel

if TYPE_CHECKING:
    from copycat.storage._native import Env

__all__ = [
    "DEBT_FILE",
    "GIVEN_UP_FILE",
    "INDEX_MAX",
    "NOTE_FILE",
    "WEAK_FILE",
    "LostEntries",
    "UnsyncedAcks",
    "check_level",
    "clear_note",
    "clear_weak",
    "doubt_weak",
    "read_debt",
    "read_note",
    "read_weak",
    "write_note",
    "write_weak",
]

WEAK_FILE = "weak-promises"
_TEXT_MAX = 256


class UnsyncedAcks(NamedTuple):
    """What the last owner of a directory promised without the disk."""

    was_in_memory: bool
    boot: str
    """Of the machine, when the promises began; empty when nothing vouches for its page cache."""

    def may_be_broken(self, boot: str) -> bool:
        """Whether acknowledged entries may be missing for a process that starts in `boot`."""
        return self.was_in_memory or not boot or boot != self.boot


def read_weak(env: Env, directory: str) -> UnsyncedAcks | None:
    """None: every promise waited for the disk. What cannot be read promises the least."""
    if not env.exists(f"{directory}/{WEAK_FILE}"):
        return None
    words = _words(env, directory)
    boot = words[1] if len(words) > 1 else ""
    return UnsyncedAcks(words[:1] == [StorageLevel.MEMORY], boot)


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
    weak: UnsyncedAcks | None, level: StorageLevel, directory: str, *, has_log: bool
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


DEBT_FILE = "suspect"
GIVEN_UP_FILE = "given-up"
NOTE_FILE = "damage-seen"
INDEX_MAX = (1 << 63) - 1
"""An end that nobody knows."""


class LostEntries:
    """Entries `first_index` to `owed.index` were lost to damage and are not here again so far.

    owed: the last entry that this log may have held, or a greater name.  term: the hard state
    must have reached it before this member says anything, so that a leader that still counts
    what is gone steps down.  is_given_up: an operator accepted the loss.  is_regressed: not
    damage took them, the directory is an older copy of what it was (F8).
    """

    def __init__(
        self,
        env: Env,
        directory: str,
        owed: EntryId,
        *,
        first_index: int,
        term: int,
        is_given_up: bool = False,
        is_regressed: bool = False,
    ) -> None:
        self._env = env
        self._directory = directory
        self._path = f"{directory}/{GIVEN_UP_FILE if is_given_up else DEBT_FILE}"
        self.owed = owed
        self.first_index = first_index
        self.term = term
        self.is_given_up = is_given_up
        self.is_regressed = is_regressed

    def __str__(self) -> str:
        if self.owed.index == INDEX_MAX:
            return f"entries from {self.first_index} on, up to the end of term {self.owed.term}"
        return f"entries {self.first_index} to {self.owed.index}"

    def write(self) -> None:
        """Durable when it returns, whole or not at all."""
        said = {
            "first_index": self.first_index,
            "index": self.owed.index,
            "owed_term": self.owed.term,
            "term": self.term,
        }
        if self.is_regressed:
            said["regressed"] = 1
        self._env.replace_file(self._path, encode_line(said))

    def give_up(self) -> None:
        """An operator accepts the loss. A crash leaves both files: then it is owed as before."""
        LostEntries(
            self._env,
            self._directory,
            self.owed,
            first_index=self.first_index,
            term=self.term,
            is_given_up=True,
            is_regressed=self.is_regressed,
        ).write()
        self.settle()

    def settle(self) -> None:
        """The log holds it again, durably: the file goes. A removal that is lost does no harm."""
        if self._env.exists(self._path):
            self._env.remove(self._path)


def read_debt(env: Env, directory: str, current_term: int) -> LostEntries | None:
    """What this directory owes, or else what was given up; None for nothing.

    A file that cannot be read counts as the most that this member can have promised: anything of
    `current_term`, its hard state's. It is written anew so.
    """
    is_given_up = not env.exists(f"{directory}/{DEBT_FILE}")
    path = f"{directory}/{GIVEN_UP_FILE if is_given_up else DEBT_FILE}"
    if not env.exists(path):
        return None
    said = read_line(env, path)
    owed = EntryId(current_term, INDEX_MAX)
    first_index, term, is_regressed = 1, current_term + 1, False
    if said is not None:
        owed = EntryId(said["owed_term"], said["index"])
        first_index, term = said["first_index"], said["term"]
        is_regressed = "regressed" in said
    debt = LostEntries(
        env,
        directory,
        owed,
        first_index=first_index,
        term=term,
        is_given_up=is_given_up,
        is_regressed=is_regressed,
    )
    if said is None:
        debt.write()
    return debt


def write_note(env: Env, directory: str, error: CorruptLogError) -> None:
    """Damage was met at `error.index` (0: unknown): the next start is to look there (F11)."""
    env.replace_file(f"{directory}/{NOTE_FILE}", encode_line({"index": error.index}))


def read_note(env: Env, directory: str) -> CorruptLogError | None:
    """What a running member met, as the error that it stopped with; None for nothing."""
    path = f"{directory}/{NOTE_FILE}"
    if not env.exists(path):
        return None
    index = (read_line(env, path) or {}).get("index", 0)
    where = f"entry {index}" if index else "its log"
    return CorruptLogError(
        f"{where} could not be read when this member ran last", path=path, index=index
    )


def clear_note(env: Env, directory: str) -> None:
    """It was looked at."""
    if env.exists(f"{directory}/{NOTE_FILE}"):
        env.remove(f"{directory}/{NOTE_FILE}")
