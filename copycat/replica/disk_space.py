"""Admission on a full disk, and the ballast file that is deleted when the disk is full (F12).

Entries are refused before the disk would refuse them: a member without room for another batch
accepts nothing new, neither from clients nor from its leader, until there was room for a while.
Queries continue. A leader takes nothing new either while the disks of so many followers are full
that nothing can be committed.
"""

from __future__ import annotations

from collections.abc import Callable

from copycat.member.ballast_file import BallastFile
from copycat.protocol.client import Refusal
from copycat.raft.core import Raft
from copycat.raft.events import StorageFull
from copycat.replica.connections import RefusalReason
from copycat.replica.driver import Driver
from copycat.replica.host import Inbox, Lane
from copycat.replica.log_clock import LogClock
from copycat.replica.options import ReplicaOptions
from copycat.replica.proposals import ProposalQueue, WriteStall
from copycat.replica.queries import Queries
from copycat.replica.session_index import SessionIndex
from copycat.replica.status import Outage
from copycat.storage.interface import ReplicaLog
from copycat.types import Span

__all__ = ["ROOM_AGAIN_MS", "DiskSpace"]

CHECK_MS = 100
"""How often it is checked whether a full disk has room."""
FRAME_NBYTES = 32
"""A frame of the log without its payload."""
ROOM_AGAIN_MS = 1000
"""For so long there must be room before a full disk counts as one that has room."""


class DiskSpace:
    """Decides whether a batch is taken, and says so to the core, to clients and to listeners.

    ballast: None when the log is not on a disk.
    """

    def __init__(
        self,
        options: ReplicaOptions,
        raft: Raft,
        log: ReplicaLog,
        clock: LogClock,
        inbox: Inbox,
        driver: Driver,
        sessions: SessionIndex,
        proposal_queue: ProposalQueue,
        queries: Queries,
        outage: Outage,
        ballast: BallastFile | None,
    ) -> None:
        self._raft = raft
        self._log = log
        self._clock = clock
        self._inbox = inbox
        self._driver = driver
        self._sessions = sessions
        self._proposal_queue = proposal_queue
        self._queries = queries
        self._outage = outage
        self._ballast = ballast
        self._batch_bytes_max = options.batch_bytes_max
        self._is_making_ballast = False
        """A thread is writing the ballast file."""
        self._ballast_ms = clock.now_ms
        """Not before this time is the ballast file written again."""
        self._check_ms = clock.now_ms
        """When it is checked next whether a full disk has room."""
        self._room_since_ms = -1
        """Since when a full disk has had room; -1: it has none."""
        self._listeners: list[Callable[[bool], None]] = []
        self.is_full = False
        """The log has no room for another batch."""
        self.write_stall = WriteStall()
        """What full disks stop, of this member and of its followers."""

    def on_storage_change(self, listener: Callable[[bool], None]) -> None:
        """Call `listener(True)` when the disk is found full, with False when it has room."""
        self._listeners.append(listener)

    # ---- admission ---------------------------------------------------------------------

    def admits(self, nbytes: int, entries: int = 1) -> bool:
        """Whether a batch of `nbytes` of frames may be appended now."""
        return not self.is_full and self._log.has_room(nbytes, entries=entries)

    def admit_span(self, span: Span, nbytes: int) -> bool:
        """The same for entries of a leader; where there is no room, the disk counts as full from
        then on. Where they replace entries of this log, a new segment begins, and room for one
        is needed."""
        terms = self._raft.terms
        replaces = span.first <= terms.last_index and (
            terms.first_conflict(span) <= min(span.last, terms.last_index)
        )
        has_room = not self.is_full and self._log.has_room(
            nbytes,
            # A gap is one frame, however many indexes it spans; no frame is smaller than this.
            entries=min(span.length, nbytes // FRAME_NBYTES),
            in_new_segment=replaces,
        )
        if not has_room:
            self.stop_admission()
        return has_room

    @property
    def is_short(self) -> bool:
        """The disk is full, or nearly: files that can be spared should be deleted."""
        nbytes = 4 * self._batch_bytes_max
        return self.is_full or not self._log.has_room(nbytes, in_new_segment=True)

    # ---- full, and room again ----------------------------------------------------------

    def begin(self, now_ms: int) -> None:
        """A turn begins: is there room for a batch, or again?"""
        if not self.is_full:
            if not self._log.has_room(self._batch_bytes_max, entries=1):
                self.stop_admission()
        elif now_ms >= self._check_ms:
            self._check_ms = now_ms + CHECK_MS
            self._check_room(now_ms)

    def stop_admission(self) -> None:
        """Something was not admitted: accept nothing more. Steps the core, once."""
        if not self.is_full:
            self._set_full(full=True)

    def _check_room(self, now_ms: int) -> None:
        if not self._log.has_room(2 * self._batch_bytes_max, in_new_segment=True):
            self._room_since_ms = -1
        elif self._room_since_ms < 0:
            self._room_since_ms = now_ms
        elif now_ms - self._room_since_ms >= ROOM_AGAIN_MS:
            self._set_full(full=False)

    def _set_full(self, *, full: bool) -> None:
        self.is_full = full
        self._room_since_ms = -1
        self.update_write_stall()
        if full and self._ballast is not None:
            self._ballast.release()
        self._driver.step(StorageFull(full))
        for listener in self._listeners:
            listener(full)

    def update_write_stall(self) -> None:
        """Refuse requests while disks are full, here or at too many followers, and say why."""
        if not (self.is_full or self._outage.full_peers or self.write_stall.reason):
            return  # nearly always
        write_stall = self._outage.write_stall(is_full=self.is_full)
        if write_stall == self.write_stall:
            return
        self.write_stall = write_stall
        proposal_queue = self._proposal_queue
        if write_stall.reason:
            proposal_queue.close_for(write_stall)
            if write_stall.stops_commits and not proposal_queue.admitting:
                why = RefusalReason(Refusal.DISK_FULL, write_stall.reason)
                self._queries.refuse_unconfirmed(why)
            return
        proposal_queue.reopen()
        if proposal_queue.admitting:
            # Keep-alives were refused meanwhile, so no session may expire because of that time.
            self._sessions.extend_all_timeouts(self._clock.peek_ms())

    # ---- the ballast file --------------------------------------------------------------

    def make_ballast(self, now_ms: int) -> None:
        """Write the ballast file again once there was room for a while."""
        ballast = self._ballast
        if ballast is None or ballast.is_allocated or self.is_full or self._is_making_ballast:
            return
        if now_ms >= self._ballast_ms:
            self._is_making_ballast = True
            self._inbox.run(Lane.ASIDE, ballast.make, self._ballast_made)

    def _ballast_made(self, ok: bool) -> None:
        self._is_making_ballast = False
        self._ballast_ms = self._clock.now_ms + ROOM_AGAIN_MS
        if ok and self._ballast is not None:
            self._ballast.made()
            if self.is_full:
                self._ballast.release()
