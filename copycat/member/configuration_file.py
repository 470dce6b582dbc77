"""The file `configuration`: who the members of the cluster are, as far as this member knows (C35).

It holds the configuration that is in force where the log begins, then those of the entries behind
it, committed or not, oldest first. A member writes it before it acknowledges an entry that holds a
configuration, in every mode of durability and at level "memory" too: a member whose log is gone
must not know the founders only. Where the log still has the entries, the log decides which of them
are there; the file decides for a member without a log, and for one that lost a part of it.

A cluster whose members never changed has no such file.

The file is a `checked_file` with the magic `COPYCNF\\0`. Its body is, for each configuration: its
size u32, then its bytes (`copycat/protocol/codec_configuration.py`).
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from copycat.errors import CorruptLogError, ProtocolError
from copycat.member.checked_file import seal, unseal
from copycat.protocol.codec_configuration import decode_configuration, encode_configuration
from copycat.protocol.member_record import ConfigurationRecord
from copycat.protocol.wire import Reader
from copycat.storage.unreadable import unreadable_is_corrupt

if TYPE_CHECKING:
    from copycat.storage._native import Env

__all__ = ["CONFIGURATION_FILE", "ConfigurationFile"]

CONFIGURATION_FILE = "configuration"

_MAGIC = b"COPYCNF\0"
_VERSION = 1
_SIZE = Struct("<I")


class ConfigurationFile:
    """In a member's directory. `write` may run in any thread, one call at a time."""

    def __init__(self, env: Env, directory: str) -> None:
        self._env = env
        self._path = f"{directory}/{CONFIGURATION_FILE}"

    def read(self) -> tuple[ConfigurationRecord, ...]:
        """What was written last, oldest first; empty without a file.

        CorruptLogError for a file that cannot be read. FormatVersionError, and
        VersionMismatchError for a configuration of an unknown version (C47).
        """
        if not self._env.exists(self._path):
            return ()
        with unreadable_is_corrupt():
            data = self._env.read_file(self._path)
        _, body = unseal(data, _MAGIC, (_VERSION,), self._path, "list of configurations")
        try:
            return tuple(_records(Reader(body, self._path), self._path))
        except ProtocolError as error:
            raise CorruptLogError(str(error), path=self._path) from error

    def write(self, records: tuple[ConfigurationRecord, ...]) -> None:
        """Durable when it returns, whole or not at all. DiskFullError, DiskError."""
        parts: list[bytes] = []
        for record in records:
            encoded = encode_configuration(record)
            parts += (_SIZE.pack(len(encoded)), encoded)
        self._env.replace_file(self._path, seal(_MAGIC, _VERSION, b"".join(parts)))


def _records(reader: Reader, path: str) -> list[ConfigurationRecord]:
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
    return records
