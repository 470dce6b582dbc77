"""One started member: its directory, replica, host and links, opened and closed as one."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import cast

import msgspec

from copycat.config import Address, ServerOptions, Storage, member_id
from copycat.errors import (
    ConfigurationError,
    CopycatError,
    CorruptLogError,
    IllegalMemberStateError,
    StorageError,
)
from copycat.log.directory import MemberDirectory, read_whole
from copycat.log.disk import Env
from copycat.log.identity import read_identity
from copycat.log.plan import Shape
from copycat.log.reserve import Reserve, disk_full, reserve_size
from copycat.log.snapshots import Snapshot, SnapshotStore
from copycat.machine.executor import Executor
from copycat.machine.machine import StateMachine
from copycat.replica.cleaning import CleaningReport
from copycat.replica.options import CleaningOptions
from copycat.replica.replica import Replica, ReplicaOptions
from copycat.replica.status import Status
from copycat.server.host import AsyncHost, now_ms, wall_ms
from copycat.server.link import Link
from copycat.server.listener import Listener
from copycat.types import Compaction, MemberId, ServerState, StorageLevel

__all__ = ["Node", "founding_members"]

log = logging.getLogger("copycat.server")

WAITING_S = 5.0
"""How often a member that waits for others says whom it waits for."""
CLOSE_S = 5.0

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def founding_members(directory: str, address: str, given: tuple[str, ...]) -> tuple[str, ...]:
    """The voters of configuration 0, sorted: the stored list, or the given one with ourselves.

    Raises ConfigurationError with both lists when they differ (C16).
    """
    wanted = tuple(sorted({*given, address}))
    env = Env()
    identity, _ = read_identity(env, directory) if env.exists(directory) else (None, [])
    if identity is None or identity.address != address:
        return wanted  # a foreign directory is refused when it is opened
    if given and wanted != identity.members:
        raise ConfigurationError(
            f"{directory} was founded with members {', '.join(identity.members)}; bootstrap was"
            f" given {', '.join(wanted)}",
            hint="give the list that the cluster was founded with, or none at all",
            stored=identity.members,
            given=wanted,
        )
    return identity.members


def _boot_id() -> str:
    """Names this run of the machine: what was written in it is in the page cache still."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def explained(error: CorruptLogError, directory: str, members: tuple[str, ...]) -> CorruptLogError:
    """F2 of a cluster of one: the same error, with what is lost and what can be done."""
    if len(members) > 1 or error.index < 1:
        return error
    return CorruptLogError(
        error.message,
        state="This cluster has one member, so no other copy exists. Nothing was changed.",
        hint=f"restore a backup, or keep everything before it: copycat recover {directory}"
        f" --accept-loss-from {error.index}",
        path=error.path,
        offset=error.offset,
        index=error.index,
    )


def _say_what_is_lost(address: str, level: StorageLevel) -> None:
    in_memory = level is StorageLevel.MEMORY
    log.warning(
        "%s: entries that this member acknowledged may be missing (%s): it votes again when a"
        " leader has given them back",
        address,
        "its log was in memory" if in_memory else "the machine was restarted before a sync",
    )


def replica_options(
    options: ServerOptions, storage: Storage, members: tuple[str, ...]
) -> ReplicaOptions:
    """What the server was told, in the member's own units."""
    return ReplicaOptions(
        cluster_name=options.cluster_name,
        address=str(options.address),
        members=members,
        raft=options.raft(),
        session_timeout_ms=round(options.session_timeout * 1000),
        durability=storage.durability,
        sync_interval_ms=max(1, round(storage.sync_interval * 1000)),
        max_entry_size=storage.max_entry_size,
        entry_buffer_size=storage.entry_buffer_size,
        snapshot_threshold=storage.snapshot_threshold,
        cleaning=CleaningOptions(
            shape=Shape(storage.max_segment_size, storage.max_entries_per_segment),
            minor_ms=max(1, round(storage.minor_compaction_interval * 1000)),
            major_ms=max(1, round(storage.major_compaction_interval * 1000)),
            threshold=storage.compaction_threshold,
        ),
    )


def _settle(done: asyncio.Future[object], answer: object) -> None:
    if not done.done():
        done.set_result(answer)


