"""One member of a cluster, whole and synchronous.

The core (`copycat.raft`) decides, the log (`copycat.storage`) keeps entries, and the executor
(`copycat.machine`) applies them. None of the three knows the others. A replica connects them: it
takes what arrived, steps the core, executes the effects that the core answered with, hands
committed entries to the executor, and answers clients. It has no thread, no socket, no clock and
no random numbers of its own. All of those belong to its host, so the same code runs in a server
process and in the simulator.

Its objects:

* `Replica` receives frames, answers of threads and wishes of the application, and has the turn.
* `Inbox` is the queue of all that waits for the next turn. It is also the only way to a thread.
* `Driver` steps the core and executes effects, in the order in which the core listed them.
* `SyncScheduler` turns the core's wishes to make something durable into tickets for the host.
* `RequestRouter` decides for each request whether this member serves it, forwards it to the
  leader, or refuses it. `ProposalQueue` holds what the leader is to append, `Queries` the queries
  that wait for their read index, and `SessionIndex` what is known of the open sessions.
* `Connections` knows where the client of a session is connected, and delivers results there;
  `Replies` sends single answers and refusals.
* `Applier` cuts slices of committed entries for the executor, one at a time.
* `EntrySender` makes AppendEntries messages, and `PeerInbound` decodes what peers send.
* `MemberTable` says who the members are and where they listen, and `Handshake` judges whether a
  peer is one of them. `Membership` has links made and ended when the members change, and
  `ConfigurationStore` writes each change into the directory.
* `SnapshotTaker`, `SnapshotSender` and `SnapshotReceiver` take, send and install snapshots;
  `restore` installs the newest one at a start, before the replica is built.
* `CompactionRunner` starts the rewriting of segments. `Maintenance` is what a member does by
  the clock, and `DiskSpace` what it does about a full disk. `RecoveryStatus` reports what a
  damaged or restored directory lacks, and `Outage` why a client cannot be served.
* `Host` is the protocol of what differs between a real process and a simulated one.

The loop that drives it, as a host writes it:

    while replica.stopped is None:
        wait until the host was woken, or until replica.deadline_ms()
        replica.turn(boot_time_ms(), wall_time_ms())
        write what was queued for sockets

`Replica.turn` moves the clocks, takes completed syncs and saves, makes the calls in the inbox,
proposes what clients sent, asks for read indexes, does what is due by the clock, and starts the
next save, sync and slice. All that arrived since the last turn becomes one batch, one write to
each peer and one sync. So a busy member does more in each turn, and not more turns.

What it promises:

* An effect is executed completely before the next one, and an event that follows from an effect
  is stepped after all effects of the event before. Nothing is re-entrant.
* Every answer of a thread is taken in a turn. An exception in a turn, in a thread, or in what
  follows a thread's answer ends in `Replica.failed`: the member stops, and neither acknowledges
  nor answers anything more. It is restarted from its disk.
* Nothing is acknowledged to a peer or to a client before the host said that it is durable,
  except in the two weaker modes of durability, which say so in their documentation.
* The user's code runs in the apply thread only, and never at the same time as itself.

What it never does: it never blocks, never starts a thread, never reads a clock, never draws a
random number, and never decides anything that Raft decides.

`docs/internals/replica.md` follows one command through these objects.
"""

from __future__ import annotations

__all__: list[str] = []
