"""Builds a member from its directory: opens it, loads the machine, and makes the replica.

`build` runs in a thread before the event loop knows the member, since to read a large log or to
install a large snapshot would block the application's loop for long.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from copycat.config import ServerOptions, Storage, member_id
from copycat.errors import (
    ConfigurationError,
    CorruptLogError,
    DirectoryInUseError,
    DiskError,
    WrongDirectoryError,
)
from copycat.machine.machine import StateMachine
from copycat.machine.session_executor import SessionExecutor
from copycat.member.ballast_file import BallastFile, ballast_size
from copycat.member.configuration_file import (
    NOTHING_STORED,
    StoredConfigurations,
    is_sole_voter,
    read_configurations,
)
from copycat.member.directory import MemberDirectory
from copycat.member.holders import with_holder
from copycat.member.identity import Identity, read_identity
from copycat.member.new_cluster_file import refuse_unfinished
from copycat.member.refusals import refuse_file
from copycat.paths import real_path
from copycat.protocol.member_record import Place
from copycat.raft.configuration import Configuration
from copycat.replica.known_configurations import configuration_of
from copycat.replica.options import MemberStores
from copycat.replica.replica import Replica, ReplicaOptions
from copycat.server.host import AsyncHost, now_ms, wall_ms
from copycat.server.joining import Newcomer
from copycat.server.loaded_machine import LoadedMachine
from copycat.storage import Env
from copycat.storage.compaction import CompactionOptions
from copycat.types import Durability, MemberId, StorageLevel

__all__ = [
    "Start",
    "StartedMember",
    "boot_id",
    "build",
    "is_new_directory",
    "record_damage",
    "start_of",
]

log = logging.getLogger("copycat.server")

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Start(NamedTuple):
    """Who a member is at this start, and which members it knows."""

    member: MemberId
    founders: tuple[str, ...]
    """Addresses of the founding members, sorted; empty for a member that joined later."""
    address: str
    """Where this member listened at its first start, as its directory says; it may have moved
    since (C44)."""
    newcomer: Newcomer | None
    """Given at the first start of a member that joins."""
    configuration: Configuration | None
    """The newest one that this member knows before it has read its log; None: only the log says
    who the members are."""
    is_alone: bool = False
    """No other member votes: nobody could give back an entry that is lost here."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of all members of that configuration; none when it is not known yet."""
        members = () if self.configuration is None else self.configuration.members
        return tuple(each.address for each in members)


def start_of(
    options: ServerOptions,
    directory: str,
    member_addresses: tuple[str, ...],
    newcomer: Newcomer | None = None,
) -> Start:
    """Who the member with this directory is: what the directory says, else the arguments.

    A directory wins over the arguments: this member, and others, may have moved (C44), and the
    members of the cluster may have been changed. Addresses of the arguments that the directory
    does not know are only more places to dial. ConfigurationError with both lists when the
    cluster cannot have changed without this member, its only founder (C16). WrongDirectoryError
    when another member is known to listen at the address of this one (F7).
    """
    address, env = str(options.address), Env()
    refuse_unfinished(env, directory)
    identity, _ = read_identity(env, directory) if env.exists(directory) else (None, [])
    if identity is None or identity.cluster_name != options.cluster_name:
        if newcomer is not None:
            configuration = configuration_of(newcomer.configurations.records[-1])
            return Start(newcomer.member, (), address, newcomer, configuration)
        # `_open_directory` refuses the directory of another cluster
        founder = member_id(options.cluster_name, address)
        given = tuple(sorted({*member_addresses, address}))
        return _founder(options, founder, given, address)
    stored = read_configurations(env, directory, has_log=True)
    start = _stored_start(options, identity, stored)
    _log_addresses(options, identity, start, member_addresses)
    _check_address(directory, address, identity, start)
    founders = tuple(sorted({*member_addresses, identity.address}))
    is_sole_founder = not stored.records and identity.members == (identity.address,)
    if is_sole_founder and set(founders) - {address, identity.address}:
        raise ConfigurationError(
            f"{directory} was founded with members {', '.join(identity.members)}; bootstrap was"
            f" given {', '.join(founders)}",
            hint="give the list that the cluster was founded with, or none at all",
            stored=identity.members,
            given=founders,
        )
    return start


def _founder(
    options: ServerOptions, member: MemberId, founders: tuple[str, ...], address: str
) -> Start:
    by_id = {member_id(options.cluster_name, each): each for each in founders}
    is_alone = len(founders) == 1
    return Start(member, founders, address, None, Configuration.bootstrap(by_id), is_alone)


