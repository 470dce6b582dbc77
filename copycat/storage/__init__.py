"""Entries at rest: the engine below every log, with no thread and no clock of its own.

A log is a directory of segments: files of frames, each frame one entry with its checksum. A
manifest names the segments that are the log. What was written is never overwritten: a suffix is
truncated, a prefix trimmed and a segment compacted by writing new files and replacing the
manifest. The engine is written in C++ (`csrc/`); this package is its thin shim and what belongs
beside it. It serves both the public `Log` (`copycat.log`) and a member (`copycat.member`).

Its objects:

* `_native` is the extension: `NativeLog`, the log itself; `Batch`, frames of one term that are
  verified once and shared by disk and network; `HardState`, the term and the vote; `Env`, the file
  system, and `FaultEnv`, a disk in memory that loses power, fills up and returns errors.
* `ReplicaLog` and `HardStateStore` (`interface.py`) say in types and sentences what a log must do.
  Whatever passes `tests/log/contract.py` may stand in for the native one.
* `MemoryLog` (`memory.py`, with `memory_rewrite.py` for its compaction) is the same contract in
  plain Python, for tests and the simulator. `InMemoryLog` (`in_memory.py`) is the log of a member
  whose level is "memory".
* `RecentBatches` keeps the newest batches, so that followers and tails need not read the disk.
  `BatchReader` in the same file reads a member's log through it.
* `compaction.py` decides when a compaction runs (`CompactionScheduler`), and which segments it
  rewrites (`plan_minor`, `plan_major`). It is arithmetic over statistics and touches no file.
* `segment_files.py` says when the next segment is prepared, and deletes obsolete files.
* `SnapshotStore` and `snapshot_file.py` write, verify, receive and delete snapshots.
* `disk_format.py` and `SegmentReader` (`reader.py`) read every structure on the disk a second
  time, written apart from the C++ code, so that tests and tools can check one against the other.
  `follow.py` reads on in a log that another process is writing.

What drives it: whoever owns the log. An append puts frames behind the last one and is not durable
yet. `begin_sync` makes a ticket; `run` of the ticket does the slow part in any thread; `end_sync`
takes the result over. A rewrite has the same three steps: `rewrite` freezes what is to be
deleted, `run` copies, and `install` exchanges the list of segments. The thread that owns the log
is the only one that changes which segments it has.

What it promises:

* What a finished sync covered is there after any crash, or its loss is found and named.
* Bytes that were durable and cannot be read now are damage (`CorruptLogError`), never an end of
  the log. Bytes that were never durable are dropped, and kept aside for whoever wants to look.
* A batch is appended completely or not at all; so is every change of the set of segments.
* After a failed write or sync the log accepts nothing more.

What it never does: it never starts a thread, never reads a clock, never repairs damage, never
overwrites a byte of an entry, and knows nothing of members, votes or sessions.

The extension itself is imported in this package, in `copycat.member` and in `copycat.log` only.
Other packages take `Batch`, `Env` and the encoders from here, so that a missing build is reported
by one sentence instead of an import error of a compiled module.
"""

from __future__ import annotations

from importlib.machinery import PathFinder

if PathFinder.find_spec("copycat.storage._native", __path__) is None:
    import platform

    raise ImportError(
        f"copycat's extension is not built for this Python ({platform.python_version()}, "
        f"{platform.machine()}) in {__path__[0]}; run `make build` in a clone, or "
        "`pip install .` to install it",
        name="copycat.storage._native",
    )

from copycat.storage._native import (
    Batch,
    Env,
    FaultEnv,
    allocation_refusals,
    check_commands,
    encode_batch,
    encode_gap,
    watch_allocations,
)

__all__ = [
    "Batch",
    "Env",
    "FaultEnv",
    "allocation_refusals",
    "check_commands",
    "encode_batch",
    "encode_gap",
    "watch_allocations",
]
