"""Small files in a member's directory that record what its log may lack.

`weak-promises`: the log may lack entries that this member acknowledged. The file exists while the
log is in memory, or while entries are acknowledged before they are synced (durability "interval"
and "os"); a clean stop deletes it. It tells the next start what may be missing (decision 0016):

* a log in memory is lost with its process;
* an unsynced log is complete as long as the machine was not restarted, because the page cache
  outlives a process. The file holds the id of the boot for that;
* after a failed write or sync the page cache proves nothing, because its pages may have been
  marked clean and dropped (F9). The id of the boot is then removed from the file.

`suspect` and `given-up`: entries that damage destroyed, and those whose loss an operator accepted.
`damage-seen`: an entry that a running member could not read.
`unfinished-join`: this server asked to be added with a vote, and has not got it so far.
`deleted-log`: a leader once made this member a reserve, or removed it, and the log was deleted.
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
    "ACCEPTED_LOSS_FILE",
    "DELETED_LOG_FILE",
    "INDEX_MAX",
    "LOST_ENTRIES_FILE",
    "NOTE_FILE",
    "UNSYNCED_ACKS_FILE",
    "LostEntries",
    "UnfinishedJoin",
    "UnsyncedAcks",
    "check_level",
    "clear_note",
    "clear_unsynced_acks",
    "distrust_page_cache",
    "read_lost_entries",
    "read_note",
    "read_unsynced_acks",
    "write_deleted_log",
    "write_note",
    "write_unsynced_acks",
]

UNSYNCED_ACKS_FILE = "weak-promises"
_TEXT_MAX = 256


class UnsyncedAcks(NamedTuple):
    """The last process of a directory acknowledged entries before they were synced."""

    was_in_memory: bool
    boot: str
    """The boot of the machine at that time; empty when its page cache proves nothing."""

    def may_be_broken(self, boot: str) -> bool:
        """Whether acknowledged entries may be missing for a process that starts in `boot`."""
        return self.was_in_memory or not boot or boot != self.boot


def read_unsynced_acks(env: Env, directory: str) -> UnsyncedAcks | None:
    """None: every acknowledgement waited for a sync. An unreadable file has no boot."""
    if not env.exists(f"{directory}/{UNSYNCED_ACKS_FILE}"):
        return None
    words = _words(env, directory)
    boot = words[1] if len(words) > 1 else ""
    return UnsyncedAcks(words[:1] == [StorageLevel.MEMORY], boot)


def _words(env: Env, directory: str) -> list[str]:
    """The words of the file; none when it cannot be read."""
    try:
        text = env.read_file(f"{directory}/{UNSYNCED_ACKS_FILE}")[:_TEXT_MAX]
    except DiskError as error:
        if not is_unreadable(error):
            raise
        return []
    return text.decode("utf-8", "replace").split()


def write_unsynced_acks(
    env: Env, directory: str, level: StorageLevel, durability: Durability, boot: str
) -> None:
    """Write the marker durably, unless every acknowledgement waits for a sync."""
    if level is not StorageLevel.MEMORY and durability is Durability.FSYNC:
        return
    mode = level if level is StorageLevel.MEMORY else durability
    env.replace_file(f"{directory}/{UNSYNCED_ACKS_FILE}", f"{mode.value} {boot}\n".encode())


def distrust_page_cache(env: Env, directory: str) -> None:
    """Remove the boot from the marker: a write failed, so the page cache is not trusted (F9)."""
    mode = "".join(_words(env, directory)[:1])
    env.replace_file(f"{directory}/{UNSYNCED_ACKS_FILE}", f"{mode}\n".encode())


def clear_unsynced_acks(env: Env, directory: str) -> None:
    """Delete the marker: all acknowledged entries are synced. A lost deletion does no harm."""
    path = f"{directory}/{UNSYNCED_ACKS_FILE}"
    if env.exists(path):
        env.remove(path)


def check_level(
    unsynced_acks: UnsyncedAcks | None, level: StorageLevel, directory: str, *, has_log: bool
) -> None:
    """A member must not forget its log, or take an absent one for empty. ConfigurationError.

    CorruptLogError for a log that should be there: the identity is written after it (F3, F27).
    """
    was_in_memory = unsynced_acks is not None and unsynced_acks.was_in_memory
    if level is StorageLevel.MEMORY and has_log:
        raise ConfigurationError(
            f'storage.level ("{level}"): {directory} has a log on the disk, which a member with'
            " its log in memory would ignore",
            hint=f'use level "{StorageLevel.DISK}", or another directory for a new member',
        )
    if level is not StorageLevel.MEMORY and was_in_memory:
        raise ConfigurationError(
            f'storage.level ("{level}"): the member of {directory} kept its log in memory, and'
            " that log is lost",
            hint=f'use level "{StorageLevel.MEMORY}", or another directory for a new member',
        )
    if level is not StorageLevel.MEMORY and not has_log:
        raise CorruptLogError(
            f"{directory}: an identity, but no log: what this member acknowledged is lost (F3)",
            path=f"{directory}/log",
        )


LOST_ENTRIES_FILE = "suspect"
ACCEPTED_LOSS_FILE = "given-up"
NOTE_FILE = "damage-seen"
INDEX_MAX = (1 << 63) - 1
"""The end of a log whose last index is not known."""


class LostEntries:
    """Entries from `first_index` to `lost_upto.index` were lost, and have not been sent again yet.

    lost_upto: the last entry that this log may have held, or an id above it.  term: the hard
    state must have reached it before this member sends anything, so that a leader that still
    counts the lost entries steps down.  is_accepted: an operator accepted the loss.
    is_regressed: no damage destroyed these entries, the directory is an older copy of itself (F8).
    """

    def __init__(
        self,
        env: Env,
        directory: str,
        lost_upto: EntryId,
        *,
        first_index: int,
        term: int,
        is_accepted: bool = False,
        is_regressed: bool = False,
    ) -> None:
        self._env = env
        self.directory = directory
        self._path = f"{directory}/{ACCEPTED_LOSS_FILE if is_accepted else LOST_ENTRIES_FILE}"
        self.lost_upto = lost_upto
        self.first_index = first_index
        self.term = term
        self.is_accepted = is_accepted
        self.is_regressed = is_regressed

    def __str__(self) -> str:
        if self.lost_upto.index == INDEX_MAX:
            return (
                f"entries from {self.first_index} on, up to the end of term {self.lost_upto.term}"
            )
        return f"entries {self.first_index} to {self.lost_upto.index}"

    def write(self) -> None:
        """Durable when it returns, whole or not at all."""
        fields = {
            "first_index": self.first_index,
            "index": self.lost_upto.index,
            "owed_term": self.lost_upto.term,
            "term": self.term,
        }
        if self.is_regressed:
            fields["regressed"] = 1
        self._env.replace_file(self._path, encode_line(fields))

    def accept_loss(self) -> None:
        """An operator accepts the loss. After a crash in between both files exist, and the member
        continues the recovery."""
        LostEntries(
            self._env,
            self.directory,
            self.lost_upto,
            first_index=self.first_index,
            term=self.term,
            is_accepted=True,
            is_regressed=self.is_regressed,
        ).write()
        self.clear()

    def clear(self) -> None:
        """Delete the record: the log holds the entries again, durably. A lost deletion does no
        harm."""
        if self._env.exists(self._path):
            self._env.remove(self._path)


def read_lost_entries(env: Env, directory: str, current_term: int) -> LostEntries | None:
    """The entries that this directory lost, or those whose loss was accepted; None for none.

    An unreadable file counts as the most that this member can have acknowledged: any entry of
    `current_term`, the term of the hard state. The file is then rewritten with that.
    """
    is_accepted = not env.exists(f"{directory}/{LOST_ENTRIES_FILE}")
    path = f"{directory}/{ACCEPTED_LOSS_FILE if is_accepted else LOST_ENTRIES_FILE}"
    if not env.exists(path):
        return None
    fields = read_line(env, path)
    lost_upto = EntryId(current_term, INDEX_MAX)
    first_index, term, is_regressed = 1, current_term + 1, False
    if fields is not None:
        lost_upto = EntryId(fields["owed_term"], fields["index"])
        first_index, term = fields["first_index"], fields["term"]
        is_regressed = "regressed" in fields
    lost_entries = LostEntries(
        env,
        directory,
        lost_upto,
        first_index=first_index,
        term=term,
        is_accepted=is_accepted,
        is_regressed=is_regressed,
    )
    if fields is None:
        lost_entries.write()
    return lost_entries


def write_note(env: Env, directory: str, error: CorruptLogError) -> None:
    """Record that entry `error.index` (0: unknown) was unreadable, for the next start (F11)."""
    env.replace_file(f"{directory}/{NOTE_FILE}", encode_line({"index": error.index}))


def read_note(env: Env, directory: str) -> CorruptLogError | None:
    """The error with which a running member stopped at unreadable bytes; None for none."""
    path = f"{directory}/{NOTE_FILE}"
    if not env.exists(path):
        return None
    index = (read_line(env, path) or {}).get("index", 0)
    where = f"entry {index}" if index else "its log"
    return CorruptLogError(
        f"{where} could not be read when this member ran last", path=path, index=index
    )


def clear_note(env: Env, directory: str) -> None:
    """Delete the note: the damage that it names was examined."""
    if env.exists(f"{directory}/{NOTE_FILE}"):
        env.remove(f"{directory}/{NOTE_FILE}")


DELETED_LOG_FILE = "deleted-log"


def write_deleted_log(env: Env, directory: str, entry: EntryId) -> None:
    """Record durably that the log of this member was deleted, since the configuration of `entry`
    said so. The record is never deleted: from here on the log alone does not prove what this
    member acknowledged (C33)."""
    line = encode_line({"index": entry.index, "term": entry.term})
    env.replace_file(f"{directory}/{DELETED_LOG_FILE}", line)


class UnfinishedJoin:
    """The record of a server that asked to be added as ACTIVE, and has not got its vote so far.

    It is PASSIVE first. When the server stops between these two steps, its configuration says the
    same as that of a member that a user has made PASSIVE; only this record tells that the vote is
    still to be asked for.
    """

    def __init__(self, env: Env, directory: str) -> None:
        self._env = env
        self._path = f"{directory}/unfinished-join"

    def exists(self) -> bool:
        """Whether the vote is still to be asked for."""
        return self._env.exists(self._path)

    def write(self) -> None:
        """Durable when it returns."""
        self._env.replace_file(self._path, b"active\n")

    def clear(self) -> None:
        """Delete the record: the join is complete, or was given up."""
        if self.exists():
            self._env.remove(self._path)
