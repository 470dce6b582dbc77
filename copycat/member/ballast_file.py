"""The ballast: a file of zeros that a member deletes when its disk is full (F12, F13).

A manifest that finds no space in the middle of its replacement stops the member. So a file of
zeros stands in the member's directory (`reserve` on the disk), large enough for a manifest and
the index of one segment. It is deleted when these two might need its space, and made again when
there is room.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from copycat.errors import DiskFullError, ResourceError

if TYPE_CHECKING:
    from copycat.storage._native import Env, NativeLog

__all__ = ["BALLAST_FILE", "BallastFile", "ballast_size", "disk_full", "free_ballast"]

BALLAST_FILE = "reserve"
_MANIFEST_BYTES = 1 << 20
_SLOT_BYTES = 8
_FRAME_BYTES_MIN = 32


def ballast_size(max_segment_size: int, max_entries_per_segment: int) -> int:
    """What a roll may still have to write: a manifest, and one slot an entry of a segment."""
    entries = min(max_entries_per_segment, max_segment_size // _FRAME_BYTES_MIN)
    return _MANIFEST_BYTES + _SLOT_BYTES * entries


class BallastFile:
    """The ballast of one member. `make` may run in any thread, all else in the loop thread."""

    def __init__(self, env: Env, directory: str, nbytes: int, min_free_space: int) -> None:
        self._env = env
        self._directory = directory
        self._path = f"{directory}/{BALLAST_FILE}"
        self._min_free_space = min_free_space
        self.nbytes = nbytes
        self.is_allocated = env.exists(self._path)
        if self.is_allocated and env.open(self._path).size() != nbytes:
            self.release()  # of another size, or a crash came while it was made

    def make(self) -> bool:
        """Allocate the file if what is left then is enough; False when it is not, or when the
        system lacks something else that it takes. DiskError."""
        env = self._env
        if env.free_space(self._directory) < self.nbytes + self._min_free_space:
            return False
        try:
            if env.exists(self._path):  # an earlier removal failed
                env.remove(self._path)
            file = env.create(self._path)
            file.allocate(self.nbytes)
            file.sync()
            env.sync_directory(self._directory)
        except (DiskFullError, ResourceError):
            with suppress(FileNotFoundError, ResourceError):  # the next try removes it
                env.remove(self._path)
            return False
        return True

    def made(self) -> None:
        """`make` returned True: the file is there. Called in the loop thread."""
        self.is_allocated = True

    def release(self) -> None:
        """Delete the file, if there is one, so that its space is free."""
        if self.is_allocated:
            self.is_allocated = False
            self._env.remove(self._path)

    def make_room_for_manifest(self) -> None:
        """Before a roll is made durable: delete the file if the free space might not be enough."""
        if self.is_allocated and self._env.free_space(self._directory) < self.nbytes:
            self.release()


def free_ballast(env: Env, directory: str) -> None:
    """Before a log is opened: delete the file on a full disk: recovery may need its space."""
    path = f"{directory}/{BALLAST_FILE}"
    if env.exists(path) and env.free_space(directory) < max(
        _MANIFEST_BYTES, env.open(path).size()
    ):
        env.remove(path)


def disk_full(
    env: Env, directory: str, log: NativeLog, min_free_space: int, needed: int
) -> DiskFullError:
    """The error with its numbers: what is free, what the limit is, how large the log is."""
    free = env.free_space(directory)
    segments = len(log.segments())
    return DiskFullError(
        f"{directory} has {_mib(free)} free; a segment of {_mib(needed)} would leave less than"
        f" storage.min_free_space ({_mib(min_free_space)}): entries are refused; queries are not",
        state=f"Log {_mib(log.size)} in {segments} segments, entries {log.first_index:,} to"
        f" {log.last_index:,}\nEntries are accepted again when {_mib(min_free_space + 2 * needed)}"
        " have been free for one second",
        hint="free some space, or lower storage.min_free_space\n"
        "the member has tried to take a snapshot, to trim the log; by hand, call"
        " server.take_snapshot(), and server.compact() for entries that were released",
        free=free,
        limit=min_free_space,
    )


def _mib(nbytes: int) -> str:
    return f"{nbytes / (1 << 20):,.1f} MiB"
