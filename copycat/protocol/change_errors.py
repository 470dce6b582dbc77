"""What a caller of a change is told: one type of error for each reason why it is refused."""

from __future__ import annotations

from copycat.errors import (
    ChangeInProgressError,
    ChangeRefusedError,
    ChangeSupersededError,
    ConfigurationError,
    CopycatError,
    DiskFullError,
    IllegalMemberStateError,
    LastVoterError,
    MajorityAtRiskError,
    MemberIdReusedError,
    MemberUnreachableError,
    NoLeaderError,
    NotLeaderError,
    OperationTimeout,
    PromotionTimeoutError,
    ProtocolError,
    QuorumLostError,
    StaleConfigurationError,
    TransferFirstError,
    UnknownMemberError,
)
from copycat.protocol.client import (
    ChangeRefused,
    ClusterView,
    Failure,
    MemberView,
    Refusal,
    ServerMessage,
)
from copycat.protocol.member_record import member_name
from copycat.protocol.results import refusal_error
from copycat.types import ChangeRefusal, MemberType

__all__ = ["change_error", "failure_error", "view_or_error"]

_WITH_CONFIGURATION: dict[
    ChangeRefusal, type[ChangeRefusedError] | type[StaleConfigurationError]
] = {
    ChangeRefusal.STALE_BASE: StaleConfigurationError,
    ChangeRefusal.IN_FLIGHT: ChangeInProgressError,
    ChangeRefusal.LAST_VOTER: LastVoterError,
    ChangeRefusal.MEMBER_ID_REUSED: MemberIdReusedError,
    ChangeRefusal.NO_MAJORITY: MajorityAtRiskError,
    ChangeRefusal.LEADER_ITSELF: TransferFirstError,
    ChangeRefusal.NOT_CONNECTED: MemberUnreachableError,
    ChangeRefusal.TIMED_OUT: PromotionTimeoutError,
    ChangeRefusal.SUPERSEDED: ChangeSupersededError,
    ChangeRefusal.TOO_MANY: ChangeInProgressError,
}


_OF_SERVERS: dict[int, type[CopycatError]] = {
    Refusal.DISK_FULL: DiskFullError,
    Refusal.WRONG_CLUSTER: ConfigurationError,
    Refusal.SERVER_FULL: NoLeaderError,
}
"""Failures that a client with a session handles by itself."""
_OTHER_CLUSTER = "give the address of a member of that cluster, or the name of this one"


def change_error(answer: ChangeRefused) -> CopycatError:
    """The error for a change that was refused, with the configuration of now."""
    state = _state(answer)
    members = tuple((one.address, str(one.type)) for one in answer.members)
    kind = _WITH_CONFIGURATION.get(answer.refusal)
    if kind is not None:
        return kind(
            answer.reason,
            state=state,
            entry=tuple(answer.entry),
            members=members,
            missing=answer.missing,
            leader=answer.leader or None,
        )
    match answer.refusal:
        case ChangeRefusal.NOT_LEADER:
            return NotLeaderError(answer.reason, leader=answer.leader or None)
        case ChangeRefusal.NO_OWN_TERM_COMMIT:
            return NoLeaderError(answer.reason, leader=answer.leader or None)
        case ChangeRefusal.UNKNOWN_MEMBER:
            return UnknownMemberError(answer.reason, state=state)
        case _:
            hint = "look at the members: copycat cluster status"
            return IllegalMemberStateError(answer.reason, state=state, hint=hint)


def _state(answer: ChangeRefused) -> str:
    """The configuration in one line: `active a:1 (leader) b:1 · passive c:1`."""
    parts = []
    for kind in (MemberType.ACTIVE, MemberType.PASSIVE, MemberType.RESERVE):
        members = sorted(answer.members, key=_address)
        names = [_name(one, answer) for one in members if one.type is kind]
        if names:
            parts.append(f"{kind} {' '.join(names)}")
    return " · ".join(parts)


def _address(one: MemberView) -> tuple[str, int]:
    return one.address, one.member


def _name(one: MemberView, answer: ChangeRefused) -> str:
    notes = []
    addresses = [each.address for each in answer.members]
    name = member_name(one.member, one.address, addresses)
    is_sure = one.is_reachable or addresses.count(one.address) == 1
    if one.address == answer.leader and is_sure:
        notes.append("leader")
    if one.address in answer.missing and not (one.is_reachable and name != one.address):
        notes.append("missing")
    return f"{name} ({', '.join(notes)})" if notes else name


def failure_error(failure: Failure) -> CopycatError:
    """The error for a request about the members that could not be served."""
    if failure.code == Refusal.NOT_TRANSFERRED:
        return OperationTimeout(
            failure.reason,
            hint="try again when another voter is reachable and has caught up",
            leader=failure.leader or None,
        )
    if failure.code == Refusal.NO_QUORUM:
        return QuorumLostError(
            failure.reason, missing=failure.missing, since=failure.since_ms / 1000
        )
    kind = _OF_SERVERS.get(failure.code)
    if kind is not None:
        hint = _OTHER_CLUSTER if failure.code == Refusal.WRONG_CLUSTER else None
        leader = failure.leader or None
        return kind(failure.reason, refusal=failure.code, leader=leader, hint=hint)
    return refusal_error(failure.code, failure.reason, leader=failure.leader)


def view_or_error(answer: ServerMessage) -> ClusterView | CopycatError:
    """What a request about the members led to."""
    if isinstance(answer, ClusterView):
        return answer
    if isinstance(answer, ChangeRefused):
        return change_error(answer)
    if isinstance(answer, Failure):
        return failure_error(answer)
    return ProtocolError(f"{type(answer).__name__} answered a request about the members")
