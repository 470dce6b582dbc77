"""Applies committed entries, in order: sessions, duplicates, the user's machine, replies.

All decisions follow from the log alone, so every member comes to the same bytes (I17 to I20),
however the entries were cut into runs and slices. One thread at a time calls these methods.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from copycat.errors import (
    ApplicationError,
    InvariantError,
    SerializationError,
    require,
    unreachable,
)
from copycat.machine import envelope
from copycat.machine.apply_result import (
    ApplyResult,
    Change,
    IncarnationRecorded,
    MachineQuery,
    QueryAnswer,
    RunReply,
    SessionEnded,
    SessionKeptAlive,
    SessionOpened,
)
from copycat.machine.attributes import attributes_of
from copycat.machine.availability import AvailabilityRow, AvailabilityTable
from copycat.machine.digest import digest_of, encode_state
from copycat.machine.machine import StateMachine
from copycat.machine.machine_runtime import MachineRuntime
from copycat.machine.session_section import (
    pack_incarnations,
    read_sessions,
    unpack_incarnations,
    write_sessions,
)
from copycat.machine.sessions import SessionRecord, SessionRow, SessionTable
from copycat.machine.skipping import cut_at
from copycat.machine.snapshot import Position, read_snapshot, write_snapshot
from copycat.machine.state_stream import PieceWriter
from copycat.machine.user_code import Refusals, no_refusals
from copycat.protocol.codec_configuration import decode_configuration
from copycat.types import EntryKind, Release, Run, SessionState

__all__ = ["SessionExecutor"]

_COMMAND = int(EntryKind.COMMAND)
_GAP = int(EntryKind.GAP)


class SessionExecutor:
    """Entries in, replies out: the sessions and reply cache of one machine, and its runtime.

    MemoryShortageError leaves these methods where the user's code was refused memory (F23): half
    an entry may be applied then, so the executor refuses to continue and the member must stop.

    refusals, in_main_thread: as `UserCode` has them.
    skips: indexes of entries at which the user's code is not called; the same on every member.
    """

    def __init__(
        self,
        machine: StateMachine,
        *,
        refusals: Refusals = no_refusals,
        in_main_thread: bool = True,
        skips: Collection[int] = (),
    ) -> None:
        self.machine = machine
        self._skips = frozenset(skips)
        self._sessions = SessionTable()
        self._runtime = MachineRuntime(
            machine, self._sessions, refusals=refusals, in_main_thread=in_main_thread
        )
        self._release_tracker = self._runtime.release_tracker
        self.commands = self._runtime.commands
        self._incarnations: dict[int, int] = {}
        self._availability = AvailabilityTable()
        self._last_applied = 0
        self._time_ms = 0
        self._gap_index = 0
        """First index of the newest gap applied (C18)."""
        self._valid_from = 0
        """Below this index the state is not that of the full log (C22)."""
        self._broken: BaseException | None = None
        self._replies: list[RunReply] = []
        self._changes: list[Change] = []
        self._rejected: list[tuple[int, int, int]] = []

    # ---- what it knows -------------------------------------------------------------------

    @property
    def last_applied(self) -> int:
        """Index of the newest entry applied."""
        return self._last_applied

    @property
    def time_ms(self) -> int:
        """Log time of the newest entry applied."""
        return self._time_ms

    @property
    def valid_from(self) -> int:
        """The largest `valid_from` of the gaps applied: replaying until last_applied is there."""
        return self._valid_from

    def acknowledged_index(self) -> int:
        """The highest index up to which every reply of every session is acknowledged.

        An entry that was released while entry r was applied may be deleted once r is at or below
        this index (C21).
        """
        unacked = [record.unacked_index for record in self._sessions if record.replies]
        return min(unacked) - 1 if unacked else self._last_applied

    @property
    def incarnations(self) -> dict[int, int]:
        """The committed incarnations by member (C16)."""
        return dict(self._incarnations)

    @property
    def availability(self) -> dict[int, AvailabilityRow]:
        """What leaders wrote last of each member that they did not hear at some time (C38)."""
        return self._availability.rows()

    def session_rows(self) -> list[SessionRow]:
        """Every open session, in the order of registration."""
        return [record.row() for record in self._sessions]

    def digest(self) -> bytes:
        """32 bytes over state, sessions, unacknowledged replies, timers and log time (I20)."""
        return digest_of(
            (self._last_applied, self._time_ms),
            self._sessions,
            (self._incarnations, self._availability.packed()),
            (self._runtime.timers.rows(), self._runtime.keys.rows()),
            self.encode_state(),
        )

    def encode_state(self) -> bytes | None:
        """The machine's attributes as canonical bytes; None when one has no encoding, and then
        `digest` covers all but the machine's state."""
        return encode_state(attributes_of(self.machine))

    def close(self) -> None:
        """The member stops: tell the machine. What it raises does not keep a file open."""
        self._runtime.close()

    # ---- snapshots -----------------------------------------------------------------------

    def snapshot_obstacle(self) -> str:
        """Why the state as it is has no snapshot, with the attribute's name; "" when it has."""
        try:
            self._write_sections(Position(0, 0, []), _ignore)
        except SerializationError as error:
            return error.message
        return ""

    def snapshot(self) -> bytes:
        """What `write_snapshot` writes, in memory."""
        pieces: list[bytes] = []
        self.write_snapshot(lambda piece: pieces.append(bytes(piece)))
        return b"".join(pieces)

    def write_snapshot(self, write_piece: PieceWriter) -> None:
        """Everything that followed from the log up to last_applied (I12), piece by piece.

        SerializationError with the name of what has no encoding. InvariantError while replaying:
        such a state is not that of the full log (C22).
        """
        self._require_usable()
        require(
            self._last_applied >= self._valid_from,
            "a snapshot of a state that is being replayed",
            last_applied=self._last_applied,
            valid_from=self._valid_from,
        )
        incarnations = pack_incarnations(self._incarnations)
        position = Position(
            self._last_applied, self._time_ms, incarnations, self._availability.packed()
        )
        self._runtime.take_snapshot(partial(self._write_sections, position, write_piece))

    def _write_sections(self, position: Position, write_piece: PieceWriter) -> None:
        """The session section, which is this object's, and the section of the machine."""
        section = self._runtime.section_writer(write_piece)
        sessions = partial(write_sessions, self._sessions, section.listeners)
        write_snapshot(position, sessions, section, write_piece)

    def install(self, data: bytes) -> None:
        """Put a snapshot in place of everything.

        CorruptLogError for bytes that are no snapshot, MachineMismatchError for one that this
        machine cannot read: then nothing has changed. When the machine's own install() raises,
        the executor refuses to continue (F23).
        """
        self._require_usable()
        section, machine_section = read_snapshot(data)
        records = read_sessions(section.sessions)
        sessions = {record.session: record.server_session for record in records}
        finish = self._runtime.prepare_section(machine_section, sessions)
        position = section.position
        self._sessions.replace(records)
        self._last_applied, self._time_ms = position.last_applied, position.time_ms
        self._gap_index = self._valid_from = 0
        self._incarnations = unpack_incarnations(position.incarnations)
        self._availability.replace(position.availability)
        self._runtime.restart(self._last_applied, self._time_ms)
        try:
            finish()
        except BaseException as error:
            self._broken = error
            self._runtime.reraise_signal(error)
            if isinstance(error, Exception):
                raise
            raise ApplicationError(  # SystemExit would end the process from any thread
                f"{type(self.machine).__name__}.install() raised {type(error).__name__}",
                hint="correct install(); the snapshot stays as it is",
            ) from error

    # ---- entries -------------------------------------------------------------------------

    def check(self, runs: list[Run]) -> None:
        """Read the commands of these entries as `apply` would, and do nothing with them.
        MachineMismatchError for the first one that the machine cannot read."""
        self._runtime.begin_check()
        for run in runs:
            if run.kind == _COMMAND:
                self._runtime.check(run.first_index, run.payloads, self._skips)
        self._runtime.check_memory()

    def apply(self, runs: list[Run]) -> ApplyResult:
        """Apply entries last_applied + 1 and up, in order, and report what they did.

        runs: neighbouring entries; a gap in the log is a run of kind GAP. After a gap the state
        may lack what the missing entries did, until entry `valid_from` is applied (C22).
        """
        self._require_usable()
        self._replies, self._changes, self._rejected = [], [], []
        runtime = self._runtime
        runtime.begin_slice()
        try:
            for run in runs:
                for piece in cut_at(run, self._skips) if self._skips else (run,):
                    self._apply_run(piece)
            runtime.check_memory()
        except BaseException as error:
            self._broken = error
            if isinstance(error, MemoryError):
                raise runtime.shortage(error) from error
            raise
        finally:
            runtime.end_slice()
        return ApplyResult(
            self._last_applied,
            self._time_ms,
            self._replies,
            self._changes,
            self._rejected,
            runtime.next_due_ms,
            runtime.take_releases(),
            self._sessions.unacked_nbytes(),
        )

    def _require_usable(self) -> None:
        if self._broken is not None:
            raise InvariantError(
                f"the state machine stopped at entry {self._last_applied + 1} "
                f"({type(self._broken).__name__}); nothing is applied after it"
            ) from self._broken

    def _apply_run(self, run: Run) -> None:
        first, end, runtime = run.first_index, run.end, self._runtime
        if first != self._last_applied + 1 or end <= first:
            raise self._out_of_order(run)
        runtime.begin_entry(first, is_skipped=first in self._skips)
        if run.time_ms > self._time_ms:  # log time never decreases (I19)
            self._time_ms = run.time_ms
            runtime.advance_time(run.time_ms)
        if run.kind == _COMMAND:
            self._apply_commands(run)
        elif run.kind == _GAP:
            self._gap_index = first
            self._valid_from = max(self._valid_from, run.valid_from)
        else:
            require(len(run.payloads) == 1, "a run of entries that are no commands", kind=run.kind)
            self._apply_system(run.kind, first, run.payloads[0])
        runtime.end_entry()
        self._last_applied = end - 1

    def _out_of_order(self, run: Run) -> InvariantError:
        return InvariantError(
            f"an entry is applied out of order: {run.first_index} ({len(run.payloads)} entries) "
            f"after {self._last_applied}"
        )

    # ---- queries -------------------------------------------------------------------------

    def query(self, queries: list[MachineQuery]) -> list[QueryAnswer]:
        """Answer queries from the state as it is: index last_applied."""
        return self._runtime.query(queries, self._last_applied, self._time_ms)

    # ---- commands ------------------------------------------------------------------------

    def _apply_commands(self, run: Run) -> None:
        """At most once each, in sequence (I17, I18); a gap or an ended session has no effect."""
        record = self._sessions.get(run.session)
        first, payloads, index = run.first_sequence, run.payloads, run.first_index
        if record is None or (first > record.sequence + 1 and not self._may_jump(record, index)):
            if record is None:
                self._release_tracker.release_without_effect(index, len(payloads))
            self._rejected += [
                (run.session, first + offset, index + offset) for offset in range(len(payloads))
            ]
            return
        time_ms = self._time_ms
        known = record.sequence + 1 - first
        if known > 0:
            # In a cleaned log they are only known while that entry is there.
            self._require_snapshot(record, record.newest_index)
            last = first + min(known, len(payloads)) - 1
            self._replies += record.cached_replies(first, last, time_ms)
            first, payloads, index = last + 1, payloads[known:], index + known
        if payloads:
            for count, body in self._runtime.perform(record.server_session, index, payloads):
                last_index = index + count - 1
                reply = RunReply(run.session, first, count, index, last_index, time_ms, body)
                record.add_reply(reply)
                self._replies.append(reply)
                first, index = first + count, index + count
        if run.acked > record.claimed:
            record.claim_acked(run.acked, run.end - 1)
        elif record.claimed > record.acked_sequence:
            record.acknowledge()
        if record.session_releases:
            self._release_tracker.recheck(record)

    def _may_jump(self, record: SessionRecord, index: int) -> bool:
        """Whether a gap in the log explains missing sequences at entry `index` (C18).

        What the gap took lies below its `valid_from`, and so does what made up for it.
        """
        return record.newest_index < self._gap_index and index <= self._valid_from

    def _require_snapshot(self, record: SessionRecord, index: int) -> None:
        if index != record.session:
            self._release_tracker.require_snapshot(record, index)

    def cached_replies(
        self, session: int, first_sequence: int, last_sequence: int, nbytes_max: int = 0
    ) -> list[RunReply]:
        """Replies to commands that were applied before, again; with `nbytes_max`
        the first of them, about so many bytes and at least one.

        Empty when the session is not open or nothing of the range was applied."""
        record = self._sessions.get(session)
        if record is None:
            return []
        last = min(last_sequence, record.sequence)
        if last < first_sequence:
            return []
        return [record.cached_reply(first_sequence, last, self._time_ms, nbytes_max)]

    # ---- everything that is not a command ------------------------------------------------

    def _apply_system(self, kind: int, index: int, payload: bytes) -> None:
        self._runtime.clear_operation()
        match kind:
            case EntryKind.TICK:
                pass  # its time was all it had to say
            case EntryKind.NOOP:
                for record in self._sessions:  # everybody gets a whole timeout (I19)
                    record.mark_active(index, self._time_ms)
                    if record.session_releases:
                        self._release_tracker.recheck(record)
            case EntryKind.REGISTER:
                self._register(index, *envelope.decode_register(payload))
            case EntryKind.KEEP_ALIVE:
                self._keep_alive(index, *envelope.decode_keep_alive(payload))
            case EntryKind.CLOSE:
                session = envelope.decode_close(payload)
                ended = self._sessions.get(session)
                if ended is None:
                    self._rejected.append((session, 0, index))
                else:
                    self._end(ended, index, expired=False)
            case EntryKind.EXPIRE:
                session, active_index = envelope.decode_expire(payload)
                idle = self._sessions.get(session)
                if session == envelope.EVERY_SESSION:  # C46
                    for record in list(self._sessions):
                        self._end(record, index, expired=True)
                elif idle is None:
                    pass
                elif idle.active_index <= active_index:  # C25
                    self._end(idle, index, expired=True)
                else:  # or a cleaned log would let it expire
                    self._require_snapshot(idle, idle.active_index)
            case EntryKind.INCARNATION:
                self._record_incarnation(*envelope.decode_incarnation(payload))
            case EntryKind.CONFIGURATION:
                # Who is a member is the core's business; the state only forgets who is none.
                configuration = decode_configuration(payload, f"entry {index}")
                members = {each.member for each in configuration.members}
                self._availability.retain(members, self._release_tracker)
            case EntryKind.AVAILABILITY:
                member, is_available = envelope.decode_availability(payload)
                is_needed = index == self._release_tracker.snapshot_only_index
                policy = Release.UNKNOWN if is_needed else Release.ANY
                row = AvailabilityRow(index, is_available, self._time_ms, policy)
                self._changes.append(self._availability.record(member, row, self._release_tracker))
            case _:
                unreachable("an entry of this kind cannot be applied", kind=kind)

    def _register(self, index: int, client_id: str, timeout_ms: int) -> None:
        old = self._sessions.of_client(client_id)
        if old is not None:  # one session a client
            self._end(old, index, expired=True)
        record = SessionRecord(index, client_id, timeout_ms, self._time_ms)
        self._sessions.open(record)
        self._changes.append(SessionOpened(index, client_id, timeout_ms, self._time_ms))
        self._runtime.session_opened(record.server_session)

    def _keep_alive(self, index: int, session: int, acked_sequence: int) -> None:
        record = self._sessions.get(session)
        if record is None:
            self._release_tracker.release_without_effect(index, 1)
            self._rejected.append((session, 0, index))
            return
        record.mark_active(index, self._time_ms)
        record.claim_acked(acked_sequence, index)
        self._release_tracker.keep_alive(record, index)
        self._release_tracker.recheck(record)
        self._changes.append(SessionKeptAlive(session, index, self._time_ms))

    def _end(self, record: SessionRecord, index: int, *, expired: bool) -> None:
        self._sessions.remove(record, SessionState.EXPIRED if expired else SessionState.CLOSED)
        self._changes.append(SessionEnded(record.session, expired, index))
        self._runtime.session_ended(record.server_session, expired=expired)
        self._release_tracker.recheck(record)

    def _record_incarnation(self, member: int, incarnation: int) -> None:
        if member not in self._incarnations:  # the first one holds for ever (C16)
            self._incarnations[member] = incarnation
            self._changes.append(IncarnationRecorded(member, incarnation))


def _ignore(piece: bytes | memoryview) -> None:
    """Takes the pieces of a snapshot that is made only to learn whether it can be."""
