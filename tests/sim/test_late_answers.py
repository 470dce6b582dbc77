"""Answers of threads that come after their member has moved on: each kind is met, and held."""

from __future__ import annotations

import msgspec
import pytest

from copycat.config import RaftOptions
from copycat.sim.marks import GROUPS
from copycat.sim.options import (
    KINDS,
    CleanOptions,
    DiskOptions,
    LimitOptions,
    SeedOptions,
    WorkloadOptions,
)
from copycat.sim.runner import run_seed
from copycat.sim.world import MS, SECOND

RESTLESS = SeedOptions(
    members=3,
    duration_us=15 * SECOND,
    fault_us=400 * MS,
    faults=("away", "clean", "isolate", "partition", "process", "slow_link", "transfer"),
    raft=RaftOptions(election_timeout_ms=200, heartbeat_interval_ms=50),
    workload=WorkloadOptions(
        clients=4,
        tick_us=20 * MS,
        command=800_000,
        query=400_000,
        burst_max=8,
        keys=2,
        commands_max=1_500,
        is_keyed=True,
    ),
    limits=LimitOptions(snapshot_threshold=4 << 10),
    clean=CleanOptions(minor_ms=500, major_ms=1_500, threshold=0.1),
)
"""Leaders change, members are away, snapshots are taken and shipped, logs are cleaned."""
OFTEN = ("sync", "save", "slice applied", "queries answered")
"""Held back now and then; of all other kinds of work, every answer."""
ON_DAMAGE = ("chunks dropped", "snapshot checked")
"""Work for a snapshot that is not good, or that another one replaces on its way in."""


def options_of(kind: str) -> SeedOptions:
    disk = DiskOptions(
        max_segment_size=8192,
        max_entries_per_segment=32,
        late_kinds=(kind,),
        late_chance=20_000 if kind in OFTEN else 1_000_000,
        late_us=2 * SECOND,
        late_until_moved=True,
    )
    return msgspec.structs.replace(RESTLESS, disk=disk)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ON_DAMAGE])
def test_each_kind_of_answer_comes_after_its_member_has_moved_on(kind: str) -> None:
    """In a few seeds; and every law holds in them."""
    late: dict[str, int] = {}
    head = f"late: {kind} after"
    for seed in range(300, 316):
        marks = run_seed(seed, options_of(kind)).marks
        late = {mark: n for mark, n in marks.items() if mark.startswith(head) and n}
        if late:
            break
    assert late, f"no answer of this kind ({kind}) was ever late"
    assert late.keys() <= {f"{head} {move}" for move in GROUPS[head]}


def test_nothing_is_late_in_a_world_that_stands_still() -> None:
    options = msgspec.structs.replace(
        options_of("sync"), faults=(), duration_us=3 * SECOND, disk=DiskOptions()
    )
    marks = run_seed(1, options).marks
    assert not [mark for mark in marks if mark.startswith("held back")]
    assert not [mark for mark in marks if "a truncation" in mark or "a reset" in mark]
