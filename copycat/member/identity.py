"""The identity file: whose directory this is (F7), in two copies, written last (F27).

A copy is a `checked_file` with the magic `COPYIDN\\0`; its body is MessagePack of the fields by
position. Version 1 has no incarnation of the cluster, and versions 1 and 2 no starts: what no
start of a build with starts has written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import msgspec

from copycat.errors import CorruptLogError, WrongDirectoryError
from copycat.member.checked_file import seal, unseal
from copycat.protocol.member_record import DirectoryStart
from copycat.storage.unreadable import unreadable_is_corrupt
from copycat.types import MemberId

if TYPE_CHECKING:
    from copycat.storage._native import Env

__all__ = ["IDENTITY_FILES", "Identity", "check_identity", "read_identity", "write_identity"]

IDENTITY_FILES = ("identity-a", "identity-b")

_VERSION_1 = 1
_VERSION_2 = 2
"""Since version 2 the incarnation of the cluster is a field."""
_VERSION = 3
"""Since version 3 the starts are the last field."""
STARTS_MAX = 64
"""So many starts are stored: a directory that was started more often without hearing that a leader
wrote one of them down forgets some in the middle, and never the first."""
_VERSIONS = (_VERSION_1, _VERSION_2, _VERSION)
_MAGIC = b"COPYIDN\0"


class _Fields(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The body of a copy."""

    cluster_name: str
    address: str
    members: tuple[str, ...]
    member: bytes
    incarnation: bytes
    cluster_incarnation: bytes = b""
    starts: tuple[tuple[int, int], ...] = ()


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who wrote this directory: fixed at its first start, but for the cluster's incarnation and
    the starts."""

    cluster_name: str
    address: str
    """Of this member at its first start, `host:port`; it may have moved since (C44)."""
    members: tuple[str, ...]
    """The addresses of configuration 0, sorted (C16); empty for a member that joined later."""
    member: MemberId
    incarnation: int = 0
    """128 random bits of this directory: the same id over another one is a lost disk."""
    cluster_incarnation: int = 0
    """128 bits that say which cluster this is, of the first configuration that was committed;
    0 while this member knows none (C41)."""
    starts: tuple[DirectoryStart, ...] = ()
    """Starts with this directory, oldest first (C42): the one that it knows to be committed, or
    the first of all, then later ones; the present one is the last."""

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

    def with_cluster_incarnation(self, incarnation: int) -> Identity:
        """The same directory, of a cluster that is known."""
        return msgspec.structs.replace(self, cluster_incarnation=incarnation)

    def with_start(self, random_bits: int, written: Sequence[DirectoryStart] = ()) -> Identity:
        """The same directory, with which a process starts now. written: the start of this member
        by each configuration that the directory knows, the committed one first.

        A list that begins above a start that others know is taken for a later one of theirs. So
        only a committed start moves its beginning, and a restart loop does not.
        """
        starts = (*self.starts, DirectoryStart(self.start_number + 1, random_bits))
        if written and written[0] in starts:
            starts = starts[starts.index(written[0]) :]
        excess = max(0, len(starts) - STARTS_MAX)
        dropped = [each for each in starts[1:] if each not in written][:excess]
        starts = tuple(each for each in starts if each not in dropped)
        return msgspec.structs.replace(self, starts=starts)

    @property
    def start_number(self) -> int:
        """Of the newest start; 0 when none is recorded."""
        return self.starts[-1].number if self.starts else 0

    def encode(self) -> bytes:
        """One copy of the file."""
        fields = (
            self.cluster_name,
            self.address,
            self.members,
            self.member.to_bytes(16, "little"),
            self.incarnation.to_bytes(16, "little"),
        )
        if self.starts:
            cluster = self.cluster_incarnation.to_bytes(16, "little")
            return seal(_MAGIC, _VERSION, msgspec.msgpack.encode((*fields, cluster, self.starts)))
        if not self.cluster_incarnation:
            return seal(_MAGIC, _VERSION_1, msgspec.msgpack.encode(fields))
        known = (*fields, self.cluster_incarnation.to_bytes(16, "little"))
        return seal(_MAGIC, _VERSION_2, msgspec.msgpack.encode(known))

    @classmethod
    def decode(cls, data: bytes, path: str) -> Identity:
        """The identity in one copy: CorruptLogError, FormatVersionError."""
        version, body = unseal(data, _MAGIC, _VERSIONS, path, "identity")
        try:
            fields = msgspec.msgpack.decode(body, type=_Fields)
        except msgspec.MsgspecError as error:
            raise CorruptLogError(f"{path}: {error}", path=path) from error
        is_fit = bool(fields.cluster_incarnation) == (version > _VERSION_1)
        if not is_fit or bool(fields.starts) != (version > _VERSION_2):
            raise CorruptLogError(f"{path}: its version does not fit its fields", path=path)
        return cls(
            cluster_name=fields.cluster_name,
            address=fields.address,
            members=fields.members,
            member=MemberId(int.from_bytes(fields.member, "little")),
            incarnation=int.from_bytes(fields.incarnation, "little"),
            cluster_incarnation=int.from_bytes(fields.cluster_incarnation, "little"),
            starts=tuple(DirectoryStart(*each) for each in fields.starts),
        )


def read_identity(env: Env, directory: str) -> tuple[Identity | None, tuple[str, ...]]:
    """The identity in `directory`, and which copies must be written again.

    None when no copy exists (F27). One bad, unreadable or missing copy is ignored, as is one that
    was not replaced before a power cut: it does not know the cluster's incarnation (C41) or the
    last start (C42) while the other one does. CorruptLogError when no good one is left, or when
    the two are good and differ in anything else.
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
    newest = max(copies, key=_age)
    for copy in copies:
        if not _is_earlier(copy, newest):
            raise CorruptLogError(
                f"{directory}: its two identities differ: {copies[0]} and {copies[-1]}",
                path=directory,
            )
    return newest, tuple(name for name in IDENTITY_FILES if by_name.get(name) != newest)


def _age(copy: Identity) -> tuple[int, bool]:
    return copy.start_number, bool(copy.cluster_incarnation)


def _is_earlier(copy: Identity, newest: Identity) -> bool:
    """Whether `copy` is `newest`, or what the directory said before."""
    same_cluster = copy.cluster_incarnation in (0, newest.cluster_incarnation)
    same_start = copy.starts == newest.starts or _begins_as(copy, newest)
    as_new = msgspec.structs.replace(
        copy, cluster_incarnation=newest.cluster_incarnation, starts=newest.starts
    )
    return same_cluster and same_start and as_new == newest


def _begins_as(copy: Identity, newest: Identity) -> bool:
    """Whether `newest` is started later, and both name the same starts where both name any."""
    bits = dict(newest.starts)
    return copy.start_number < newest.start_number and all(
        bits.get(each.number, each.random_bits) == each.random_bits for each in copy.starts
    )


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
