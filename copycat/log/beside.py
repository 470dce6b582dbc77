"""A log that is read beside the process that writes it."""

from __future__ import annotations

from copycat.errors import StorageError

__all__ = ["Beside"]


class Beside:
    """Inside, a file that is not there any more is told as what it is: the writer removed it.

    A reader knows the files of the moment when it opened the log, and keeps none of them.
    """

    __slots__ = ("_path", "_read_only")

    def __init__(self, path: str, *, read_only: bool) -> None:
        self._path = path
        self._read_only = read_only

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._read_only and isinstance(error, FileNotFoundError):
            raise StorageError(
                f"the log {self._path} was opened with read_only=True, and {error.filename} was"
                " removed since by the process that writes it",
                state="A compaction, a trim or a truncation removes files; no damage is known of.",
                hint="open the log anew and go on at the next entry that you want",
                path=error.filename,
            ) from error
