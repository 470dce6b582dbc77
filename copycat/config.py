"""Frozen settings, validated in one place with all problems at once. Seconds and bytes."""

from __future__ import annotations

import hashlib

import msgspec

from copycat.errors import ConfigurationError
from copycat.types import Durability, MemberId, StorageLevel

__all__ = ["RaftOptions", "Storage", "member_id"]


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how the log is kept. Sizes in bytes, times in seconds."""

    directory: str = "./copycat-data"
    level: StorageLevel = StorageLevel.DISK
    durability: Durability = Durability.FSYNC
    sync_interval: float = 0.01
    max_segment_size: int = 32 << 20
    max_entries_per_segment: int = 1 << 20
    max_entry_size: int = 1 << 20
    min_free_space: int = 256 << 20

    def __post_init__(self) -> None:
        problems = [
            f"storage.{name} ({value!r}) must be {law}"
            for name, value, law, good in (
                ("sync_interval", self.sync_interval, "above 0", self.sync_interval > 0),
                (
                    "max_segment_size",
                    self.max_segment_size,
                    "4096 to 2147483648 bytes",
                    4096 <= self.max_segment_size <= 1 << 31,
                ),
                (
                    "max_entries_per_segment",
                    self.max_entries_per_segment,
                    "1 to 16777216",
                    1 <= self.max_entries_per_segment <= 1 << 24,
                ),
                (
                    "max_entry_size",
                    self.max_entry_size,
                    "1 to 16777216 bytes",
                    1 <= self.max_entry_size <= 16 << 20,
                ),
                ("min_free_space", self.min_free_space, "0 or more", self.min_free_space >= 0),
            )
            if not good
        ]
        if problems:
            raise ConfigurationError("; ".join(problems))


class RaftOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Timers and windows of the core, in milliseconds of its own clock (E1, DESIGN.md 3)."""

    election_timeout_ms: int = 750
    heartbeat_interval_ms: int = 250
    window: int = 4
    """AppendEntries with entries in flight to one peer; two already hide the round trip."""

    def __post_init__(self) -> None:
        if self.heartbeat_interval_ms < 1 or self.window < 1:
            raise ConfigurationError(
                f"heartbeat_interval ({self.heartbeat_interval_ms} ms) and window ({self.window})"
                " must be at least 1"
            )
        if self.election_timeout_ms < 2 * self.heartbeat_interval_ms:
            raise ConfigurationError(
                f"election_timeout ({self.election_timeout_ms} ms) must be at least 2 x "
                f"heartbeat_interval ({self.heartbeat_interval_ms} ms)"
            )


def member_id(cluster_name: str, address: str) -> MemberId:
    """The id of a founding member: 128 bits of its cluster's name and its address (C16)."""
    text = f"copycat member\0{cluster_name}\0{address}".encode()
    return MemberId(int.from_bytes(hashlib.sha256(text).digest()[:16], "big"))
