"""One start of a member: its port, directory, replica, host and links, opened and closed
together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from functools import partial
from typing import cast

import msgspec

from copycat.config import Address, ServerOptions, Storage, member_id
from copycat.errors import (
    CopycatError,
    IllegalMemberStateError,
    StorageError,
    require,
)
from copycat.machine.machine import StateMachine
from copycat.member.ballast_file import disk_full
from copycat.member.directory import MemberDirectory
from copycat.protocol.change_errors import view_or_error
from copycat.protocol.client import (
    ChangeRequest,
    ClusterRequest,
    ClusterView,
    ServerMessage,
    TransferRequest,
)
from copycat.raft.configuration import Configuration
from copycat.replica.leadership_transfer import TransferOutcome
from copycat.replica.replica import Replica
from copycat.replica.status import Status
from copycat.server.host import AsyncHost
from copycat.server.joining import Newcomer
from copycat.server.listener import Listener
from copycat.server.loop_lag import LoopLag
from copycat.server.seed_link import seed_links
from copycat.server.startup import StartedMember, build, record_damage
from copycat.server.status_log import StatusLog
from copycat.storage.snapshot_store import Snapshot
from copycat.types import (
    Compaction,
    CompactionReport,
    EntryId,
    MemberId,
    ServerState,
    StorageLevel,
)

__all__ = ["Node"]

log = logging.getLogger("copycat.server")

NOBODY = MemberId(0)
WAITING_LOG_S = 3.0
"""How often a start that waits for other members logs which members are missing."""
LAG_EFFECT = (
    'this member sent and received nothing meanwhile (CopycatServer(loop="thread") would run it in'
    " an event loop of its own)"
)
"""What a blocked loop means for a member that runs in it."""
CLOSE_S = 5.0
_LEFT_LOCKED: list[MemberDirectory] = []
"""Directories that stay locked until the process ends, since a save to them hangs: an unreferenced
lock would be released."""


def _set_result(done: asyncio.Future[object], answer: object) -> None:
    if not done.done():
        done.set_result(answer)


def _never() -> bool:
    return False


def _set_answer(done: asyncio.Future[object], answer: ServerMessage) -> None:
    _set_result(done, view_or_error(answer))


class Node:
    """One start of a member, from `listen` to `close`.

    failed: called once, with the cause, when the member stops by itself.  restarts: called once
    when this start ends because the member must start again, without its log.
    """

    def __init__(
        self,
        options: ServerOptions,
        storage: Storage,
        failed: Callable[[BaseException], None],
        restarts: Callable[[], None],
    ) -> None:
        self._options = options
        self._storage = storage
        self._stack = AsyncExitStack()
        self._replica: Replica | None = None
        self._failed = failed
        self._started_member: StartedMember | None = None
        self._status_log: StatusLog | None = None
        threads = storage.compaction_threads
        self.host = AsyncHost(options.name, self._on_failure, restarts, compaction_threads=threads)
        self._awaited_answers: set[asyncio.Future[object]] = set()
        self._is_closed = False
        self._greeted: set[str] = set()
        """Addresses beside those of the members at which HELLO is said."""
        self.is_taken = False
        """A start has this node: another one at the same time is refused."""
        self.is_started = False
        """True from the call of `start` on."""
        self.listener = Listener(
            self.host,
            max_entry_size=storage.max_entry_size,
            session_timeout=options.session_timeout,
            peer_dialled=self._peer_dialled,
        )

    async def listen(self) -> ServerOptions:
        """Open the port; returns the options with the port that the system chose for port 0."""
        self._stack.push_async_callback(self.listener.close)
        bound = await self.listener.start(self._options.bind)
        options = self._options
        address, name = options.address, options.name
        if address.port == 0:
            address = Address(address.host, bound.port)
            name = str(address) if name == str(options.address) else name
        # The member keeps this port, also when it is started again.
        self._options = msgspec.structs.replace(options, bind=bound, address=address, name=name)
        return self._options

    @property
    def replica(self) -> Replica | None:
        """None before `start`."""
        return self._replica

    async def start(
        self,
        member_addresses: tuple[str, ...],
        machine: StateMachine,
        newcomer: Newcomer | None = None,
        seeds: tuple[str, ...] = (),
    ) -> Replica:
        """Open the directory and start the replica; at most once.

        member_addresses: the founding members, as given to `bootstrap`; empty for the stored list.
        newcomer: what an empty directory of a member that joins begins with.  seeds: more places
        where a member may listen (C45).
        The disk is read in a thread, so that the application's loop continues while a large log is
        recovered or a large snapshot is installed. The errors of `start_of` and of
        `MemberDirectory.open`; IllegalMemberStateError when `close` was called meanwhile.
        """
        require(not self.is_started, "a node is started once")
        if self._is_closed:
            raise self.shutdown_error()
        self.is_started = True
        building = asyncio.get_running_loop().run_in_executor(
            None,
            build,
            self._options,
            self._storage,
            self.host,
            member_addresses,
            machine,
            newcomer,
        )
        self._stack.push_async_callback(self._close_started, building)
        built = await asyncio.shield(building)
        if self._is_closed:
            raise self.shutdown_error()
        self._started_member = built
        replica = self._replica = built.replica
        self._stack.push_async_callback(self._close_host)
        replica.on_storage_change(partial(self._log_disk_space, built.directory))
        self.listener.replica = replica
        watch = self._status_log = StatusLog(self._options, replica, self.listener.refusal_log.all)
        watch.start()
        self._stack.callback(watch.close)
        loop_lag = LoopLag(self._options.name, self._options.election_timeout, LAG_EFFECT)
        loop_lag.start()
        self._stack.callback(loop_lag.close)
        self.host.start(replica, after_turn=watch.turned)
        self._stack.push_async_callback(self.host.close_links)
        self._greet(seeds)
        self.host.leader_named = self._greet_leader
        return replica

    def _greet(self, addresses: Iterable[str]) -> None:
        replica = self._replica
        if replica is None or self._is_closed:
            return
        new = set(addresses) - self._greeted
        self._greeted |= new
        for link in seed_links(new, str(self._options.address), self.host, replica):
            self._stack.push_async_callback(link.close)

    def _greet_leader(self, address: str) -> None:
        """Who refused this member follows a leader there, whose word counts (C43)."""
        self._greet((address,))

    def _on_failure(self, cause: BaseException) -> None:
        built = self._started_member
        if built is not None:
            members = built.replica.members
            is_alone = members.configuration.voters == (members.member,)
            cause = record_damage(built.directory, cause, is_alone=is_alone)
        self._failed(cause)

    def _log_disk_space(self, directory: MemberDirectory, full: bool) -> None:
        """F12: log that the disk is full, with free space, limit and size of the log, or that it
        is not full any more; called at each change."""
        storage = self._storage
        if not full:
            log.info("%s: the disk has room again; writes continue", self._options.address)
        elif storage.level is not StorageLevel.MEMORY:
            error = disk_full(
                directory.env,
                directory.path,
                directory.native,
                storage.min_free_space,
                storage.max_segment_size,
            )
            log.error("%s: %s", self._options.address, error.render())

    def status(self) -> Status:
        """The status of this member now; INACTIVE before `start`."""
        if self._replica is not None:
            return self._replica.status()
        return self.inactive_status(self._options, self._storage)

    @staticmethod
    def inactive_status(options: ServerOptions, storage: Storage) -> Status:
        """The status of a member that never ran."""
        address = str(options.address)
        member = member_id(options.cluster_name, address)
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
            member=member,
            configuration=Configuration.bootstrap({member: address}),
        )

    async def wait_for_leader(self) -> None:
        """Wait until a leader is known; log every WAITING_LOG_S which members are missing, and
        why.

        IllegalMemberStateError when the host stops meanwhile.
        """
        replica, watch = self._replica, self._status_log
        if replica is None or watch is None:
            return
        known = self.host.when(lambda: bool(replica.status().leader))
        seconds = 0.0
        while not known.done():
            done, _ = await asyncio.wait({known}, timeout=WAITING_LOG_S)
            if not done:
                seconds += WAITING_LOG_S
                links = self.host.peer_links.values()
                unlinked = {link.address: link.reason for link in links if not link.is_up}
                watch.log_missing_members(unlinked, seconds)
        if known.cancelled():  # by the host, which has stopped, and not by the caller
            raise self.shutdown_error()
        known.result()

    def shutdown_error(self) -> IllegalMemberStateError:
        """The error of a start during which `close` was called."""
        return IllegalMemberStateError(
            f"{self._options.name} was shut down while it started",
            hint="bootstrap() starts it again",
        )

    async def hand_over(self, to: MemberId = NOBODY, timeouts: int = 1) -> TransferOutcome | None:
        """If this member leads, transfer its leadership to the member `to`, or (when `to` is 0) to
        the best follower.

        Returns the outcome; None when this member does not lead or has no peers, or when the
        outcome is not known within `timeouts` election timeouts.
        """
        replica = self._replica
        if replica is None or self.host.is_stopped or len(self.host.peer_links) == 0:
            return None
        status = replica.status()
        if status.state is not ServerState.LEADER:
            return None
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        replica.transfer_leadership(to, partial(_set_result, done))
        await asyncio.wait({done}, timeout=timeouts * self._options.election_timeout)
        return cast("TransferOutcome", done.result()) if done.done() else None

    async def request(self, message: ClusterRequest) -> ClusterView:
        """Ask the cluster about its members, or for a change of them, through this member.

        Raises the CopycatError that the cluster answers.
        """
        replica, done = self._replica_and_future("nobody is asked")
        replica.request(message, partial(_set_answer, done))
        view = cast("ClusterView", await self._answer(done))
        if isinstance(message, ChangeRequest):
            await self.wait_for_configuration(view.entry)
        elif isinstance(message, TransferRequest):
            raft = replica.raft
            await self._wait_until(lambda: raft.leader != 0 and raft.current_term >= view.term)
        return view

    async def wait_for_configuration(self, entry: EntryId) -> None:
        """Wait until this member knows that the configuration of `entry` is committed, or a newer
        one; not much longer than the leader's next heartbeats take."""
        replica = self._replica
        if replica is not None:
            await self._wait_until(lambda: replica.members.committed.entry >= entry)

    async def _wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait for what the leader's next heartbeats will make true; not for long."""
        if not self.host.is_stopped:
            known = self.host.when(holds)
            await asyncio.wait({known}, timeout=2 * self._options.election_timeout)
            known.cancel()

    async def wait_for_end(self) -> None:
        """Wait until the host stops, for two election timeouts at most."""
        if not self.host.is_stopped:
            ended = self.host.when(_never)
            await asyncio.wait({ended}, timeout=2 * self._options.election_timeout)
            ended.cancel()

    async def take_snapshot(self) -> Snapshot:
        """Take a snapshot now; raises the CopycatError that says why that failed."""
        replica, done = self._replica_and_future("no snapshot now")
        replica.take_snapshot(partial(_set_result, done))
        return cast("Snapshot", await self._answer(done))

    async def compact(self, compaction: Compaction) -> CompactionReport:
        """Compact the log now; IllegalMemberStateError when this member does not run."""
        replica, done = self._replica_and_future("no compaction now")
        replica.compact(compaction, partial(_set_result, done))
        return cast("CompactionReport", await self._answer(done))

    def _replica_and_future(self, what: str) -> tuple[Replica, asyncio.Future[object]]:
        if self._replica is None or self.host.is_stopped:
            raise IllegalMemberStateError(f"{what}: this member does not run")
        return self._replica, asyncio.get_running_loop().create_future()

    async def _answer(self, done: asyncio.Future[object]) -> object:
        self._awaited_answers.add(done)
        try:
            answer = await done
        finally:
            self._awaited_answers.discard(done)
        if isinstance(answer, CopycatError):
            raise answer
        return answer

    async def close(self) -> None:
        """Close what was opened, in reverse order; at any stage of the start."""
        self._is_closed = True
        await self._stack.aclose()

    async def _close_host(self) -> None:
        for future in self._awaited_answers:
            if not future.done():
                future.set_result(
                    IllegalMemberStateError("this member stopped before that was done")
                )
        if not await self.host.close(CLOSE_S):
            log.warning(
                "a thread is still busy after %g s; the member is closed without waiting for it",
                CLOSE_S,
            )

    async def _close_started(self, building: asyncio.Future[StartedMember]) -> None:
        """Close what `build` made, also when the start was cancelled while `build` ran."""
        try:
            built = await building
        except Exception:  # noqa: BLE001  (nothing was made, and `start` raised the error)
            return
        built.executor.close()
        directory = built.directory
        if self.host.is_save_hanging:
            # The save could replace the vote of the next process with this directory (C9).
            log.error(
                "%s stays locked until this process ends: a write to its disk hangs",
                directory.path,
            )
            _LEFT_LOCKED.append(directory)
            return
        lost = self._replica is None or self._replica.raft.eligibility.lacks_acknowledged
        try:
            await asyncio.to_thread(directory.close, lost=lost)
        except StorageError:
            if self._replica is None or self._replica.stopped is None:
                raise
            # The same disk has stopped the member already.
            log.exception("%s was not closed cleanly", directory.path)

    def _peer_dialled(self, peer: MemberId) -> None:
        link = self.host.peer_links.get(peer)
        if link is not None:
            link.retry_now()
