"""What a log hands out: its entries, and its files."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, repeat
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

from copycat.errors import EntryTooLargeError, SerializationError, require
from copycat.storage._native import encode_bytes
from copycat.types import EntryKind

if TYPE_CHECKING:
    from copycat.storage._native import Batch
    from copycat.types import SegmentStats

__all__ = [
    "Data",
    "Entry",
    "Item",
    "Segment",
    "check_sizes",
    "encode_payload",
    "encode_payloads",
    "entries_of",
    "make_entry",
    "segment_of",
]


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

    `count` is of the entries that are there; deleted entries are not counted.
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


def segment_of(stats: SegmentStats) -> Segment:
    """What a log shows of one of its files."""
    return Segment(
        stats.id,
        stats.version,
        stats.first_index,
        stats.last_index,
        stats.nbytes,
        stats.entries,
        stats.is_sealed,
        stats.released,
    )


def entries_of(batch: Batch) -> Iterator[Entry]:
    """All entries of a batch; built without a Python call an entry, unless there are gaps."""
    span = batch.span
    indexes: Iterable[int] = range(span.first, span.end)
    if batch.has_gaps:
        indexes = (row[0] for row in batch.entries())
    rows = zip(indexes, repeat(span.term), batch.payloads())
    return map(make_entry, repeat(Entry), rows)


_KIND = int(EntryKind.DATA)
_ENTRIES_MAX = 4096
BYTES_MAX = 4 << 20

require(sys.byteorder == "little", "copycat's formats are little-endian")

Data: TypeAlias = bytes | bytearray | memoryview
"""What an entry is made of; its bytes are copied before the call returns."""

Item = tuple[int, int, int, int, int, bytes]
"""What `encode_batch` takes: kind, three session fields, count, body."""


def encode_payloads(items: Iterable[Data]) -> Iterator[Item]:
    """Cut `items` to bodies of at most 4,096 entries and about 4 MiB, for one batch each."""
    if isinstance(items, bytes | bytearray | memoryview | str):
        raise SerializationError(
            f"append_many takes many entries, and was given one {type(items).__name__}",
            hint="append(data), or append_many([data])",
        )
    iterator = iter(items)
    while part := list(islice(iterator, _ENTRIES_MAX)):
        whole = encode_bytes(part, BYTES_MAX)
        if whole is not None:
            yield (_KIND, 0, 0, 0, len(part), whole)
            continue
        lengths = _lengths(part)
        if sum(lengths) <= BYTES_MAX:
            yield _encoded(lengths, part)
            continue
        begin, total = 0, 0
        for position, length in enumerate(lengths):
            total += length
            if total > BYTES_MAX and position > begin:
                yield _encoded(lengths[begin:position], part[begin:position])
                begin, total = position, length
        yield _encoded(lengths[begin:], part[begin:])


def encode_payload(data: Data) -> Item:
    """One entry as a body."""
    if type(data) is bytes:
        return (_KIND, 0, 0, 0, 1, len(data).to_bytes(4, "little") + data)
    return next(encode_payloads((data,)))


def check_sizes(item: Item, limit: int) -> None:
    """EntryTooLargeError when an entry of it has more than `limit` bytes."""
    count, body = item[4], item[5]
    if len(body) <= limit:
        return
    longest = max(memoryview(body)[: 4 * count].cast("I"))
    if longest > limit:
        raise EntryTooLargeError(
            f"an entry of {longest} bytes is above max_entry_size ({limit})",
            size=longest,
            limit=limit,
        )


def _encoded(lengths: array[int], part: list[Data]) -> Item:
    try:
        return (_KIND, 0, 0, 0, len(part), b"".join((lengths, *part)))
    except TypeError as error:
        raise _refusal(part) from error


def _lengths(part: list[Data]) -> array[int]:
    try:
        lengths = array("I", map(len, part))
    except TypeError as error:
        raise _refusal(part) from error
    if memoryview in set(map(type, part)):  # its length counts elements, not bytes
        return array("I", (memoryview(item).nbytes for item in part))
    return lengths


def _refusal(part: list[Data]) -> SerializationError:
    for item in part:
        if not isinstance(item, bytes | bytearray | memoryview):
            return SerializationError(
                f"an entry is bytes, bytearray or memoryview, not {type(item).__name__}",
                hint="encode it first: a bare log keeps bytes",
                value=item,
            )
    return SerializationError(
        "an entry is a memoryview whose bytes are not contiguous",
        hint="copy it first: bytes(view)",
    )
