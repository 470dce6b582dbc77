"""The fault that puts an older copy of a disk back: what is in a copy, and what is not."""

from __future__ import annotations

from copycat.sim.cluster import Cluster
from copycat.sim.disk import PATH, SPACE
from copycat.sim.older_copy import OlderCopy
from copycat.sim.options import SeedOptions


def test_a_copy_does_not_bring_back_the_lack_of_room_that_there_was_when_it_was_taken() -> None:
    """Seed 944836102408: the copy's start met a full disk, and the simulator thought it roomy."""
    host = Cluster(1, SeedOptions(members=1)).hosts[0]
    host.disk.space(4096)
    older = OlderCopy.of(host, 1)
    host.disk.space()
    older.put_back(host)
    assert not host.disk.is_short
    assert host.disk.env.free_space(PATH) == SPACE


def test_a_full_disk_stays_full_under_an_older_copy() -> None:
    host = Cluster(1, SeedOptions(members=1)).hosts[0]
    host.disk.space()
    older = OlderCopy.of(host, 1)
    host.disk.space(4096)
    older.put_back(host)
    assert host.disk.is_short
    assert host.disk.env.free_space(PATH) == 4096
