"""The asyncio host: runs one turn of the replica after each pass of the event loop with events.

Only the thread of the event loop uses the replica, and changes which entries and files the log
consists of. While the disk is fast, syncs run in that thread as well: to pass a sync to another
thread and its result back takes as long as the sync itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

from copycat.errors import DirectoryRefusedError, ResourceError, require
from copycat.net import WriteBuffer
from copycat.protocol.peer import HelloRefused
from copycat.replica.host import REPLY_ROOM, Body, Lane
from copycat.replica.replica import Replica
from copycat.replica.status import REFUSED_STATE
from copycat.server.peer_link import Link
from copycat.server.workers import Mailbox, SyncPace, Worker
from copycat.storage.interface import SaveTicket, SyncTicket
from copycat.types import MemberId

__all__ = ["LINK_NBYTES_MAX", "AsyncHost", "now_ms"]

log = logging.getLogger("copycat.server")

T = TypeVar("T")

LINK_NBYTES_MAX = 64 << 20
"""The most unsent bytes to one peer: `send` refuses what would exceed them, unless nothing
waits."""


def now_ms() -> int:
    """Milliseconds of CLOCK_BOOTTIME, which counts the time in which the machine sleeps (C11)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def wall_ms() -> int:
    """Milliseconds of the wall clock, which is used only as a bound for log time (C25)."""
    return time.time_ns() // 1_000_000


def _ignore(_address: str) -> None:
    pass


def _no_op() -> None:
    """Called after a turn when `start` was given no function."""


class _Client(NamedTuple):
    """The connection of one client, as its `Inbound` gave it to this host."""

    write_buffer: WriteBuffer
    close: Callable[[str], None]
    """`Inbound.close`."""


