"""The laws that every simulated cluster is held to, from what is seen outside of its members.

What it is for
--------------
A fault in a seed is found only if something notices it. The checkers know what a correct cluster
does: they keep their own records of what was written, promised, committed and answered, and
compare each step of each member with these records. A law that is broken raises an
`InvariantError` that names the rule (docs/internals/rules.md) and the facts.

Its objects
-----------
* `log_history.LogHistory` records every entry that was ever appended anywhere, and what was
  committed. Two logs that agree on index and term agree on the content (I5).
* `disk_model.DiskModel`, one for each member, is what the member's directory must contain:
  entries, which of them survive a power cut, votes, snapshots and gaps. After each restart it is
  compared with what recovery found (I3, I10, I12, I24).
* `losses.Loss` is the part of a disk model that concerns lost data: what damage, or an older copy
  of the disk, took away from a member, and what the member must get back (C12, F8).
* `raft.RaftChecker` holds the laws of consensus: one leader in a term, one durable vote in a term,
  a commit only of what a majority has on its disks (I1 to I9).
* `sessions.SessionChecker` replays the committed log into a reference and compares every result,
  reply and state with it: each command takes effect once, and in order (I17 to I20).
* `linearizability.py` judges the recorded history of all clients (I14). It decides twice: once
from the indexes in the answers, and once by a search that only uses them to choose what it
  tries first.
* `compaction.CompactionLaws` judges each entry that a rewrite removed, and `compaction.Gaps` knows
  which entries of a log are gaps (I22, I23).
* `replay.check_replay` opens the disks of a finished seed once more and replays them: a compacted
  log must lead to the same state as the whole history (I20, I23).
* `log_time.ClockChecker` compares log time with the time of the simulated world (I19, C25).

The loop that drives it
-----------------------
`copycat/sim/cluster.py` builds one set of checkers for a seed and is the observer of every host.
The host calls it when a process starts, when a frame leaves or arrives, when entries were applied,
and after every event on a member; the instrumented stores call the disk model at every write and
every sync. A step that changed nothing costs one comparison. Checks of a whole history run at the
end of the seed (`copycat/sim/runner.py`).

What it promises
----------------
Each law has a test in which it fires, so a checker that notices nothing any more is found. The
records do not depend on the code under test: terms, checksums and results are taken from the
bytes that left a member, or computed by the reference.

What it never does
------------------
A checker never changes a member, never draws a random number and never takes a member's word for
what the checker can compute. It does not forgive either: where a law has an exception, such as a
member that lost data and knows it, the exception is modelled (`losses.py`), not skipped.
"""
