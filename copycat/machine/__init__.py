"""The state machine's package: committed entries go in, replies and a new state come out.

What it is for
--------------
A replica gives every committed entry to this package exactly once and in the order of the log.
The package finds out which commands take effect, calls the user's state machine for them,
remembers the replies, and says which entries the log no longer needs. It has no clock, no
thread, no file and no socket: log time comes with the entries, random numbers come from an
entry's index, so all members that applied the same entries hold the same state (I20).

Its objects
-----------
* `SessionExecutor` (`session_executor.py`) decides. It owns the session table, the reply cache
  and the entries of the system: register, keep-alive, close, expire, no-op, tick, incarnation.
* `SessionTable`, `SessionRecord` (`sessions.py`): for each open session the highest sequence that
  took effect, the replies that its client has not acknowledged, and the newest entry that
  showed the client alive.
* `MachineRuntime` (`machine_runtime.py`) carries out what the executor decided. It holds one
  machine's handlers, keys, timers and queries, and its part of a snapshot.
* `StateMachine`, `command`, `query`: what a user derives from and decorates. `Handlers` maps each
  operation to its method, `OperationReader` (`reading.py`) decodes operations, `UserCode` calls
  the user's code and turns what it raises into a result, or into the end of the member.
* `KeyTable` and `Timers`: which entry is the newest one of each key, when keys expire, and
  which callbacks are scheduled at which log time.
* `ReleaseTracker`: which entries were released, under which `Release` policy, and what holds a
  released entry back for now (C19 to C21).
* A snapshot has two sections: `session_section.py` is the executor's, `MachineSections`
  (`machine_section.py`, with `StateEncoder` and `StateDecoder`) the machine's; `snapshot.py` is
  the layout of the bytes.

The loop that drives it
-----------------------
The replica's apply thread calls, for one slice of entries after another:

    result = executor.apply(runs)          # neighbouring entries, last_applied + 1 and up
    result.replies                         # to send, and to hold until they are acknowledged
    result.changes                         # sessions that were opened, kept alive, ended
    result.releases                        # entries that the log may delete one day
    executor.query(queries)                # between two slices: reads change nothing
    executor.write_snapshot(write_piece)   # between two slices: all of it is of one index

Inside `apply`, an entry of later log time first fires the keys and callbacks that are due. Then
the entry itself takes effect, sessions move on, and what was released reaches the tracker.

What it promises
----------------
* Each (session, sequence) takes effect at most once and in order (I17, I18), whatever a client
  sent twice, and whichever member led.
* Replies, digests and snapshots are equal byte for byte on all members, however entries were
  cut into runs and slices.
* An exception of the user's code is the result of that command and nothing else (F23); only a
  refused allocation, or a signal of the process, stops the member.

What it never does
------------------
It never asks for the time, draws an unseeded number, or looks at anything but the log. It never
deletes an entry: it releases entries, and the log decides when they may be deleted. It never
runs two of its methods at once: the caller gives it one thread at a time.

Begin with `SessionExecutor.apply`; docs/internals/sessions.md tells the life of a session.
"""

from __future__ import annotations

from copycat.machine.commit import Commit
from copycat.machine.context import Clock, StateMachineContext, StateMachineExecutor
from copycat.machine.machine import StateMachine
from copycat.machine.operation_methods import OperationMethod, command, query
from copycat.machine.sessions import ServerSession, Sessions
from copycat.machine.snapshot_io import SnapshotReader, Snapshottable, SnapshotWriter
from copycat.machine.timers import Scheduled

__all__ = [
    "Clock",
    "Commit",
    "OperationMethod",
    "Scheduled",
    "ServerSession",
    "Sessions",
    "SnapshotReader",
    "SnapshotWriter",
    "Snapshottable",
    "StateMachine",
    "StateMachineContext",
    "StateMachineExecutor",
    "command",
    "query",
]
