"""Cutting a damaged log where the operator accepts it: offline, on request, and recorded (F2).

Nothing in copycat does this by itself. The entries that are kept are written to a new log beside
the damaged one, which stays for an examination; then the new log gets the name of the old one. The
directory gets a new
incarnation: in a cluster with other members it is a lost disk from then on, and has no vote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from copycat.errors import ConfigurationError, CorruptLogError
from copycat.member.configuration_file import known_addresses
from copycat.member.damage_scan import scan
from copycat.member.hard_state import best_copy
from copycat.member.identity import Identity, write_identity
from copycat.member.markers import (
    ACCEPTED_LOSS_FILE,
    INDEX_MAX,
    LOST_ENTRIES_FILE,
    UNSYNCED_ACKS_FILE,
    clear_note,
    clear_unsynced_acks,
    read_lost_entries,
)
from copycat.member.operator_tools import AUDIT_FILE, check_name, identity_of, write_audit
from copycat.member.repair import TruncationPlan, write_log
from copycat.member.skips import SKIPS_FILE, SKIPS_MAX, read_skips, write_skips
from copycat.member.verify import VerifyReport, snapshots_of, verify
from copycat.storage.reader import records
from copycat.types import NO_ENTRY, SkippedEntry

if TYPE_CHECKING:
    from collections.abc import Callable

    from copycat.storage._native import Env
    from copycat.storage.reader import StoredEntry

__all__ = [
    "AUDIT_FILE",
    "RecoveryPlan",
    "accept_loss",
    "accept_lost_entries",
    "accept_unsynced_loss",
    "complete",
    "plan",
    "skip_entry",
    "skippable",
]

_RECOVERED = "log-recovered-"
_SIZES = (32 << 20, 1 << 20)


class RecoveryPlan(NamedTuple):
    """What `accept_loss` would do. Indexes are inclusive."""

    directory: str
    cluster_name: str
    address: str
    members: tuple[str, ...]
    first_index: int
    new_last_index: int
    """The last entry that stays; `first_index - 1` when none does."""
    first_lost: int
    """The first entry that cannot be read; 0 when all can."""
    known_upto: int
    """The last entry that the files are known to have held; there may have been more."""
    report: VerifyReport


def plan(env: Env, directory: str, accept_loss_from: int) -> RecoveryPlan:
    """Read the whole log and say what would be kept; nothing is changed.

    ConfigurationError when there is no member here, or the cut lies outside of its log.
    CorruptLogError when entries below the cut cannot be read either, or none can, or it is not
    known whose directory this is (F7).
    """
    identity = identity_of(env, directory)
    report = verify(directory, env=env)
    _check_use(env, directory, report)
    lost = [one for one in report.damage if one.index and one.row in {"F2", "F3"}]
    damage = min(lost, key=lambda one: one.index, default=None)
    if damage is not None and damage.index < accept_loss_from:
        raise CorruptLogError(
            f"entry {damage.index} of {directory} cannot be read either: {damage.what}",
            hint=f"give the index of the first damage: --accept-loss-from {damage.index}",
            path=damage.path,
            offset=damage.offset,
            index=damage.index,
        )
    first, last = report.first_index, damage.index if damage is not None else report.last_index
    if not first <= accept_loss_from <= last:
        raise ConfigurationError(
            f"--accept-loss-from {accept_loss_from}: the log holds entries {first} to {last}",
            hint="give the index that the error names",
        )
    return RecoveryPlan(
        directory,
        identity.cluster_name,
        identity.address,
        known_addresses(env, directory, identity),
        first,
        accept_loss_from - 1,
        damage.index if damage is not None else 0,
        max(last, _known_upto(env, directory, report)),
        report,
    )


def _known_upto(env: Env, directory: str, report: VerifyReport) -> int:
    """What marks, gaps and snapshots say of entries that cannot be read now."""
    last_scanned = scan(env, f"{directory}/log").last_index
    last_indexes = [one.last_index for one in report.snapshots if one.damage is None]
    last_indexes += [report.valid_from, last_scanned if last_scanned != INDEX_MAX else 0]
    return max(last_indexes)


def _check_use(env: Env, directory: str, report: VerifyReport) -> None:
    """CorruptLogError where no cut of the log makes a member of the directory again."""
    hint = "restore this directory from a backup; if it has other members, start it instead"
    useless = [one for one in report.damage if one.row == "F17" and not one.index]
    if not report.checks:
        useless = list(report.damage)
        if not env.exists(f"{directory}/log") and _recovered(env, directory):
            hint = "an earlier recovery was interrupted: --cluster-name NAME --yes completes it"
    if useless:
        raise CorruptLogError(
            f"{directory}: cutting the log does not help: {useless[0].what}",
            hint=hint,
            path=useless[0].path,
        )


def accept_loss(env: Env, recovery_plan: RecoveryPlan, cluster_name: str, incarnation: int) -> str:
    """Keep the entries up to `recovery_plan.new_last_index`; where the damaged log stays.

    ConfigurationError unless `cluster_name` is the directory's; DirectoryInUseError while a
    server runs. A crash leaves the old log, or the new one, or a directory without a log, which
    no server starts over, and which the same call completes.
    """
    directory = recovery_plan.directory
    check_name(recovery_plan.cluster_name, cluster_name)
    mark = f"{incarnation:032x}"[:16]
    recovered, damaged = f"{directory}/{_RECOVERED}{mark}", f"{directory}/log-damaged-{mark}"
    lock = env.lock(f"{directory}/lock")
    try:
        identity = identity_of(env, directory)
        log_scan = scan(env, f"{directory}/log")
        cut = TruncationPlan(log_scan.before, recovery_plan.new_last_index + 1, NO_ENTRY)
        write_log(env, recovered, cut, log_scan, _SIZES)
        write_audit(
            env,
            directory,
            action="accept-loss-from",
            index=recovery_plan.new_last_index + 1,
            known_upto=recovery_plan.known_upto,
            cluster=identity.cluster_name,
            address=identity.address,
            incarnation=f"{identity.incarnation:032x}",
            new_incarnation=f"{incarnation:032x}",
            damaged_log=damaged,
        )
        write_identity(env, directory, identity.with_incarnation(incarnation))
        env.rename(f"{directory}/log", damaged)
        env.rename(recovered, f"{directory}/log")
        env.sync_directory(directory)
        _forget_damage(env, directory)
    finally:
        lock.close()
    return damaged


def complete(env: Env, directory: str, cluster_name: str) -> bool:
    """Finish what a crash between the two renames left; False when there is nothing to finish."""
    if env.exists(f"{directory}/log"):
        return False
    recovered = _recovered(env, directory)
    if len(recovered) != 1:
        return False
    check_name(identity_of(env, directory).cluster_name, cluster_name)
    lock = env.lock(f"{directory}/lock")
    try:
        env.rename(f"{directory}/{recovered[0]}", f"{directory}/log")
        env.sync_directory(directory)
        _forget_damage(env, directory)
    finally:
        lock.close()
    return True


def _recovered(env: Env, directory: str) -> list[str]:
    return [name for name in env.list(directory) if name.startswith(_RECOVERED)]


def accept_unsynced_loss(env: Env, directory: str, cluster_name: str) -> None:
    """Let a member vote although entries that it acknowledged may be missing (decision 0016).

    ConfigurationError when nothing says that they are.
    """
    nothing = "this member acknowledged no entry before its sync, so no entry is missing"
    member = _checked_identity(env, directory, cluster_name, UNSYNCED_ACKS_FILE, nothing)
    _accept(env, directory, member, "accept-unsynced-loss", clear_unsynced_acks)


def accept_lost_entries(env: Env, directory: str, cluster_name: str) -> None:
    """Let a member vote without the entries that damage destroyed and no leader sent again.

    For a cluster in which every copy of these entries is lost (decision 0017). The record of them
    stays: others may have deleted tombstones because this member had them, so that no gap may
    stand for the lost entries. ConfigurationError when no entry is lost.
    """
    nothing = "this member lost no entry to damage"
    member = _checked_identity(env, directory, cluster_name, LOST_ENTRIES_FILE, nothing)
    _accept(env, directory, member, "accept-missing-entries", _accept_lost_entries)


def skippable(env: Env, directory: str, index: int) -> StoredEntry:
    """The entry that this member can be made to skip; nothing is changed.

    ConfigurationError when it is not in this log, when it is skipped already, and when a
    snapshot covers it: then the state has what it did, and members would disagree.
    """
    identity = identity_of(env, directory)
    skips = read_skips(env, directory, identity.cluster_name)
    if index in {skip.index for skip in skips}:
        raise ConfigurationError(
            f"entry {index} of {directory} is skipped already",
            hint="start the member; every member of the cluster must skip this entry",
        )
    if len(skips) >= SKIPS_MAX:
        raise ConfigurationError(f"{directory} skips {len(skips)} entries, which is the limit")
    covered = [one for one in snapshots_of(env, directory) if one.damage is None]
    if covered and covered[-1].last_index >= index:
        raise ConfigurationError(
            f"entry {index} is covered by the snapshot of entry {covered[-1].last_index}: this"
            " member has applied the entry, and its state contains the effects",
            hint="members that skip the entry would disagree with this one: correct the state"
            " machine instead, or give the others this member's snapshot",
        )
    record = next(records(directory, index, env=env), None)
    if record is None or record.index > index or record.is_gap:
        raise ConfigurationError(
            f"{directory} has no entry {index}",
            hint="give the index that the error names; if this member's log does not reach that"
            f" entry, copy the file {SKIPS_FILE} of another member into its directory",
        )
    return record


def skip_entry(env: Env, directory: str, index: int, cluster_name: str) -> SkippedEntry:
    """Record that the user's code is not called at this entry; durable when it returns.

    What `skippable` raises; DirectoryInUseError while a server runs.
    """
    identity = identity_of(env, directory)
    check_name(identity.cluster_name, cluster_name)
    lock = env.lock(f"{directory}/lock")
    try:
        record = skippable(env, directory, index)
        skip = SkippedEntry(record.index, record.term, record.crc)
        write_audit(
            env,
            directory,
            action="skip-entry",
            cluster=identity.cluster_name,
            address=identity.address,
            **skip._asdict(),
        )
        skips = read_skips(env, directory, identity.cluster_name)
        write_skips(env, directory, identity.cluster_name, (*skips, skip))
    finally:
        lock.close()
    return skip


def _checked_identity(
    env: Env, directory: str, cluster_name: str, file: str, nothing: str
) -> Identity:
    """The member, if it is the one that was meant and `file` says that it lacks something."""
    identity = identity_of(env, directory)
    check_name(identity.cluster_name, cluster_name)
    if not env.exists(f"{directory}/{file}"):
        raise ConfigurationError(f"{directory}: {nothing}", hint="start the member as it is")
    return identity


def _accept(
    env: Env, directory: str, member: Identity, action: str, forget: Callable[[Env, str], None]
) -> None:
    """Under the lock: write down that the loss is taken, then forget it."""
    lock = env.lock(f"{directory}/lock")
    try:
        write_audit(
            env, directory, action=action, cluster=member.cluster_name, address=member.address
        )
        forget(env, directory)
    finally:
        lock.close()


def _accept_lost_entries(env: Env, directory: str) -> None:
    copy = best_copy(env, directory)
    lost_entries = read_lost_entries(env, directory, copy.current_term if copy is not None else 0)
    if lost_entries is not None:
        lost_entries.accept_loss()
    clear_note(env, directory)


def _forget_damage(env: Env, directory: str) -> None:
    """The log was cut anew, for a member that is another one from here on."""
    for name in (LOST_ENTRIES_FILE, ACCEPTED_LOSS_FILE):
        if env.exists(f"{directory}/{name}"):
            env.remove(f"{directory}/{name}")
    clear_note(env, directory)
