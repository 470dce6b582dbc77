"""The verbs of a `Log` that can be cleaned, as the tools use them."""

from __future__ import annotations

from typing import Protocol, cast

from copycat import Log
from copycat.errors import ConfigurationError
from copycat.types import Compaction

__all__ = ["Cleanable", "Report", "can_clean", "cleanable"]


class Report(Protocol):
    """What one run of a compaction did."""

    @property
    def segments_before(self) -> int: ...
    @property
    def segments_after(self) -> int: ...
    @property
    def bytes_reclaimed(self) -> int: ...
    @property
    def seconds(self) -> float: ...


class _Compactor(Protocol):
    def compact(self, compaction: Compaction = ..., /) -> Report: ...


class Cleanable(Protocol):
    """`Log.release` and `Log.compactor`."""

    @property
    def compactor(self) -> _Compactor: ...
    def release(self, index: int, /) -> object: ...


def can_clean() -> bool:
    """Whether this copycat's `Log` lets entries be released and cleaned."""
    return hasattr(Log, "compactor") and hasattr(Log, "release")


def cleanable(log: Log) -> Cleanable:
    """The log with those verbs. ConfigurationError when it has none."""
    if not can_clean():
        raise ConfigurationError(
            "this copycat cannot clean a bare log",
            hint="upgrade copycat-raft: Log.compactor came later",
        )
    return cast("Cleanable", log)
