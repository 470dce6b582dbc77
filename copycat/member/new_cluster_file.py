"""The file that says which cluster an operator made of this directory, and from which (C46).

It is written before anything else of the directory changes, as `new-cluster-unfinished`. While a
file of that name is there, no server starts on the directory, and the same command completes it.
With the last step it gets the name `new-cluster`, and stays, to name the cluster before.

The file is a `checked_file` with the magic `COPYNCL\\0`; its body is MessagePack of the fields by
position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from copycat.errors import ConfigurationError, CorruptLogError
from copycat.member.checked_file import seal, unseal
from copycat.storage.unreadable import unreadable_is_corrupt
from copycat.types import EntryId, MemberId

if TYPE_CHECKING:
    from copycat.storage._native import Env

__all__ = [
    "NEW_CLUSTER_FILE",
    "UNFINISHED_FILE",
    "NewCluster",
    "read_unfinished",
    "refuse_unfinished",
]

NEW_CLUSTER_FILE = "new-cluster"
UNFINISHED_FILE = "new-cluster-unfinished"
_MAGIC = b"COPYNCL\0"
_VERSION = 1


class _Fields(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The body."""

    cluster_name: str
    address: str
    ids: tuple[bytes, bytes, bytes, bytes, bytes]
    last: tuple[int, int]
    term: int
    time_ms: int


class NewCluster(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster of one member that is made of what another cluster's member has."""

    cluster_name: str
    address: str
    """Of its first member."""
    member: MemberId
    """The id of its first member, which no member had before."""
    parent_member: MemberId
    """Whose directory it was."""
    incarnation: int
    """128 random bits of the directory from now on."""
    cluster_incarnation: int
    parent_incarnation: int
    """Of the cluster before; 0 when that had none."""
    last: EntryId
    """The last entry of the cluster before."""
    term: int
    """Of the two entries that begin the new cluster."""
    time_ms: int
    """Log time of these entries."""

    @property
    def configuration_entry(self) -> EntryId:
        """The first entry: who the members are now."""
        return EntryId(self.term, self.last.index + 1)

    @property
    def expiry_entry(self) -> EntryId:
        """The second entry: it ends all sessions of the cluster before."""
        return EntryId(self.term, self.last.index + 2)

    def encode(self) -> bytes:
        """The whole file."""
        numbers = (
            self.member,
            self.parent_member,
            self.incarnation,
            self.cluster_incarnation,
            self.parent_incarnation,
        )
        fields = (
            self.cluster_name,
            self.address,
            [number.to_bytes(16, "little") for number in numbers],
            self.last,
            self.term,
            self.time_ms,
        )
        return seal(_MAGIC, _VERSION, msgspec.msgpack.encode(fields))

    @classmethod
    def read(cls, env: Env, path: str) -> NewCluster:
        """FileNotFoundError; CorruptLogError, FormatVersionError."""
        with unreadable_is_corrupt():
            data = env.read_file(path)
        _, body = unseal(data, _MAGIC, (_VERSION,), path, "record of a new cluster")
        try:
            fields = msgspec.msgpack.decode(body, type=_Fields)
        except msgspec.MsgspecError as error:
            raise CorruptLogError(f"{path}: {error}", path=path) from error
        member, parent, incarnation, cluster, before = (
            int.from_bytes(one, "little") for one in fields.ids
        )
        return cls(
            cluster_name=fields.cluster_name,
            address=fields.address,
            member=MemberId(member),
            parent_member=MemberId(parent),
            incarnation=incarnation,
            cluster_incarnation=cluster,
            parent_incarnation=before,
            last=EntryId(*fields.last),
            term=fields.term,
            time_ms=fields.time_ms,
        )


def read_unfinished(env: Env, directory: str) -> NewCluster | None:
    """What an interrupted `copycat recover --new-cluster` was about to make; None: nothing."""
    path = f"{directory}/{UNFINISHED_FILE}"
    return NewCluster.read(env, path) if env.exists(path) else None


def refuse_unfinished(env: Env, directory: str) -> None:
    """ConfigurationError when the making of a new cluster was interrupted in `directory`: it is
    neither the old member's nor the new one's."""
    if env.exists(f"{directory}/{UNFINISHED_FILE}"):
        raise ConfigurationError(
            f"{directory}: `copycat recover --new-cluster` was interrupted here, so this directory"
            " is neither that of the old member nor that of the new cluster",
            hint=f"complete it: copycat recover --new-cluster {directory}",
        )
