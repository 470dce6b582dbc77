"""What one seed is made of: sizes, timers, rates and the subset of faults it may use."""

from __future__ import annotations

import msgspec

from copycat.config import RaftOptions
from copycat.seeded_random import SimRandom
from copycat.sim.network import NetworkOptions
from copycat.sim.world import EPOCH_MS, HOUR_MS, MS, SECOND

__all__ = [
    "FAULTS",
    "KINDS",
    "CleanOptions",
    "DiskOptions",
    "LimitOptions",
    "SeedOptions",
    "WorkloadOptions",
    "draw_options",
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
"change" (of the members), "rot", "disk_rollback" and "wrong_clock" by themselves.
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


CHURN_FROM = 1_000_000
"""Smaller seeds are those of regressions and of seeded bugs: their clusters are of founders."""
READERS = ("echo", "isolate", "pause", "process", "slow_disk", "slow_link", "transfer")
"""Faults around a leader that does not know that it was deposed."""


def _rate(random: SimRandom, chance: int, *rates: int) -> int:
    return random.pick(rates) if random.chance(chance) else 0


def _draw_network(random: SimRandom) -> NetworkOptions:
    return NetworkOptions(
        delay_us=random.pick((200, 500, 1_000, 5_000, 20_000)),
        loss=_rate(random, 400_000, 1_000, 10_000, 50_000, 200_000),
        duplication=_rate(random, 400_000, 1_000, 20_000, 100_000),
        reordering=_rate(random, 400_000, 5_000, 50_000, 300_000),
        straggling=_rate(random, 300_000, 1_000, 10_000),
    )


def _draw_disk(random: SimRandom) -> DiskOptions:
    segment_size = random.pick((8192, 16 << 10, 64 << 10, 256 << 10))
    return DiskOptions(
        sync_us=random.pick((100, 300, 300, 2_000, 20_000)),
        save_us=random.pick((100, 500, 5_000, 50_000)),
        apply_us=random.pick((10, 50, 1_000)),
        inline=random.pick((0, 0, 300_000, 1_000_000)),
        recovery_cut=_rate(random, 400_000, 300_000),
        max_segment_size=segment_size,
        max_entries_per_segment=random.pick((8, 64, 1 << 10)) if segment_size < 64 << 10 else 4096,
    )


def _draw_workload(random: SimRandom) -> WorkloadOptions:
    return WorkloadOptions(
        clients=random.between(1, 5),
        tick_us=random.pick((20, 50, 100, 200)) * MS,
        command=random.pick((100_000, 400_000, 800_000)),
        query=random.pick((0, 100_000, 400_000)),
        queries_max=random.pick((1, 1, 4)),
        burst_max=random.pick((1, 4, 16, 200)),
        commands_max=random.pick((200, 500, 2_000)),
        keys=random.between(1, 5),
        values=random.pick((2, 5, 1_000)),
        session_timeout_ms=random.pick((1_000, 3_000, 10_000)),
        close=_rate(random, 300_000, 2_000, 20_000),
        twice=_rate(random, 500_000, 5_000, 50_000),
    )


def draw_options(seed: int) -> SeedOptions:
    """The options of a seed: what all may draw, and on top of that for three in ten snapshots
    and, whether with those or not, for three in ten logs that are cleaned, for a few disks
    that rot, for a few one slow thread (files, or rewrites, take long), and for three in ten
    answers of threads that are heard late. In half of them some faults, or all, wait for a
    state. Every third of those from CHURN_FROM on changes its members."""
    options = _draw_common(seed)
    random = SimRandom(seed ^ 0x54A9)
    if random.chance(300_000):
        options = _with_snapshots(random, options)
    random = SimRandom(seed ^ 0xC1EA)
    if random.chance(300_000):
        options = _with_cleaning(random, options)
    random = SimRandom(seed ^ 0x2077)
    if options.faults and options.members >= 3 and random.chance(200_000):
        faults = tuple(sorted({*options.faults, "rot"}))
        options = msgspec.structs.replace(options, faults=faults)
    random = SimRandom(seed ^ 0x01DC)
    if options.members >= 2 and "clean" not in options.faults and random.chance(150_000):
        options = _with_older_copies(random, options)
    random = SimRandom(seed ^ 0xC25C)
    if options.members >= 3 and random.chance(150_000):
        options = _with_a_wrong_clock(random, options)
    random = SimRandom(seed ^ 0xA51D)
    if random.chance(250_000):
        slow = {random.pick(("aside_us", "compact_us")): random.pick((30, 300, 3_000)) * MS}
        options = msgspec.structs.replace(
            options, disk=msgspec.structs.replace(options.disk, **slow)
        )
    random = SimRandom(seed ^ 0xC11E)
    clients = options.workload.clients
    shipped = clients if random.chance(500_000) else random.below(clients + 1)
    options = msgspec.structs.replace(
        options, workload=msgspec.structs.replace(options.workload, shipped=shipped)
    )
    random = SimRandom(seed ^ 0x57A1)
    is_plain = not (options.workload.is_keyed or options.limits.snapshot_threshold)
    if is_plain and random.chance(140_000):
        options = _with_stale_leaders(random, options)
    random = SimRandom(seed ^ 0xA3B5)
    if random.chance(500_000) and "stale_leader" not in options.faults:
        fault_trigger = random.pick((300_000, 1_000_000))
        options = msgspec.structs.replace(options, fault_trigger=fault_trigger)
    random = SimRandom(seed ^ 0x1A7E)
    if random.chance(300_000):
        options = _with_late_answers(random, options)
    if seed >= CHURN_FROM and seed % 3 == 0 and "stale_leader" not in options.faults:
        options = _with_churn(SimRandom(seed ^ 0xC4A9), options)
    random = SimRandom(seed ^ 0xD15C)
    if seed >= CHURN_FROM and not options.workload.is_keyed and random.chance(400_000):
        options = _with_lost_disks(random, options)
        options = _with_healing(SimRandom(seed ^ 0x4EA1), options)
    return options


def _with_healing(random: SimRandom, options: SeedOptions) -> SeedOptions:
    """Half of the clusters whose members change heal, and members are away long enough for it."""
    if random.chance(500_000):
        return options
    faults = tuple(sorted({*options.faults, "away"}))
    return msgspec.structs.replace(options, heals=True, faults=faults)


def _with_churn(random: SimRandom, options: SeedOptions) -> SeedOptions:
    """Members that join, are promoted, demoted and removed, most of the time; beside that the
    faults that were drawn, and cleaning where that was drawn. Nothing rots, and no disk is put
    back: a directory that is an older copy of itself may not know that it was removed."""
    replace = msgspec.structs.replace
    members = random.pick((1, 1, 2, 3, 3, 3, 4, 5, 7))
    rest = set(options.faults) - {"rot", "disk_rollback", "wrong_clock"}
    return replace(
        options,
        members=members,
        joiners=random.between(1, 4),
        faults=tuple(sorted({*rest, "change"})),
        fault_us=random.pick((200, 500, 1_000)) * MS,
        duration_us=random.pick((10, 15, 25)) * SECOND,
        wrong_clock=0,
        wrong_at_start_ms=0,
    )


def _with_lost_disks(random: SimRandom, options: SeedOptions) -> SeedOptions:
    """Disks that are lost while the others can do without their members (C43). Nothing is cleaned:
    the floor of deletions waits for who is away, until an operator removes the old voter."""
    if not {"change", "disk_rollback"} & {*options.faults}:
        return options
    return msgspec.structs.replace(
        options,
        faults=tuple(sorted({*options.faults, "disk_lost"})),
        spares=random.between(2, 4),
    )


def _with_stale_leaders(random: SimRandom, options: SeedOptions) -> SeedOptions:
    """Reads at deposed leaders: few other faults, few other requests, and so many reads that some
    arrive at any moment of a round (C10)."""
    replace = msgspec.structs.replace
    heartbeat_ms = random.pick((50, 100))
    timeout_ms = heartbeat_ms * random.pick((4, 6))
    members = random.pick((3, 3, 5))
    return replace(
        options,
        members=members,
        wrong_clock=options.wrong_clock % members,
        duration_us=90 * timeout_ms * MS,
        fault_us=12 * timeout_ms * MS,
        faults=random.pick((("stale_leader",), ("process", "stale_leader"))),
        raft=replace(
            options.raft, election_timeout_ms=timeout_ms, heartbeat_interval_ms=heartbeat_ms
        ),
        network=NetworkOptions(delay_us=random.pick((200, 1_000, 5_000))),
        disk=replace(
            options.disk,
            sync_us=random.pick((300, 2_000)),
            save_us=500,
            apply_us=50,
            rewrite_fault=0,
        ),
        workload=replace(
            options.workload,
            clients=5,
            shipped=random.pick((0, 2)),
            tick_us=20 * MS,
            command=100_000,
            query=200_000,
            queries_max=40,
            burst_max=4,
            commands_max=2_000,
            keys=1,
            session_timeout_ms=10_000,
            close=0,
        ),
        drift_ppm=0,
    )


def _with_late_answers(random: SimRandom, options: SeedOptions) -> SeedOptions:
    """Work is done in time, but the member receives the answer late: of a few kinds of work, or
    all."""
    until_moved = random.chance(600_000)
    kinds = random.shuffled(KINDS)[: random.pick((1, 2, 3) if until_moved else (1, 3, len(KINDS)))]
    disk = msgspec.structs.replace(
        options.disk,
        late_kinds=tuple(sorted(kinds)),
        late_chance=random.pick((20_000, 200_000)),
        late_us=random.pick((1_000, 4_000, 10_000) if until_moved else (20, 200, 1_000)) * MS,
        late_until_moved=until_moved,
    )
    return msgspec.structs.replace(options, disk=disk)


def _with_cleaning(random: SimRandom, options: SeedOptions) -> SeedOptions:
    """Small segments, short intervals, keyed commands, and faults inside of a rewrite; mostly
    with a member that is away while the others clean (I22, I25)."""
    replace = msgspec.structs.replace
    is_away = "away" in options.faults or random.chance(600_000)
    return replace(
        options,
        members=max(options.members, 3) if is_away else options.members,
        duration_us=random.pick((10, 15, 25)) * SECOND,
        faults=tuple(sorted({*options.faults, "clean", *(("away",) if is_away else ())})),
        clean=CleanOptions(
            minor_ms=random.pick((300, 1_000, 3_000)),
            major_ms=random.pick((1_000, 3_000, 8_000)),
            threshold=random.pick((0.05, 0.3, 0.6)),
        ),
        disk=replace(
            options.disk,
            max_segment_size=8192,
            max_entries_per_segment=random.pick((8, 32, 64)),
            rewrite_fault=_rate(random, 700_000, 50_000, 200_000),
        ),
        workload=replace(
            options.workload,
            clients=max(2, options.workload.clients),
            tick_us=random.pick((20, 50, 100)) * MS,
            command=random.pick((400_000, 800_000)),
            commands_max=random.pick((500, 1_000)),
            keys=random.between(1, 4),
            is_keyed=True,
        ),
    )


def _with_older_copies(random: SimRandom, options: SeedOptions) -> SeedOptions:
    """Disks that are put back (F8): often, and mostly while one leader leads on, for a copy of
    another term is not put back. Nothing is cleaned, since a gap does not show which entry was
    deleted."""
    replace = msgspec.structs.replace
    rest = random.shuffled(options.faults)[: random.between(0, 2)]
    return replace(
        options,
        faults=tuple(sorted({*rest, "disk_rollback"})),
        spares=2,
        fault_us=random.pick((300, 800)) * MS,
        duration_us=max(options.duration_us, 10 * SECOND),
        workload=replace(options.workload, command=max(options.workload.command, 400_000)),
    )


def _with_a_wrong_clock(random: SimRandom, options: SeedOptions) -> SeedOptions:
    """One wall clock that is wrong, in half of these seeds from the beginning, perhaps by all the
    years since 1970; and elections of members that knew no leader (C25)."""
    faults = {
        *options.faults,
        "wrong_clock",
        "process",
        "transfer",
        random.pick(("power", "power_all", "power_all")),
    }
    return msgspec.structs.replace(
        options,
        faults=tuple(sorted(faults - {"clock_jump"})),
        wrong_clock=random.below(options.members),
        wrong_at_start_ms=random.pick((0, 0, -HOUR_MS, -EPOCH_MS, 72 * HOUR_MS, -72 * HOUR_MS)),
    )


def _with_snapshots(random: SimRandom, options: SeedOptions) -> SeedOptions:
    """Small thresholds and segments; mostly with a member that is away for long (C24)."""
    replace = msgspec.structs.replace
    is_away = random.chance(800_000)
    threshold = random.pick((4, 4, 8) if is_away else (4, 8, 16, 64)) << 10
    options = replace(
        options,
        limits=replace(options.limits, snapshot_threshold=threshold),
        disk=replace(options.disk, max_segment_size=8192, max_entries_per_segment=64),
    )
    if not is_away:
        return options
    workload = replace(
        options.workload, clients=4, tick_us=20 * MS, command=800_000, commands_max=2_000
    )
    return replace(
        options,
        members=max(options.members, 3),
        duration_us=random.pick((15, 25)) * SECOND,
        fault_us=max(options.fault_us, 2_000 * MS),
        faults=tuple(sorted({*options.faults, "away"})),
        workload=workload,
    )


def _draw_common(seed: int) -> SeedOptions:
    """The options of a seed. Swarm: each draws its own subset of faults, most of them some."""
    random = SimRandom(seed ^ 0x5EED)
    members = random.pick((1, 2, 3, 3, 3, 3, 4, 5, 5, 5))
    count = random.pick((0, 1, 2, 3, 4, 6, len(FAULTS)))
    faults = tuple(sorted(random.shuffled(FAULTS)[:count]))
    heartbeat_ms = random.pick((50, 100, 250))
    network, disk, workload = _draw_network(random), _draw_disk(random), _draw_workload(random)
    if random.chance(150_000):
        members = max(members, 3)
        faults = tuple(sorted(random.shuffled(READERS)[: random.between(2, len(READERS))]))
        workload = msgspec.structs.replace(
            workload,
            clients=4,
            tick_us=20 * MS,
            command=800_000,
            query=800_000,
            keys=1,
            queries_max=6,
            close=0,
        )
        disk = msgspec.structs.replace(disk, sync_us=random.pick((2_000, 20_000, 50_000)))
    limits = LimitOptions(
        batch_bytes_max=random.pick((1 << 20, 1 << 20, 2_000)),
        recent_bytes_max=random.pick((16 << 20, 16 << 20, 4_000)),
        entry_buffer_size=SimRandom(seed ^ 0xFEED).pick((1024, 64, 16, 4)),
        inflight_commands_max=random.pick((65536, 65536, 256)),
        inflight_bytes_max=random.pick((64 << 20, 64 << 20, 20_000)),
    )
    return SeedOptions(
        members=members,
        duration_us=random.pick((6, 10, 15, 25)) * SECOND,
        fault_us=random.pick((300, 800, 2_000, 5_000)) * MS,
        faults=faults,
        raft=RaftOptions(
            election_timeout_ms=heartbeat_ms * random.pick((2, 3, 5)),
            heartbeat_interval_ms=heartbeat_ms,
            window=random.pick((1, 2, 4, 8)),
        ),
        network=network,
        disk=disk,
        workload=workload,
        limits=limits,
        drift_ppm=_rate(random, 400_000, 1_000, 100_000),
    )
