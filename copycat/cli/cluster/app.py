"""`copycat cluster`: asks a running cluster over the network, and prints what it answers."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

import msgspec

from copycat.cli.cluster.page import (
    ChangedMember,
    MemberLine,
    change_lines,
    name_in,
    policy_lines,
    status_lines,
)
from copycat.client.cluster_connection import ClusterConnection
from copycat.client.healing_policy import HealingPolicy
from copycat.client.membership import (
    Membership,
    check_has_vote,
    find_member,
    has_type,
    is_id,
    member_of,
)
from copycat.config import Address, plaintext_problems
from copycat.errors import ConfigurationError, CopycatError
from copycat.protocol.client import ClusterRequest, ClusterView, MemberView
from copycat.types import EntryId, MemberId, MemberType

__all__ = ["ClusterAsker", "ClusterOptions", "Verb", "run_cluster"]

Verb = Literal["status", "add", "promote", "demote", "remove", "transfer", "heal"]
NO_LEADER = 3
"""Exit code: no leader, or no answer; it may work later."""


class ClusterOptions(NamedTuple):
    """The options of the command line; `goal` is the name of a type, or None."""

    addresses: tuple[str, ...]
    members: tuple[str, ...] = ()
    cluster_name: str = ""
    insecure: bool = False
    timeout: float = 30.0
    as_json: bool = False
    goal: str | None = None
    policy: Mapping[str, float | bool] = MappingProxyType({})
    """What `heal` sets, by the names of the fields of `HealingPolicy`; empty: it shows all."""


class ClusterAsker(Protocol):
    """What asks the cluster (`ClusterConnection`)."""

    async def ask(self, message: ClusterRequest) -> ClusterView: ...
    async def look(self) -> ClusterView: ...
    async def ask_at(self, address: str) -> ClusterView: ...
    def close(self) -> None: ...


def run_cluster(verb: Verb, options: ClusterOptions) -> int:
    """Carry out one command; returns the exit code. Raises the CopycatError that says why not."""
    places = _places(verb, options)
    return asyncio.run(_run(verb, options, places))


async def _run(verb: Verb, options: ClusterOptions, places: tuple[str, ...]) -> int:
    cluster = ClusterConnection(places, cluster_name=options.cluster_name)
    try:
        return await run_with(cluster, verb, options)
    finally:
        cluster.close()


async def run_with(cluster: ClusterAsker, verb: Verb, options: ClusterOptions) -> int:
    """The same, asking `cluster`."""
    membership = _membership(cluster, options.timeout)
    if verb == "status":
        return await _status(cluster, membership, options)
    if verb == "heal":
        return await _heal(membership, options)
    if verb == "transfer":
        return await _transfer(cluster, membership, options)
    changed: list[ChangedMember] = []
    try:
        await _change_all(cluster, membership, verb, options, changed)
    finally:  # what was changed before a refusal stays
        for line in change_lines(changed, as_json=options.as_json) if changed else ():
            print(line)
    return 0


def _membership(cluster: ClusterAsker, patience: float) -> Membership:
    return Membership(cluster.ask, say=_say, patience=patience, look=cluster.look)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _places(verb: Verb, options: ClusterOptions) -> tuple[str, ...]:
    """The addresses to ask. ConfigurationError when there is none, or one cannot be used.

    `status` and `heal` ask those that they are given.
    """
    given = tuple(name for name in options.addresses if not is_id(name))
    named = options.members or _members_of_environment() or given
    if verb in ("status", "heal"):
        named = (*given, *options.members) or named
    if not named:
        raise ConfigurationError(
            "no member is given to ask",
            hint="give --member HOST:PORT, or set COPYCAT_MEMBERS=HOST:PORT,HOST:PORT",
        )
    addresses = [Address.parse(name) for name in (*named, *given)]
    if not options.insecure:
        problems = plaintext_problems(
            "to ask", dict.fromkeys(addresses), "use a loopback address, or give --insecure"
        )
        if problems:
            raise ConfigurationError("; ".join(problems), hint="nobody was asked")
    return tuple(str(Address.parse(name)) for name in named)


def _members_of_environment() -> tuple[str, ...]:
    named = os.environ.get("COPYCAT_MEMBERS", "")
    return tuple(name.strip() for name in named.split(",") if name.strip())


# --- changes ----------------------------------------------------------------------------------


async def _change_all(
    cluster: ClusterAsker,
    membership: Membership,
    verb: Verb,
    options: ClusterOptions,
    changed: list[ChangedMember],
) -> None:
    """Change the members one after the other, and add each to `changed`; the first refusal ends
    it."""
    goal = None if options.goal is None else MemberType(options.goal)
    for name in options.addresses:
        view = await membership.view_of_leader()
        if not view.leader:  # it has waited for one: the cluster is asked once, and says why not
            membership = _membership(cluster, 0.0)
        if verb == "add":
            address = shown = str(Address.parse(name))
            member = await _waiting_server(cluster, address, view)
            added = goal or MemberType.ACTIVE
            after = await _add(membership, member, address, added, view)
        else:
            one = find_member(view.members, _name(name), view.cluster)
            member, shown = one.member, name_in(view, one)
            after = await _change(membership, verb, one, goal, view.entry)
        before, now = _type_in(view, member), _type_in(after, member)
        changed.append(ChangedMember(shown, now, after, now is before))


def _name(name: str) -> str:
    return name if is_id(name) else str(Address.parse(name))


async def _add(
    membership: Membership,
    member: MemberId,
    address: str,
    goal: MemberType,
    view: ClusterView,
) -> ClusterView:
    """The cluster with the server at `address`. Nothing is asked if it is a member of this type
    already, or of one that has more."""
    for one in view.members:
        if one.member == member and one.address == address and has_type(one, goal):
            return view
    return await membership.add(member, address, goal, view.entry)


async def _change(
    membership: Membership,
    verb: Verb,
    member: MemberView,
    goal: MemberType | None,
    base: EntryId,
) -> ClusterView:
    if verb == "remove":
        return await membership.remove(member, base)
    change: Callable[[MemberView, MemberType | None, EntryId], Awaitable[ClusterView]]
    change = membership.promote if verb == "promote" else membership.demote
    return await change(member, goal, base)


async def _waiting_server(cluster: ClusterAsker, address: str, view: ClusterView) -> MemberId:
    """The id of the server that waits at `address`. ConfigurationError when none does there."""
    try:
        there = await cluster.ask_at(address)
    except (OSError, CopycatError) as error:
        raise ConfigurationError(
            f"no server waits at {address}: {error}",
            hint=f"start it: copycat serve {address} --join MEMBER --type inactive ...",
        ) from error
    if there.incarnation and view.incarnation and there.incarnation != view.incarnation:
        raise ConfigurationError(
            f'{address} is a member of another cluster "{there.cluster}"',
            hint="give the address of a server that was started with --join",
        )
    return there.member


def _type_in(view: ClusterView, member: MemberId) -> MemberType:
    one = member_of(view, member)
    return MemberType.INACTIVE if one is None else one.type


async def _transfer(cluster: ClusterAsker, membership: Membership, options: ClusterOptions) -> int:
    if len(options.addresses) > 1:
        raise ConfigurationError(
            "leadership is handed to one member", hint="give one ADDRESS, or none"
        )
    view = await membership.view_of_leader()
    if not view.leader:
        membership = _membership(cluster, 0.0)
    to = MemberId(0)
    if options.addresses:
        one = find_member(view.members, _name(options.addresses[0]), view.cluster)
        check_has_vote(one)
        to = one.member
    before = _address_of(view, view.leader)
    if to and to == view.leader:
        after = view
    else:
        if before:
            _say(f"waiting for another member to lead in place of {before}")
        after = await membership.transfer(to)
    leader = _address_of(after, after.leader)
    changed = [ChangedMember(leader, MemberType.ACTIVE, after)] if leader else []
    for line in change_lines(changed, as_json=options.as_json, is_transfer=True):
        print(line)
    return 0 if leader else NO_LEADER


def _address_of(view: ClusterView, member: MemberId) -> str:
    return next((one.address for one in view.members if one.member == member), "")


async def _heal(membership: Membership, options: ClusterOptions) -> int:
    """Set what is given of the policy, and show the policy."""
    view = await membership.view_of_leader()
    if options.policy:
        known = HealingPolicy.of(view.policy)
        values = {"is_on": True, **options.policy}
        policy = HealingPolicy(**{**msgspec.structs.asdict(known), **values})
        if policy.record != view.policy:
            view = await membership.set_policy(policy.record, view.entry)
    for line in policy_lines(view, as_json=options.as_json):
        print(line)
    return 0 if view.leader else NO_LEADER


# --- status -------------------------------------------------------------------------------------


async def _status(cluster: ClusterAsker, membership: Membership, options: ClusterOptions) -> int:
    view = await membership.view()
    lines = await asyncio.gather(*(_line(cluster, one) for one in view.members))
    for line in status_lines(view, lines, as_json=options.as_json):
        print(line)
    return 0 if view.leader else NO_LEADER


async def _line(cluster: ClusterAsker, member: MemberView) -> MemberLine:
    """What the member at this address says of itself, or why it says nothing."""
    try:
        here = await cluster.ask_at(member.address)
        if here.member != member.member:
            return MemberLine(member, None, f"member {here.member:032x} answers there")
        return MemberLine(member, here, "")
    except (OSError, CopycatError) as error:
        return MemberLine(member, None, str(error) or type(error).__name__)
