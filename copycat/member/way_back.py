"""The record of a directory that was refused for good, until its server is a member again (C43).

`way-back` is written before anything of the directory changes. It says whose directory it was, and
who may know the cluster. The old files are then moved into a folder beside them, `set-aside-1` and
so on, and the directory is as new; a move that was cut short is completed at the next start. The
record is deleted when the cluster has added the new member. A directory that never held an entry
is emptied instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import msgspec

from copycat.errors import CorruptLogError
from copycat.member.ballast_file import free_ballast
from copycat.member.checked_file import seal, unseal
from copycat.member.identity import IDENTITY_FILES, read_identity
from copycat.storage.unreadable import unreadable_is_corrupt
from copycat.types import MemberId

if TYPE_CHECKING:
    from copycat.storage._native import Env

__all__ = ["WAY_BACK_FILE", "WayBackFile", "WayBackRecord"]

WAY_BACK_FILE = "way-back"
_SET_ASIDE = "set-aside-"
_FOLDERS = ("log/lost+found", "log", "snapshots")
_MAGIC = b"COPYWAY\0"
_VERSION = 1


class _Fields(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The body of the file."""

    member: bytes
    is_empty: bool
    folder: str
    addresses: tuple[str, ...]
    reason: str


class WayBackRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A directory that was refused for good."""

    member: MemberId
    """Whose directory it was."""
    is_empty: bool
    """It never held an entry: there is nothing to set aside."""
    addresses: tuple[str, ...]
    """Who may know the cluster."""
    reason: str
    """Why it was refused, in words."""
    folder: str = ""
    """The name of the folder for the old files."""

    def encode(self) -> bytes:
        """The whole file."""
        member = self.member.to_bytes(16, "little")
        fields = member, self.is_empty, self.folder, self.addresses, self.reason
        return seal(_MAGIC, _VERSION, msgspec.msgpack.encode(fields))

    @classmethod
    def decode(cls, data: bytes, path: str) -> Self:
        """CorruptLogError, FormatVersionError."""
        _, body = unseal(data, _MAGIC, (_VERSION,), path, "record of a refused directory")
        try:
            fields = msgspec.msgpack.decode(body, type=_Fields)
        except msgspec.MsgspecError as error:
            raise CorruptLogError(f"{path}: {error}", path=path) from error
        return cls(
            member=MemberId(int.from_bytes(fields.member, "little")),
            is_empty=fields.is_empty,
            addresses=fields.addresses,
            reason=fields.reason,
            folder=fields.folder,
        )


class WayBackFile:
    """The file `way-back` of one directory. Its methods block; DiskError, DiskFullError."""

    def __init__(self, env: Env, directory: str) -> None:
        self._env = env
        self.directory = directory
        self._path = f"{directory}/{WAY_BACK_FILE}"

    def exists(self) -> bool:
        """Whether the directory was refused, and its server is no member since."""
        return self._env.exists(self._path)

    def read(self) -> WayBackRecord:
        """FileNotFoundError; CorruptLogError, FormatVersionError."""
        with unreadable_is_corrupt():
            data = self._env.read_file(self._path)
        return WayBackRecord.decode(data, self._path)

    def write(self, record: WayBackRecord) -> WayBackRecord:
        """Durable when it returns; the record with the name of a folder that does not exist."""
        names = set(self._env.list(self.directory))
        number = next(n for n in range(1, len(names) + 2) if f"{_SET_ASIDE}{n}" not in names)
        record = msgspec.structs.replace(record, folder=f"{_SET_ASIDE}{number}")
        self._env.replace_file(self._path, record.encode())
        return record

    def clear(self) -> None:
        """The server is a member again."""
        if self.exists():
            self._env.remove(self._path)

    def is_new_member(self, record: WayBackRecord) -> bool:
        """Whether the directory is that of the new member already."""
        identity, _ = read_identity(self._env, self.directory)
        return identity is not None and identity.member != record.member

    def make_room(self, record: WayBackRecord) -> None:
        """Move the old files into the folder, or delete them if they hold nothing, and sync that.
        The identity goes last, so that the directory is nobody's only when all is moved.

        DirectoryInUseError: another process uses the directory.
        """
        env, directory = self._env, self.directory
        lock = env.lock(f"{directory}/lock")
        try:
            free_ballast(env, directory)
            if record.is_empty:
                self._delete()
            else:
                self._set_aside(f"{directory}/{record.folder}")
            env.sync_directory(directory)
        finally:
            lock.close()

    def _old_names(self) -> list[str]:
        """What is to go, the identity last."""
        stays = ("lock", WAY_BACK_FILE)
        names = [
            name
            for name in self._env.list(self.directory)
            if name not in stays and not name.startswith(_SET_ASIDE)
        ]
        return sorted(names, key=_is_identity)

    def _set_aside(self, folder: str) -> None:
        env = self._env
        env.make_directory(folder)
        for name in self._old_names():
            env.rename(f"{self.directory}/{name}", f"{folder}/{name}")
        env.sync_directory(folder)

    def _delete(self) -> None:
        env, directory = self._env, self.directory
        for folder in _FOLDERS:
            path = f"{directory}/{folder}"
            for name in env.list(path) if env.exists(path) else ():
                if f"{folder}/{name}" not in _FOLDERS:
                    env.remove(f"{path}/{name}")
        for name in self._old_names():
            if name not in _FOLDERS:
                env.remove(f"{directory}/{name}")


def _is_identity(name: str) -> bool:
    return name in IDENTITY_FILES
