"""What a member does by the clock: sessions, timers, incarnations, files, and the note of time.

Ten times a second the leader ends sessions that were silent too long, writes a TICK when a timer
of the machine is due, and writes the incarnations of members that it met for the first time. Every
member then also starts what is due of compaction and snapshots, and looks at its recovery.
"""

from __future__ import annotations

from functools import partial

from copycat.member.time_note import TimeFile, TimeNote
from copycat.replica.compaction import CompactionRunner
from copycat.replica.disk_space import ROOM_AGAIN_MS, DiskSpace
from copycat.replica.host import Inbox, Lane
from copycat.replica.log_clock import LogClock
from copycat.replica.members import Handshake
from copycat.replica.proposals import ProposalQueue
from copycat.replica.session_index import SessionIndex
from copycat.replica.snapshot_taker import SnapshotTaker
from copycat.replica.status import RecoveryStatus
from copycat.storage.interface import ReplicaLog
from copycat.storage.segment_files import SpareSegment, remove_obsolete_files

__all__ = ["PAUSE_MS", "Maintenance"]

INTERVAL_MS = 100
"""How often `run_due` is called."""
PAUSE_MS = 500
"""A turn that begins so long after the one before is of a process that did not run meanwhile, and
so heard nobody."""


class Maintenance:
    """Called when a turn begins late (`paused`), ten times a second (`run_due`), and at the end
    of each turn (`prepare_files`).

    time_file: where the note of log time is written; None: nowhere.
    """

    def __init__(
        self,
        log: ReplicaLog,
        clock: LogClock,
        inbox: Inbox,
        sessions: SessionIndex,
        proposal_queue: ProposalQueue,
        handshake: Handshake,
        recovery: RecoveryStatus,
        snapshot_taker: SnapshotTaker,
        compaction: CompactionRunner,
        disk_space: DiskSpace,
        time_file: TimeFile | None,
    ) -> None:
        self._log = log
        self._clock = clock
        self._inbox = inbox
        self._sessions = sessions
        self._proposal_queue = proposal_queue
        self._handshake = handshake
        self._recovery = recovery
        self._snapshot_taker = snapshot_taker
        self._compaction = compaction
        self._disk_space = disk_space
        self._time_file = time_file
        self._is_writing_note = False
        """A thread is writing the note of time."""
        self._note_ms = clock.now_ms
        """Not before this time is the next note written."""
        self._is_preparing = False
        """A thread is filling the next segment with zeros."""
        self._spare = SpareSegment(log)
        self._is_removing = False
        """A thread is deleting obsolete files."""
        self._timer_ms = 0
        """Log time of the machine's next scheduled call-back; 0 when there is none."""
        self.deadline_ms = clock.now_ms
        """When `run_due` is due: the host wakes the member for it."""

    def timer_set(self, due_ms: int) -> None:
        """The machine's next scheduled call-back is due at this log time; 0: there is none."""
        self._timer_ms = due_ms

    def run_soon(self) -> None:
        """`run_due` is due in this turn."""
        self.deadline_ms = self._clock.now_ms

    def paused(self, elapsed_ms: int) -> None:
        """A turn begins PAUSE_MS or more after the last one: this process did not run for a while,
        and sessions that it could not hear get their time again (F18)."""
        if self._proposal_queue.admitting:
            self._sessions.extend_timeouts(self._clock.peek_ms(), elapsed_ms)

    def run_due(self, now_ms: int) -> None:
        """Do what is due by the clock, and propose what the leader writes of itself."""
        self.deadline_ms = now_ms + INTERVAL_MS
        self._log.mark_idle()
        self._recovery.keep(now_ms)
        is_short = self._disk_space.is_short
        if is_short:
            self._snapshot_taker.relieve(now_ms)
        self._compaction.keep(now_ms, is_short=is_short)
        self._disk_space.make_ballast(now_ms)
        self._write_note(now_ms)
        if not self._proposal_queue.admitting or self._disk_space.write_stall.reason:
            return
        log_time_ms = self._clock.peek_ms()
        self._proposal_queue.propose_expiries(log_time_ms)
        is_due = self._timer_ms and self._timer_ms <= log_time_ms
        if is_due and not self._proposal_queue.proposals:
            self._proposal_queue.propose_tick()
        for member, incarnation in self._handshake.uncommitted_incarnations():
            self._proposal_queue.propose_incarnation(member, incarnation)

    # ---- the note of time --------------------------------------------------------------

    def _write_note(self, now_ms: int) -> None:
        """Have log time written down beside the wall clock (C25); on a full disk, later."""
        file, note = self._time_file, self._clock.note_to_write
        if file is None or note is None or self._is_writing_note or now_ms < self._note_ms:
            return
        self._is_writing_note = True
        work = partial(file.write, note)
        self._inbox.run(Lane.ASIDE, work, partial(self._note_written, note))

    def _note_written(self, note: TimeNote, ok: bool) -> None:
        self._is_writing_note = False
        if ok:
            self._clock.note_written(note)
        else:
            self._note_ms = self._clock.now_ms + ROOM_AGAIN_MS

    # ---- files -------------------------------------------------------------------------

    def prepare_files(self, now_ms: int) -> None:
        """Have the next segment prepared, and files deleted that nothing needs (F4).

        A full disk is asked again a while later.
        """
        if not self._is_preparing and self._log.wants_spare() and self._spare.is_due(now_ms):
            self._is_preparing = True
            self._inbox.run(Lane.ASIDE, self._spare.prepare, self._prepared)
        if not self._is_removing and self._log.has_obsolete_files():
            self._is_removing = True
            work = partial(remove_obsolete_files, self._log)
            self._inbox.run(Lane.ASIDE, work, self._removed)

    def _prepared(self, ok: bool) -> None:
        self._is_preparing = False
        if not ok:
            self._spare.retry_later(self._clock.now_ms)

    def _removed(self, _: None) -> None:
        self._is_removing = False
