"""The file `configuration`: who the members of the cluster are, as far as this member knows (C35).

It holds the newest configuration that is known to be committed, then each newer one that this
member has, oldest first. A member writes it before it acknowledges an entry that holds a
configuration, in every mode of durability and at level "memory" too: a member whose log is lost
must not know the founders only. What the log holds is read from the log; the file decides for a
member without a log, and for one that lost a part of it.

A cluster whose members never changed has no such file.

There are two copies, written one after the other, A first. So A is the newer one while both can be
read, and one of them that cannot be read is no loss (F5). Each copy is a `checked_file` with the
magic `COPYCNF\\0`. Its body is `is_wiped` u32, then for each configuration: its size u32, then its
bytes (`copycat/protocol/codec_configuration.py`).
"""

from __future__ import annotations

import logging
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from copycat.errors import CorruptLogError, ProtocolError
from copycat.member.checked_file import seal, unseal
from copycat.member.identity import Identity
from copycat.member.markers import DELETED_LOG_FILE
from copycat.protocol.codec_configuration import decode_configuration, encode_configuration
from copycat.protocol.member_record import (
    NO_START,
    ConfigurationRecord,
    DirectoryStart,
    MemberRecord,
)
from copycat.protocol.wire import Reader
from copycat.storage.unreadable import unreadable_is_corrupt
from copycat.types import MemberId, MemberType

if TYPE_CHECKING:
    from copycat.storage._native import Env

__all__ = [
    "CONFIGURATION_FILES",
    "NOTHING_STORED",
    "ConfigurationFile",
    "StoredConfigurations",
    "is_sole_voter",
    "known_addresses",
    "read_configurations",
    "read_copy",
]

CONFIGURATION_FILES = ("configuration-a", "configuration-b")

_LOG = logging.getLogger("copycat.log")
_MAGIC = b"COPYCNF\0"
_VERSION = 1
_SIZE = Struct("<I")
_FLAGS = Struct("<I")


class StoredConfigurations(NamedTuple):
    """What the file says."""

    records: tuple[ConfigurationRecord, ...] = ()
    """The newest committed one, then newer ones, oldest first; empty when there is no file."""
    is_wiped: bool = False
    """A leader said that by the first of them this member is a reserve, or no member: the next
    start deletes log and state. It says so only as long as they are being deleted: what this
    member receives later is its own again."""

    @property
    def cluster_incarnation(self) -> int:
        """What the committed one says; 0 while no entry with a configuration is committed."""
        return self.records[0].cluster_incarnation if self.records else 0

    def starts_of(self, member: MemberId) -> tuple[DirectoryStart, ...]:
        """The start of `member` by each of them, NO_START where there is none (C42)."""
        by_record = ({each.member: each.start for each in one.members} for one in self.records)
        return tuple(starts.get(member, NO_START) for starts in by_record)

    def says_stateless(self, member: MemberId) -> bool:
        """Whether there is a file, and by nothing in it `member` has a log. An entry that makes it
        stateful is in the file before it is acknowledged, so nothing was that counts."""
        return bool(self.records) and not any(
            each.member == member and each.is_stateful
            for record in self.records
            for each in record.members
        )


NOTHING_STORED = StoredConfigurations()


def read_copy(env: Env, path: str) -> StoredConfigurations:
    """One copy of the file. FileNotFoundError.

    CorruptLogError for one that cannot be read. FormatVersionError, and VersionMismatchError for
    a configuration of an unknown version (C47).
    """
    with unreadable_is_corrupt():
        data = env.read_file(path)
    _, body = unseal(data, _MAGIC, (_VERSION,), path, "list of configurations")
    reader = Reader(body, path)
    try:
        (flags,) = reader.unpack(_FLAGS)
        return StoredConfigurations(_records(reader, path), reader.flag(flags))
    except ProtocolError as error:
        raise CorruptLogError(str(error), path=path) from error


