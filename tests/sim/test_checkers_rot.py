"""The laws of damaged logs fire too (C12), and a seed in which disks rot holds all of them."""

from __future__ import annotations

import pytest

from copycat.errors import InvariantError
from copycat.sim.checkers.disk_model import DiskModel
from copycat.sim.checkers.log_history import LogHistory
from copycat.sim.options import draw_options
from copycat.sim.runner import run_seed
from copycat.types import NO_ENTRY, EntryId


@pytest.fixture
def shadow() -> DiskModel:
    """Six entries are here, durably, four of them committed."""
    frames = [(index, 1, index * 1000) for index in range(1, 7)]
    history = LogHistory()
    history.appended(0, 0, frames)
    history.committed.extend((term, crc) for _, term, crc in frames[:4])
    shadow = DiskModel(0, history)
    shadow.append(frames)
    shadow.durable = 6
    shadow.is_rotten = True
    return shadow


def test_c12_a_debt_is_as_much_as_was_durable(shadow: DiskModel) -> None:
    for owed in (NO_ENTRY, EntryId(1, 5)):
        with pytest.raises(InvariantError, match=r"^C12: a damaged log owes less"):
            shadow.cut(NO_ENTRY, 2, owed, 2)
    shadow.cut(NO_ENTRY, 2, EntryId(1, 6), 2)
    assert (shadow.last_index, shadow.durable, len(shadow.loss.held)) == (2, 2, 6)
    assert shadow.had == 6, "a deletion need not wait for it"
    assert not shadow.is_rotten


def test_c12_nothing_is_owed_for_what_is_there(shadow: DiskModel) -> None:
    shadow.cut(NO_ENTRY, 6, NO_ENTRY, 0)
    assert not shadow.loss.held


def test_i24_a_cut_log_begins_behind_a_snapshot_or_where_it_began(shadow: DiskModel) -> None:
    with pytest.raises(InvariantError, match=r"^I24"):
        shadow.cut(EntryId(1, 3), 6, NO_ENTRY, 0)
    shadow.published(EntryId(1, 3))
    shadow.cut(EntryId(1, 3), 6, NO_ENTRY, 0)


def test_c12_a_debt_ends_when_all_that_is_committed_is_back(shadow: DiskModel) -> None:
    shadow.cut(NO_ENTRY, 2, EntryId(1, 6), 2)
    with pytest.raises(InvariantError, match=r"^C12: a debt is forgotten"):
        shadow.loss.repaid()
    shadow.append([(index, 1, index * 1000) for index in (3, 4)])
    with pytest.raises(InvariantError, match=r"^C12: a debt is forgotten"):
        shadow.loss.repaid()
    shadow.durable = 4
    shadow.loss.repaid()
    assert not shadow.loss.held


def test_f8_an_older_copy_is_bound_to_what_was_counted(shadow: DiskModel) -> None:
    """Entry 4 was durable and is committed, but no leader counted it for this member."""
    loss, log = shadow.loss, list(shadow.entries)
    loss.counted(3, log)
    loss.regress()
    del shadow.entries[2:]
    shadow.durable = 2
    assert not loss.is_done(owes=False), "it does not know so far"
    assert not loss.is_done(owes=True, is_recorded=False)
    assert not loss.is_done(owes=True)
    assert not loss.is_unaware
    assert loss.is_done(owes=False)
    with pytest.raises(InvariantError, match=r"^C12: a debt is forgotten.*index=3"):
        loss.repaid()
    shadow.append([(3, 1, 3000)])
    with pytest.raises(InvariantError, match=r"^C12: a debt is forgotten.*index=3"):
        loss.repaid()
    shadow.durable = 3
    loss.repaid()
    assert not loss.held


def test_f8_what_is_counted_until_the_older_copy_knows_has_to_come_back(shadow: DiskModel) -> None:
    """An acknowledgement of its earlier life arrives late, and a leader believes it."""
    loss, log = shadow.loss, list(shadow.entries)
    loss.counted(3, log)
    loss.regress()
    del shadow.entries[3:]
    shadow.durable = 3
    loss.counted(4, log)
    assert not loss.is_done(owes=True)
    with pytest.raises(InvariantError, match=r"^C12: a debt is forgotten.*index=4"):
        loss.repaid()


def test_f8_what_was_truncated_or_is_another_entry_is_not_counted(shadow: DiskModel) -> None:
    loss, log = shadow.loss, list(shadow.entries)
    loss.counted(6, log)
    shadow.truncate(4)
    assert loss.credited == 4
    loss.counted(6, log)
    shadow.entries += [(2, 5001), (2, 6001)]
    loss.counted(6, log)
    assert loss.credited == 4
    loss.counted(6, list(shadow.entries))
    assert loss.credited == 6


def test_f8_an_older_copy_that_was_filled_before_anybody_told_it_is_done(
    shadow: DiskModel,
) -> None:
    shadow.loss.regress()
    shadow.durable = 5
    assert not shadow.loss.is_done(owes=False)
    shadow.durable = 6
    assert shadow.loss.is_done(owes=False)
    shadow.loss.repaid()


@pytest.mark.slow
def test_older_copies_are_noticed_and_filled() -> None:
    noticed = 0
    for seed in range(1, 120):
        if "disk_rollback" in draw_options(seed).faults:
            noticed += run_seed(seed).marks.get("older copy noticed", 0)
    assert noticed >= 3


@pytest.mark.slow
def test_disks_rot_and_are_repaired() -> None:
    repaired = 0
    for seed in range(1, 80):
        if "rot" in draw_options(seed).faults:
            repaired += run_seed(seed).marks.get("debt repaid", 0)
    assert repaired >= 10
