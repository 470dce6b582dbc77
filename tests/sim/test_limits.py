"""What the simulator found about limits: the settings and the log must name the same ones."""

from __future__ import annotations

import pytest

from copycat import Storage
from copycat.config import member_id
from copycat.errors import ConfigurationError
from copycat.seeded_random import SimRandom
from copycat.sim.checkers.disk_model import DiskModel
from copycat.sim.checkers.log_history import LogHistory
from copycat.sim.disk import CLUSTER, SimDisk
from copycat.sim.options import DiskOptions
from copycat.sim.world import Trace
from copycat.storage import FaultEnv


def test_the_smallest_segment_that_settings_allow_opens() -> None:
    """Settings took 4096 bytes, the native log takes 8192: a ValueError out of the log."""
    smallest = 8192
    assert Storage(max_segment_size=smallest).max_segment_size == smallest
    with pytest.raises(ConfigurationError, match="8192"):
        Storage(max_segment_size=smallest - 1)
    disk = SimDisk(
        DiskModel(0, LogHistory()),
        "m0:7000",
        ("m0:7000",),
        member_id(CLUSTER, "m0:7000"),
        DiskOptions(max_segment_size=smallest),
        SimRandom(1),
        Trace(),
    )
    assert isinstance(disk.env, FaultEnv)
    log, _, directory, _ = disk.open()
    assert log.last_index == 0
    directory.close()
