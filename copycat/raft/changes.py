"""What is asked of the leader: that one member is added, promoted, demoted or removed."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from copycat.errors import require
from copycat.protocol.member_record import (
    NO_HEALING,
    NO_START,
    NOBODY,
    DirectoryStart,
    HealingPolicy,
)
from copycat.raft.configuration import Configuration, MemberRecord
from copycat.types import ChangeKind, ChangeRefusal, EntryId, MemberId, MemberType

__all__ = [
    "NOBODY",
    "ConfigurationChange",
    "goal_holds",
    "next_configuration",
    "repeated",
    "with_vote",
    "without_flag",
]

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
    failure_domain: str = ""
    """Of ADD and MOVE: what the member fails together with."""
    weight: int = 0
    """Of ADD and MOVE."""
    policy: HealingPolicy = NO_HEALING
    """Of POLICY."""
    is_healing: bool = False
    """A leader asks by itself: it is no decision of a user, and leaves no mark of one (C39)."""
    replaces: MemberId = NOBODY
    """The voter whose place the promoted member takes; 0 for none."""

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
    def move(cls, record: MemberRecord, base: EntryId) -> ConfigurationChange:
        """`record.member` listens at another address now (C44), was started again (C42), or names
        another failure domain or weight, and stays what it is."""
        return cls(
            ChangeKind.MOVE,
            record.member,
            MemberType.INACTIVE,
            base,
            record.address,
            record.start,
            record.failure_domain,
            record.weight,
        )

    @classmethod
    def set_policy(cls, policy: HealingPolicy, base: EntryId) -> ConfigurationChange:
        """`policy` shall be in force."""
        return cls(ChangeKind.POLICY, NOBODY, MemberType.INACTIVE, base, policy=policy)


def goal_holds(change: ConfigurationChange, now: Configuration) -> bool:
    """Whether `now` is what the change asks for already: it was made, and asked for again
    (C36)."""
    if change.kind is ChangeKind.POLICY:
        return now.policy == change.policy
    record = now.record(change.member)
    if record is None:
        return change.kind is ChangeKind.REMOVE and change.base != now.entry
    if change.kind is ChangeKind.REMOVE:
        return False
    if change.kind is ChangeKind.DEMOTE:
        is_decided = record.is_demoted or change.is_healing or record.type is MemberType.ACTIVE
        return record.type is change.type and not record.is_promotable and is_decided
    if change.kind is ChangeKind.MOVE:
        return record == _moved(record, change)
    if change.kind is ChangeKind.PROMOTE:
        is_free = change.is_healing or not (record.is_demoted or record.is_leaving)
        return is_free and record.type.rank >= change.type.rank
    return record.address == change.address and record.type.rank >= change.type.rank


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
    if change.kind is ChangeKind.POLICY:
        return Configuration.from_members(now.members, entry, change.policy)
    record = now.record(change.member)
    if record is None:
        if change.kind is not ChangeKind.ADD:
            return ChangeRefusal.UNKNOWN_MEMBER
        return _added(change, now, entry, links)
    if change.kind is ChangeKind.MOVE:
        return now.with_record(_moved(record, change), entry)
    if change.type is record.type is MemberType.ACTIVE and record.is_leaving:
        return now.with_record(record._replace(is_leaving=False), entry)
    if now.voters == (change.member,):
        return ChangeRefusal.LAST_VOTER if change.type is not MemberType.ACTIVE else _WRONG
    if change.kind is ChangeKind.REMOVE:
        rest = now.without(change.member, entry)
        return _without_leaving(rest) if _is_half_of_swap(record) else rest
    if change.kind is ChangeKind.DEMOTE:
        return _lowered(change, record, now, entry)
    if change.kind is ChangeKind.ADD and record.address != change.address:
        return ChangeRefusal.MEMBER_ID_REUSED
    is_free = not record.is_demoted or change.is_healing
    if change.type.rank < record.type.rank + is_free:
        return _WRONG
    return _raised(change, record, now, entry)


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
            now = _without_leaving(now) if each.is_promotable else now
            replaces = each.replaces or each.member
    for each in before:
        if each.type is MemberType.ACTIVE and each.member not in links:
            replaces = each.member
    added = _moved(MemberRecord(change.member, MemberType.RESERVE, replaces=replaces), change)
    return _raised(change, added, now, entry)


def with_vote(member: MemberId, now: Configuration, entry: EntryId) -> Configuration:
    """The second entry of a promotion: a member that has the flag becomes a voter."""
    record = now.record(member)
    require(record is not None and record.is_promotable, "no flag is set", member=member)
    assert record is not None  # noqa: S101  # for the type checker
    return now.with_record(record._replace(type=MemberType.ACTIVE, is_promotable=False), entry)


def without_flag(member: MemberId, now: Configuration, entry: EntryId) -> Configuration:
    """The flag of a promotion that gained nothing is taken back, and the mark of the voter whose
    place was to be taken."""
    record = now.record(member)
    require(record is not None, "no member", member=member)
    assert record is not None  # noqa: S101  # for the type checker
    return _without_leaving(now.with_record(record._replace(is_promotable=False), entry))


def _without_leaving(now: Configuration) -> Configuration:
    """Nobody takes the place of any voter any more."""
    members = [each._replace(is_leaving=False) for each in now.members]
    return Configuration.from_members(members, now.entry, now.policy)


def _moved(record: MemberRecord, change: ConfigurationChange) -> MemberRecord:
    return record._replace(
        address=change.address,
        start=change.start,
        failure_domain=change.failure_domain,
        weight=change.weight,
    )


def repeated(now: Configuration, entry: EntryId) -> Configuration:
    """`now` once more, held by `entry`, the first one of a leader whose log lacks the entry of
    `now`. Who was to join at an entry that was lost joins at this one: the log that begins with it
    deletes nothing without asking."""
    members = [each._replace(since=min(each.since, entry.index)) for each in now.members]
    return Configuration.from_members(members, entry, now.policy)


def _raised(
    change: ConfigurationChange, record: MemberRecord, now: Configuration, entry: EntryId
) -> Configuration | ChangeRefusal:
    to = change.type
    if to is MemberType.INACTIVE:
        return _WRONG
    if to is MemberType.RESERVE:
        return now.with_record(record, entry)
    since = record.since if record.is_stateful else entry.index
    is_promotable = to is MemberType.ACTIVE
    record = record._replace(
        type=MemberType.PASSIVE, since=since, is_promotable=is_promotable, is_demoted=False
    )
    raised = now.with_record(record, entry)
    replaced = raised.record(change.replaces)
    if replaced is None or replaced.type is not MemberType.ACTIVE:
        return raised
    return raised.with_record(replaced._replace(is_leaving=True), entry)


def _lowered(
    change: ConfigurationChange, record: MemberRecord, now: Configuration, entry: EntryId
) -> Configuration | ChangeRefusal:
    """A user's demotion leaves a mark, even on a member that is of that type already."""
    to = change.type
    if to not in {MemberType.PASSIVE, MemberType.RESERVE}:
        return _WRONG
    is_same_type = to is record.type and (record.is_promotable or not change.is_healing)
    if to.rank >= record.type.rank and not is_same_type:
        return _WRONG
    lowered = now.with_record(
        record._replace(
            type=to,
            since=record.since if to is MemberType.PASSIVE else 0,
            is_promotable=False,
            is_demoted=record.is_demoted or not change.is_healing,
            is_leaving=False,
        ),
        entry,
    )
    return _without_leaving(lowered) if _is_half_of_swap(record) else lowered


def _is_half_of_swap(record: MemberRecord) -> bool:
    """Whether a swap that is half done is over without this member: either it was to get the vote,
    or there is one voter less now, whoever asked for that."""
    return record.is_promotable or record.type is MemberType.ACTIVE
