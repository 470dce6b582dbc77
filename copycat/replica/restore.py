"""How a member starts: with its newest snapshot, with the log behind that, and with its promises.

First it is checked that the machine can read both (`install_newest`, `check_log`). Nothing is
applied then, and nothing on the disk is changed. So a member whose code does not fit its log has
not voted, not appended and not led when it stops, and everything is as it was when the code that
fits is started.
Then `restore` makes state and log agree, and `core_of` and `clock_of` build core and clock over
them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from copycat.errors import ConfigurationError, CorruptLogError, StorageError
from copycat.machine.session_executor import SessionExecutor
from copycat.raft.core import Raft
from copycat.raft.initial_state import InitialState
from copycat.raft.term_index import TermIndex
from copycat.replica.known_configurations import KnownConfigurations
from copycat.replica.log_clock import LogClock, last_time_ms
from copycat.replica.members import Handshake, MemberTable, logged_incarnations
from copycat.replica.options import MemberStores, ReplicaOptions
from copycat.storage.interface import ReplicaLog
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import NO_ENTRY, EntryId

__all__ = [
    "SnapshotSource",
    "check_log",
    "clock_of",
    "continues_from",
    "core_of",
    "handshake_of",
    "install_newest",
    "restore",
    "source_of",
]

_READ_NBYTES = 1 << 20


@runtime_checkable
class SnapshotSource(Protocol):
    """What an executor must offer: its whole state as bytes, and back (I12)."""

    def write_snapshot(self, sink: Callable[[bytes | memoryview], None]) -> None:
        """Sessions, replies, timers and the user's state, between two applies, piece by piece.
        SerializationError says why it cannot be a snapshot now."""
        ...

    def install(self, data: bytes) -> None:
        """Replace all of it by what `write_snapshot` gave, here or on another member."""
        ...


def source_of(executor: object) -> SnapshotSource | None:
    """The executor as a source of snapshots, if it is one."""
    return executor if isinstance(executor, SnapshotSource) else None


def install_newest(store: SnapshotStore, executor: SessionExecutor) -> EntryId:
    """Install the newest good snapshot, once; the entry that it covers, NO_ENTRY without one.

    What `SessionExecutor.install` raises. `restore` finds it installed, and does not do it again.
    """
    newest = store.look()
    if newest is None:
        return NO_ENTRY
    snapshot, data = newest
    if executor.last_applied != snapshot.entry.index:
        executor.install(data)
    return snapshot.entry


def check_log(log: ReplicaLog, base: EntryId, executor: SessionExecutor) -> bool:
    """Have the machine read all commands that a start would replay, committed or not.

    base: what the snapshot covers that was installed. MachineMismatchError for the first command
    that cannot be read. False when the log itself could not be read to its end.
    """
    if base.index < log.before.index:
        return False  # nothing replays a log that lacks its front: it is repaired, or refused
    if base != NO_ENTRY and not continues_from(log, base):
        return True  # such a log begins anew behind the snapshot
    at, end = max(log.first_index, base.index + 1), log.last_index + 1
    nbytes = _READ_NBYTES
    while at < end:
        try:
            batch = log.read(at, end, nbytes)
        except StorageError:
            if nbytes == 1:  # the open for writing reports it, or repairs it
                return False
            nbytes = 1  # as far as it can be read, one by one
            continue
        first, at = at, batch.span.end
        executor.check(batch.runs(first, at))
    return True


def restore(
    store: SnapshotStore | None, replica_log: ReplicaLog, executor: SessionExecutor
) -> EntryId:
    """Before a member starts: install the newest good snapshot; the entry that it covers.

    A log that does not hold that entry is behind the snapshot, or in conflict with it: it
    begins anew right after it (C24). CorruptLogError when neither snapshots nor log reach back
    to what the other lacks (F17): a log with gaps is no history without the snapshot that they
    were made under, for what was released below it was forgotten at a restart, and stayed.
    """
    newest = store.newest_good() if store is not None else None
    front = replica_log.before
    if newest is None:
        if front != NO_ENTRY:
            raise CorruptLogError(
                f"the log begins at {replica_log.first_index}, and no snapshot that can be read"
                " covers what was before",
                index=front.index,
            )
        if store is not None and store.bad:
            if replica_log.valid_from:
                raise CorruptLogError(
                    f"no snapshot can be read ({len(store.bad)} are bad), and the log from"
                    f" {replica_log.first_index} on has gaps up to {replica_log.valid_from}:"
                    " from that log, deleted keys may come back",
                    index=replica_log.first_index,
                )
            # The whole log is the state now. What is deleted from here on needs none of the bad
            # ones, so the next start must not find them.
            store.set_aside()
        return NO_ENTRY
    snapshot, data = newest
    entry = snapshot.entry
    if entry.index < front.index:
        raise CorruptLogError(
            f"the newest snapshot that can be read covers {entry.index} entries, and the log"
            f" begins at {replica_log.first_index}",
            index=entry.next,
        )
    source = source_of(executor)
    if source is None:
        raise ConfigurationError(
            f"the directory holds a snapshot of {entry.index} entries, and this state machine"
            " cannot install it",
            hint="start the member with the state machine that took the snapshot",
        )
    if executor.last_applied != entry.index:  # else the start has installed it to look at it
        source.install(data)
    if not continues_from(replica_log, entry):
        replica_log.reset(entry)
        ticket = replica_log.begin_sync()
        ticket.run()
        replica_log.end_sync(ticket)
    return entry


def continues_from(replica_log: ReplicaLog, entry: EntryId) -> bool:
    """Whether the log contains this entry, or begins right after it, and so continues from it."""
    terms = TermIndex(
        replica_log.term_runs(),
        replica_log.first_index,
        replica_log.last_index,
        replica_log.before,
    )
    return terms.term_at(entry.index) == entry.term


def core_of(
    options: ReplicaOptions,
    stores: MemberStores,
    known: KnownConfigurations,
    covered: int,
    seed: int,
) -> Raft:
    """The core over the log and the hard state as they were opened.

    covered: index of the snapshot that was installed; 0 for none.
    """
    log, hard_state, lost_entries = stores.log, stores.hard_state, stores.lost_entries
    return Raft(
        options.own_id,
        known.first,
        options.raft,
        InitialState(
            current_term=hard_state.current_term,
            voted_for=hard_state.voted_for,
            term_runs=log.term_runs(),
            first_index=log.first_index,
            last_index=log.last_index,
            before=log.before,
            snapshot_index=covered,
            oldest_snapshot_index=0 if stores.snapshots is None else stores.snapshots.oldest_index,
            configurations=known.rows,
            stored_configuration=known.stored,
            committed_configuration=known.committed,
            fresh=stores.fresh,
            lost=stores.lost,
            lost_upto=NO_ENTRY if lost_entries is None else lost_entries.lost_upto,
            is_older_copy=lost_entries is not None and lost_entries.is_regressed,
        ),
        seed=seed,
    )


def clock_of(
    raft: Raft, stores: MemberStores, time_ms: int, now_ms: int, wall_ms: int
) -> LogClock:
    """Log time continues from the last entry, or from the machine's time, which is `time_ms`."""
    file = stores.time_file
    return LogClock(
        raft,
        now_ms,
        wall_ms,
        max(time_ms, last_time_ms(stores.log)),
        written_note=None if file is None else file.read(),
    )


def handshake_of(members: MemberTable, options: ReplicaOptions, stores: MemberStores) -> Handshake:
    """Builds the judge of peers, from the options and from what the log says of incarnations."""
    members.starts, members.greeted_places[members.member] = stores.starts, options.place
    return Handshake(
        members,
        cluster_name=options.cluster_name,
        founders=options.members,
        incarnation=stores.incarnation,
        logged=logged_incarnations(stores.log, tuple(members)),
        skips=options.skips,
    )