def _stored_start(
    options: ServerOptions, identity: Identity, stored: StoredConfigurations
) -> Start:
    if stored.records:
        return Start(
            identity.member,
            identity.members,
            identity.address,
            None,
            configuration_of(stored.records[-1]),
            is_sole_voter(stored, identity),
        )
    if not identity.members:
        return Start(identity.member, (), identity.address, None, None)
    return _founder(options, identity.member, identity.members, identity.address)


def _check_address(directory: str, address: str, identity: Identity, start: Start) -> None:
    """Whether this member may have moved to `address`: most likely it has not when another one is
    there, and two directories were mistaken for each other."""
    records = () if start.configuration is None else start.configuration.members
    addresses = {each.member: each.address for each in records}
    own = addresses.pop(start.member, identity.address)
    if address not in (own, identity.address) and address in addresses.values():
        raise WrongDirectoryError(
            f"{directory} belongs to the member at {own}, but this process listens at {address},"
            " where it knows another member",
            hint="give each member its own directory; a member may move to an address that no"
            " other member has",
            path=directory,
            field="address",
            expected=address,
            actual=own,
        )


def _log_addresses(
    options: ServerOptions, identity: Identity, start: Start, member_addresses: tuple[str, ...]
) -> None:
    address = str(options.address)
    if start.configuration is None:
        return
    own = start.configuration.record(start.member)
    recorded = identity.address if own is None else own.address
    if address != recorded:
        log.info(
            "%s: it listened at %s before, and says to the other members that it has moved",
            options.name,
            recorded,
        )
    others = sorted(set(member_addresses) - {address, *start.addresses})
    if others:
        log.warning(
            "%s: its directory says that the members are %s; %s is asked for the others only",
            options.name,
            ", ".join(sorted(start.addresses)),
            ", ".join(others),
        )


def is_new_directory(options: ServerOptions, directory: str) -> bool:
    """Whether no member has begun to use the directory."""
    env = Env()
    refuse_unfinished(env, directory)
    return not env.exists(directory) or read_identity(env, directory)[0] is None


class StartedMember(NamedTuple):
    """What `build` made; `directory` and `executor` must be closed."""

    directory: MemberDirectory
    executor: SessionExecutor
    replica: Replica


def build(
    options: ServerOptions,
    storage: Storage,
    host: AsyncHost,
    member_addresses: tuple[str, ...],
    machine: StateMachine,
    newcomer: Newcomer | None = None,
) -> StartedMember:
    """Open the directory, load the machine and make the replica, in any thread.

    The host is not called yet. The errors of `start_of`, `LoadedMachine` and
    `MemberDirectory.open`; after an error nothing is left open.
    """
    storage = msgspec.structs.replace(storage, directory=real_path(storage.directory))
    refuse_file(Env(), storage.directory)
    start = start_of(options, storage.directory, member_addresses, newcomer)
    _log_start(options, storage, start)
    with ExitStack() as undo:
        loaded = LoadedMachine(machine, options, storage)
        undo.callback(loaded.close)
        directory = _open_directory(options, storage, start, loaded)
        undo.callback(directory.close, lost=True)
        if directory.lost:
            _log_loss(str(options.address), storage.level)
        executor = loaded.executor(directory.env)
        try:
            replica = _replica(options, storage, host, start, directory, loaded, executor)
        except (CorruptLogError, DiskError) as error:
            raise record_damage(directory, error, is_alone=start.is_alone) from error
        undo.pop_all()
    return StartedMember(directory, executor, replica)


def _replica(
    options: ServerOptions,
    storage: Storage,
    host: AsyncHost,
    start: Start,
    directory: MemberDirectory,
    loaded: LoadedMachine,
    executor: SessionExecutor,
) -> Replica:
    ballast = None
    if storage.level is not StorageLevel.MEMORY:
        nbytes = ballast_size(storage.max_segment_size, storage.max_entries_per_segment)
        ballast = BallastFile(directory.env, storage.directory, nbytes, storage.min_free_space)
    stores = MemberStores(
        incarnation=directory.identity.incarnation,
        log=directory.log,
        hard_state=directory.hard_state,
        fresh=directory.fresh,
        lost=directory.lost,
        lost_entries=directory.lost_entries,
        regressed=directory.regressed,
        snapshots=directory.snapshots,
        ballast=ballast,
        time_file=directory.time_file,
        configuration_file=directory.configuration_file,
        configurations=directory.configurations,
        cluster_incarnation=directory.identity.cluster_incarnation,
        starts=directory.identity.starts,
        record_cluster=directory.record_cluster,
    )
    return Replica(
        msgspec.structs.replace(replica_options(options, storage, start), skips=loaded.skips),
        stores,
        executor,
        host,
        seed=secrets.randbits(64),
        now_ms=now_ms(),
        wall_ms=wall_ms(),
    )


