"""Why a change of the members was not made, in words: who, what it is now, and what would work."""

from __future__ import annotations

from typing import assert_never

from copycat.protocol.member_record import member_name
from copycat.raft.changes import ConfigurationChange
from copycat.raft.configuration import Configuration
from copycat.raft.effects import ChangeFinished
from copycat.types import ChangeKind, ChangeRefusal, MemberId, MemberType

__all__ = ["refusal_text"]


def refusal_text(
    effect: ChangeFinished, change: ConfigurationChange, own_address: str, link_reason: str
) -> str:
    """A whole sentence without its end.

    own_address: of the member that refuses. link_reason: why it has no link to the member that the
    change is about; empty when it has one, or does not know.
    """
    refusal, configuration = effect.refusal, effect.configuration
    name = change.address or _name(configuration, change.member)
    goal = _goal(change, name)
    match refusal:
        case None:
            return ""
        case ChangeRefusal.NOT_LEADER:
            return f"{own_address} does not lead, or stopped leading before {goal}"
        case ChangeRefusal.NO_OWN_TERM_COMMIT:
            return f"{own_address} was just elected and has committed nothing yet"
        case ChangeRefusal.IN_FLIGHT:
            return (
                "another change of the members is not committed yet, or leadership is being handed"
                f" over; {goal} only after that"
            )
        case ChangeRefusal.STALE_BASE:
            return _stale(configuration, change)
        case ChangeRefusal.UNKNOWN_MEMBER:
            return f"there is no member {name} ({_addresses(configuration)})"
        case ChangeRefusal.MEMBER_ID_REUSED:
            return _reused(configuration, change, name)
        case ChangeRefusal.WRONG_TYPE:
            is_now = configuration.type(change.member)
            return f"{name} is {is_now}: it cannot be {_VERBS[change.kind]} to {change.type}"
        case ChangeRefusal.LAST_VOTER:
            return f"{name} is the only voter: without it nothing could be committed any more"
        case ChangeRefusal.LEADER_ITSELF:
            return f"{name} leads, and no other voter has taken leadership over"
        case ChangeRefusal.NOT_CONNECTED:
            why = f": {link_reason}" if link_reason else ""
            return f"the leader {own_address} has no connection to {name}{why}"
        case ChangeRefusal.NO_MAJORITY:
            return _out_of_reach(effect, goal)
        case ChangeRefusal.TIMED_OUT:
            return f"{name} came no nearer to the head of the log for too long; it stays passive"
        case ChangeRefusal.SUPERSEDED:
            is_now = configuration.type(change.member)
            what = "was removed" if is_now is MemberType.INACTIVE else f"was made {is_now}"
            return f"{name} {what} meanwhile, so the promotion has ended"
        case ChangeRefusal.TOO_MANY:
            return (
                f"too many requests for changes wait at {own_address}, so this one does not wait"
                f" any longer until {goal}"
            )
        case _:
            assert_never(refusal)


_VERBS = {
    ChangeKind.ADD: "added",
    ChangeKind.PROMOTE: "promoted",
    ChangeKind.DEMOTE: "demoted",
    ChangeKind.REMOVE: "removed",
    ChangeKind.MOVE: "moved",
    ChangeKind.POLICY: "healed by another policy",
}


def _goal(change: ConfigurationChange, name: str) -> str:
    if change.kind is ChangeKind.POLICY:
        return "the policy of healing is set"
    if change.kind is ChangeKind.REMOVE:
        return f"{name} is removed"
    return f"{name} becomes {change.type}"


def _name(configuration: Configuration, member: MemberId) -> str:
    record = configuration.record(member)
    addresses = [each.address for each in configuration.members]
    return member_name(member, "" if record is None else record.address, addresses)


def _addresses(configuration: Configuration) -> str:
    return ", ".join(_name(configuration, member) for member in configuration.ids)


def _stale(configuration: Configuration, change: ConfigurationChange) -> str:
    entry, base = configuration.entry, change.base
    return (
        f"the members were changed meanwhile: the configuration is entry {entry.index} of term"
        f" {entry.term}, and the change names entry {base.index} of term {base.term}"
    )


def _reused(configuration: Configuration, change: ConfigurationChange, name: str) -> str:
    record = configuration.record(change.member)
    if record is not None:
        return f"the member id {change.member:032x} of {name} is that of {record.address}"
    return f"the member id {change.member:032x} of {name} is that of a member that was removed"


def _out_of_reach(effect: ChangeFinished, goal: str) -> str:
    configuration = effect.configuration
    missing = ", ".join(_name(configuration, member) for member in effect.missing)
    text = (
        f"if {goal}, too few voters are in reach of the leader for a majority (missing: {missing})"
    )
    if effect.demote_first:
        text += f"; demote {_name(configuration, effect.demote_first)} first"
    return text
