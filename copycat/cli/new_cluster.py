"""`copycat recover --show` and `--new-cluster`: when the quorum is lost for good (C46)."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import closing
from shlex import quote
from typing import Any

import click

from copycat.cli.log.advice import Advice
from copycat.config import Address
from copycat.errors import ConfigurationError, DirectoryInUseError
from copycat.member.holders import with_holder
from copycat.member.new_cluster import begin, complete
from copycat.member.new_cluster_file import NewCluster, read_unfinished
from copycat.member.operator_tools import check_name, identity_of
from copycat.member.survivor import Survivor, examine
from copycat.protocol.member_record import MemberRecord
from copycat.server.startup import boot_id
from copycat.storage import Env
from copycat.types import NO_ENTRY, EntryId

__all__ = ["run_new_cluster", "run_show"]

_DAMAGED, _REFUSED = 4, 5
_SESSIONS_SHOWN = 5


def run_show(directory: str, *, as_json: bool) -> int:
    """Print what a survivor has; nothing is changed. 4 when its directory is damaged."""
    survivor = examine(Env(), directory, boot_id())
    _print(survivor, as_json=as_json)
    return _DAMAGED if survivor.harm else 0


def run_new_cluster(
    directory: str, *, address: str, cluster_name: str, yes: bool, as_json: bool
) -> int:
    """Print what may be lost, ask, and make a new cluster of what is there.

    0 when it is made; 1 when that was not confirmed; 4 when the directory is damaged; 5 when it
    cannot be what a cluster begins with. ConfigurationError, DirectoryInUseError, DiskFullError.
    """
    if yes and not cluster_name:
        raise ConfigurationError(
            "--yes needs --cluster-name NAME, which confirms that this is the right directory",
            hint="leave --yes out to see what may be lost, and to be asked",
        )
    address = str(Address.parse(address)) if address else ""
    env = Env()
    unfinished = read_unfinished(env, directory)
    if unfinished is None:
        identity_of(
            env, directory
        )  # before a lock file is made in a directory that is no member's
    try:
        lock = env.lock(f"{directory}/lock")
    except DirectoryInUseError as error:
        raise with_holder(f"{directory}/lock", error) from error
    with closing(lock):
        unfinished = read_unfinished(env, directory)
        if unfinished is not None:
            return _complete(env, directory, unfinished, cluster_name, address, as_json=as_json)
        survivor = examine(env, directory, boot_id())
        if survivor.obstacles or not as_json:
            _print(survivor, as_json=as_json)
        if survivor.obstacles:
            _explain_refusal(survivor)
            return _DAMAGED if survivor.harm else _REFUSED
        sys.stdout.flush()
        print(_warning(survivor, address), file=sys.stderr)
        name = survivor.identity.cluster_name
        if yes:
            check_name(name, cluster_name)
        elif not _is_confirmed(directory, name, address):
            return 1
        new_cluster = begin(
            env, survivor, address=address, random_bits=lambda: secrets.randbits(128)
        )
        complete(env, directory, new_cluster)
    _print_made(directory, new_cluster, as_json=as_json)
    return 0


def _complete(
    env: Env,
    directory: str,
    unfinished: NewCluster,
    cluster_name: str,
    address: str,
    *,
    as_json: bool,
) -> int:
    """The operator confirmed it when it was begun, and there is no way back."""
    if cluster_name:
        check_name(unfinished.cluster_name, cluster_name)
    if address not in ("", unfinished.address):
        raise ConfigurationError(
            f"{directory}: a new cluster at {unfinished.address} was begun here, not at {address}",
            hint="leave --address out",
        )
    print(f"{directory}: an earlier run was interrupted; it is completed now", file=sys.stderr)
    complete(env, directory, unfinished)
    _print_made(directory, unfinished, as_json=as_json)
    return 0


def _is_confirmed(directory: str, name: str, address: str) -> bool:
    """Ask for the name of the cluster, where somebody can answer."""
    if sys.stdin.isatty():
        typed = click.prompt(
            f'Type the name of the cluster ("{name}") to go on, anything else to stop',
            default="",
            show_default=False,
            err=True,
        )
        if typed == name:
            return True
        print("nothing was changed", file=sys.stderr)
        return False
    place = f" --address {address}" if address else ""
    print(
        "nothing was changed. To make the new cluster: copycat recover --new-cluster"
        f" {quote(directory)}{place} --cluster-name {quote(name)} --yes",
        file=sys.stderr,
    )
    return False


def _explain_refusal(survivor: Survivor) -> None:
    for one in survivor.obstacles:
        print(
            f"error[recovery-refused]: {survivor.directory}: no new cluster can be made of this"
            f" directory: {one.why}\n  hint: {one.hint}",
            file=sys.stderr,
        )
    print("nothing was changed", file=sys.stderr)


def _warning(survivor: Survivor, address: str) -> str:
    last, others = survivor.last, _others(survivor)
    lines = [
        "",
        "A new cluster is to be made of this directory alone. Read this first:",
    ]
    lines.append(
        "* Every entry that is not here is lost: what was acknowledged after entry"
        f" {last.index:,} of term {last.term}, if anything was."
    )
    if (first := survivor.committed.index + 1) <= last.index:
        lines.append(
            f"* {_entries(first, last.index).capitalize()} become part of the new cluster, whether"
            " they were acknowledged or not: their clients may not know the outcome."
        )
    if others:
        lines.append(
            "* Is this the newest? Run copycat recover --show on each of the others that is left:"
            f" {', '.join(others)}. The one with the greatest term, then index, is the right one."
        )
        lines.append(
            "* The others do not belong to the new cluster, and are refused; their files stay"
            " as they are. Stop them: a majority of them would go on as the old cluster."
        )
    lines.append(
        f"* All sessions end ({len(survivor.sessions):,} are open here): their clients"
        " get ClusterReplacedError, and nothing of theirs is sent again."
    )
    if address not in ("", survivor.address):
        lines.append(f"* The member will be at {address}, not at {survivor.address}.")
    lines.append("* There is no way back but a copy of this directory: make one now if you can.")
    return "\n".join(lines)


def _others(survivor: Survivor) -> list[str]:
    """Addresses of the members that may have newer entries."""
    return [
        each.address
        for each in survivor.configuration.members
        if each.member != survivor.identity.member and each.is_stateful
    ]


def _print_made(directory: str, made: NewCluster, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"schema": 1, "path": directory, "new_cluster": _made(made)}, indent=2))
        return
    print(
        f'{directory}: made the cluster "{made.cluster_name}" (incarnation'
        f" {made.cluster_incarnation:032x}) of one member at {made.address}, from entry"
        f" {made.last.index:,} of term {made.last.term} on"
    )
    rest = f"--cluster-name {quote(made.cluster_name)}"
    print(
        f"next: start it: copycat serve {made.address} --app MODULE:CLASS --directory"
        f" {quote(directory)} {rest}\n"
        "then: join new members, each with an empty directory: copycat serve HOST:PORT --app"
        f" MODULE:CLASS --directory NEW --join {made.address} {rest}"
    )


def _made(made: NewCluster) -> dict[str, Any]:
    return {
        "cluster_name": made.cluster_name,
        "address": made.address,
        "member": f"{made.member:032x}",
        "parent_member": f"{made.parent_member:032x}",
        "cluster_incarnation": f"{made.cluster_incarnation:032x}",
        "parent_incarnation": _hex(made.parent_incarnation),
        "last": made.last._asdict(),
        "term": made.term,
    }


def _hex(number: int) -> str | None:
    return f"{number:032x}" if number else None


# ---- what a survivor has -----------------------------------------------------------------


def _print(survivor: Survivor, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_document(survivor), indent=2))
    else:
        print("\n".join(_lines(survivor)))


def _lines(survivor: Survivor) -> Iterator[str]:
    identity, last, committed = survivor.identity, survivor.last, survivor.committed
    yield (
        f"{survivor.directory}: member {survivor.address} (id {identity.member:032x}) of cluster"
        f' "{identity.cluster_name}"'
    )
    yield f"{'last entry':<16}{_name(last)}; this member is in term {survivor.term}"
    yield f"{'committed':<16}{_committed(survivor)}"
    if not survivor.is_only_voter:
        if committed.index < last.index:
            yield (
                f"{'':<16}{_entries(committed.index + 1, last.index)} may have been committed, or"
                " not: this directory does not say"
            )
        yield f"{'':<16}others may have acknowledged later entries, which this directory lacks"
    configuration = survivor.configuration
    is_known = survivor.is_only_voter or configuration.entry.index <= committed.index
    for label, member in zip(_labels("members"), configuration.members, strict=False):
        is_this = member.member == identity.member
        yield f"{label:<16}{_member(member)}{'  (this one)' if is_this else ''}"
    if configuration.entry != NO_ENTRY:
        yield (
            f"{'':<16}by entry {configuration.entry.index:,} of term {configuration.entry.term}"
            f"{'' if is_known else ', which may not have been committed'}"
        )
    yield f"{'sessions':<16}{len(survivor.sessions):,} open"
    for one in survivor.sessions[:_SESSIONS_SHOWN]:
        yield (
            f"{'':<16}session {one.session}: commands up to number {one.sequence:,}, client"
            f" {one.client_id!r}"
        )
    if len(survivor.sessions) > _SESSIONS_SHOWN:
        yield f"{'':<16}… ({len(survivor.sessions) - _SESSIONS_SHOWN:,} more; --json shows all)"
    incarnation = _hex(survivor.cluster_incarnation)
    yield f"{'incarnation':<16}{incarnation or 'none: the members were never changed'}"
    if (origin := survivor.origin) is not None:
        parent = _hex(origin.parent_incarnation) or "a cluster without an incarnation"
        yield (
            f"{'':<16}made by recover --new-cluster from entry {origin.last.index:,} of term"
            f" {origin.last.term} of {parent}"
        )
    if survivor.report is not None:
        advice = Advice(survivor.report)
        for damage in survivor.report.damage:
            yield f"{'damage':<16}{advice.error_of(damage).message}"
    for label, obstacle in zip(_labels("new cluster"), survivor.obstacles, strict=False):
        yield f"{label:<16}{'not possible: ' if label else ''}{obstacle.why}"
        yield f"{'':<16}hint: {obstacle.hint}"
    if not survivor.obstacles:
        yield f"{'new cluster':<16}possible: copycat recover --new-cluster {survivor.directory}"


def _committed(survivor: Survivor) -> str:
    if survivor.is_only_voter:
        return "all entries, since this member is the only voter"
    if survivor.committed == NO_ENTRY:
        return "no entry is known to be committed"
    return f"up to {_name(survivor.committed)}, as far as this directory knows"


def _entries(first: int, last: int) -> str:
    return f"entry {first:,}" if first == last else f"entries {first:,} to {last:,}"


def _labels(first: str) -> Iterator[str]:
    yield first
    while True:
        yield ""


def _name(entry: EntryId) -> str:
    return f"{entry.index:,} of term {entry.term}" if entry != NO_ENTRY else "none"


def _member(member: MemberRecord) -> str:
    return f"{member.address}  {member.type}"


def _document(survivor: Survivor) -> dict[str, Any]:
    identity = survivor.identity
    return {
        "schema": 1,
        "path": survivor.directory,
        "cluster_name": identity.cluster_name,
        "cluster_incarnation": _hex(survivor.cluster_incarnation),
        "member": f"{identity.member:032x}",
        "address": survivor.address,
        "term": survivor.term,
        "last": survivor.last._asdict(),
        "committed": survivor.committed._asdict(),
        "snapshot": survivor.snapshot._asdict(),
        "configuration": survivor.configuration.entry._asdict(),
        "members": [
            {"member": f"{each.member:032x}", "address": each.address, "type": each.type.value}
            for each in survivor.configuration.members
        ],
        "sessions": [each._asdict() for each in survivor.sessions],
        "damage": []
        if survivor.report is None
        else [
            {"path": one.path, "offset": one.offset, "index": one.index, "what": one.what}
            for one in survivor.report.damage
        ],
        "obstacles": [each._asdict() for each in survivor.obstacles],
        "origin": None if survivor.origin is None else _made(survivor.origin),
    }
