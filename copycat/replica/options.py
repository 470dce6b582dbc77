"""What a replica is given when it is built: its settings, and what its directory holds."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from copycat.config import RaftOptions, member_id
from copycat.member.ballast_file import BallastFile
from copycat.member.configuration_file import (
    NOTHING_STORED,
    ConfigurationFile,
    StoredConfigurations,
)
from copycat.member.markers import LostEntries
from copycat.member.time_note import TimeFile
from copycat.protocol.member_record import DirectoryStart, Place
from copycat.storage.compaction import CompactionOptions
from copycat.storage.interface import HardStateStore, ReplicaLog
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import Durability, EntryId, MemberId, SkippedEntry

__all__ = ["MemberStores", "NewLossRecord", "ReplicaOptions"]


class ReplicaOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a replica, which do not change. Addresses are `host:port`; sizes in
    bytes."""

    cluster_name: str
    address: str
    members: tuple[str, ...]
    """Addresses of the voters of configuration 0, this one included; empty for a member that was
    no founder."""
    member: MemberId = MemberId(0)
    """The id of this member, 128 random bits that the host drew, if it was no founder; 0: the id
    follows from cluster name and address."""
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
    """Entries for which the user's code is not called, as the operator asked; by index (decision
    0022)."""
    version: str = ""
    """Of copycat, which a view of this member names."""
    place: Place = Place()
    """Failure domain and weight of this member (C39)."""

    @property
    def own_id(self) -> MemberId:
        """The id of this member."""
        return self.member or member_id(self.cluster_name, self.address)

    @property
    def members_by_id(self) -> dict[MemberId, str]:
        """Addresses of the voters by member id, in the order of the addresses."""
        return {member_id(self.cluster_name, address): address for address in sorted(self.members)}


NewLossRecord = Callable[[EntryId, int, int], LostEntries]
"""`MemberDirectory.regressed`: makes the record of a loss that a peer noticed (F8)."""


class MemberStores(msgspec.Struct, frozen=True, kw_only=True):
    """What one member keeps on its disk, opened and repaired: a replica is built over it."""

    incarnation: int
    """The random number of this directory (C16)."""
    log: ReplicaLog
    hard_state: HardStateStore
    fresh: bool
    """This directory is new: it has acknowledged nothing."""
    lost: bool = False
    """Acknowledged entries may be missing, nobody knows which: they were not on the
    disk when the process or the computer stopped (docs/decisions/0016)."""
    lost_entries: LostEntries | None = None
    """Entries that damage destroyed, and that this member must have again to vote as before
    (C12)."""
    regressed: NewLossRecord | None = None
    snapshots: SnapshotStore | None = None
    """None: this member keeps no snapshots."""
    ballast: BallastFile | None = None
    """None when the log is not on a disk (F12)."""
    time_file: TimeFile | None = None
    """Where log time is written down beside the wall clock (C25)."""
    configuration_file: ConfigurationFile | None = None
    """Where the newest configurations are written down (C35)."""
    configurations: StoredConfigurations = NOTHING_STORED
    """What that file held when the directory was opened."""
    cluster_incarnation: int = 0
    """Which cluster this is, as the identity says; 0 while it does not know (C41)."""
    starts: tuple[DirectoryStart, ...] = ()
    """The newest starts with this directory, as the identity says; none when they are not
    recorded (C42)."""
    record_cluster: Callable[[int], None] | None = None
    """`MemberDirectory.record_cluster`: writes that into the identity."""
