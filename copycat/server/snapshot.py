"""What `CopycatServer.take_snapshot` returns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Self

import msgspec

from copycat.storage import snapshot_store

__all__ = ["Snapshot"]


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot that was taken.

    index: of the last entry that the snapshot covers. time: log time at that entry, in UTC.
    """

    index: int
    time: datetime

    @classmethod
    def of(cls, stored: snapshot_store.Snapshot) -> Self:
        """Of one that is in the directory."""
        return cls(stored.entry.index, datetime.fromtimestamp(stored.time_ms / 1000, tz=UTC))
