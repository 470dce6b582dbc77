"""What is asked of the leader: that one member is added, promoted, demoted or removed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from copycat.errors import require
from copycat.protocol.member_record import NO_START, NOBODY, DirectoryStart
from copycat.raft.configuration import Configuration, MemberRecord
from copycat.types import ChangeKind, ChangeRefusal, EntryId, MemberId, MemberType

__all__ = [
    "ConfigurationChange",
    "goal_holds",
    "next_configuration",
    "repeated",
    "with_vote",
    "without_flag",
]

_RANK: Final[Mapping[MemberType, int]] = MappingProxyType(
    {
        MemberType.INACTIVE: 0,
        MemberType.RESERVE: 1,
        MemberType.PASSIVE: 2,
        MemberType.ACTIVE: 3,
    }
)
_WRONG = ChangeRefusal.WRONG_TYPE


class ConfigurationChange(NamedTuple):
    """One change of one member. Made by `add`, `promote`, `demote` and `remove`.

    base: the name of the newest committed configuration that the asker saw. The leader refuses
    when that is not the newest committed one any more, unless the goal holds there already.
    """

    kind: ChangeKind
    member: MemberId
    type: MemberType
    """What the member shall be; INACTIVE when it shall be removed, and of MOVE."""
    base: EntryId
    address: str = ""
    """Of ADD and MOVE: where the member listens."""
    start: DirectoryStart = NO_START
    """Of ADD and MOVE: its newest start (C42)."""

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

    @classmethod
    def move(
        cls, member: MemberId, address: str, start: DirectoryStart, base: EntryId
    ) -> ConfigurationChange:
        """`member` listens at `address` now (C44), was started again (C42), or both, and stays
        what it is."""
        return cls(ChangeKind.MOVE, member, MemberType.INACTIVE, base, address, start)


def goal_holds(change: ConfigurationChange, now: Configuration) -> bool:
    """Whether `now` is what the change asks for already: it was made, and asked for again
    (C36)."""
    record = now.record(change.member)
    if record is None:
        return change.kind is ChangeKind.REMOVE and change.base != now.entry
    if change.kind is ChangeKind.REMOVE:
        return False
    if change.kind is ChangeKind.DEMOTE:
        return record.type is change.type and not record.is_promotable
    if change.kind is ChangeKind.MOVE:
        return (record.address, record.start) == (change.address, change.start)
    is_same = change.kind is ChangeKind.PROMOTE or record.address == change.address
    return is_same and _RANK[record.type] >= _RANK[change.type]


def next_configuration(
    change: ConfigurationChange,
    now: Configuration,
    entry: EntryId,
    links: Collection[MemberId] = (),
) -> Configuration | ChangeRefusal:
    """The configuration that the entry named `entry` holds, when `now` is the newest one.

    links: the members that answer where they are dialled.
    Who shall be ACTIVE is not made so: it is PASSIVE and promotable by that entry, and gets its
    vote by another one when it has the log (C36).
    """
    record = now.record(change.member)
    if record is None:
        if change.kind is not ChangeKind.ADD:
            return ChangeRefusal.UNKNOWN_MEMBER
        return _added(change, now, entry, links)
    if change.kind is ChangeKind.MOVE:
        record = record._replace(address=change.address, start=change.start)
        return now.with_record(record, entry)
    if now.voters == (change.member,):
        return ChangeRefusal.LAST_VOTER if change.type is not MemberType.ACTIVE else _WRONG
    if change.kind is ChangeKind.REMOVE:
        return now.without(change.member, entry)
    if change.kind is ChangeKind.DEMOTE:
        return _lowered(change.type, record, now, entry)
    if change.kind is ChangeKind.ADD and record.address != change.address:
        return ChangeRefusal.MEMBER_ID_REUSED
    if _RANK[change.type] <= _RANK[record.type]:
        return _WRONG
    return _raised(change.type, record, now, entry)


def _added(
    change: ConfigurationChange, now: Configuration, entry: EntryId, links: Collection[MemberId]
) -> Configuration | ChangeRefusal:
    """C43: whoever was at the address of the new member, and does not answer, has lost its
    directory. A non-voter goes with this entry, for no majority counts it; else a server whose
    disk is emptied at each start would leave a record behind each time. A voter stays until
    somebody removes it, and the new record names it."""
    replaces, address = NOBODY, change.address
    before = [each for each in now.members if address and each.address == address]
    for each in before:
        if each.member not in links and each.type is not MemberType.ACTIVE:
            now = now.without(each.member, entry)
            replaces = each.replaces or each.member
    for each in before:
        if each.type is MemberType.ACTIVE and each.member not in links:
            replaces = each.member
    added = MemberRecord(
        change.member, MemberType.RESERVE, address, start=change.start, replaces=replaces
    )
    return _raised(change.type, added, now, entry)


def with_vote(member: MemberId, now: Configuration, entry: EntryId) -> Configuration:
    """The second entry of a promotion: a member that has the flag becomes a voter."""
    record = now.record(member)
    require(record is not None and record.is_promotable, "no flag is set", member=member)
    assert record is not None  # noqa: S101  # for the type checker
    return now.with_record(record._replace(type=MemberType.ACTIVE, is_promotable=False), entry)


def without_flag(member: MemberId, now: Configuration, entry: EntryId) -> Configuration:
    """The flag of a promotion that gained nothing is taken back."""
    record = now.record(member)
    require(record is not None, "no member", member=member)
    assert record is not None  # noqa: S101  # for the type checker
    return now.with_record(record._replace(is_promotable=False), entry)


def repeated(now: Configuration, entry: EntryId) -> Configuration:
    """`now` once more, held by `entry`, the first one of a leader whose log lacks the entry of
    `now`. Who was to join at an entry that was lost joins at this one: the log that begins with it
    deletes nothing without asking."""
    members = [each._replace(since=min(each.since, entry.index)) for each in now.members]
    return Configuration.from_members(members, entry)


def _raised(
    to: MemberType, record: MemberRecord, now: Configuration, entry: EntryId
) -> Configuration | ChangeRefusal:
    if to is MemberType.INACTIVE:
        return _WRONG
    if to is MemberType.RESERVE:
        return now.with_record(record, entry)
    since = record.since if record.is_stateful else entry.index
    is_promotable = to is MemberType.ACTIVE
    record = record._replace(type=MemberType.PASSIVE, since=since, is_promotable=is_promotable)
    return now.with_record(record, entry)


def _lowered(
    to: MemberType, record: MemberRecord, now: Configuration, entry: EntryId
) -> Configuration | ChangeRefusal:
    if to is MemberType.INACTIVE:
        return _WRONG
    is_flag = record.is_promotable and to is MemberType.PASSIVE
    if _RANK[to] >= _RANK[record.type] and not is_flag:
        return _WRONG
    since = record.since if to is MemberType.PASSIVE else 0
    return now.with_record(record._replace(type=to, since=since, is_promotable=False), entry)
