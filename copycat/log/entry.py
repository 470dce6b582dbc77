"""What a log hands out: its entries, and its files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from copycat.log._native import Batch

__all__ = ["Entry", "Segment", "entries_of", "make_entry"]


class Entry(NamedTuple):
    """One entry as it was appended."""

    index: int  # type: ignore[assignment]  # shadows tuple.index on purpose
    term: int
    data: bytes

    def view(self) -> memoryview:
        """The data, without a copy."""
        return memoryview(self.data)


make_entry = cast("Callable[[type[Entry], tuple[int, int, bytes]], Entry]", tuple.__new__)
# Builds an entry without the Python frame of its own constructor.


class Segment(NamedTuple):
    """One file of the log. Sizes in bytes, before compression; `last_index` is inclusive.

    `count` is of the entries that are there: what was let go is none.
    """

    id: int
    version: int
    first_index: int
    last_index: int
    size: int
    count: int  # type: ignore[assignment]  # shadows tuple.count on purpose
    is_sealed: bool
    release_count: int = 0
    """Entries of it that were released and are still there."""

    @property
    def is_compacted(self) -> bool:
        """Whether a compaction wrote it."""
        return self.version > 1


def entries_of(batch: Batch) -> Iterator[Entry]:
    """All entries of a batch; built without a Python call an entry, unless there are gaps."""
    span = batch.span
    indexes: Iterable[int] = range(span.first, span.end)
    if batch.has_gaps:
        indexes = (row[0] for row in batch.entries())
    rows = zip(indexes, repeat(span.term), batch.payloads())
    return map(make_entry, repeat(Entry), rows)
