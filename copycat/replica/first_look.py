"""Before a member starts: can its machine read what its directory holds?

Nothing is applied, and nothing on the disk is changed. So a member whose code does not fit its
log has not voted, not appended and not led when it stops: the code that fits finds everything as
it was.
"""

from __future__ import annotations

from copycat.errors import StorageError
from copycat.machine.session_executor import SessionExecutor
from copycat.replica.snapshot_taker import goes_on_from
from copycat.storage.interface import ReplicaLog
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import NO_ENTRY, EntryId

__all__ = ["check_log", "install_newest"]

_READ_NBYTES = 1 << 20


def install_newest(store: SnapshotStore, executor: SessionExecutor) -> EntryId:
    """Install the newest good snapshot, once; the entry that it covers, NO_ENTRY without one.

    What `SessionExecutor.install` raises. `restore` finds it installed, and does not do it again.
    """
    found = store.look()
    if found is None:
        return NO_ENTRY
    snapshot, data = found
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
    if base != NO_ENTRY and not goes_on_from(log, base):
        return True  # such a log begins anew behind the snapshot
    at, end = max(log.first_index, base.index + 1), log.last_index + 1
    nbytes = _READ_NBYTES
    while at < end:
        try:
            batch = log.read(at, end, nbytes)
        except StorageError:
            if nbytes == 1:  # whoever opens it to write says so, or repairs it
                return False
            nbytes = 1  # as far as it can be read, one by one
            continue
        first, at = at, batch.span.end
        executor.check(batch.runs(first, at))
    return True
