"""The laws of damaged logs fire too (C12), and a seed in which disks rot holds all of them."""

from __future__ import annotations

import pytest

from copycat.errors import InvariantError
from copycat.sim.checkers.disk_model import DiskModel
from copycat.sim.checkers.log_history import LogHistory
from copycat.sim.draws import draw_options
from copycat.sim.runner import run_seed
from copycat.types import NO_ENTRY, EntryId


@pytest.fixture
def disk_model() -> DiskModel:
    """Six entries are here, durably, four of them committed."""
    frames = [(index, 1, index * 1000) for index in range(1, 7)]
    history = LogHistory()
    history.appended(0, 0, frames)
    history.committed.extend((term, crc) for _, term, crc in frames[:4])
    disk_model = DiskModel(0, history)
    disk_model.append(frames)
    disk_model.durable = 6
    disk_model.has_unseen_damage = True
    return disk_model


def test_c12_what_was_durable_counts_as_lost(disk_model: DiskModel) -> None:
    for lost_upto in (NO_ENTRY, EntryId(1, 5)):
        with pytest.raises(InvariantError, match=r"^C12: a damaged log says that it held less"):
            disk_model.cut(NO_ENTRY, 2, lost_upto, 2)
    disk_model.cut(NO_ENTRY, 2, EntryId(1, 6), 2)
    assert (disk_model.last_index, disk_model.durable, len(disk_model.loss.entries_before)) == (
        2,
        2,
        6,
    )
    assert disk_model.had == 6, "a deletion need not wait for it"
    assert not disk_model.has_unseen_damage


def test_c12_nothing_is_lost_that_is_there(disk_model: DiskModel) -> None:
    disk_model.cut(NO_ENTRY, 6, NO_ENTRY, 0)
    assert not disk_model.loss.entries_before


def test_i24_a_cut_log_begins_behind_a_snapshot_or_where_it_began(disk_model: DiskModel) -> None:
    with pytest.raises(InvariantError, match=r"^I24"):
        disk_model.cut(EntryId(1, 3), 6, NO_ENTRY, 0)
    disk_model.published(EntryId(1, 3))
    disk_model.cut(EntryId(1, 3), 6, NO_ENTRY, 0)


def test_c12_a_recovery_ends_when_all_that_is_committed_is_back(disk_model: DiskModel) -> None:
    disk_model.cut(NO_ENTRY, 2, EntryId(1, 6), 2)
    with pytest.raises(InvariantError, match=r"^C12: a loss is forgotten"):
        disk_model.loss.recovered()
    disk_model.append([(index, 1, index * 1000) for index in (3, 4)])
    with pytest.raises(InvariantError, match=r"^C12: a loss is forgotten"):
        disk_model.loss.recovered()
    disk_model.durable = 4
    disk_model.loss.recovered()
    assert not disk_model.loss.entries_before


def test_f8_an_older_copy_is_bound_to_what_was_counted(disk_model: DiskModel) -> None:
    """Entry 4 was durable and is committed, but no leader counted it for this member."""
    loss, log = disk_model.loss, list(disk_model.entries)
    loss.counted(1, 3, log)
    loss.regress()
    del disk_model.entries[2:]
    disk_model.durable = 2
    assert not loss.is_done(lacks_entries=False), "it does not know so far"
    assert not loss.is_done(lacks_entries=True, is_recorded=False)
    assert not loss.is_done(lacks_entries=True)
    assert not loss.is_unaware
    assert loss.is_done(lacks_entries=False)
    with pytest.raises(InvariantError, match=r"^C12: a loss is forgotten.*index=3"):
        loss.recovered()
    disk_model.append([(3, 1, 3000)])
    with pytest.raises(InvariantError, match=r"^C12: a loss is forgotten.*index=3"):
        loss.recovered()
    disk_model.durable = 3
    loss.recovered()
    assert not loss.entries_before


def test_f8_what_is_counted_until_the_older_copy_knows_has_to_come_back(
    disk_model: DiskModel,
) -> None:
    """An acknowledgement of its earlier process arrives late, and a leader believes it."""
    loss, log = disk_model.loss, list(disk_model.entries)
    loss.counted(1, 3, log)
    loss.regress()
    del disk_model.entries[3:]
    disk_model.durable = 3
    loss.counted(1, 4, log)
    assert not loss.is_done(lacks_entries=True)
    with pytest.raises(InvariantError, match=r"^C12: a loss is forgotten.*index=4"):
        loss.recovered()


def test_f8_what_was_truncated_or_is_another_entry_is_not_counted(disk_model: DiskModel) -> None:
    loss, log = disk_model.loss, list(disk_model.entries)
    loss.counted(1, 6, log)
    disk_model.truncate(4)
    assert loss.credited == 4
    loss.counted(1, 6, log)
    disk_model.entries += [(2, 5001), (2, 6001)]
    loss.counted(1, 6, log)
    assert loss.credited == 4
    loss.counted(1, 6, list(disk_model.entries))
    assert loss.credited == 6


def test_f8_what_a_leader_counted_is_forgotten_with_its_process(disk_model: DiskModel) -> None:
    loss, log = disk_model.loss, list(disk_model.entries)
    loss.counted(1, 3, log)
    loss.counted(2, 4, log)
    loss.forgotten(2)
    assert loss.credited == 3
    loss.forgotten(1)
    assert loss.credited == 0


def test_f8_an_older_copy_that_was_filled_before_anybody_told_it_is_done(
    disk_model: DiskModel,
) -> None:
    disk_model.loss.regress()
    disk_model.durable = 5
    assert not disk_model.loss.is_done(lacks_entries=False)
    disk_model.durable = 6
    assert disk_model.loss.is_done(lacks_entries=False)
    disk_model.loss.recovered()


@pytest.mark.slow
def test_older_copies_are_noticed_and_filled_or_stopped() -> None:
    """Where the others are a majority without it, an older copy is stopped for good instead."""
    noticed = stopped = 0
    for seed in range(1, 70):
        if "disk_rollback" in draw_options(seed).faults:
            marks = run_seed(seed).marks
            noticed += marks.get("older copy noticed", 0)
            stopped += marks.get("older copy stopped for good", 0)
    assert noticed >= 1
    assert stopped >= 3


@pytest.mark.slow
def test_disks_rot_and_are_repaired() -> None:
    repaired = 0
    for seed in range(140, 220):
        if "rot" in draw_options(seed).faults:
            repaired += run_seed(seed).marks.get("missing entries are back", 0)
    assert repaired >= 10
