"""The laws of snapshots fire too: I3, I10, I12 and I24 over a log that begins above 1."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest

from copycat.errors import InvariantError
from copycat.protocol.peer import AppendReply, InstallReply
from copycat.raft.configuration import Configuration
from copycat.sim.checkers.disk_model import DiskModel
from copycat.sim.checkers.log_history import LogHistory
from copycat.sim.checkers.raft import RaftChecker
from copycat.sim.draws import draw_options
from copycat.sim.runner import run_seed
from copycat.types import NO_ENTRY, EntryId, MemberId

Frames = list[tuple[int, int, int]]
CONFIRMED = InstallReply(1, 1, EntryId(1, 6), 0, True)


def fires(rule: str) -> AbstractContextManager[object]:
    return pytest.raises(InvariantError, match=f"^{rule}:")


def frames(first: int, end: int, term: int = 1) -> Frames:
    return [(index, term, index * 1000 + term) for index in range(first, end)]


@pytest.fixture
def disk_model() -> DiskModel:
    """Six entries are committed; this member has three of them, two durably."""
    history = LogHistory()
    history.appended(1, 0, frames(1, 9))
    history.committed.extend((term, crc) for _, term, crc in frames(1, 7))
    disk_model = DiskModel(0, history)
    disk_model.append(frames(1, 4))
    disk_model.durable = 2
    return disk_model


def test_i12_a_snapshot_of_what_was_not_committed(disk_model: DiskModel) -> None:
    with fires("I12"):
        disk_model.published(EntryId(1, 7))
    with fires("I12"):
        disk_model.published(EntryId(2, 6))


def test_i12_a_log_loses_what_no_snapshot_covers(disk_model: DiskModel) -> None:
    disk_model.published(EntryId(1, 2))
    disk_model.trim(3)
    with fires("I12"):
        disk_model.trim(4)
    with fires("I12"):
        disk_model.reset(EntryId(1, 6))


def test_i10_a_reset_below_the_commit_or_by_a_leader(disk_model: DiskModel) -> None:
    disk_model.published(EntryId(1, 2))
    disk_model.role = lambda: (False, 3)
    with fires("I10"):
        disk_model.reset(EntryId(1, 2))
    disk_model.role = lambda: (True, 0)
    with fires("I10"):
        disk_model.reset(EntryId(1, 2))


ALONE = Configuration.of(MemberId(101))


def test_i3_a_durable_snapshot_is_as_good_as_the_log(disk_model: DiskModel) -> None:
    checker = RaftChecker([disk_model], [101], lambda *_: None, lambda *_: None, ALONE)
    disk_model.hard_state = (1, 101)
    checker.started(0)
    with fires("I12"):
        checker.sent(0, 0, CONFIRMED)
    disk_model.published(EntryId(1, 6))
    with fires("I12"):  # another entry than the log has at 6
        disk_model.entries = [(term, crc) for _, term, crc in frames(1, 9, term=2)]
        checker.sent(0, 0, CONFIRMED)
    disk_model.reset(EntryId(1, 6))
    checker.sent(0, 0, CONFIRMED)
    checker.sent(0, 0, AppendReply(1, 1, True, 6, NO_ENTRY))
    with fires("I3"):
        checker.sent(0, 0, AppendReply(1, 1, True, 7, NO_ENTRY))


def test_a_crash_before_the_sync_of_a_reset_leaves_either_log(disk_model: DiskModel) -> None:
    entry = EntryId(1, 6)
    for recovered, before in ((frames(1, 3), NO_ENTRY), (frames(7, 9), entry), ([], entry)):
        disk_model.published(entry)
        disk_model.reset(entry)
        disk_model.crashed()
        disk_model.recovered(recovered, (0, 0), before=before, snapshots=[entry])
        assert disk_model.last_index == max([6, *(index for index, _, _ in recovered)])
        assert disk_model.index_after_power_loss == disk_model.last_index
        disk_model.entries, disk_model.durable, disk_model.least, disk_model.most = (
            disk_model.entries[:3],
            2,
            0,
            0,
        )
        disk_model.older.clear()


def test_a_power_cut_inside_a_trim_leaves_what_it_has_not_removed(disk_model: DiskModel) -> None:
    """Seed 313451365034."""
    disk_model.published(EntryId(1, 2))
    disk_model.trim(3)
    disk_model.crashed()
    disk_model.recovered(frames(3, 4), (0, 0), before=EntryId(1, 2), snapshots=[EntryId(1, 2)])
    disk_model.trim(3)
    disk_model.trimmed(3)
    with fires("I24"):
        disk_model.recovered([], (0, 0), before=EntryId(1, 3), snapshots=[EntryId(1, 2)])


def test_i24_a_log_that_begins_elsewhere(disk_model: DiskModel) -> None:
    disk_model.published(EntryId(1, 2))
    disk_model.trim(3)
    disk_model.trimmed(3)
    disk_model.recovered(frames(3, 4), (0, 0), before=EntryId(1, 2), snapshots=[EntryId(1, 2)])
    with fires("I24"):
        disk_model.recovered(frames(2, 4), (0, 0), before=EntryId(1, 1), snapshots=[EntryId(1, 2)])
    with fires("I24"):
        disk_model.recovered([], (0, 0), before=EntryId(1, 3), snapshots=[EntryId(1, 2)])


def test_i24_a_durable_snapshot_is_gone(disk_model: DiskModel) -> None:
    disk_model.published(EntryId(1, 2))
    with fires("I24"):
        disk_model.recovered(frames(1, 4), (0, 0), snapshots=[EntryId(1, 1)])


def test_a_member_that_was_away_is_sent_a_snapshot() -> None:
    """Three seeds in ten draw snapshots, most of those a member that is away for long."""
    drawn = [(seed, draw_options(seed)) for seed in range(200)]
    with_snapshots = [seed for seed, one in drawn if one.limits.snapshot_threshold]
    away = [seed for seed, one in drawn if one.faults == ("away",)]
    assert 40 <= len(with_snapshots) <= 80
    marks = run_seed(away[0]).marks
    assert marks["snapshot taken"]
    assert marks["snapshot installed"]
    assert marks["log trimmed"]
    assert marks["log reset"]
