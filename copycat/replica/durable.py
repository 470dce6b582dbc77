"""Syncs and saves under way: one of each at a time, the newest wish answers all before it.

While a sync runs, the next batch grows: group commit without a timer (DESIGN.md section 4).
The hard state is not queued behind data (C9).
"""

from __future__ import annotations

from collections import deque

from copycat.errors import require
from copycat.log.interface import HardStateStore, ReplicaLog, SaveTicket, SyncTicket
from copycat.raft.effects import SaveHardState
from copycat.raft.events import Saved, Synced
from copycat.replica.host import Host

__all__ = ["Durable"]


class Durable:
    """Turns Sync and SaveHardState effects into tickets for the host, and back into events."""

    def __init__(self, log: ReplicaLog, hard_state: HardStateStore, host: Host) -> None:
        self._log = log
        self._hard_state = hard_state
        self._host = host
        self._sync_wanted = 0
        self._syncing: tuple[int, SyncTicket] | None = None
        self._save_wanted: SaveHardState | None = None
        self._saving: tuple[SaveHardState, SaveTicket] | None = None
        self._completed: deque[SyncTicket | SaveTicket] = deque()

    def want_sync(self, ticket: int) -> None:
        """A Sync effect: everything appended so far."""
        self._sync_wanted = ticket

    def want_save(self, effect: SaveHardState) -> None:
        """A SaveHardState effect; a newer one replaces one that has not begun."""
        self._save_wanted = effect

    @property
    def sync_is_due(self) -> bool:
        """A sync is wanted and none runs."""
        return self._sync_wanted > 0 and self._syncing is None

    def start_sync(self) -> None:
        """Hand the wanted sync to the host; it may come back before this returns, queued."""
        require(self.sync_is_due, "no sync is due")
        ticket = self._log.begin_sync()
        self._syncing = (self._sync_wanted, ticket)
        self._sync_wanted = 0
        self._host.sync(ticket)

    def start_save(self) -> None:
        """Hand the wanted save to the host, unless one is under way."""
        if self._save_wanted is None or self._saving is not None:
            return
        effect, self._save_wanted = self._save_wanted, None
        ticket = self._hard_state.begin_save(effect.term, effect.voted_for)
        self._saving = (effect, ticket)
        self._host.save(ticket)

    def completed(self, ticket: SyncTicket | SaveTicket) -> None:
        """The host says that a ticket's `run` returned (outside of a turn, or inside)."""
        self._completed.append(ticket)

    @property
    def has_completed(self) -> bool:
        """Some ticket came back and waits for a turn."""
        return bool(self._completed)

    def take_completed(self) -> list[Synced | Saved]:
        """Publish what came back to the log and the hard state; the core's events for it."""
        events: list[Synced | Saved] = []
        while self._completed:
            ticket = self._completed.popleft()
            if self._syncing is not None and ticket is self._syncing[1]:
                self._log.end_sync(self._syncing[1])
                events.append(Synced(self._syncing[0]))
                self._syncing = None
            elif self._saving is not None and ticket is self._saving[1]:
                self._hard_state.end_save(self._saving[1])
                events.append(Saved(self._saving[0].ticket))
                self._saving = None
            else:
                require(law=False, message="a ticket that is not under way", ticket=ticket)
        return events
