"""What a member's directory says of damage: what it owes, and what was met while it ran.

`suspect`: entries up to some point were on this disk, were perhaps acknowledged, and are cut off
since they could not be read. Until the log reaches that point again the member votes as if it
held them (C12, docs/decisions/0017). `given-up`: the same after an operator accepted the loss:
then only no hole may stand for them. `damage-seen`: a running member stopped at bytes that it
could not read (F11); the next start looks there. Each is one line: a checksum, then JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from copycat.errors import CorruptLogError
from copycat.log.checked_line import encode_line, read_line
from copycat.types import EntryId

if TYPE_CHECKING:
    from copycat.log._native import Env

__all__ = [
    "DEBT_FILE",
    "GIVEN_UP_FILE",
    "INDEX_MAX",
    "NOTE_FILE",
    "Debt",
    "clear_note",
    "read_debt",
    "read_note",
    "write_note",
]

DEBT_FILE = "suspect"
GIVEN_UP_FILE = "given-up"
NOTE_FILE = "damage-seen"
INDEX_MAX = (1 << 63) - 1
"""An end that nobody knows."""


class Debt:
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
        Debt(
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


def read_debt(env: Env, directory: str, current_term: int) -> Debt | None:
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
    debt = Debt(
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
