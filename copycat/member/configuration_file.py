"""The file `configuration`: who the members of the cluster are, as far as this member knows (C35).

It holds the newest configuration that is known to be committed, then each newer one that this
member has, oldest first. A member writes it before it acknowledges an entry that holds a
configuration, in every mode of durability and at level "memory" too: a member whose log is lost
must not know the founders only. What the log holds is read from the log; the file decides for a
member without a log, and for one that lost a part of it.

A cluster whose members never changed has no such file.

The file is a `checked_file` with the magic `COPYCNF\\0`. Its body is `is_wiped` u32,
then for each configuration: its size u32, then its bytes
(`copycat/protocol/codec_configuration.py`).
"""

from __future__ import annotations

import logging
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from copycat.errors import CorruptLogError, ProtocolError
from copycat.member.checked_file import seal, unseal
from copycat.member.identity import Identity
from copycat.protocol.codec_configuration import decode_configuration, encode_configuration
from copycat.protocol.member_record import ConfigurationRecord
from copycat.protocol.wire import Reader
from copycat.storage.unreadable import unreadable_is_corrupt
from copycat.types import MemberType

if TYPE_CHECKING:
    from copycat.storage._native import Env

__all__ = [
    "CONFIGURATION_FILE",
    "NOTHING_STORED",
    "ConfigurationFile",
    "StoredConfigurations",
    "is_sole_voter",
    "known_addresses",
    "read_configurations",
]

CONFIGURATION_FILE = "configuration"

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
    """A leader said that by the first of them this member is a reserve, or no member: it has no
    log and no state, and a start deletes what is left of them."""

    @property
    def cluster_incarnation(self) -> int:
        """What the committed one says; 0 while no entry with a configuration is committed."""
        return self.records[0].cluster_incarnation if self.records else 0


NOTHING_STORED = StoredConfigurations()


class ConfigurationFile:
    """In a member's directory. `write` may run in any thread, one call at a time."""

    def __init__(self, env: Env, directory: str) -> None:
        self._env = env
        self._path = f"{directory}/{CONFIGURATION_FILE}"

    def read(self) -> StoredConfigurations:
        """What was written last.

        CorruptLogError for a file that cannot be read. FormatVersionError, and
        VersionMismatchError for a configuration of an unknown version (C47).
        """
        if not self._env.exists(self._path):
            return NOTHING_STORED
        with unreadable_is_corrupt():
            data = self._env.read_file(self._path)
        _, body = unseal(data, _MAGIC, (_VERSION,), self._path, "list of configurations")
        reader = Reader(body, self._path)
        try:
            (flags,) = reader.unpack(_FLAGS)
            return StoredConfigurations(_records(reader, self._path), reader.flag(flags))
        except ProtocolError as error:
            raise CorruptLogError(str(error), path=self._path) from error

    def write(self, stored: StoredConfigurations) -> None:
        """Durable when it returns, whole or not at all. DiskFullError, DiskError."""
        parts = [_FLAGS.pack(stored.is_wiped)]
        for record in stored.records:
            encoded = encode_configuration(record)
            parts += (_SIZE.pack(len(encoded)), encoded)
        self._env.replace_file(self._path, seal(_MAGIC, _VERSION, b"".join(parts)))


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
    """What the file says. One that cannot be read is no loss while there is a log on the disk,
    since log and snapshots hold the same. CorruptLogError without a log."""
    try:
        return ConfigurationFile(env, directory).read()
    except CorruptLogError as error:
        if not has_log:
            raise
        _LOG.warning("the log says who the members are, for its file cannot be read: %s", error)
        return NOTHING_STORED


def known_addresses(env: Env, directory: str, identity: Identity) -> tuple[str, ...]:
    """Addresses of all members by what is stored: those of the founders if it says no others."""
    records = read_configurations(env, directory, has_log=True).records
    return tuple(one.address for one in records[-1].members) if records else identity.members


def is_sole_voter(env: Env, directory: str, identity: Identity) -> bool:
    """Whether no other member votes, so that nobody can give back an entry that is lost."""
    records = read_configurations(env, directory, has_log=True).records
    if not records:
        return len(identity.members) == 1
    voters = [each.member for each in records[-1].members if each.type is MemberType.ACTIVE]
    return voters == [identity.member]
