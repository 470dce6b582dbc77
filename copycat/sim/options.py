"""What one seed is made of: sizes, timers, rates and the subset of faults it may use."""

from __future__ import annotations

import msgspec

from copycat.config import RaftOptions
from copycat.sim.network import NetworkOptions
from copycat.sim.world import MS, SECOND

__all__ = [
    "FAULTS",
    "KINDS",
    "N_ZONES",
    "CleanOptions",
    "DiskOptions",
    "LimitOptions",
    "SeedOptions",
    "WorkloadOptions",
]

FAULTS = (
    "power",
    "process",
    "power_all",
    "power_midway",
    "pause",
    "partition",
    "one_way",
    "isolate",
    "break_link",
    "echo",
    "slow_link",
    "slow_disk",
    "sync_error",
    "write_error",
    "disk_full",
    "no_space",
    "clock_jump",
    "transfer",
    "silence",
)
"""Kinds of faults that a nemesis can draw. Message faults are rates of the network. On top of
these "away" comes with snapshots and cleaning, "clean" (a cleaning on demand) with cleaning, and
"change" (of the members), "rot", "disk_rollback" and "wrong_clock" by themselves. "zone" and
"slow_voter" come with failure domains.
"""

KINDS = (
    "sync",
    "save",
    "slice applied",
    "queries answered",
    "acknowledged index read",
    "snapshot taken",
    "snapshot saved",
    "snapshot published",
    "snapshot installed",
    "snapshots discarded",
    "chunk read",
    "chunk written",
    "chunks dropped",
    "snapshot checked",
    "segment prepared",
    "files removed",
    "rewrite",
)
"""Kinds of work that a member hands to a thread, each with an answer that may come late."""


N_ZONES = 3
"""So many failure domains there are: a member is in that of its number, modulo this."""


class DiskOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Delays in microseconds; `inline`, `recovery_cut` and `rewrite_fault` per million."""

    sync_us: int = 300
    save_us: int = 500
    apply_us: int = 50
    aside_us: int = 2_000
    compact_us: int = 2_000
    inline: int = 0
    """How often a sync answers before `Host.sync` returns."""
    recovery_cut: int = 0
    """How often the power fails again while a member recovers."""
    rewrite_fault: int = 0
    """How often something fails while a segment is rewritten, or before the rewrite is durable."""
    late_kinds: tuple[str, ...] = ()
    """Kinds of work (`KINDS`) whose answers may be held back, `late_chance` of a million for
    about `late_us`."""
    late_chance: int = 0
    late_us: int = 0
    late_until_moved: bool = False
    """And no longer than until the member has moved on: then the answer is delivered at once."""
    max_segment_size: int = 64 << 10
    max_entries_per_segment: int = 1 << 10


class WorkloadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the clients do. Delays in microseconds, chances per million and tick."""

    clients: int = 2
    shipped: int = 0
    """So many of them are made of the shipped session, outbox and selector; the others speak the
    protocol in a way of their own, and not always the best one."""
    tick_us: int = 50 * MS
    command: int = 400_000
    query: int = 200_000
    queries_max: int = 1
    """Linearizable queries that one client may have in flight."""
    burst_max: int = 8
    inflight_max: int = 400
    commands_max: int = 1_000
    """How many commands one client draws in all, about."""
    keys: int = 3
    values: int = 5
    """How many different values registers take: few collide, many tell puts apart."""
    session_timeout_ms: int = 5_000
    close: int = 2_000
    twice: int = 10_000
    """How often a client sends what is in flight again without need."""
    is_keyed: bool = False
    """Mostly registers, which are deleted and expire too: commands that compactions can delete."""


class LimitOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a replica that a seed draws small, so that they are reached."""

    batch_bytes_max: int = 1 << 20
    recent_bytes_max: int = 16 << 20
    entry_buffer_size: int = 1024
    inflight_commands_max: int = 65536
    inflight_bytes_max: int = 64 << 20
    snapshot_threshold: int = 0
    """Bytes of entries between two snapshots; 0: none is taken."""


class CleanOptions(msgspec.Struct, frozen=True, kw_only=True):
    """When members clean their logs (`CompactionOptions`). By default no seed is that long."""

    minor_ms: int = 60_000
    major_ms: int = 3_600_000
    threshold: float = 0.5


class SeedOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was drawn for a seed, printed with every failure."""

    members: int = 3
    duration_us: int = 15 * SECOND
    fault_us: int = 1_500 * MS
    """Mean time between two faults."""
    faults: tuple[str, ...] = ()
    raft: RaftOptions = RaftOptions()
    network: NetworkOptions = NetworkOptions()
    disk: DiskOptions = DiskOptions()
    workload: WorkloadOptions = WorkloadOptions()
    limits: LimitOptions = LimitOptions()
    clean: CleanOptions = CleanOptions()
    fault_trigger: int = 0
    """How many of a million faults wait until a member is in a certain state."""
    drift_ppm: int = 0
    """Clocks of members run up to this much fast or slow."""
    wrong_clock: int = 0
    """The member whose wall clock is wrong, with the fault of that name."""
    wrong_at_start_ms: int = 0
    """By how much that clock is wrong when the members start for the first time."""
    joiners: int = 0
    """So many hosts are no founders: they join later, each with an id of its own."""
    spares: int = 0
    """So many hosts take the places of members whose disks were lost, under new ids."""
    heals: bool = False
    """Members name failure domains, and policies of healing are set (C39)."""
    has_zones: bool = False
    """And what is asked for lets healing work: newcomers come first, and users decide little."""