def _open_directory(
    options: ServerOptions, storage: Storage, start: Start, loaded: LoadedMachine
) -> MemberDirectory:
    env = Env()
    try:
        env.make_directory(storage.directory)
        env = env.inside(storage.directory)
        return MemberDirectory.open(
            env,
            storage.directory,
            cluster_name=options.cluster_name,
            address=start.address,
            members=start.founders,
            member=start.member,
            incarnation_source=lambda: secrets.randbits(128),
            start_source=partial(secrets.randbits, 64),
            max_segment_size=storage.max_segment_size,
            max_entries_per_segment=storage.max_entries_per_segment,
            min_free_space=storage.min_free_space,
            level=storage.level,
            compress=storage.compression == "lz4",
            durability=storage.durability,
            boot=boot_id(),
            whole=start.is_alone and storage.level is not StorageLevel.MEMORY,
            snapshots=partial(loaded.tidy_snapshots, env),
            look=partial(loaded.load_snapshot, env),
            first=NOTHING_STORED if start.newcomer is None else start.newcomer.configurations,
        )
    except DirectoryInUseError as error:
        raise with_holder(f"{storage.directory}/lock", error) from error
    except CorruptLogError as error:
        if not start.is_alone:
            raise
        raise with_single_voter_hint(error, storage.directory) from error


def record_damage(
    directory: MemberDirectory, error: BaseException, *, is_alone: bool
) -> BaseException:
    """F11: record in the directory that the log is damaged, when `error` says so.

    Returns an error that says that the next start repairs the damage; `error` itself when it is
    about something else, or when no other member votes, so that no other copy counts.
    """
    damage = None if is_alone else directory.note(error)
    return error if damage is None else damage


def boot_id() -> str:
    """The id of this boot of the machine: what was written since it is in the page cache at least.

    Empty when the system does not tell.
    """
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def with_single_voter_hint(error: CorruptLogError, directory: str) -> CorruptLogError:
    """F2: for the only member that votes, the same error with a hint what to do."""
    if error.index < 1:
        return error
    return CorruptLogError(
        error.message,
        state="No other member votes, so no other copy counts. Nothing was changed.",
        hint="restore a backup, or keep the entries before the damage: copycat recover"
        f" {directory} --accept-loss-from {error.index}",
        path=error.path,
        offset=error.offset,
        index=error.index,
    )


def _log_loss(address: str, level: StorageLevel) -> None:
    in_memory = level is StorageLevel.MEMORY
    log.warning(
        "%s: entries that this member acknowledged may be missing (%s): the member does not vote"
        " until a leader has sent them again",
        address,
        "its log was in memory"
        if in_memory
        else "the machine was restarted before a sync, or the disk failed",
    )


def _log_start(options: ServerOptions, storage: Storage, start: Start) -> None:
    if start.configuration is None:
        log.info("%s: member of %s, as its log says", options.name, options.cluster_name)
    elif start.newcomer is not None:
        log.info(
            "%s: a new member for %s (%s)",
            options.name,
            options.cluster_name,
            ", ".join(start.addresses),
        )
    elif start.configuration.record(start.member) is None:
        log.info(
            "%s: no member of %s (%s): it waits until somebody adds it (copycat cluster add %s);"
            " if it was removed, it needs an empty directory to come back",
            options.name,
            options.cluster_name,
            ", ".join(start.addresses),
            options.address,
        )
    else:
        log.info(
            "%s: member of %s (%s); a majority is %d",
            options.name,
            options.cluster_name,
            ", ".join(start.addresses),
            start.configuration.quorum_size,
        )
    if storage.durability is not Durability.FSYNC:
        log.warning(
            '%s: storage.durability is "%s": a command is acknowledged before it is synced,'
            " so acknowledged commands can be lost when the power fails",
            options.name,
            storage.durability,
        )


def replica_options(options: ServerOptions, storage: Storage, start: Start) -> ReplicaOptions:
    """The options of the replica, with times in milliseconds."""
    return ReplicaOptions(
        cluster_name=options.cluster_name,
        address=str(options.address),
        members=start.founders,
        member=start.member,
        raft=options.raft(),
        session_timeout_ms=round(options.session_timeout * 1000),
        durability=storage.durability,
        sync_interval_ms=max(1, round(storage.sync_interval * 1000)),
        max_entry_size=storage.max_entry_size,
        entry_buffer_size=storage.entry_buffer_size,
        snapshot_threshold=storage.snapshot_threshold,
        compaction=CompactionOptions.of(storage),
        version=options.version,
        place=Place(options.failure_domain, options.weight),
    )
