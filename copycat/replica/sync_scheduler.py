"""Syncs and saves: one of each at a time; the newest request includes all earlier ones.

While a sync runs, the next batch grows: group commit without a timer.
The hard state is not queued behind data (C9), and it is synced in every mode.

Durability "fsync" answers the core when the disk did. The two weaker modes answer as soon as
the bytes are written: what the core then calls durable is what this process wrote (C1), and the
log alone knows what was synced (docs/decisions/0016).

A configuration is on the disk, in a file of its own, before its entry is acknowledged, in every
mode (C35): the next sync writes that file first, and no mode answers the core before that sync.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from copycat.errors import require, unreachable
from copycat.member.ballast_file import BallastFile
from copycat.raft.effects import SaveHardState
from copycat.raft.events import Saved, Synced
from copycat.replica.host import Host
from copycat.replica.options import ReplicaOptions
from copycat.storage.interface import HardStateStore, ReplicaLog, SaveTicket, SyncTicket
from copycat.types import Durability

__all__ = ["SyncScheduler"]

_NEVER_MS = 1 << 62


class _WritingTicket:
    """A sync that first writes a file. Both may be done again after a ResourceError."""

    def __init__(self, write: Callable[[], None], ticket: SyncTicket) -> None:
        self._write = write
        self._ticket = ticket

    def run(self) -> None:
        self._write()
        self._ticket.run()


class SyncScheduler:
    """Turns Sync and SaveHardState effects into tickets for the host, and tickets that completed
    into events of the core. ballast: deleted when a sync needs room for the manifest."""

    def __init__(
        self,
        log: ReplicaLog,
        hard_state: HardStateStore,
        host: Host,
        options: ReplicaOptions,
        ballast: BallastFile | None = None,
    ) -> None:
        self._log = log
        self._hard_state = hard_state
        self._host = host
        self._durability = options.durability
        self._sync_interval_ms = options.sync_interval_ms
        self._ballast = ballast
        self._pending_sync = 0
        self._syncing: tuple[int, SyncTicket, SyncTicket] | None = None
        """Ticket of the core, of the log, and what the host runs."""
        self._write: tuple[Callable[[], None], Callable[[], None]] | None = None
        """What the next sync does first, and who hears of its end."""
        self._writing: Callable[[], None] | None = None
        """Who hears of the end of the sync under way, if it writes a file."""
        self._is_layout_sync_pending = False
        self._is_due_in_every_mode = False
        """A sync is wanted although nobody waits for the entries, or a file is to be written."""
        self._written = 0
        """Weaker modes: ticket of the newest Sync effect, until it is answered."""
        self._now_ms = 0
        self.due_ms = _NEVER_MS
        """When what was written is to be synced ("interval")."""
        self._pending_save: SaveHardState | None = None
        self._saving: tuple[SaveHardState, SaveTicket] | None = None
        self._completed: deque[SyncTicket | SaveTicket] = deque()
        self.has_completed = False
        """A completed ticket, or one that the write alone completed, waits for a turn."""

    def begin(self, now_ms: int) -> None:
        """A turn begins at `now_ms` of CLOCK_BOOTTIME."""
        self._now_ms = now_ms

    def request_sync(self, ticket: int) -> None:
        """A Sync effect: everything appended so far."""
        if self._durability is Durability.FSYNC:
            self._pending_sync = ticket
            return
        self._written = ticket
        self._update_completed()
        if self._durability is Durability.INTERVAL:
            self.due_ms = min(self.due_ms, self._now_ms + self._sync_interval_ms)

    def request_write(self, write: Callable[[], None], done: Callable[[], None]) -> None:
        """Call `write`, in the sync thread or in the turn, before the core hears `Synced` of
        anything that is appended from now on; then `done`, in a turn. A later request replaces one
        that has not begun: its `done` is called for both. Errors of `write` stop the member."""
        self._write = write, done
        self._is_due_in_every_mode = True
        self._update_completed()

    def request_layout_sync(self) -> None:
        """Files of the log were replaced: once a sync made that durable, the old ones are
        deleted."""
        self._is_layout_sync_pending = True

    def request_full_sync(self) -> None:
        """In every mode: what was appended so far is to be durable soon."""
        if self._log.durable_index < self._log.last_index:
            self._is_due_in_every_mode = True

    def request_save(self, effect: SaveHardState) -> None:
        """A SaveHardState effect; a newer one replaces one that has not begun."""
        self._pending_save = effect

    @property
    def sync_is_due(self) -> bool:
        """A sync is wanted and none runs."""
        if self._syncing is not None:
            return False
        if self._is_due_in_every_mode or (self._is_layout_sync_pending and self._log.wants_sync()):
            return True
        match self._durability:
            case Durability.FSYNC:
                return self._pending_sync > 0
            case Durability.INTERVAL:
                return self._now_ms >= self.due_ms
            case _:  # a roll, a truncation, a trim: the manifest must not fall behind (C8)
                return self._log.wants_sync()

    def start_sync(self) -> None:
        """Hand the wanted sync to the host; it may come back before this returns, queued."""
        require(self.sync_is_due, "no sync is due")
        if self._ballast is not None and (self._log.wants_sync() or self._write is not None):
            self._ballast.make_room_for_manifest()
        log_ticket = ticket = self._log.begin_sync()
        if self._write is not None:
            write, self._writing = self._write
            self._write, ticket = None, _WritingTicket(write, log_ticket)
        self._syncing = (self._pending_sync, log_ticket, ticket)
        self._pending_sync = 0
        self._is_layout_sync_pending = self._is_due_in_every_mode = False
        self.due_ms = _NEVER_MS
        self._host.sync(ticket)

    def start_save(self) -> None:
        """Hand the wanted save to the host, unless one is under way."""
        if self._pending_save is None or self._saving is not None:
            return
        effect, self._pending_save = self._pending_save, None
        ticket = self._hard_state.begin_save(effect.term, effect.voted_for)
        self._saving = (effect, ticket)
        self._host.save(ticket)

    def completed(self, ticket: SyncTicket | SaveTicket) -> None:
        """The host says that a ticket's `run` returned (outside of a turn, or inside)."""
        self._completed.append(ticket)
        self.has_completed = True

    def _update_completed(self) -> None:
        self.has_completed = bool(self._completed) or self._has_written

    @property
    def _has_written(self) -> bool:
        """In a weaker mode: what was written may be answered now."""
        return self._written > 0 and self._write is None and self._writing is None

    def take_completed(self) -> list[Synced | Saved]:
        """Report completed tickets to the log and the hard state; returns the core's events for
        them."""
        events: list[Synced | Saved] = []
        self.has_completed = False
        if self._has_written:
            events.append(Synced(self._written, self._log.durable_index))
            self._written = 0
        while self._completed:
            ticket = self._completed.popleft()
            if self._syncing is not None and ticket is self._syncing[2]:
                self._log.end_sync(self._syncing[1])
                if self._syncing[0]:
                    events.append(Synced(self._syncing[0]))
                self._syncing = None
                done, self._writing = self._writing, None
                if done is not None:
                    done()
                    self._update_completed()  # what was written meanwhile may be answered
            elif self._saving is not None and ticket is self._saving[1]:
                self._hard_state.end_save(self._saving[1])
                events.append(Saved(self._saving[0].ticket))
                self._saving = None
            else:
                unreachable("a ticket that is not under way", ticket=ticket)
        return events