class AsyncHost:
    """Implements `copycat.replica.host.Host` for one replica in the running loop.

    name: of the member, for the names of threads. on_stop: called once, with the cause, when the
    member must stop because it cannot continue correctly. on_restart: called instead when it must
    start again, without its log.
    """

    def __init__(
        self,
        name: str,
        on_stop: Callable[[BaseException], None],
        on_restart: Callable[[], None],
        *,
        compaction_threads: int = 1,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_stop = on_stop
        self._on_restart = on_restart
        self._mailbox = Mailbox(self._loop, self._after_mailbox)
        self._sync_worker = self._worker(f"copycat-sync-{name}", retries=True)
        self._save_worker = self._worker(f"copycat-save-{name}", retries=True)
        self._lanes = {
            Lane.APPLY: self._worker(f"copycat-apply-{name}"),
            Lane.ASIDE: self._worker(f"copycat-aside-{name}", retries=True),
            Lane.COMPACT: self._worker(f"copycat-compact-{name}", compaction_threads),
        }
        self._pace = SyncPace()
        self._may_sync_inline = True
        self._deferred_sync: SyncTicket | None = None
        self._saves_in_progress = 0
        self.peer_links: dict[MemberId, Link] = {}
        self._cancelled_links: list[Link] = []
        """Links that `disconnect_peer` ended; a few of them may not be closed so far."""
        self._may_connect = True
        self._links: dict[MemberId, WriteBuffer] = {}
        """The write buffers of the links that are up."""
        self._inbound_peers: dict[MemberId, Callable[[str], None]] = {}
        """Closes the connection that this peer dialled last; called with the reason."""
        self._clients: dict[int, _Client] = {}
        self._dirty: dict[WriteBuffer, None] = {}
        self._full_buffers: dict[WriteBuffer, int] = {}
        """Write buffers for which `has_room` returned False, with the number of unsent bytes below
        which each has room again."""
        self._is_turn_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0
        self._watchers: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._replica: Replica | None = None
        self._after_turn = _no_op
        self.leader_named: Callable[[str], None] = _ignore
        """Called with the address of a leader that this member may not know."""
        self.is_stopped = False
        self.is_save_hanging = False
        """`close` did not wait for the end of a save of term and vote, which may still reach the
        disk."""

    def _worker(self, name: str, threads: int = 1, *, retries: bool = False) -> Worker:
        return Worker(name, self._mailbox, self._worker_failed, threads=threads, retries=retries)

    @property
    def replica(self) -> Replica:
        """The replica that this host drives."""
        require(self._replica is not None, "the host drives no replica yet")
        assert self._replica is not None  # noqa: S101  (for the type checker)
        return self._replica

    def start(self, replica: Replica, after_turn: Callable[[], None] = _no_op) -> None:
        """Connect to the peers, and run the first turn soon; `after_turn` is called after each
        turn."""
        self._replica = replica
        self._after_turn = after_turn
        self.wake()
        replica.connect_peers()

    # --- connections ------------------------------------------------------------------------

    def connect(self, peer: MemberId, address: str) -> None:
        """See `Host.connect`."""
        if not self._may_connect:
            return
        link = self.peer_links.get(peer)
        if link is not None and link.address == address:
            return
        self.disconnect_peer(peer)
        self.peer_links[peer] = Link(peer, address, self, self.replica)

    def disconnect_peer(self, peer: MemberId) -> None:
        """See `Host.disconnect_peer`."""
        link = self.peer_links.pop(peer, None)
        if link is not None:
            link.cancel()
            self.link_down(peer)
            open_links = [each for each in self._cancelled_links if not each.is_closed]
            self._cancelled_links = [*open_links, link]

    def peer_connected(self, peer: MemberId, close: Callable[[str], None]) -> None:
        """This peer has dialled; `close(reason)` closes its connection."""
        self._inbound_peers[peer] = close

    def peer_disconnected(self, peer: MemberId) -> None:
        """The connection that this peer dialled last is closed."""
        self._inbound_peers.pop(peer, None)

    def close_inbound(self, peer: MemberId) -> None:
        """See `Host.close_inbound`."""
        close = self._inbound_peers.get(peer)
        if close is not None:
            close("there is no link to it any more")

    async def close_links(self) -> None:
        """Close the links to all peers. Turns go on meanwhile, and connect to nobody any more."""
        self._may_connect = False
        links = [*self._cancelled_links, *self.peer_links.values()]
        self._cancelled_links.clear()
        self.peer_links.clear()
        for link in links:
            await link.close()

    def link_up(self, peer: MemberId, write_buffer: WriteBuffer) -> None:
        """The link to `peer` is connected: frames to that peer are written to `write_buffer`."""
        self._links[peer] = write_buffer

    def link_down(self, peer: MemberId) -> None:
        """The link to `peer` is closed."""
        write_buffer = self._links.pop(peer, None)
        if write_buffer is not None:
            self._forget(write_buffer)

    def client_connected(
        self, connection: int, write_buffer: WriteBuffer, close: Callable[[str], None]
    ) -> None:
        """The first frame of this client has arrived; `close(reason)` closes its connection."""
        self._clients[connection] = _Client(write_buffer, close)

    def client_disconnected(self, connection: int) -> None:
        """The connection of this client is closed."""
        client = self._clients.pop(connection, None)
        if client is not None:
            self._forget(client.write_buffer)

    def _forget(self, write_buffer: WriteBuffer) -> None:
        self._dirty.pop(write_buffer, None)
        if self._full_buffers.pop(write_buffer, None) is not None:
            self.wake()  # replies that waited for room in this buffer need none now

    # --- Host: turns and bytes ----------------------------------------------------------------

    def wake(self) -> None:
        """See `Host.wake`. In the loop's thread only."""
        if not self._is_turn_scheduled and not self.is_stopped:
            self._is_turn_scheduled = True
            self._loop.call_soon(self._turn)

    def send(self, peer: MemberId, header: bytes, body: Body | None) -> bool:
        """See `Host.send`."""
        write_buffer = self._links.get(peer)
        if write_buffer is None or self.is_stopped:
            return False
        data = memoryview(b"" if body is None else body)
        nbytes = len(header) + data.nbytes
        if write_buffer.nbytes and write_buffer.nbytes + nbytes > LINK_NBYTES_MAX:
            return False
        write_buffer.put(header)
        if data.nbytes:
            write_buffer.put(data)
        self._dirty[write_buffer] = None
        return True

    def reply(self, connection: int, frame: bytes) -> None:
        """See `Host.reply`."""
        client = self._clients.get(connection)
        if client is None or self.is_stopped:
            return
        client.write_buffer.put(frame)
        self._dirty[client.write_buffer] = None

    def has_room(self, peer: MemberId, connection: int, unsent_max: int = REPLY_ROOM) -> bool:
        """See `Host.has_room`."""
        if peer:
            write_buffer = self._links.get(peer)
        else:
            client = self._clients.get(connection)
            write_buffer = None if client is None else client.write_buffer
        if write_buffer is None or write_buffer.nbytes < unsent_max:
            return True
        self._full_buffers[write_buffer] = min(
            unsent_max, self._full_buffers.get(write_buffer, unsent_max)
        )
        return False

    def check_write_buffers(self) -> None:
        """Bytes were sent: wake the replica if a write buffer that had no room has room again."""
        free = [
            write_buffer
            for write_buffer, least in self._full_buffers.items()
            if write_buffer.nbytes < least
        ]
        for write_buffer in free:
            del self._full_buffers[write_buffer]
        if free:
            self.wake()

    def disconnect(self, connection: int, reason: str) -> None:
        """See `Host.disconnect`."""
        client = self._clients.get(connection)
        if client is not None:
            client.close(reason)

    def write_queued(self) -> None:
        """See `Host.write_queued`."""
        if self._dirty:
            dirty, self._dirty = self._dirty, {}
            for write_buffer in dirty:
                write_buffer.flush()
            if self._full_buffers:
                self.check_write_buffers()

    def _turn(self) -> None:
        if not self._is_turn_scheduled or self.is_stopped or self._replica is None:
            return
        self._is_turn_scheduled = False
        self._may_sync_inline = True
        if self._deferred_sync is not None:
            ticket, self._deferred_sync = self._deferred_sync, None
            self.sync(ticket)
        self._replica.turn(now_ms(), wall_ms())
        if not self.is_stopped:
            if self._dirty:
                self.write_queued()
            deadline_ms = self._replica.deadline_ms()
            if self._timer is None or deadline_ms < self._timer_ms:
                self._arm(deadline_ms)
            self._after_turn()
        if self._watchers:
            self._check_watchers()

    def _after_mailbox(self) -> None:
        # The results of the threads are handled in this pass of the loop, and not in the next one.
        self._turn()

    def _arm(self, deadline_ms: int) -> None:
        if self._timer is not None:
            if self._timer_ms <= deadline_ms:
                return  # it fires early and is then set again: cheaper than a new one each turn
            self._timer.cancel()
        self._timer_ms = deadline_ms
        delay = max(0, deadline_ms - now_ms()) / 1000
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self.is_stopped or self._replica is None:
            return
        deadline_ms = self._replica.deadline_ms()
        if now_ms() >= deadline_ms:
            self.wake()
        else:
            self._arm(deadline_ms)

    # --- Host: threads --------------------------------------------------------------------------

    def sync(self, ticket: SyncTicket) -> None:
        """See `Host.sync`. At most one sync a turn runs in the loop; a second waits for the next
        turn."""
        if self._saves_in_progress or not self._pace.is_fast:
            self._sync_later(ticket)
        elif self._may_sync_inline:
            self._may_sync_inline = False
            try:
                seconds = self._pace.run_timed(ticket.run)
            except ResourceError:  # the thread repeats the sync, and the loop continues meanwhile
                self._sync_later(ticket)
                return
            except Exception as cause:  # noqa: BLE001  (after any error nothing was made durable)
                self._mailbox.post(self._worker_failed, cause)
                return
            self._synced(ticket, seconds)
        else:
            self._deferred_sync = ticket
            self.wake()

    def _sync_later(self, ticket: SyncTicket) -> None:
        self._sync_worker.run(
            lambda: self._pace.run_timed(ticket.run), partial(self._synced, ticket)
        )

    def _synced(self, ticket: SyncTicket, seconds: float) -> None:
        self._pace.record(seconds)
        self.replica.synced(ticket)

    def save(self, ticket: SaveTicket) -> None:
        """See `Host.save`."""
        self._saves_in_progress += 1
        self._save_worker.run(ticket.run, lambda _: self._saved(ticket))

    def _saved(self, ticket: SaveTicket) -> None:
        self._saves_in_progress -= 1
        self.replica.saved(ticket)

    def run(self, lane: Lane, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """See `Host.run`."""
        self._lanes[lane].run(work, done)

    def _worker_failed(self, cause: BaseException) -> None:
        self.replica.failed(cause)

    # --- the end --------------------------------------------------------------------------------

    def refused(self, refusal: HelloRefused) -> None:
        """A peer did not let this member in: hear the leader, if another one speaks (C43)."""
        if self.is_stopped:
            return
        if refusal.leader:
            self.leader_named(refusal.leader)
        if refusal.is_final:
            self.replica.failed(DirectoryRefusedError(refusal.reason, state=REFUSED_STATE))

    def stop(self, reason: BaseException) -> None:
        """See `Host.stop`: from now on nothing is sent."""
        if self.is_stopped:
            return
        self._halt()
        self._on_stop(reason)

    def restart(self) -> None:
        """See `Host.restart`: from now on nothing is sent."""
        if self.is_stopped:
            return
        self._halt()
        self._on_restart()

    def _halt(self) -> None:
        self.is_stopped = True
        self._dirty.clear()
        self._full_buffers.clear()
        self._links.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for _, future in self._watchers:
            if not future.done():
                future.cancel()
        self._watchers.clear()

    async def close(self, timeout_s: float) -> bool:
        """End turns and threads; False when a thread was still busy after `timeout_s` seconds."""
        self._halt()
        ended = True
        for worker in (*self._lanes.values(), self._sync_worker):
            ended = await worker.close(timeout_s) and ended
        self.is_save_hanging = not await self._save_worker.close(timeout_s)
        self._mailbox.close()
        return ended and not self.is_save_hanging

    # --- watching -------------------------------------------------------------------------------

    def when(self, condition: Callable[[], bool]) -> asyncio.Future[None]:
        """A future that is done after the first turn after which `condition()` is true.

        The future is cancelled when the host stops, or has stopped.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        if self.is_stopped:
            future.cancel()
            return future
        self._watchers.append((condition, future))
        self.wake()
        return future

    def _check_watchers(self) -> None:
        waiting = []
        for condition, future in self._watchers:
            if future.done():
                continue
            if condition():
                future.set_result(None)
            else:
                waiting.append((condition, future))
        self._watchers = waiting
