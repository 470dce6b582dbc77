"""A member's snapshots: written aside, read back, published by rename; two are kept (F17).

A snapshot is the file `{index}-{term}.snap`. A file that is being written ends in `.new`, and one
that is being received in `.part`; the next start deletes both. Each method says which thread may
call it: `(loop)` is the thread of the event loop, `(aside)` any other thread, one call at a time.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from copycat.errors import CorruptLogError, ProtocolError, StorageError, require
from copycat.storage import snapshot_file
from copycat.storage.snapshot_file import Snapshot, Writer
from copycat.storage.unreadable import unreadable_is_corrupt
from copycat.types import EntryId

if TYPE_CHECKING:
    from copycat.storage._native import Env, File

__all__ = ["RETAINED_MAX", "Reception", "Snapshot", "SnapshotStore", "Writer"]

log = logging.getLogger("copycat.log")

RETAINED_MAX = 2
"""So many of the newest are kept: if the newest is damaged, the one before it is used (F17)."""

_NAME = re.compile(r"([1-9][0-9]{0,18})-([1-9][0-9]{0,18})\.snap")
_ASIDE = re.compile(r"[1-9][0-9]{0,18}-[1-9][0-9]{0,18}\.snap\.bad")
_LEFTOVER = re.compile(r"[1-9][0-9]{0,18}-[1-9][0-9]{0,18}\.(new|part)")


class SnapshotStore:
    """The snapshots in `directory`, oldest first. Opening it removes leftovers; the directory
    is made when the first one is written.

    compress: new files are compressed with LZ4; files of both kinds can be read.
    retain_stale: nothing is ever discarded. tidies: False keeps leftovers until `tidy`.
    """

    def __init__(
        self,
        env: Env,
        directory: str,
        *,
        compress: bool = True,
        retain_stale: bool = False,
        tidies: bool = True,
    ) -> None:
        self._env = env
        self._directory = directory
        self._compress = compress
        self._retain_stale = retain_stale
        self._readers: dict[EntryId, int] = {}
        self._whole: dict[EntryId, Snapshot] = {}
        self._seen: tuple[Snapshot, bytes] | None = None
        self.bad: list[EntryId] = []
        """Snapshots that failed their checksums; the next discard deletes their files (F17)."""
        self._leftovers: list[str] = []
        self._entries = self._open() if env.exists(directory) else []
        if tidies:
            self.tidy()

    def _open(self) -> list[EntryId]:
        entries = []
        for name in self._env.list(self._directory):
            match = _NAME.fullmatch(name)
            if match is not None:
                entries.append(EntryId(int(match[2]), int(match[1])))
            elif _LEFTOVER.fullmatch(name) is not None:
                self._leftovers.append(f"{self._directory}/{name}")
            elif _ASIDE.fullmatch(name) is None:
                log.warning(
                    "%s/%s is not a snapshot, and is not touched (F4)", self._directory, name
                )
        return sorted(entries, key=_by_index)

    def tidy(self) -> None:
        """Delete the files that were being written or received, before the member starts.
        DiskError."""
        while self._leftovers:
            self._env.remove(self._leftovers.pop())
        if self._entries:
            # A process that was killed may have renamed a file and not synced the directory: the
            # log must not be trimmed because of a name that a loss of power undoes.
            self._env.sync_directory(self._directory)

    def _path(self, entry: EntryId, suffix: str = "snap") -> str:
        return f"{self._directory}/{entry.index}-{entry.term}.{suffix}"

    # ---- what is there (loop) ------------------------------------------------------------

    @property
    def entries(self) -> list[EntryId]:
        """All snapshots on the disk that are not known to be damaged, oldest first."""
        return list(self._entries)

    @property
    def newest(self) -> Snapshot | None:
        """The newest snapshot that this process has read back whole; None when there is none."""
        for entry in reversed(self._entries):
            if entry in self._whole:
                return self._whole[entry]
        return None

    @property
    def oldest_index(self) -> int:
        """Index of the oldest snapshot that a restart may begin with (C23); 0 when there is none.

        A damaged snapshot counts until its file is deleted, since a later read of the file may
        succeed; damaged ones alone count as none.
        """
        if not self._entries:
            return 0
        return min(entry.index for entry in (self._entries[0], *self.bad))

    def newest_good(self) -> tuple[Snapshot, bytes] | None:
        """The newest snapshot that is whole, with its raw bytes; before the member starts.

        A damaged or unreadable snapshot is skipped with a warning (F17) and added to `bad`. None
        when no snapshot is good; the caller then decides whether the log reaches back far enough.
        """
        seen, self._seen = self._seen, None
        return seen or self._newest_good()

    def look(self) -> tuple[Snapshot, bytes] | None:
        """As `newest_good`, whose next call returns the same without another read."""
        self._seen = self._seen or self._newest_good()
        return self._seen

    def _newest_good(self) -> tuple[Snapshot, bytes] | None:
        for entry in reversed(self.entries):
            try:
                with unreadable_is_corrupt():
                    snapshot, data = snapshot_file.load(self._env, self._path(entry))
                self._check_name(snapshot, entry)
            except CorruptLogError as error:
                log.warning("a snapshot is damaged, the one before it is tried: %s (F17)", error)
                self._entries.remove(entry)
                self.bad.append(entry)
                continue
            self._whole[entry] = snapshot
            return snapshot, data
        return None

    def _check_name(self, snapshot: Snapshot, entry: EntryId) -> None:
        if snapshot.entry != entry:
            raise CorruptLogError(
                f"{self._path(entry)} holds the snapshot of {snapshot.entry}",
                path=self._path(entry),
                offset=0,
                index=entry.index,
            )

    # ---- taking one ----------------------------------------------------------------------

    def save(
        self, entry: EntryId, *, time_ms: int, data: bytes, configuration: bytes = b""
    ) -> Snapshot:
        """Write, sync, read back, publish (aside). What is returned is durable.

        DiskFullError, DiskError: the new file is deleted, the old ones stay (F13).
        CorruptLogError: the file does not contain what was written.
        """
        temp_path = self._path(entry, "new")
        self._env.make_directory(self._directory)
        with self._fresh_file(temp_path):
            written = snapshot_file.write(
                self._env,
                temp_path,
                entry,
                time_ms=time_ms,
                data=data,
                configuration=configuration,
                compress=self._compress,
            )
            return self._publish(temp_path, written.entry, written.nbytes, written.digest)

    def begin(
        self,
        entry: EntryId,
        *,
        time_ms: int,
        write: Callable[[Callable[[bytes | memoryview], None]], None],
        configuration: bytes = b"",
    ) -> Writer:
        """Write the pieces that `write` puts to a file that `finish` publishes (in the thread that
        has the state). Errors as of `save`, and what `write` raises; the file is deleted then."""
        temp_path = self._path(entry, "new")
        self._env.make_directory(self._directory)
        with self._fresh_file(temp_path):
            writer = Writer(
                self._env,
                temp_path,
                entry,
                time_ms=time_ms,
                configuration=configuration,
                compress=self._compress,
            )
            write(writer.put)
            return writer

    def finish(self, writer: Writer) -> Snapshot:
        """The rest of `save` (aside)."""
        with self._removed_on_error(writer.path):
            written = writer.finish()
            return self._publish(writer.path, written.entry, written.nbytes, written.digest)

    def drop(self, writer: Writer) -> None:
        """Delete the file of a snapshot that is not to be published (aside)."""
        with suppress(FileNotFoundError):
            self._env.remove(writer.path)

    def _publish(self, temp_path: str, entry: EntryId, nbytes: int, digest: bytes) -> Snapshot:
        """Read the file back whole, then rename it, then make the new name durable."""
        snapshot = snapshot_file.verify(self._env, temp_path)
        actual = (snapshot.entry, snapshot.nbytes, snapshot.digest)
        if actual != (entry, nbytes, digest):
            raise CorruptLogError(
                f"{temp_path} holds {snapshot.entry} in {snapshot.nbytes} bytes, SHA-256"
                f" {snapshot.digest.hex()}; it should be {entry} in {nbytes}, {digest.hex()}",
                path=temp_path,
                offset=0,
                index=entry.index,
            )
        self._env.rename(temp_path, self._path(entry))
        self._env.sync_directory(self._directory)
        return snapshot

    @contextmanager
    def _fresh_file(self, temp_path: str) -> Iterator[None]:
        if self._env.exists(temp_path):  # an earlier removal failed
            self._env.remove(temp_path)
        with self._removed_on_error(temp_path):
            yield

    @contextmanager
    def _removed_on_error(self, temp_path: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with suppress(StorageError, FileNotFoundError):  # the next start removes it then
                self._env.remove(temp_path)
            raise

    # ---- what stays and what is deleted ------------------------------------------------------

    def admit(self, snapshot: Snapshot) -> list[EntryId]:
        """Add a saved or received snapshot; returns those that may be deleted now (loop).

        Snapshots that are being read stay. The caller passes the result to `discard` (aside), then
        to `forget`.
        """
        self._whole[snapshot.entry] = snapshot
        self.bad = [entry for entry in self.bad if entry != snapshot.entry]  # just replaced
        if snapshot.entry not in self._entries:
            self._entries = sorted([*self._entries, snapshot.entry], key=_by_index)
        return self.stale()

    def stale(self) -> list[EntryId]:
        """Snapshots that may be deleted now (loop): all but the newest two, and the damaged
        ones."""
        if self._retain_stale:
            return []
        old = [entry for entry in self._entries[:-RETAINED_MAX] if entry not in self._readers]
        return [*self.bad, *old]

    def set_aside(self) -> None:
        """Rename damaged files, so that they do not count as snapshots and can still be examined;
        before the member starts. DiskError."""
        if not self.bad:
            return
        for entry in self.bad:
            self._env.rename(self._path(entry), self._path(entry, "snap.bad"))
        self.bad.clear()
        self._env.sync_directory(self._directory)

    def discard(self, entries: Iterable[EntryId]) -> list[EntryId]:
        """Delete the files of these snapshots (aside). DiskError."""
        entry_ids = list(entries)
        for entry in entry_ids:
            with suppress(FileNotFoundError):
                self._env.remove(self._path(entry))
        return entry_ids

    def forget(self, entries: Iterable[EntryId]) -> None:
        """These snapshots were discarded (loop): `oldest_index` may increase."""
        entry_ids = set(entries)
        self._entries = [entry for entry in self._entries if entry not in entry_ids]
        self.bad = [entry for entry in self.bad if entry not in entry_ids]
        for entry in entry_ids:
            self._whole.pop(entry, None)

    def supersede(self, snapshot: Snapshot) -> list[EntryId]:
        """As `admit`, for a snapshot that replaced this member's state (loop).

        Older snapshots belong to a history that this log may not continue: all of them may be
        deleted.
        """
        self.admit(snapshot)
        old = [entry for entry in self._entries if entry.index < snapshot.entry.index]
        if self._retain_stale:
            return []
        return [*(entry for entry in old if entry not in self._readers), *self.bad]

    def reject(self, snapshot: Snapshot) -> bool:
        """`check` found that the snapshot is damaged (loop): it is skipped from now on (F17).

        Its file stays until another snapshot is admitted: without any file, the next start would
        not know that there was a snapshot. False when the snapshot was deleted or written again
        meanwhile.
        """
        entry = snapshot.entry
        if self._whole.get(entry) is not snapshot:
            return False
        del self._whole[entry]
        self._entries.remove(entry)
        self.bad.append(entry)
        return True

    # ---- shipping ------------------------------------------------------------------------

    def begin_read(self, entry: EntryId) -> None:
        """A reader of the snapshot begins: its file stays until `end_read` (loop)."""
        self._readers[entry] = self._readers.get(entry, 0) + 1

    def end_read(self, entry: EntryId) -> None:
        """A reader of the snapshot ends (loop)."""
        left = self._readers.get(entry, 0) - 1
        require(left >= 0, "a read of a snapshot ends that never began", entry=entry)
        if left:
            self._readers[entry] = left
        else:
            del self._readers[entry]

    def read(self, snapshot: Snapshot, offset: int, size: int) -> bytes:
        """Bytes of the snapshot's file, unchanged (aside); the receiver verifies the whole
        file."""
        data = self._env.open(self._path(snapshot.entry)).read(offset, size)
        if len(data) != size:
            raise CorruptLogError(
                f"{self._path(snapshot.entry)}: byte {offset}: {len(data)} of {size} bytes",
                path=self._path(snapshot.entry),
                offset=offset,
                index=snapshot.entry.index,
            )
        return data

    def check(self, snapshot: Snapshot) -> None:
        """Read the whole file once more (aside). CorruptLogError when its content has changed,
        FileNotFoundError when it was deleted; DiskError."""
        actual = snapshot_file.verify(self._env, self._path(snapshot.entry))
        if actual != snapshot:
            raise CorruptLogError(
                f"{self._path(snapshot.entry)} holds {actual}, it should be {snapshot}",
                path=self._path(snapshot.entry),
                offset=0,
                index=snapshot.entry.index,
            )

    def load(self, snapshot: Snapshot) -> bytes:
        """The content of the snapshot, verified once more (aside). CorruptLogError."""
        content, data = snapshot_file.load(self._env, self._path(snapshot.entry))
        self._check_name(content, snapshot.entry)
        return data

    def receive(self, entry: EntryId, nbytes: int, digest: bytes) -> Reception:
        """Begin to receive a snapshot of another member (loop; the file is created aside)."""
        if entry.index < 1 or entry.term < 1 or nbytes < 1:
            raise ProtocolError(f"a snapshot of {entry} in {nbytes} bytes is none")
        path = self._path(entry, "part")
        return Reception(self._env, path, entry, nbytes, digest, self._publish)


Publish = Callable[[str, EntryId, int, bytes], Snapshot]


class Reception:
    """One snapshot that is being received: its bytes in order; then the whole is verified.

    `end` is read on the loop; `write`, `finish` and `drop` run aside.
    """

    def __init__(
        self, env: Env, path: str, entry: EntryId, nbytes: int, digest: bytes, publish: Publish
    ) -> None:
        self._env = env
        self._path = path
        self._publish = publish
        self._file: File | None = None
        self._unsynced = 0
        self.entry = entry
        self.nbytes = nbytes
        self.digest = digest
        self.end = 0
        """How many bytes from the beginning of the snapshot are in the file."""

    def is_of(self, entry: EntryId, nbytes: int, digest: bytes) -> bool:
        """Whether this is the reception of that snapshot."""
        return (self.entry, self.nbytes, self.digest) == (entry, nbytes, digest)

    def write(self, offset: int, data: bytes | memoryview) -> int:
        """Write a chunk that begins where the last one ended; returns the new `end`.

        A chunk that begins elsewhere, or is too long, changes nothing: the sender continues at
        `end`.
        DiskFullError, DiskError: the file is deleted, `end` is 0 again.
        """
        if offset != self.end or len(data) > self.nbytes - offset:
            return self.end
        try:
            if self._file is None:
                self._env.make_directory(self._path.rpartition("/")[0])
                if self._env.exists(self._path):  # an earlier removal failed
                    self._env.remove(self._path)
                self._file = self._env.create(self._path)
            self._file.write(offset, data)
            self._unsynced += len(data)
            if self._unsynced >= snapshot_file.SYNC_BYTES:
                self._file.sync()
                self._unsynced = 0
        except StorageError:
            self.drop()
            raise
        self.end += len(data)
        return self.end

    def finish(self) -> Snapshot:
        """All bytes were received: sync, verify, publish. CorruptLogError: the file is deleted,
        and the transfer begins again."""
        require(
            self._file is not None and self.end == self.nbytes,
            "a snapshot is not whole yet",
            end=self.end,
            nbytes=self.nbytes,
        )
        try:
            assert self._file is not None  # noqa: S101  # for the type checker
            self._file.sync()
            snapshot = self._publish(self._path, self.entry, self.nbytes, self.digest)
        except StorageError:
            self.drop()
            raise
        self._file = None
        return snapshot

    def drop(self) -> None:
        """Delete the file: another snapshot is received, or this one is damaged."""
        is_made = self._file is not None
        self._file, self.end, self._unsynced = None, 0, 0
        if is_made:
            with suppress(StorageError, FileNotFoundError):  # the next start removes it then
                self._env.remove(self._path)


def _by_index(entry: EntryId) -> tuple[int, int]:
    return entry.index, entry.term
