"""Draws what one seed is made of: `draw_options`."""

from __future__ import annotations

import msgspec

from copycat.config import RaftOptions
from copycat.seeded_random import SimRandom
from copycat.sim.network import NetworkOptions
from copycat.sim.options import (
    FAULTS,
    KINDS,
    N_ZONES,
    CleanOptions,
    DiskOptions,
    LimitOptions,
    SeedOptions,
    WorkloadOptions,
)
from copycat.sim.world import EPOCH_MS, HOUR_MS, MS, SECOND

__all__ = ["CHURN_FROM", "draw_options"]

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
    state. Every third of those from CHURN_FROM on changes its members, and every twelfth has
    failure domains that come and go."""
    options = _draw_common(seed)
    if seed >= CHURN_FROM and seed % 12 == 5:
        return _with_zones(SimRandom(seed ^ 0x20E5), options)
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


def _with_zones(random: SimRandom, options: SeedOptions) -> SeedOptions:
    """Failure domains that are lost and come back, voters with slow disks and disks that are lost
    for good, while leaders heal (C39); few other faults, and few changes that users ask for."""
    replace = msgspec.structs.replace
    heartbeat_ms = random.pick((50, 100))
    timeout_ms = heartbeat_ms * random.pick((3, 4))
    faults = {"change", "slow_voter", "zone", random.pick(("zone", "away", "process", "transfer"))}
    loses_disks = random.chance(500_000)
    return replace(
        options,
        members=random.pick((3, 3, 3, 5)),
        joiners=N_ZONES,
        spares=random.between(1, 2) if loses_disks else 0,
        heals=True,
        has_zones=True,
        faults=tuple(sorted({*faults, *(("disk_lost",) if loses_disks else ())})),
        fault_us=4 * timeout_ms * MS,
        duration_us=90 * timeout_ms * MS,
        raft=replace(
            options.raft, election_timeout_ms=timeout_ms, heartbeat_interval_ms=heartbeat_ms
        ),
        network=NetworkOptions(
            delay_us=random.pick((200, 1_000, 5_000)), loss=_rate(random, 200_000, 1_000)
        ),
        disk=DiskOptions(sync_us=random.pick((300, 2_000)), inline=random.pick((0, 300_000))),
        workload=WorkloadOptions(
            clients=2,
            shipped=random.pick((0, 1, 2)),
            tick_us=50 * MS,
            command=800_000,
            query=50_000,
            burst_max=random.pick((1, 4)),
            commands_max=2_000,
            session_timeout_ms=10_000,
        ),
    )


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
