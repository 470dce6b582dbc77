"""What one member of a cluster keeps on its disk.

A member must not forget whose directory it has, how it voted, and what it acknowledged. This
package opens all of that in the one safe order, recognizes what is missing or damaged, repairs
it where no promise is forgotten by the repair, and refuses to start otherwise. The entries
themselves are the business of the engine (`copycat.storage`); who may vote with what it has left
is the business of the core (`copycat.raft`).

Its objects:

* `MemberDirectory` (`directory.py`) is the directory, open and locked until it is closed. It
  gives the replica the identity, the hard state, the log, the snapshots and the markers.
* `Identity` (`identity.py`): cluster, address, founding members and incarnations, in two copies.
* `ConfigurationFile` (`configuration_file.py`): who the members are, where the log does not say so
  or is not there any more. `wipe.py` deletes the log of a member that became a reserve.
* `hard_state.py` reads and opens the current term and the vote, which are in two copies too.
* `UnsyncedAcks` and `LostEntries` (`markers.py`): small files that say which acknowledged entries
  the log may lack. The first stands while acknowledgements do not wait for the disk; the second
  records entries that damage destroyed and that a leader must send again.
* `LogScan` (`damage_scan.py`): everything that can be read in a damaged log, and the last entry
  that the log is known to have held.
* `LogRepair` (`repair.py`) cuts the log before the first unreadable entry, or after a snapshot
  that covers the damage. `recover.py` does what only an operator may ask for, offline.
* `verify.py` reads every byte of every file and lists the damage. It changes nothing.
* `BallastFile` (`ballast_file.py`): a file that is deleted when the disk is full, so that a
  manifest can still be written.
* `TimeFile` (`time_note.py`) keeps log time beside the wall clock; `skips.py` lists entries whose
  command an operator excluded; `holders.py` finds the process that has a directory locked.

What drives it: `MemberDirectory.open`, once at each start, in this order. It takes the lock and
completes a repair, or the deletion of a log, that a crash interrupted. It reads the identity and
compares it with what the program says. It reads the vote. It opens the log, and repairs it if it
cannot be opened. It writes the hard state again, raises the term where entries may be missing,
and writes the marker for acknowledgements without a sync. A first start makes the hard state,
then the log, then the identity, so that a directory without an identity never voted and never
acknowledged anything. After the start nothing here runs by itself: the replica calls what it
needs, and `close`.

What it promises:

* Every refusal leaves the directory as it was, byte for byte.
* A crash at any point of a start or of a repair leaves a directory that the next start can open.
* A member that lost entries knows it: it has a record of them on the disk before any file is cut,
  and a term above every term in which it acknowledged them.
* A damaged log is kept beside the repaired one. Nothing unreadable is ever deleted.

What it never does: it never decides about votes or commits, never talks to other members, never
repairs the log of a member without other members unless a snapshot covers the damage, and never
forgets a vote.

`docs/internals/recovery.md` explains how damage is told from a crash.
"""