class Node:
    """From `start` to `close`; `failed(cause)` is called once if the member must stop."""

    def __init__(
        self, options: ServerOptions, storage: Storage, failed: Callable[[BaseException], None]
    ) -> None:
        self._options = options
        self._storage = storage
        self._links: dict[MemberId, Link] = {}
        self._stack = AsyncExitStack()
        self._replica: Replica | None = None
        self.host = AsyncHost(options.name, failed, compaction_threads=storage.compaction_threads)
        self._awaited: set[asyncio.Future[object]] = set()
        self.listener = Listener(
            self.host,
            max_entry_size=storage.max_entry_size,
            peer_dialled=self._peer_dialled,
        )

    async def listen(self) -> ServerOptions:
        """Open the port; the options with the address that it really has."""
        self._stack.push_async_callback(self.listener.close)
        bound = await self.listener.start(self._options.bind)
        if self._options.address.port == 0:
            address = Address(self._options.address.host, bound.port)
            self._options = msgspec.structs.replace(self._options, address=address)
        return self._options

    @property
    def replica(self) -> Replica | None:
        """None before `start`."""
        return self._replica

    def start(self, members: tuple[str, ...], machine: StateMachine) -> Replica:
        """Open the directory and begin. `members` as from `founding_members`."""
        options, storage = self._options, self._storage
        address = str(options.address)
        executor = Executor(machine)
        directory = self._opened(members)
        reserve = None
        if storage.level is not StorageLevel.MEMORY:
            nbytes = reserve_size(storage.max_segment_size, storage.max_entries_per_segment)
            reserve = Reserve(Env(), storage.directory, nbytes, storage.min_free_space)
        if directory.lost:
            _say_what_is_lost(address, storage.level)
        self._stack.push_async_callback(self._close_directory, directory)
        self._stack.callback(executor.close)
        self._stack.push_async_callback(self._close_host)
        snapshots = SnapshotStore(
            Env(),
            f"{storage.directory}/snapshots",
            compress=storage.compression == "lz4",
            retain_stale=storage.retain_stale_snapshots,
        )
        replica = Replica(
            replica_options(options, storage, members),
            incarnation=directory.identity.incarnation,
            log=directory.log,
            hard_state=directory.hard_state,
            executor=executor,
            host=self.host,
            seed=secrets.randbits(64),
            fresh=directory.fresh,
            lost=directory.lost,
            reserve=reserve,
            now_ms=now_ms(),
            wall_ms=wall_ms(),
            snapshots=snapshots,
        )
        self._replica = replica
        replica.on_storage_change(partial(self._say_storage, directory))
        self.listener.replica = replica
        self.host.start(replica)
        for peer in members:
            if peer != address:
                member = member_id(options.cluster_name, peer)
                self._links[member] = Link(member, peer, self.host, replica)
        self._stack.push_async_callback(self._close_links)
        return replica

    def _opened(self, members: tuple[str, ...]) -> MemberDirectory:
        options, storage = self._options, self._storage
        address = str(options.address)
        env = Env()
        try:
            if len(members) == 1 and storage.level is not StorageLevel.MEMORY:
                read_whole(env, storage.directory)
            return MemberDirectory.open(
                env,
                storage.directory,
                cluster_name=options.cluster_name,
                address=address,
                members=members,
                member=member_id(options.cluster_name, address),
                incarnation_source=lambda: secrets.randbits(128),
                max_segment_size=storage.max_segment_size,
                max_entries_per_segment=storage.max_entries_per_segment,
                min_free_space=storage.min_free_space,
                level=storage.level,
                compress=storage.compression == "lz4",
                durability=storage.durability,
                boot=_boot_id(),
            )
        except CorruptLogError as error:
            raise explained(error, storage.directory, members) from error

    def _say_storage(self, directory: MemberDirectory, full: bool) -> None:
        """F12: the error that names free space, limit and what is in the log; once each time."""
        storage = self._storage
        if not full:
            log.info("%s: the disk has room again; writes go on", self._options.address)
        elif storage.level is not StorageLevel.MEMORY:
            error = disk_full(
                Env(),
                storage.directory,
                directory.native,
                storage.min_free_space,
                storage.max_segment_size,
            )
            log.error("%s: %s", self._options.address, error.render())

    def status(self) -> Status:
        """This member now; INACTIVE before `start`."""
        if self._replica is not None:
            return self._replica.status()
        return self.inactive_status(self._options, self._storage)

    @staticmethod
    def inactive_status(options: ServerOptions, storage: Storage) -> Status:
        """What is said of a member that does not run."""
        address = str(options.address)
        return Status(
            address=address,
            state=ServerState.INACTIVE,
            term=0,
            leader="",
            first_index=1,
            last_index=0,
            durable_index=0,
            commit_index=0,
            last_applied=0,
            sessions=0,
            members=(address,),
            unreachable=(),
            durability=storage.durability,
        )

    async def leader_known(self) -> None:
        """Wait for a leader, and say every 5 s who is missing."""
        replica = self._replica
        if replica is None:
            return
        known = self.host.when(lambda: bool(replica.status().leader))
        while not known.done():
            done, _ = await asyncio.wait({known}, timeout=WAITING_S)
            if not done:
                self._say_whom_we_wait_for(replica.status())
        known.result()

    def _say_whom_we_wait_for(self, status: Status) -> None:
        needed = len(status.members) // 2 + 1
        reached = len(status.members) - len(status.unreachable)
        if reached < needed:
            why = [f"{link.reason}" for link in self._links.values() if not link.is_up]
            log.info(
                "%s: waiting for %d of %s (need %d of %d): %s",
                status.address,
                needed - reached,
                ", ".join(status.unreachable),
                needed,
                len(status.members),
                "; ".join(why),
            )
        else:
            log.info("%s: waiting for an election in term %d", status.address, status.term)

    async def hand_over(self, to: MemberId) -> bool:
        """A leader with followers gives its leadership to `to`, or (0) to the best of them; True
        when another leads."""
        replica = self._replica
        if replica is None or self.host.is_stopped or len(self._links) == 0:
            return False
        if replica.status().state is not ServerState.LEADER:
            return False
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        replica.transfer_leadership(to, lambda ok: None if done.done() else done.set_result(ok))
        await asyncio.wait({done}, timeout=self._options.election_timeout)
        return done.done() and done.result()

    async def take_snapshot(self) -> Snapshot:
        """Take one now; the CopycatError that says why there is none."""
        replica, done = self._asked("no snapshot now")
        replica.take_snapshot(partial(_settle, done))
        return cast("Snapshot", await self._answer(done))

    async def compact(self, compaction: Compaction) -> CleaningReport:
        """Clean the log now; IllegalMemberStateError when this member does not run."""
        replica, done = self._asked("no compaction now")
        replica.compact(compaction, partial(_settle, done))
        return cast("CleaningReport", await self._answer(done))

    def _asked(self, what: str) -> tuple[Replica, asyncio.Future[object]]:
        if self._replica is None or self.host.is_stopped:
            raise IllegalMemberStateError(f"{what}: this member does not run")
        return self._replica, asyncio.get_running_loop().create_future()

    async def _answer(self, done: asyncio.Future[object]) -> object:
        self._awaited.add(done)
        try:
            answer = await done
        finally:
            self._awaited.discard(done)
        if isinstance(answer, CopycatError):
            raise answer
        return answer

    async def close(self) -> None:
        """Close everything that was opened, in reverse; safe to call at any stage."""
        await self._stack.aclose()

    async def _close_links(self) -> None:
        links, self._links = self._links, {}
        for link in links.values():
            await link.close()

    async def _close_host(self) -> None:
        for future in self._awaited:
            if not future.done():
                future.set_result(
                    IllegalMemberStateError("this member stopped before it was done")
                )
        if not await self.host.close(CLOSE_S):
            log.warning("a thread is still busy after %g s; it is left behind", CLOSE_S)

    async def _close_directory(self, directory: MemberDirectory) -> None:
        try:
            directory.close(lost=self._replica is None or self._replica.raft.is_lost)
        except StorageError:
            if self._replica is None or self._replica.stopped is None:
                raise
            log.exception("%s was not closed cleanly", directory.path)  # it failed before

    def _peer_dialled(self, peer: MemberId) -> None:
        link = self._links.get(peer)
        if link is not None:
            link.nudge()
