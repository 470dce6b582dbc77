"""What is asked of the leader: that one member is added, promoted, demoted or removed."""

from __future__ import annotations

from typing import NamedTuple

from copycat.raft.configuration import MemberRecord
from copycat.types import ChangeKind, EntryId, MemberId, MemberType

__all__ = ["ConfigurationChange"]


class ConfigurationChange(NamedTuple):
    """One change of one member. Made by `add`, `promote`, `demote` and `remove`.

    base: the name of the newest committed configuration that the asker saw. The leader refuses
    when that is not the newest committed one any more, unless the goal holds there already.
    """

    kind: ChangeKind
    member: MemberId
    type: MemberType
    """What the member shall be; INACTIVE when it shall be removed."""
    base: EntryId
    address: str = ""
    """Of ADD: where the member listens."""

    @classmethod
    def add(cls, record: MemberRecord, base: EntryId) -> ConfigurationChange:
        """`record.member`, `type` and `address` count; the leader writes the rest. One that shall
        be ACTIVE is added as PASSIVE first, and gets its vote when it has the log."""
        return cls(ChangeKind.ADD, record.member, record.type, base, record.address)

    @classmethod
    def promote(cls, member: MemberId, to: MemberType, base: EntryId) -> ConfigurationChange:
        """`member` shall be PASSIVE or ACTIVE."""
        return cls(ChangeKind.PROMOTE, member, to, base)

    @classmethod
    def demote(cls, member: MemberId, to: MemberType, base: EntryId) -> ConfigurationChange:
        """`member` shall be RESERVE or PASSIVE. This also ends a promotion of it."""
        return cls(ChangeKind.DEMOTE, member, to, base)

    @classmethod
    def remove(cls, member: MemberId, base: EntryId) -> ConfigurationChange:
        """`member` shall be no member any more."""
        return cls(ChangeKind.REMOVE, member, MemberType.INACTIVE, base)
