"""What `copycat cluster` prints: a table for people, one document for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from copycat.cli.formatting import table
from copycat.client.healing_policy import HealingPolicy
from copycat.protocol.client import ClusterView, MemberView
from copycat.protocol.member_record import ID_DIGITS, member_name
from copycat.types import MemberId, MemberStatus, MemberType, ServerState

__all__ = [
    "ChangedMember",
    "MemberLine",
    "change_lines",
    "name_in",
    "policy_lines",
    "status_lines",
]

SCHEMA = 1
_ORDER = [MemberType.ACTIVE, MemberType.PASSIVE, MemberType.RESERVE]
_HEAD = (
    "<MEMBER",
    "<TYPE",
    "<ROLE",
    "TERM",
    "LAST",
    "COMMIT",
    "APPLIED",
    "LAG",
    "<DISK",
    "<VERSION",
)


class MemberLine(NamedTuple):
    """One member: what the configuration says, and what the member says of itself.

    here: None when the member did not answer, for this `reason`.
    """

    member: MemberView
    here: ClusterView | None
    reason: str


class ChangedMember(NamedTuple):
    """A member after a change, and the cluster as it is then."""

    address: str
    type: MemberType
    view: ClusterView
    is_same: bool = False
    """It was of this type before."""


# --- changes -------------------------------------------------------------------------


def change_lines(
    changed: Sequence[ChangedMember], *, as_json: bool, is_transfer: bool = False
) -> list[str]:
    """What was changed: a line for each member, or one document."""
    if as_json:
        name = "leader" if is_transfer else "type"
        rows: list[dict[str, Any]] = [
            {
                "address": one.address,
                name: True if is_transfer else str(one.type),
                "configuration": list(one.view.entry),
                "term": one.view.term,
            }
            for one in changed
        ]
        return [json.dumps({"schema": SCHEMA, "changed": rows})]
    if is_transfer:
        return [f"{one.address} leads term {one.view.term}" for one in changed] or [
            "no leader is known"
        ]
    return [
        f"{one.address} is not a member any more"
        if one.type is MemberType.INACTIVE
        else f"{one.address} is {one.type}{' already' if one.is_same else ''}"
        for one in changed
    ]


# --- status --------------------------------------------------------------------------


def status_lines(view: ClusterView, lines: Sequence[MemberLine], *, as_json: bool) -> list[str]:
    """The members, in the order of their types, and what the cluster can bear."""
    ordered = sorted(lines, key=_key)
    if as_json:
        return [json.dumps(_document(view, ordered))]
    rows = [_row(view, line) for line in ordered]
    remarks = [*_obstacle_lines(view, ordered), *_replacement_lines(view)]
    return [*table(_HEAD, rows), _summary(view, ordered), *remarks]


def _obstacle_lines(view: ClusterView, lines: Sequence[MemberLine]) -> list[str]:
    """Why voters that answer do not elect a leader, as each of them says."""
    if view.leader:
        return []
    voters = [one for one in lines if one.member.type is MemberType.ACTIVE]
    return [
        f"{name_in(view, one.member)}: {one.here.obstacles}"
        for one in voters
        if one.here is not None and one.here.obstacles
    ]


def _replacement_lines(view: ClusterView) -> list[str]:
    """Which members lost their disks and are replaced, and what is left to do about it."""
    by_id = {each.member: each for each in view.members}
    lines = []
    for new in view.members:
        old = by_id.get(new.replaces)
        if old is None:
            continue
        todo = ""
        if old.type is MemberType.ACTIVE:
            number = f"{old.member:032x}"[:ID_DIGITS]
            heals = view.policy.is_on and view.policy.target_active > 0
            until = "until the leader heals that, or" if heals else "until"
            todo = f", which has a vote {until} it is removed: copycat cluster remove {number}"
        lines.append(f"{name_in(view, new)} replaces {name_in(view, old)}{todo}")
    return lines


def policy_lines(view: ClusterView, *, as_json: bool) -> list[str]:
    """What the leader may change by itself."""
    policy = HealingPolicy.of(view.policy)
    if as_json:
        document = {
            "schema": SCHEMA,
            "cluster": view.cluster,
            "configuration": list(view.entry),
            "policy": msgspec.structs.asdict(policy),
        }
        return [json.dumps(document)]
    suspend = f"{policy.suspend_after:g} s" if policy.suspend_after else "never"
    slow = f"{policy.replace_slow_after:g} s" if policy.replace_slow_after else "never"
    return [
        f'healing is {"on" if policy.is_on else "off"} in cluster "{view.cluster}"',
        f"voters to be heard           {policy.target_active}",
        f"passive members to be heard  {policy.target_passive}",
        f"replace a member after       {policy.heal_after:g} s",
        f"time between two steps       {policy.heal_interval:g} s",
        f"passive to reserve after     {suspend}",
        f"replace a slow voter after   {slow}",
        f"spread live voters           {'yes' if policy.rebalance else 'no'}",
    ]


def name_in(view: ClusterView, member: MemberView) -> str:
    """How this member is named beside the others."""
    return member_name(member.member, member.address, [each.address for each in view.members])


def _key(line: MemberLine) -> tuple[int, str]:
    return _ORDER.index(line.member.type), line.member.address


def _role(view: ClusterView, line: MemberLine) -> str:
    if line.here is None:
        return "unreachable"
    is_leader = line.member.member == view.leader
    return "leader" if is_leader else str(line.here.state)


def _is_linked(view: ClusterView, line: MemberLine) -> bool:
    """Whether the leader has a link to the member; True when no leader says so."""
    return line.member.is_reachable or view.member != view.leader


def _remark(view: ClusterView, line: MemberLine) -> str:
    """What the leader finds wrong with a member that answers this command."""
    if not _is_linked(view, line):
        return " (no link)"
    if not line.member.is_available:
        return " (unavailable)"
    return " (slow)" if line.member.is_slow else ""


class _Lag(NamedTuple):
    """How far a member is behind what the cluster has committed."""

    entries: int
    seconds: float | None
    """Of log time; None when the member does not say."""

    def __str__(self) -> str:
        if not self.entries or self.seconds is None:
            return f"{self.entries:,}"
        return f"{self.entries:,} ({self.seconds:.1f} s)"


def _lag(view: ClusterView, line: MemberLine) -> _Lag | None:
    """Behind the leader: what the member has applied, as it says; else what the leader knows that
    it has on its disk. None when neither is known, or nobody leads."""
    member, here = line.member, line.here
    if member.type is MemberType.RESERVE or not view.leader:
        return None
    if here is None:
        known = member.match_index
        return _Lag(max(0, view.commit_index - known), None) if known else None
    entries = max(0, view.commit_index - here.last_applied)
    if entries and not here.applied_time_ms:
        return _Lag(entries, None)  # it has applied nothing, so it knows no time
    behind_ms = max(0, view.applied_time_ms - here.applied_time_ms) if entries else 0
    return _Lag(entries, behind_ms / 1000)


def _row(view: ClusterView, line: MemberLine) -> tuple[str, ...]:
    member, here = line.member, line.here
    kind = str(member.type)
    if member.is_promotable:
        kind += "→active"
    elif member.is_leaving:
        kind += "→passive"
    lag = "–" if (known := _lag(view, line)) is None else str(known)
    if here is None:
        unknown = "–", "–", "–", "–"
        name = name_in(view, member)
        return (name, kind, "unreachable", *unknown, lag, "–", line.reason)
    indexes = here.last_index, here.commit_index, here.last_applied
    has_log = member.type is not MemberType.RESERVE
    role = _role(view, line)
    return (
        name_in(view, member),
        kind,
        f"{role}{_remark(view, line)}",
        str(here.term),
        *(f"{index:,}" if has_log else "–" for index in indexes),
        lag,
        "full" if here.storage_full else "ok",
        here.version,
    )


def _status(member: MemberView) -> MemberStatus:
    return MemberStatus.AVAILABLE if member.is_available else MemberStatus.UNAVAILABLE


class _Quorum(NamedTuple):
    voters: int
    size: int
    """How many voters are a majority."""
    reachable: int
    """How many voters answer, and have a link to the leader if there is one."""

    @property
    def losses(self) -> int:
        """So many more voters may fail."""
        return max(0, self.reachable - self.size)


def _quorum(view: ClusterView, lines: Sequence[MemberLine]) -> _Quorum:
    voters = [one for one in lines if one.member.type is MemberType.ACTIVE]
    reachable = sum(one.here is not None and _is_linked(view, one) for one in voters)
    return _Quorum(len(voters), len(voters) // 2 + 1, reachable)


def _summary(view: ClusterView, lines: Sequence[MemberLine]) -> str:
    quorum = _quorum(view, lines)
    if quorum.reachable < quorum.size and view.leader:
        bears = "too few voters answer this command to say how many more losses it bears"
    elif quorum.reachable < quorum.size:
        bears = "no majority: writes are paused"
    elif not view.leader:
        bears = "writes are paused until one is elected"
    elif quorum.losses == 0:
        bears = "bears no further loss"
    else:
        bears = f"bears {quorum.losses} more loss{'es' if quorum.losses > 1 else ''}"
    leader = "no leader" if not view.leader else f"leader {_address(view, view.leader)}"
    return (
        f'cluster "{view.cluster}" · term {view.term} · {leader} · quorum {quorum.size} of'
        f" {quorum.voters}, {quorum.reachable} reachable, {bears}"
        f" · configuration {view.entry.index} of term {view.entry.term}"
    )


def _address(view: ClusterView, member: MemberId) -> str:
    return next((one.address for one in view.members if one.member == member), "?")


def _document(view: ClusterView, lines: Sequence[MemberLine]) -> dict[str, Any]:
    quorum = _quorum(view, lines)
    return {
        "schema": SCHEMA,
        "cluster": view.cluster,
        "incarnation": f"{view.incarnation:032x}",
        "term": view.term,
        "leader": _address(view, view.leader) if view.leader else None,
        "configuration": list(view.entry),
        "quorum": {
            "voters": quorum.voters,
            "size": quorum.size,
            "reachable": quorum.reachable,
            "losses": quorum.losses,
        },
        "members": [_member_document(view, line) for line in lines],
    }


def _member_document(view: ClusterView, line: MemberLine) -> dict[str, Any]:
    member, here = line.member, line.here
    document: dict[str, Any] = {
        "address": member.address,
        "id": f"{member.member:032x}",
        "type": str(member.type),
        "since": member.since,
        "promotable": member.is_promotable,
        "replaces": f"{member.replaces:032x}" if member.replaces else None,
        "role": _role(view, line),
        "linked": _is_linked(view, line),
        "status": str(_status(member)),
        "slow": member.is_slow,
        "demoted": member.is_demoted,
        "leaving": member.is_leaving,
        "failure_domain": member.failure_domain,
        "weight": member.weight,
        "lag": _lag_document(view, line),
        "feeder": _address(view, here.feeder) if here is not None and here.feeder else None,
    }
    if here is None:
        return document | {"reason": line.reason}
    return document | {
        "term": here.term,
        "first_index": here.first_index,
        "last_index": here.last_index,
        "commit_index": here.commit_index,
        "last_applied": here.last_applied,
        "sessions": here.sessions,
        "disk": "full" if here.storage_full else "ok",
        "durability": here.durability,
        "obstacles": here.obstacles or None,
        "version": here.version,
    }


def _lag_document(view: ClusterView, line: MemberLine) -> dict[str, Any] | None:
    lag, here = _lag(view, line), line.here
    if lag is None or (here is not None and here.state is ServerState.INACTIVE):
        return None
    return {"entries": lag.entries, "seconds": lag.seconds}
