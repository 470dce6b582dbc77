"""Who the members of a cluster are, as values that disk and wire have bytes for.

`copycat.raft` counts majorities of them; `codec_configuration.py` gives them bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from copycat.types import EntryId, MemberId, MemberType

__all__ = [
    "ID_DIGITS",
    "NOBODY",
    "NO_START",
    "ConfigurationRecord",
    "DirectoryStart",
    "MemberRecord",
    "member_name",
]

ID_DIGITS = 8
"""So much of an id is shown beside an address that two members have."""


class DirectoryStart(NamedTuple):
    """One start of a member with its directory (C42)."""

    number: int
    """One higher than that of the start before; the first is 1. 0: no start is known."""
    random_bits: int
    """64 random bits: two processes that begin with copies of one directory differ here."""


NO_START: Final = DirectoryStart(0, 0)
NOBODY: Final = MemberId(0)


class MemberRecord(NamedTuple):
    """One member: who it is, what it may do, and where it listens."""

    member: MemberId
    type: MemberType
    address: str = ""
    """`host:port`; empty only in tests of the core, which asks nobody's address."""
    since: int = 0
    """Index of the configuration entry that made the member stateful, the last time; 0 for a
    founder, and for a reserve. Every deletion that left a log without asking this member lies
    below."""
    is_promotable: bool = False
    """Whether a PASSIVE member shall become ACTIVE: it is sent entries before they are committed,
    as a voter is."""
    start: DirectoryStart = NO_START
    """The newest start of the member that a leader has heard of (C42)."""
    replaces: MemberId = NOBODY
    """Who was the member at this address before, and has lost its directory (C43); 0: nobody."""

    @property
    def is_stateful(self) -> bool:
        """Whether the member has a log and a state: it is ACTIVE or PASSIVE."""
        return self.type.is_stateful


class ConfigurationRecord(NamedTuple):
    """One configuration, and of which cluster it is."""

    entry: EntryId
    """The name of the entry that holds it; NO_ENTRY: no entry, as with that of the founders."""
    cluster_incarnation: int
    """128 bits that say which cluster this is (C41); 0 with the founders' configuration."""
    members: tuple[MemberRecord, ...]


def member_name(member: MemberId, address: str, addresses: Iterable[str]) -> str:
    """How a message names a member: by its address, and by the beginning of its id too where
    `addresses`, those of all members, have that address twice: as that of a member whose disk was
    lost, and of the one that has taken its place."""
    number = f"{member:032x}"
    if not address:
        return number
    is_shared = sum(each == address for each in addresses) > 1
    return f"{address} (id {number[:ID_DIGITS]})" if is_shared else address
