"""`copycat recover`: shows a survivor, makes a new cluster of it (C46), cuts a damaged log (F2),
accepts a loss, or skips an entry (F23)."""

from __future__ import annotations

import secrets
from typing import Any

from copycat.cli.log.advice import Advice
from copycat.cli.log.records import RecordReader, lines_of
from copycat.cli.new_cluster import run_new_cluster, run_show
from copycat.errors import ConfigurationError
from copycat.member.recover import (
    RecoveryPlan,
    accept_loss,
    accept_lost_entries,
    accept_unsynced_loss,
    complete,
    plan,
    skip_entry,
    skippable,
)
from copycat.member.verify import verify
from copycat.storage import Env

__all__ = ["dispatch", "run_recover"]


def dispatch(
    directory: str, *, show: bool, new_cluster: bool, address: str, as_json: bool, **options: Any
) -> int:
    """Run what the options name, and return the exit code. ConfigurationError for a mixture."""
    is_repair = any(
        options[name] not in (None, False)
        for name in ("accept_loss_from", "unsynced", "missing", "skip")
    )
    if [show, new_cluster, is_repair].count(True) > 1:
        raise ConfigurationError(
            "--show, --new-cluster and the options that discard entries exclude each other",
            hint=f"begin with copycat recover --show {directory}, which changes nothing",
        )
    if address and not new_cluster:
        raise ConfigurationError("--address belongs to --new-cluster", hint="leave it out")
    if as_json and not (show or new_cluster):
        raise ConfigurationError("--json belongs to --show and --new-cluster", hint="leave it out")
    if show:
        return run_show(directory, as_json=as_json)
    if new_cluster:
        name, yes = options["cluster_name"], options["yes"]
        return run_new_cluster(
            directory, address=address, cluster_name=name, yes=yes, as_json=as_json
        )
    return run_recover(directory, **options)


def run_recover(
    directory: str,
    *,
    accept_loss_from: int | None,
    unsynced: bool,
    missing: bool,
    skip: int | None = None,
    cluster_name: str,
    yes: bool,
) -> int:
    """Print what would be lost, and return 1; with `yes` make the change, and return 0.

    ConfigurationError unless one kind of change is given, and `cluster_name` with `yes`.
    """
    env = Env()
    if [accept_loss_from is not None, unsynced, missing, skip is not None].count(True) != 1:
        raise ConfigurationError(
            "give one of --show, --new-cluster, --accept-loss-from INDEX,"
            " --accept-unsynced-loss, --accept-missing-entries and --skip-entry INDEX",
            hint=f"copycat log verify {directory} says which entries cannot be read",
        )
    if yes and not cluster_name:
        raise ConfigurationError(
            "--yes needs --cluster-name NAME, which confirms that this is the right directory",
            hint="leave --yes out to see what would be lost",
        )
    if skip is not None:
        return _skip(env, directory, skip, cluster_name, yes=yes)
    if unsynced or missing:
        return _accept(env, directory, cluster_name, missing=missing, yes=yes)
    if yes and complete(env, directory, cluster_name):
        print(f"{directory}: an earlier recovery was completed")
        return 0
    assert accept_loss_from is not None  # noqa: S101  (for the type checker)
    recovery = plan(env, directory, accept_loss_from)
    print(_as_text(recovery))
    if not yes:
        return _print_command(directory, f"--accept-loss-from {accept_loss_from}")
    damaged = accept_loss(env, recovery, cluster_name, secrets.randbits(128))
    print(
        f"kept entries {recovery.first_index:,} to {recovery.new_last_index:,};"
        f" the damaged log is in {damaged}"
    )
    return 0


def _accept(env: Env, directory: str, cluster_name: str, *, missing: bool, yes: bool) -> int:
    """Let a member vote again although entries that it acknowledged are missing."""
    option = "--accept-missing-entries" if missing else "--accept-unsynced-loss"
    if yes:
        (accept_lost_entries if missing else accept_unsynced_loss)(env, directory, cluster_name)
        print(f"{directory}: this member votes with the entries that it has; commands may be lost")
        return 0
    what = "lost to damage are missing here" if missing else "not synced may be missing here"
    print(f"{directory}: entries that were acknowledged and {what}")
    report = verify(directory)
    if report.valid_from > report.last_index:
        print(
            f"a replay of this log is exact from entry {report.valid_from:,} on, but the log ends"
            f" at {report.last_index:,}: deleted keys may come back, and members may disagree."
            " It is safer to begin a new cluster from a snapshot of one member, or from a backup"
        )
    return _print_command(directory, option)


def _skip(env: Env, directory: str, index: int, cluster_name: str, *, yes: bool) -> int:
    """Have a member leave the state machine's code out at one entry (decision 0022)."""
    if yes:
        done = skip_entry(env, directory, index, cluster_name)
        print(
            f"{directory}: entry {done.index:,} (term {done.term}) is skipped from the next start"
            " on. Every member must skip it: members refuse each other until all of them do"
        )
        return 0
    for line in lines_of(RecordReader(), iter([skippable(env, directory, index)])):
        print(line)
    print(
        "the state machine's code is not called for this entry: a command in it gets an error as"
        " its result, and no callback is called. If a client got another result before, that"
        " result is wrong now"
    )
    return _print_command(directory, f"--skip-entry {index}")


def _print_command(directory: str, option: str) -> int:
    print(f"nothing was changed. To make the change: copycat recover {directory} {option}", end="")
    print(" --cluster-name NAME --yes")
    return 1


def _as_text(recovery: RecoveryPlan) -> str:
    remaining_text = f"entries {recovery.first_index:,} to {recovery.new_last_index:,} are kept,"
    first_cut = recovery.new_last_index + 1
    lost = f" {first_cut:,} to {recovery.known_upto:,} (and later ones) are discarded"
    lines = [
        f'{recovery.directory}: member {recovery.address} of cluster "{recovery.cluster_name}"',
        remaining_text + lost,
    ]
    if not recovery.first_lost:
        lines.append("no entry of this log is damaged: all entries can be read")
    elif recovery.first_lost > first_cut:
        lines.append(
            f"entries {first_cut:,} to {recovery.first_lost - 1:,} of the discarded ones can be"
            f" read: --accept-loss-from {recovery.first_lost} keeps them"
        )
    covered = [one.last_index for one in recovery.report.snapshots if one.damage is None]
    if covered and covered[-1] > recovery.new_last_index:
        lines.append(
            f"a snapshot contains the effects of the entries up to {covered[-1]:,}, and is kept"
        )
    advice = Advice(recovery.report)
    lines += [advice.error_of(one).message for one in recovery.report.damage]
    if len(recovery.members) > 1:
        lines.append(
            "this cluster has other members: start this member, and it fetches the lost entries."
            " After you discarded entries, the other members do not let this member vote"
        )
    return "\n".join(lines)
