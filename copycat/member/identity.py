"""The identity file: whose directory this is (F7), in two copies, written last (F27).

Layout of a copy, little-endian: magic 8 bytes `COPYIDN\\0`, crc u32, format version u32, body
size u32, zero u32, then the body (MessagePack of the fields by position). The crc is CRC32C of
everything behind itself; it is checked before the version, so that rot never looks like an
upgrade. This header stays as it is in every later format version.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Self

import msgspec

from copycat.errors import CorruptLogError, FormatVersionError, WrongDirectoryError
from copycat.storage._native import crc32c
from copycat.storage.unreadable import unreadable_is_corrupt
from copycat.types import MemberId

if TYPE_CHECKING:
    from copycat.storage._native import Env

__all__ = ["IDENTITY_FILES", "Identity", "check_identity", "read_identity", "write_identity"]

IDENTITY_FILES = ("identity-a", "identity-b")

_FORMAT_VERSION = 1
_HEADER = struct.Struct("<8sIIII")
_MAGIC = b"COPYIDN\0"
_CRC_END = 12


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who wrote this directory; fixed at its first start."""

    cluster_name: str
    address: str
    """Of this member, `host:port`."""
    members: tuple[str, ...]
    """The addresses of configuration 0, sorted (C16)."""
    member: MemberId
    incarnation: int = 0
    """128 random bits of this directory: the same id over another one is a lost disk."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "members", tuple(sorted(self.members)))

    @classmethod
    def of(
        cls, cluster_name: str, address: str, members: tuple[str, ...], member: MemberId
    ) -> Self:
        """Who is about to start; its incarnation is the directory's."""
        return cls(cluster_name=cluster_name, address=address, members=members, member=member)

    def with_incarnation(self, incarnation: int) -> Identity:
        """The same member over a new directory."""
        return msgspec.structs.replace(self, incarnation=incarnation)

    def encode(self) -> bytes:
        """One copy of the file."""
        body = msgspec.msgpack.encode(
            (
                self.cluster_name,
                self.address,
                self.members,
                self.member.to_bytes(16, "little"),
                self.incarnation.to_bytes(16, "little"),
            )
        )
        rest = struct.pack("<III", _FORMAT_VERSION, len(body), 0) + body
        return _MAGIC + struct.pack("<I", crc32c(rest)) + rest

    @classmethod
    def decode(cls, data: bytes, path: str) -> Identity:
        """The identity in one copy: CorruptLogError, FormatVersionError."""
        if len(data) < _HEADER.size:
            raise CorruptLogError(f"{path}: {len(data)} bytes are no identity", path=path)
        magic, crc, version, size, zero = _HEADER.unpack_from(data)
        if magic != _MAGIC or crc != crc32c(data[_CRC_END:]):
            raise CorruptLogError(f"{path}: its checksum does not fit", path=path, offset=0)
        if version != _FORMAT_VERSION:
            raise FormatVersionError(
                f"{path} has format version {version}; this copycat reads {_FORMAT_VERSION}",
                path=path,
                version=version,
                supported=_FORMAT_VERSION,
            )
        body = data[_HEADER.size :]
        if zero or size != len(body):
            raise CorruptLogError(f"{path}: body of {len(body)} bytes, not {size}", path=path)
        try:
            name, address, members, member, incarnation = msgspec.msgpack.decode(
                body, type=tuple[str, str, tuple[str, ...], bytes, bytes]
            )
        except msgspec.MsgspecError as error:
            raise CorruptLogError(f"{path}: {error}", path=path) from error
        return cls(
            cluster_name=name,
            address=address,
            members=members,
            member=MemberId(int.from_bytes(member, "little")),
            incarnation=int.from_bytes(incarnation, "little"),
        )


def read_identity(env: Env, directory: str) -> tuple[Identity | None, tuple[str, ...]]:
    """The identity in `directory`, and which copies must be written again.

    None when no copy exists (F27). One bad, unreadable or missing copy is ignored;
    CorruptLogError when no good one is left, or when the two are good and differ.
    """
    by_name: dict[str, Identity] = {}
    causes: list[CorruptLogError] = []
    for name in IDENTITY_FILES:
        path = f"{directory}/{name}"
        if not env.exists(path):
            continue
        try:
            with unreadable_is_corrupt():
                data = env.read_file(path)
            by_name[name] = Identity.decode(data, path)
        except CorruptLogError as error:
            causes.append(error)
    if not by_name and causes:
        raise CorruptLogError(
            f"{directory}: no readable identity: " + "; ".join(map(str, causes)),
            path=causes[0].path,
        ) from causes[0]
    if not by_name:
        return None, ()
    copies = list(by_name.values())
    if copies[0] != copies[-1]:
        raise CorruptLogError(
            f"{directory}: its two identities differ: {copies[0]} and {copies[-1]}",
            path=directory,
        )
    return copies[0], tuple(name for name in IDENTITY_FILES if name not in by_name)


def write_identity(
    env: Env, directory: str, identity: Identity, names: tuple[str, ...] = IDENTITY_FILES
) -> None:
    """Replace the named copies whole, one after the other."""
    data = identity.encode()
    for name in names:
        env.replace_file(f"{directory}/{name}", data)


def check_identity(identity: Identity, expected: Identity, directory: str) -> None:
    """WrongDirectoryError, naming both, unless `identity` is who is about to start (F7)."""
    for field, label in (
        ("cluster_name", "cluster"),
        ("address", "address"),
        ("members", "founding members"),
        ("member", "member id"),
    ):
        ours, theirs = getattr(expected, field), getattr(identity, field)
        if ours != theirs:
            if field == "member":
                ours, theirs = f"{ours:032x}", f"{theirs:032x}"
            elif field == "members":
                ours, theirs = ", ".join(ours), ", ".join(theirs)
            raise WrongDirectoryError(
                f"{directory} belongs to {label} {theirs}, but this process to {label} {ours}",
                path=directory,
                field=field,
                expected=ours,
                actual=theirs,
            )
