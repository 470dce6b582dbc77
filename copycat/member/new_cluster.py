"""Makes a new cluster of what one stopped member has, where the majority is lost for good (C46).

Offline, on request, and recorded. The new cluster has another incarnation, and its one member
another id, so that the old members and sessions of the old cluster are refused. Two entries begin
it, in a term of their own: who the members are, and the end of all sessions. The entries before
stay as they are, and are history of the new cluster.

`new-cluster-unfinished` is written first and renamed last. In between no server starts on the
directory, and `complete` may be called again after any crash: each of its steps looks whether it
was taken already.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from copycat.errors import CorruptLogError, RecoveryRefusedError
from copycat.machine.envelope import EVERY_SESSION, encode_expire
from copycat.member.ballast_file import free_ballast
from copycat.member.configuration_file import ConfigurationFile, StoredConfigurations
from copycat.member.identity import Identity, write_identity
from copycat.member.markers import clear_unsynced_acks
from copycat.member.new_cluster_file import NEW_CLUSTER_FILE, UNFINISHED_FILE, NewCluster
from copycat.member.operator_tools import write_audit
from copycat.protocol.cluster_incarnation import recovered_incarnation
from copycat.protocol.codec_configuration import encode_configuration
from copycat.protocol.member_record import ConfigurationRecord, MemberRecord
from copycat.storage._native import encode_batch, open_hard_state, open_log
from copycat.types import EntryId, EntryKind, MemberId, MemberType

if TYPE_CHECKING:
    from copycat.member.survivor import Survivor
    from copycat.storage._native import Env, NativeLog

__all__ = ["begin", "complete"]

_SIZES = (32 << 20, 1 << 20)
_NOBODY = MemberId(0)


def begin(
    env: Env,
    survivor: Survivor,
    *,
    address: str,
    random_bits: Callable[[], int],
    sizes: tuple[int, int] = _SIZES,
) -> NewCluster:
    """Record durably what is to be made of this directory, whose lock the caller has.

    address: of the new member; empty: the old one's. random_bits: gives 128 of them. sizes: bytes
    and entries of the segment that is begun. RecoveryRefusedError with the first obstacle;
    DiskFullError, DiskError: then the directory is still the old member's, as after a start.
    """
    directory = survivor.directory
    if survivor.obstacles:
        first = survivor.obstacles[0]
        raise RecoveryRefusedError(
            f"{directory}: no new cluster can be made of this directory: {first.why}",
            state="\n".join(each.why for each in survivor.obstacles[1:]) or "Nothing was changed.",
            hint=first.hint,
            path=directory,
        )
    free_ballast(env, directory)
    with closing(_open(env, directory, sizes)) as log:  # all that it has is durable after that
        _require_last(directory, log, survivor.last)
    clear_unsynced_acks(env, directory)
    identity = survivor.identity
    new_cluster = NewCluster(
        cluster_name=identity.cluster_name,
        address=address or survivor.address,
        member=MemberId(random_bits()),
        parent_member=identity.member,
        incarnation=random_bits(),
        cluster_incarnation=recovered_incarnation(random_bits()),
        parent_incarnation=survivor.cluster_incarnation,
        last=survivor.last,
        term=survivor.term + 1,
        time_ms=survivor.time_ms,
    )
    env.replace_file(f"{directory}/{UNFINISHED_FILE}", new_cluster.encode())
    return new_cluster


def complete(
    env: Env, directory: str, new_cluster: NewCluster, sizes: tuple[int, int] = _SIZES
) -> None:
    """Make it, durably; again after a crash. The caller has the directory's lock.

    DiskFullError, DiskError: the next call goes on. CorruptLogError when the log is not the one
    that the record was written for.
    """
    configuration = ConfigurationRecord(
        new_cluster.configuration_entry,
        new_cluster.cluster_incarnation,
        (
            MemberRecord(
                new_cluster.member,
                MemberType.ACTIVE,
                new_cluster.address,
                new_cluster.configuration_entry.index,
            ),
        ),
    )
    free_ballast(env, directory)
    with closing(_open(env, directory, sizes)) as log:
        _append(directory, log, new_cluster, configuration)
    _save_term(env, directory, new_cluster.term)
    ConfigurationFile(env, directory).write(StoredConfigurations((configuration,)))
    identity = Identity(
        cluster_name=new_cluster.cluster_name,
        address=new_cluster.address,
        members=(),
        member=new_cluster.member,
        incarnation=new_cluster.incarnation,
        cluster_incarnation=new_cluster.cluster_incarnation,
    )
    write_identity(env, directory, identity)
    write_audit(
        env,
        directory,
        action="new-cluster",
        cluster=new_cluster.cluster_name,
        address=new_cluster.address,
        member=f"{new_cluster.member:032x}",
        parent_member=f"{new_cluster.parent_member:032x}",
        cluster_incarnation=f"{new_cluster.cluster_incarnation:032x}",
        parent_incarnation=f"{new_cluster.parent_incarnation:032x}",
        last_index=new_cluster.last.index,
        last_term=new_cluster.last.term,
    )
    env.rename(f"{directory}/{UNFINISHED_FILE}", f"{directory}/{NEW_CLUSTER_FILE}")
    env.sync_directory(directory)


def _open(env: Env, directory: str, sizes: tuple[int, int]) -> NativeLog:
    return open_log(
        env, f"{directory}/log", max_segment_size=sizes[0], max_entries_per_segment=sizes[1]
    )


def _append(
    directory: str, log: NativeLog, new_cluster: NewCluster, configuration: ConfigurationRecord
) -> None:
    """The entries that are not there yet, and a sync."""
    names = new_cluster.configuration_entry, new_cluster.expiry_entry
    if log.last_entry not in names:
        _require_last(directory, log, new_cluster.last)
        _append_one(
            log,
            names[0],
            new_cluster.time_ms,
            EntryKind.CONFIGURATION,
            encode_configuration(configuration),
        )
    if log.last_entry == names[0]:
        body = encode_expire(EVERY_SESSION, new_cluster.last.index)
        _append_one(log, names[1], new_cluster.time_ms, EntryKind.EXPIRE, body)
    ticket = log.begin_sync()
    ticket.run()
    log.end_sync(ticket)


def _append_one(
    log: NativeLog, entry: EntryId, time_ms: int, kind: EntryKind, payload: bytes
) -> None:
    item = (int(kind), 0, 0, 0, 1, payload)
    log.append(encode_batch(entry.term, entry.index, time_ms, [item]))


def _require_last(directory: str, log: NativeLog, expected: EntryId) -> None:
    if log.last_entry != expected:
        raise CorruptLogError(
            f"{directory}: its log ends at entry {log.last_entry.index} of term"
            f" {log.last_entry.term}, not at entry {expected.index} of term {expected.term}",
            hint="no other tool may write to this directory meanwhile; run the command again",
            path=f"{directory}/log",
        )


def _save_term(env: Env, directory: str, term: int) -> None:
    """The term of the new entries, in which nobody is voted for."""
    hard_state = open_hard_state(env, directory, create=False)
    if hard_state.current_term < term:
        ticket = hard_state.begin_save(term, _NOBODY)
        ticket.run()
        hard_state.end_save(ticket)
