"""What a member recovered from its directory, which is all that its core begins with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from copycat.raft.configuration import Configuration
from copycat.types import NO_ENTRY, EntryId, MemberId, TermRun

__all__ = ["InitialState"]

_NOBODY = MemberId(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialState:
    """The hard state, the log and the snapshots of a member, all of it durable.

    The default values are those of an empty directory that is known to be new.
    """

    current_term: int = 0
    voted_for: MemberId = _NOBODY
    term_runs: Sequence[TermRun] = ()
    """The terms of the entries first_index .. last_index."""
    first_index: int = 1
    last_index: int = 0
    before: EntryId = NO_ENTRY
    """The entry just below `first_index`."""
    snapshot_index: int = 0
    """The last entry that the snapshot covers which was loaded, so it is committed; 0 for none."""
    oldest_snapshot_index: int = 0
    """The same of the oldest snapshot on the disk."""
    configurations: Sequence[Configuration] = ()
    """C35: those that the snapshots and the log hold, oldest first: the one in force at the oldest
    snapshot (the founders' without one, which may be left out), and that of each entry above."""
    stored_configuration: Configuration | None = None
    """The newest one that the directory keeps in a file of its own, committed or not. It counts
    while it is newer than those of the log: at level "memory" the log is empty, and a member that
    joins or is a reserve was given it by a leader."""
    committed_configuration: Configuration | None = None
    """The newest one that is known to be committed: in force at the snapshot that was loaded, or
    what the file says; None: nothing but the snapshot says so. A leader may have said it to an
    earlier process, while the log does not show how far it is committed."""
    fresh: bool = False
    """Whether the directory was empty, so that nobody knows whether it was wiped (C16)."""
    lost: bool = False
    """Whether acknowledged entries may be missing, nobody knows which, and the term was raised
    since (docs/decisions/0016)."""
    lost_upto: EntryId = NO_ENTRY
    """How far the log reached before the disk lost entries; NO_ENTRY if it lost none (C12)."""
    is_older_copy: bool = False
    """Whether `lost_upto` is there because the directory is an older copy of what it was, and not
    because of damage (F8)."""
