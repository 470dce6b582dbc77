"""What a member does by the clock: timers, silent sessions, pins, files, debts, a full disk.

F12: entries are refused before the disk would refuse them. A member without room takes nothing
new, neither from clients nor from its leader, until room was back for a while; queries go on.
A leader takes nothing new either while the disks of so many followers are full that nothing can
be committed.
Before that, and while it is full, it takes a snapshot, which lets its log be trimmed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from copycat.member.ballast_file import BallastFile
from copycat.member.time_note import TimeFile, TimeNote
from copycat.protocol.client import Refusal
from copycat.raft.events import StorageFull
from copycat.replica.compaction import CompactionRunner
from copycat.replica.driver import Driver, ReplicaParts
from copycat.replica.handshake import Handshake
from copycat.replica.host import Lane
from copycat.replica.options import ReplicaOptions
from copycat.replica.outage import Outage
from copycat.replica.recovery_status import RecoveryStatus
from copycat.replica.refusal_reason import WriteStall
from copycat.replica.snapshot_taker import SnapshotTaker
from copycat.storage.segment_files import SpareSegment, remove_obsolete_files
from copycat.types import Span

__all__ = ["Maintenance"]

INTERVAL_MS = 100
"""How often silent sessions, due timers, pins, the idle mark and a full disk are looked at."""
PAUSE_MS = 500
"""A turn that comes so late found a process that was held up: it heard nobody meanwhile."""
FRAME_NBYTES = 32
"""A frame of the log without its payload."""
ROOM_AGAIN_MS = 1000
"""For so long there must be room before a full disk counts as one that has room."""


class Maintenance:
    """Done at the beginning of a turn (`begin`) and ten times a second (`keep`)."""

    def __init__(
        self,
        parts: ReplicaParts,
        driver: Driver,
        handshake: Handshake,
        *,
        options: ReplicaOptions,
        snapshotting: SnapshotTaker,
        compaction: CompactionRunner,
        outage: Outage,
        now_ms: int,
        recovery: RecoveryStatus,
        ballast: BallastFile | None = None,
        time_file: TimeFile | None = None,
    ) -> None:
        self._parts = parts
        self._handshake = handshake
        self._driver = driver
        self._batch_bytes_max = options.batch_bytes_max
        self._snapshotting = snapshotting
        self._compaction = compaction
        self._outage = outage
        self._ballast = ballast
        self._time_file = time_file
        self._is_noting = False
        self._note_ms = now_ms
        self.recovery = recovery
        self._is_making_ballast = False
        self._ballast_ms = now_ms
        self._storage_listeners: list[Callable[[bool], None]] = []
        self._room_since_ms = -1
        self._check_ms = now_ms
        self._is_preparing = False
        self._is_removing = False
        self._spare = SpareSegment(parts.log)
        self.deadline_ms = now_ms
        """When `keep` is due: the host wakes the member for it."""
        self._timer_ms = 0
        """Log time of the machine's next scheduled callback; 0 when there is none."""
        self.is_full = False
        """The log has no room for another batch (F12)."""
        self.write_stall = WriteStall()
        """What full disks stop, of this member and of its followers."""

    def on_storage_change(self, listener: Callable[[bool], None]) -> None:
        """Call `listener(True)` when the disk is found full, with False when it has room."""
        self._storage_listeners.append(listener)

    def timer_set(self, due_ms: int) -> None:
        """The machine's next scheduled callback is due at this log time; 0: there is none."""
        self._timer_ms = due_ms

    def run_soon(self) -> None:
        """`keep` is due in this turn."""
        self.deadline_ms = self._parts.clock.now_ms

    # ---- every turn ------------------------------------------------------------------------

    def begin(self, now_ms: int, elapsed_ms: int) -> None:
        """Look whether there is room, and whether this process was held up (F18)."""
        if elapsed_ms >= PAUSE_MS and self._parts.proposal_queue.admitting:
            self._parts.proposal_queue.sessions.extend_timeouts(
                self._parts.clock.peek_ms(), elapsed_ms
            )
        if not self.is_full:
            if not self.admits(self._batch_bytes_max):
                self.ran_full()
        elif now_ms >= self._check_ms:
            self._check_ms = now_ms + INTERVAL_MS
            self._check_room(now_ms)

    def admits(self, nbytes: int, entries: int = 1) -> bool:
        """Whether a batch of `nbytes` of frames may be appended now."""
        return not self.is_full and self._parts.log.has_room(nbytes, entries=entries)

    def admits_span(self, span: Span, nbytes: int) -> bool:
        """The same for entries of a leader, which may replace some of ours: a new segment."""
        terms = self._parts.raft.terms
        replaces = span.first <= terms.last_index and (
            terms.first_conflict(span) <= min(span.last, terms.last_index)
        )
        return not self.is_full and self._parts.log.has_room(
            nbytes,
            # A gap is one frame, however many indexes it spans; no frame is smaller than this.
            entries=min(span.length, nbytes // FRAME_NBYTES),
            in_new_segment=replaces,
        )

    def takes(self, span: Span, nbytes: int) -> bool:
        """`admits_span`, and a span that is not admitted finds the disk full."""
        if self.admits_span(span, nbytes):
            return True
        self.ran_full()
        return False

    def ran_full(self) -> None:
        """Something was not admitted: take nothing more. Steps the core, once."""
        if not self.is_full:
            self._set_full(full=True)

    def _check_room(self, now_ms: int) -> None:
        if not self._parts.log.has_room(2 * self._batch_bytes_max, in_new_segment=True):
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
        for listener in self._storage_listeners:
            listener(full)

    def update_write_stall(self) -> None:
        """Refuse requests while disks are full, here or at too many followers, and say why."""
        write_stall = self._outage.write_stall(is_full=self.is_full)
        if write_stall == self.write_stall:
            return
        self.write_stall = write_stall
        proposal_queue = self._parts.proposal_queue
        if write_stall.reason:
            proposal_queue.close_for(write_stall)
            if write_stall.stops_commits and not proposal_queue.admitting:
                self._parts.queries.refuse_unconfirmed(Refusal.DISK_FULL, write_stall.reason)
            return
        proposal_queue.reopen()
        if proposal_queue.admitting:
            # Keep-alives were refused meanwhile: nobody was silent of their own will.
            proposal_queue.sessions.extend_all_timeouts(self._parts.clock.peek_ms())

    # ---- by the clock ----------------------------------------------------------------------

    def keep(self, now_ms: int) -> None:
        """Write what the leader writes of itself, and the idle mark."""
        self.deadline_ms = now_ms + INTERVAL_MS
        parts = self._parts
        parts.log.mark_idle()
        self.recovery.keep(now_ms)
        is_short = self.is_full or not parts.log.has_room(
            4 * self._batch_bytes_max, in_new_segment=True
        )
        if is_short:
            self._snapshotting.relieve(now_ms)
        self._compaction.keep(now_ms, is_short=is_short)
        self._make_ballast(now_ms)
        self._note_time(now_ms)
        if not parts.proposal_queue.admitting or self.write_stall.reason:
            return
        log_time_ms = parts.clock.peek_ms()
        parts.proposal_queue.expire_overdue(log_time_ms)
        due = self._timer_ms and self._timer_ms <= log_time_ms
        if due and not parts.proposal_queue.proposals:
            parts.proposal_queue.tick()
        for member, incarnation in self._handshake.uncommitted_incarnations():
            parts.proposal_queue.propose_incarnation(member, incarnation)

    def _make_ballast(self, now_ms: int) -> None:
        """Take the reserve again once there was room for a while; a disk is asked now and then."""
        ballast = self._ballast
        if ballast is None or ballast.is_allocated or self.is_full or self._is_making_ballast:
            return
        if now_ms >= self._ballast_ms:
            self._is_making_ballast = True
            self._parts.inbox.run(Lane.ASIDE, ballast.make, self._ballast_made)

    def _ballast_made(self, ok: bool) -> None:
        self._is_making_ballast = False
        self._ballast_ms = self._parts.clock.now_ms + ROOM_AGAIN_MS
        if ok and self._ballast is not None:
            self._ballast.made()
            if self.is_full:
                self._ballast.release()

    def _note_time(self, now_ms: int) -> None:
        """Have log time written down beside the wall clock (C25); on a full disk, later."""
        file, note = self._time_file, self._parts.clock.note_to_write
        if file is None or note is None or self._is_noting or now_ms < self._note_ms:
            return
        self._is_noting = True
        work = partial(file.write, note)
        self._parts.inbox.run(Lane.ASIDE, work, partial(self._noted, note))

    def _noted(self, note: TimeNote, ok: bool) -> None:
        self._is_noting = False
        if ok:
            self._parts.clock.note_written(note)
        else:
            self._note_ms = self._parts.clock.now_ms + ROOM_AGAIN_MS

    def keep_files(self, now_ms: int) -> None:
        """Have the next segment made ready, and files removed that nothing needs (F4).

        A full disk is asked again a while later.
        """
        log, inbox = self._parts.log, self._parts.inbox
        if not self._is_preparing and self._spare.is_due(now_ms):
            self._is_preparing = True
            inbox.run(Lane.ASIDE, self._spare.prepare, self._prepared)
        if not self._is_removing and log.has_obsolete_files():
            self._is_removing = True
            inbox.run(Lane.ASIDE, partial(remove_obsolete_files, log), self._removed)

    def _prepared(self, ok: bool) -> None:
        self._is_preparing = False
        if not ok:
            self._spare.retry_later(self._parts.clock.now_ms)

    def _removed(self, _: None) -> None:
        self._is_removing = False
