"""What a member that is fed asks, and what a feeder answers (C26, C27).

The asker asks, and the feeder remembers nothing that a restart of it would miss. Each answer
repeats the numbers of its question. What is fed is committed at the feeder, and so it is true in
every term: an answer names the term of the feeder, and not who leads.
"""

from __future__ import annotations

import enum

import msgspec

from copycat.types import NO_ENTRY, EntryId, Span

__all__ = [
    "FedEntries",
    "FedSnapshot",
    "FeedAnswer",
    "FeedAnswerKind",
    "FeedRequest",
    "FeedRequestKind",
    "FeedingMessage",
]


class FeedRequestKind(enum.IntEnum):
    """What is asked for."""

    ENTRIES = 1
    """Entries after `last`."""
    SNAPSHOT = 2
    """Bytes of a snapshot of at least `min_index`, from `offset` on."""
    STILL_HERE = 3
    """Nothing now: the asker's disk or its machine is busy. The feeder keeps what it will need."""


class FeedRequest(msgspec.Struct, frozen=True):
    """One question.

    stream: of the asker; the questions of one stream ask for what follows each other, so several
        are in flight at a time. number: of the question in its stream, from 1 on.
    last: the entry after which the stream begins: the asker's last one, or an earlier one.
    configuration: names the newest committed configuration that the asker heard of. since: the
        asker's own in it (C30). takes_gaps: whether gaps may stand for what the asker lacks.
    """

    kind: FeedRequestKind
    stream: int
    number: int
    last: EntryId
    configuration: EntryId
    since: int
    takes_gaps: bool
    compresses: bool = False
    """Whether the asker wants the entries of this answer compressed."""
    min_index: int = 0
    """SNAPSHOT: the snapshot covers this much at least."""
    snapshot: EntryId = NO_ENTRY
    """SNAPSHOT: the last entry of the file of which bytes are here already; NO_ENTRY: of none."""
    offset: int = 0


class FedEntries(msgspec.Struct, frozen=True):
    """Entries of `span` after `prev`, all committed at the feeder. The frames follow as they lie
    in its log, or compressed by LZ4."""

    term: int
    """Of the feeder."""
    stream: int
    number: int
    prev: EntryId
    span: Span
    commit_index: int
    """Of the feeder."""
    raw_nbytes: int = 0
    """Bytes of the frames when they are compressed here; 0: they are not."""


class FeedAnswerKind(enum.IntEnum):
    """Why an answer brings no entries."""

    NOTHING_NEWER = 1
    """`entry` is the feeder's last committed one: the asker commits up to it, if it has it."""
    ASK_FROM = 2
    """`entry` is the feeder's newest committed one that is not above the asker's: ask from the
    newest there that is not above that."""
    SNAPSHOT_NEEDED = 3
    """Entries would not do: a snapshot of at least `entry.index` is needed (its term is 0)."""
    BUSY = 4
    """Later: the feeder takes a snapshot, or sends as many as it may at a time."""
    NOT_YET = 5
    """The feeder knows no right of the asker to be fed, or has no snapshot and can take none."""


class FeedAnswer(msgspec.Struct, frozen=True):
    """An answer without entries and without bytes."""

    term: int
    stream: int
    number: int
    kind: FeedAnswerKind
    entry: EntryId = NO_ENTRY


class FedSnapshot(msgspec.Struct, frozen=True):
    """Bytes of a snapshot file from `offset` on. (entry, nbytes, digest) name the file."""

    term: int
    """Of the feeder."""
    stream: int
    number: int
    entry: EntryId
    """The last entry that the snapshot covers."""
    nbytes: int
    """Of the whole file."""
    digest: bytes
    """SHA-256 of the state inside, 32 bytes."""
    offset: int


FeedingMessage = FeedRequest | FedEntries | FeedAnswer | FedSnapshot
