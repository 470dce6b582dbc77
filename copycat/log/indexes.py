"""What a verb of the log takes as an index, and what it takes as a part of the log."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from operator import index as to_int
from typing import SupportsIndex, TypeAlias, cast

__all__ = [
    "INDEX_MAX",
    "IndexLike",
    "bounds_of",
    "index_of",
    "indexes_of",
    "position_of",
    "term_of",
]

IndexLike: TypeAlias = SupportsIndex
"""An int, or what stands for one: numpy's integers too. Not a bool, which is no position."""

INDEX_MAX = (1 << 62) - 1
"""No log has an entry above this one."""


def index_of(value: IndexLike) -> int:
    """The int that `value` is. TypeError for what is none, a float, a bool or a text too."""
    if type(value) is int:
        return value
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(
            f"an index, a count or a term is an int, not {type(value).__name__} ({value!r})"
        )
    return to_int(value)


def position_of(value: IndexLike) -> int:
    """The same, from 0 to just above the highest index there can be: what lies further up is as
    far above every log as that. IndexError below 0: a log's indexes begin at 1, and none is
    counted from the end."""
    index = index_of(value)
    if index < 0:
        raise IndexError(f"entry {index}: indexes begin at 1, and are not counted from the end")
    return min(index, INDEX_MAX + 1)


def term_of(value: IndexLike) -> int:
    """A term that is given: an int from 1 to 2**64 - 1. TypeError, ValueError."""
    term = index_of(value)
    if not 1 <= term < 1 << 64:
        raise ValueError(f"term {term} is not in 1 to 2**64 - 1")
    return term


def bounds_of(part: slice, first: int, end: int) -> tuple[int, int]:
    """[begin, end) of what a slice of indexes has of the log [first, end).

    TypeError, ValueError for a step, IndexError for what is counted from the end.
    """
    if part.step is not None and index_of(part.step) != 1:
        raise ValueError(f"a slice of a log has no step ({part.step!r})")
    begin = first if part.start is None else position_of(part.start)
    stop = end if part.stop is None else position_of(part.stop)
    return max(begin, first), min(stop, end)


def indexes_of(indexes: Iterable[IndexLike]) -> array[int]:
    """Each as one that the log may be asked for. IndexError, TypeError."""
    if isinstance(indexes, array) and indexes.typecode == "Q":
        return indexes
    items = indexes if isinstance(indexes, Sequence) else list(indexes)
    if isinstance(items, range) or set(map(type, items)) <= {int}:  # no work an index
        try:
            return array("Q", cast("Sequence[int]", items))
        except OverflowError:
            pass  # the first that is out of range is named below
    return array("Q", map(_entry_of, items))


def _entry_of(value: IndexLike) -> int:
    """As `position_of`; IndexError with the value itself above the highest index there can be."""
    index = position_of(value)
    if index > INDEX_MAX:
        raise IndexError(f"entry {index_of(value)}: no log has an entry above {INDEX_MAX}")
    return index
