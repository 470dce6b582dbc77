"""What a replica is told once."""

from __future__ import annotations

import msgspec

from copycat.config import RaftOptions, member_id
from copycat.storage.compaction import CompactionOptions
from copycat.types import Durability, MemberId, SkippedEntry

__all__ = ["ReplicaOptions"]


class ReplicaOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica is told once. Addresses are `host:port`; sizes in bytes."""

    cluster_name: str
    address: str
    members: tuple[str, ...]
    """Addresses of the voters of configuration 0, this one included."""
    raft: RaftOptions = RaftOptions()
    session_timeout_ms: int = 5000
    durability: Durability = Durability.FSYNC
    sync_interval_ms: int = 10
    """Longest time between two syncs with durability "interval"."""
    max_entry_size: int = 1 << 20
    batch_bytes_max: int = 1 << 20
    recent_bytes_max: int = 16 << 20
    entry_buffer_size: int = 1024
    """So many of the newest entries stay in memory once they are applied."""
    inflight_bytes_max: int = 64 << 20
    inflight_commands_max: int = 65536
    snapshot_threshold: int = 64 << 20
    """A snapshot when so many bytes of entries were applied since the last; 0: on demand only."""
    compaction: CompactionOptions = CompactionOptions()
    skips: tuple[SkippedEntry, ...] = ()
    """Where the operator had the user's code left out; by index (decision 0022)."""

    @property
    def members_by_id(self) -> dict[MemberId, str]:
        """Addresses of the voters by member id, in the order of the addresses."""
        return {member_id(self.cluster_name, address): address for address in sorted(self.members)}
