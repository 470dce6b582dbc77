"""The log that a program opens by itself: `Log`, without a cluster.

`Log` is the public face of the native log for one process: append, read, follow, release and
compact entries of bytes. It adds to the engine (`copycat.storage`) what a program expects of an
object that it shares between its threads: locks, background threads, checked arguments, and
errors that say what to do. A member of a cluster does not use this package. It uses the engine
through `copycat.member` and the replica, because its one loop thread makes locks unnecessary.

Its objects:

* `Log` opens a directory, owns the native log and the lock that every verb takes, and starts the
  threads below when they are first needed. It is a sequence of entries as well: `log[index]`,
  slices and iteration.
* `Entry` and `Segment` (`entries.py`) are what a log returns. `encode_payloads` in the same file
  cuts many payloads into batches for the native encoder.
* `Tail` (`tail.py`) follows the log from another position in the same process, or from another
  process: it waits for entries behind the last one that it returned.
* `Compactor` (`compactor.py`) runs a compaction on demand; `CompactionThread` beside it runs one
  in a thread when `copycat.storage.compaction.CompactionScheduler` says that one is due, which
  decides that for a member too.
* `FileMaintenance` (`background.py`) allocates the next segment before it is needed, and deletes
  files that no manifest names. `SyncTimer` in the same file syncs by interval (durability
  "interval").
* `indexes.py` checks what a caller gives as an index, a slice or a term. `options.py` makes the
  settings of a log out of keyword arguments.

What drives it: there is no loop. Each call takes the lock, calls the native log, and releases
the lock. An append with durability "fsync" waits for a sync. Threads that wait at the same time
share one sync, so that the cost of a sync is divided among them. After an append `Log` asks
`FileMaintenance` whether it has something to do, and after a release `CompactionThread`; both
begin a thread if they have, and the caller does not wait for it.

What it promises:

* An entry whose append returned is durable to the degree that the setting `durability` says.
  Entries have ascending indexes without a missing one, except where `skip` or a compaction left
  a gap.
* A batch is appended completely or not at all, even when the disk is full.
* After a failed write or sync the log refuses further appends (`LogPoisonedError`), because
  nobody can know what the disk holds. Reads continue.
* Every verb may be called from any thread. A signal handler that raises leaves no lock taken.
* A log that a fork carried into a child process refuses every call there.

What it never does: it never overwrites or repairs damaged bytes, never changes an entry that was
appended, never starts a thread in a log that is only read, and never imports `asyncio`.
"""
