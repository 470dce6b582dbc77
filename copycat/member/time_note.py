"""The file `log-time`: what log time was when this machine's wall clock showed so much (C25).

After all members were down, the difference of the two says what log time has come to, by a wall
clock that ran on meanwhile. Where it cannot be read, or could not be written, log time continues
from the last entry: what is to end by it then ends late, and nothing early. So neither is an
error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from copycat.errors import DiskError, DiskFullError
from copycat.member.checked_line import encode_line, read_line
from copycat.storage.unreadable import is_unreadable

if TYPE_CHECKING:
    from copycat.storage._native import Env

__all__ = ["TIME_FILE", "TimeFile", "TimeNote"]

TIME_FILE = "log-time"


class TimeNote(NamedTuple):
    """Log time and the wall clock at one moment, in milliseconds.

    term: of the leader whose log time it is, and of the log's last entry then.
    """

    log_time_ms: int
    wall_ms: int
    term: int


class TimeFile:
    """In a member's directory. `write` may run in any thread."""

    def __init__(self, env: Env, directory: str) -> None:
        self._env = env
        self._path = f"{directory}/{TIME_FILE}"

    def read(self) -> TimeNote | None:
        """What was written last; None where there is nothing, or nothing that can be read."""
        if not self._env.exists(self._path):
            return None
        try:
            fields = read_line(self._env, self._path)
        except DiskError as error:
            if not is_unreadable(error):
                raise
            return None
        if fields is None or fields.keys() != set(TimeNote._fields):
            return None
        return TimeNote(**fields)

    def write(self, note: TimeNote) -> bool:
        """Durable when it returns True; False when the disk did not take it: what was written
        before stands, or nothing."""
        try:
            self._env.replace_file(self._path, encode_line(note._asdict()))
        except (DiskError, DiskFullError):
            return False
        return True
