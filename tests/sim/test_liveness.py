"""Faults stop, and the cluster heals and serves (I16)."""

from __future__ import annotations

import msgspec
import pytest

from copycat.config import RaftOptions
from copycat.sim.cluster import Cluster
from copycat.sim.options import DiskOptions, SeedOptions, WorkloadOptions
from copycat.sim.runner import SeedFailed, run_seed
from copycat.sim.world import MS, SECOND

CALM = SeedOptions(
    members=3,
    duration_us=5 * SECOND,
    raft=RaftOptions(election_timeout_ms=300, heartbeat_interval_ms=100),
    workload=WorkloadOptions(clients=2, session_timeout_ms=2_000),
)


def test_a_calm_cluster_serves() -> None:
    result = run_seed(1, CALM)
    assert result.marks["election"] == 1
    assert result.commands > 20


@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_a_calm_cluster_of_any_size_elects_once(members: int) -> None:
    result = run_seed(members, msgspec.structs.replace(CALM, members=members))
    assert result.marks["election"] == 1


def test_the_liveness_phase_fires_when_nobody_can_hear_anybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A partition that outlives the calm: the check must say so (I16)."""
    from copycat.sim.network import Network

    options = msgspec.structs.replace(CALM, faults=("isolate",), fault_us=500 * MS)
    monkeypatch.setattr(Network, "heal", lambda _self: None)
    with pytest.raises(SeedFailed, match="I16"):
        run_seed(3, options)


def test_a_failure_reports_its_seed_options_and_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a failing seed prints is enough to replay it."""
    monkeypatch.setattr(Cluster, "agreed_leader", lambda _self: 0)
    with pytest.raises(SeedFailed) as failed:
        run_seed(17, CALM)
    report = str(failed.value)
    assert "I16" in report
    assert "make sim SEED=17" in report
    assert '"members":3' in report
    assert "leads" in report


@pytest.mark.slow
def test_a_cluster_that_loses_power_as_a_whole_comes_back() -> None:
    """Every acknowledged command survives a power cut of all members at once."""
    options = msgspec.structs.replace(
        CALM,
        faults=("power_all",),
        fault_us=1_500 * MS,
        duration_us=12 * SECOND,
        disk=DiskOptions(recovery_cut=300_000, max_segment_size=8192),
    )
    result = run_seed(5, options)
    assert result.marks["fault: power_all"] > 3
    assert result.marks["power cut in recovery"] > 0


@pytest.mark.slow
def test_a_disk_that_hangs_under_a_leader_does_not_stall_the_cluster_for_ever() -> None:
    """A slow disk in its mildest form: syncs of one member take two seconds, then recover."""
    options = msgspec.structs.replace(CALM, faults=("slow_disk",), fault_us=700 * MS)
    assert run_seed(6, options).commands > 0