class ConfigurationFile:
    """In a member's directory. `write` may run in any thread, one call at a time."""

    def __init__(self, env: Env, directory: str) -> None:
        self._env = env
        self._directory = directory

    def read(self) -> StoredConfigurations:
        """What was written last. CorruptLogError when no copy can be read; see `read_copy`."""
        return self.read_copies()[0]

    def read_copies(self) -> tuple[StoredConfigurations, tuple[str, ...]]:
        """What was written last, and which copies lack it."""
        by_name: dict[str, StoredConfigurations] = {}
        causes: list[CorruptLogError] = []
        for name in CONFIGURATION_FILES:
            path = f"{self._directory}/{name}"
            if not self._env.exists(path):
                continue
            try:
                by_name[name] = read_copy(self._env, path)
            except CorruptLogError as error:
                causes.append(error)
        if causes and not by_name:
            raise CorruptLogError(
                f"{self._directory}: no readable list of the members: "
                + "; ".join(map(str, causes)),
                path=causes[0].path,
            ) from causes[0]
        newest = next(iter(by_name.values()), NOTHING_STORED)
        if newest == NOTHING_STORED:
            return newest, ()
        return newest, tuple(name for name in CONFIGURATION_FILES if by_name.get(name) != newest)

    def write(
        self, stored: StoredConfigurations, names: tuple[str, ...] = CONFIGURATION_FILES
    ) -> None:
        """Durable when it returns, each copy whole or not at all. DiskFullError, DiskError."""
        parts = [_FLAGS.pack(stored.is_wiped)]
        for record in stored.records:
            encoded = encode_configuration(record)
            parts += (_SIZE.pack(len(encoded)), encoded)
        data = seal(_MAGIC, _VERSION, b"".join(parts))
        for name in names:
            self._env.replace_file(f"{self._directory}/{name}", data)

    def complete(self) -> None:
        """At a start, when the log is open: write the copies that lack what was written last. If
        that orders to delete log and state, they are deleted, and the order is taken back before
        this member can receive anything."""
        try:
            stored, stale = self.read_copies()
        except CorruptLogError:
            return  # the log says it, and the replica writes it from there
        if stored.is_wiped:
            self.write(stored._replace(is_wiped=False))
        elif stale:
            self.write(stored, stale)

    def remove(self) -> None:
        """Delete what a first start left that was cut short before it wrote the identity (F27)."""
        for name in CONFIGURATION_FILES:
            if self._env.exists(f"{self._directory}/{name}"):
                self._env.remove(f"{self._directory}/{name}")


def _records(reader: Reader, path: str) -> tuple[ConfigurationRecord, ...]:
    """All of them, each newer than the one before."""
    records: list[ConfigurationRecord] = []
    while reader.left:
        (size,) = reader.unpack(_SIZE)
        record = decode_configuration(reader.take(size), path)
        if records and not records[-1].entry < record.entry:
            raise ProtocolError(f"{path}: its configurations are not in order")
        records.append(record)
    if not records:
        raise ProtocolError(f"{path}: it holds no configuration")
    return tuple(records)


def read_configurations(env: Env, directory: str, *, has_log: bool) -> StoredConfigurations:
    """What the file says. It is no loss that no copy of it can be read while there is a log on the
    disk, since log and snapshots hold the same.

    CorruptLogError without a log, and where a leader once had the log deleted: what this member
    received since may end before the entries that say what it is now, and an older entry may
    give it a vote (C33).
    """
    was_wiped = env.exists(f"{directory}/{DELETED_LOG_FILE}")
    cause: CorruptLogError | None = None
    message = f"{directory}: both copies of the list of members are missing"
    try:
        stored = ConfigurationFile(env, directory).read()
        if stored.records or not was_wiped:
            return stored
    except CorruptLogError as error:
        cause, message = error, error.message
    if has_log and not was_wiped:
        _LOG.warning("the log says who the members are, for its file cannot be read: %s", message)
        return NOTHING_STORED
    why = "a leader once had its log deleted" if was_wiped else "it has no log on the disk"
    raise CorruptLogError(
        f"{message}; {why}, so nothing in this directory says who the members are now",
        state="This member did not start, and nothing was changed.",
        hint="join a new member, with another directory, and remove this one",
        path=f"{directory}/{CONFIGURATION_FILES[0]}",
    ) from cause


def known_addresses(env: Env, directory: str, identity: Identity) -> tuple[str, ...]:
    """Addresses of all members by what is stored: those of the founders if it says no others."""
    records = read_configurations(env, directory, has_log=True).records
    return tuple(one.address for one in records[-1].members) if records else identity.members


def is_sole_voter(stored: StoredConfigurations, identity: Identity) -> bool:
    """Whether by any of the configurations no other member votes: then perhaps nobody can give
    back an entry that is lost here. A second voter that is not committed may have nothing yet."""
    if not stored.records:
        return len(identity.members) == 1
    voters = [[each.member for each in one.members if _votes(each)] for one in stored.records]
    return [identity.member] in voters


def _votes(record: MemberRecord) -> bool:
    return record.type is MemberType.ACTIVE
