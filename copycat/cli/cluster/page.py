"""What `copycat cluster` prints: a table for people, one document for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from copycat.cli.formatting import table
from copycat.protocol.client import ClusterView, MemberView
from copycat.types import MemberId, MemberType, ServerState

__all__ = ["ChangedMember", "MemberLine", "change_lines", "status_lines"]

SCHEMA = 1
_ORDER = [MemberType.ACTIVE, MemberType.PASSIVE, MemberType.RESERVE]
_HEAD = ("<MEMBER", "<TYPE", "<ROLE", "TERM", "COMMIT", "APPLIED", "LAG", "<DISK", "<VERSION")


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
        f"{one.address} is no member any more"
        if one.type is MemberType.INACTIVE
        else f"{one.address} is {one.type}"
        for one in changed
    ]


# --- status --------------------------------------------------------------------------


def status_lines(view: ClusterView, lines: Sequence[MemberLine], *, as_json: bool) -> list[str]:
    """The members, in the order of their types, and what the cluster can bear."""
    ordered = sorted(lines, key=_key)
    if as_json:
        return [json.dumps(_document(view, ordered))]
    rows = [_row(view, line) for line in ordered]
    return [*table(_HEAD, rows), _summary(view, ordered)]


def _key(line: MemberLine) -> tuple[int, str]:
    return _ORDER.index(line.member.type), line.member.address


def _role(view: ClusterView, line: MemberLine) -> str:
    if line.here is None:
        return "unreachable"
    is_leader = line.member.member == view.leader
    return "leader" if is_leader else str(line.here.state)


def _lag(view: ClusterView, line: MemberLine) -> tuple[int, float] | None:
    """Entries, and seconds of log time, by which the member is behind; None when unknown."""
    here = line.here
    if here is None or line.member.type is MemberType.RESERVE:
        return None
    entries = max(0, view.commit_index - here.last_applied)
    behind_ms = max(0, view.applied_time_ms - here.applied_time_ms) if entries else 0
    return entries, behind_ms / 1000


def _row(view: ClusterView, line: MemberLine) -> tuple[str, ...]:
    member, here = line.member, line.here
    kind = f"{member.type} (promoted)" if member.is_promotable else str(member.type)
    if here is None:
        return (member.address, kind, "unreachable", "–", "–", "–", "–", "–", line.reason)
    lag = _lag(view, line)
    has_log = member.type is not MemberType.RESERVE
    return (
        member.address,
        kind,
        _role(view, line),
        str(here.term),
        f"{here.commit_index:,}" if has_log else "–",
        f"{here.last_applied:,}" if has_log else "–",
        "–" if lag is None else f"{lag[0]:,}" if lag[0] == 0 else f"{lag[0]:,} ({lag[1]:.1f} s)",
        "full" if here.storage_full else "ok",
        here.version,
    )


class _Quorum(NamedTuple):
    voters: int
    size: int
    """How many voters are a majority."""
    reachable: int

    @property
    def losses(self) -> int:
        """So many more voters may fail."""
        return max(0, self.reachable - self.size)


def _quorum(lines: Sequence[MemberLine]) -> _Quorum:
    voters = [one for one in lines if one.member.type is MemberType.ACTIVE]
    reachable = sum(one.here is not None for one in voters)
    return _Quorum(len(voters), len(voters) // 2 + 1, reachable)


def _summary(view: ClusterView, lines: Sequence[MemberLine]) -> str:
    quorum = _quorum(lines)
    if quorum.reachable < quorum.size:
        bears = "no majority: writes are paused"
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
    quorum = _quorum(lines)
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
        "role": _role(view, line),
    }
    if here is None:
        return document | {"reason": line.reason}
    lag = _lag(view, line)
    is_known = here.state is not ServerState.INACTIVE
    return document | {
        "term": here.term,
        "first_index": here.first_index,
        "last_index": here.last_index,
        "commit_index": here.commit_index,
        "last_applied": here.last_applied,
        "lag": None if lag is None or not is_known else {"entries": lag[0], "seconds": lag[1]},
        "sessions": here.sessions,
        "disk": "full" if here.storage_full else "ok",
        "durability": here.durability,
        "version": here.version,
    }
