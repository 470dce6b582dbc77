"""Repairs that build on a snapshot, snapshots that rot (F17), and repairs that are cut short."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from copycat.errors import CorruptLogError, DiskError
from copycat.member.directory import MemberDirectory
from copycat.member.markers import LOST_ENTRIES_FILE
from copycat.member.verify import verify
from copycat.storage._native import FaultEnv
from copycat.storage.reader import segments
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import CompactionLimits, EntryId, Release
from tests.log.contract import batch, contents, durable, expected, grow
from tests.log.test_directory import PATH, open_member
from tests.log.test_repair import ALONE, LOG, SNAPSHOTS, lost_upto, noted, rot, snapshots_of, used


def with_snapshots(env: FaultEnv, *indexes: int, count: int = 13, **options: Any) -> None:
    used(env, count, **options)
    store = SnapshotStore(env, SNAPSHOTS)
    for index in indexes:
        store.admit(store.save(EntryId(2, index), time_ms=7, data=b"state %d" % index))


@pytest.mark.parametrize("members", [{}, ALONE], ids=["three", "alone"])
def test_f2_what_a_snapshot_covers_is_not_lost(members: dict[str, Any]) -> None:
    env = FaultEnv()
    with_snapshots(env, 4, 7, **members)
    rot(env, 3)
    directory = open_member(env, whole=True, **members, **snapshots_of(env))
    assert directory.lost_entries is None
    assert directory.log.before == EntryId(2, 7)
    assert contents(directory.log) == expected(8, 14, 2)
    assert not env.exists(f"{PATH}/{LOST_ENTRIES_FILE}")
    assert verify(PATH, env=env).ok


def test_f2_damage_on_both_sides_of_a_snapshot() -> None:
    env = FaultEnv()
    with_snapshots(env, 7)
    rot(env, 3)
    rot(env, 12)
    directory = open_member(env, **snapshots_of(env))
    assert directory.log.before == EntryId(2, 7)
    assert contents(directory.log) == expected(8, 12, 2)
    assert lost_upto(directory) == EntryId(2, 13)


def test_f2_damage_at_the_snapshots_own_entry_keeps_nothing_that_may_not_follow_it() -> None:
    env = FaultEnv()
    with_snapshots(env, 7)
    directory = open_member(env)
    directory.close()
    rot(env, 7)
    again = noted(env, 7, **snapshots_of(env))
    assert (again.log.before, again.log.last_index) == (EntryId(2, 7), 7)
    assert lost_upto(again) == EntryId(2, 13)


def trimmed(env: FaultEnv, **options: Any) -> None:
    """A member whose log begins at 6: two snapshots, of 5 and of 7, cover the rest."""
    with_snapshots(env, 5, 7, **options)
    directory = open_member(env, **options)
    directory.log.trim(6)
    durable(directory.log)
    directory.close()
    assert segments(LOG, env=env)[0].first_index == 6


def test_f17_the_older_snapshot_and_the_log_are_enough() -> None:
    env = FaultEnv()
    trimmed(env)
    env.corrupt(f"{SNAPSHOTS}/7-2.snap", 40, 1)
    directory = open_member(env, **snapshots_of(env))
    assert directory.lost_entries is None
    assert directory.snapshots is not None
    good = directory.snapshots.newest_good()
    assert good is not None
    assert good[0].entry == EntryId(2, 5)
    assert contents(directory.log) == expected(6, 14, 2)


def test_f17_without_a_snapshot_the_log_is_of_no_use_and_all_of_it_is_lost() -> None:
    env = FaultEnv()
    trimmed(env)
    for index in (5, 7):
        env.corrupt(f"{SNAPSHOTS}/{index}-2.snap", 40, 1)
    directory = open_member(env, **snapshots_of(env))
    assert (directory.log.first_index, directory.log.last_index) == (1, 0)
    assert lost_upto(directory) == EntryId(2, 13)
    assert not directory.fresh
    assert sorted(env.list(SNAPSHOTS)) == ["5-2.snap.bad", "7-2.snap.bad"]
    assert directory.snapshots is not None
    assert directory.snapshots.newest_good() is None
    directory.close()
    assert lost_upto(open_member(env, **snapshots_of(env))) == EntryId(2, 13)


def test_f17_a_log_from_the_first_entry_with_gaps_is_of_no_use_either() -> None:
    env = FaultEnv()
    with_snapshots(env, 5, 7)
    directory = open_member(env)
    log = directory.native
    log.release([2, 3, 4, 7], Release.ANY)
    groups = [[row[0]] for row in log.segments()[:2]]
    work = log.rewrite(groups, CompactionLimits(13, 13, 0), major=True)
    work.run()
    log.install(work)
    durable(log)
    directory.close()
    for index in (5, 7):
        env.corrupt(f"{SNAPSHOTS}/{index}-2.snap", 40, 1)
    again = open_member(env, **snapshots_of(env))
    assert (again.log.first_index, again.log.last_index) == (1, 0)
    assert lost_upto(again) == EntryId(2, 13)
    assert sorted(env.list(SNAPSHOTS)) == ["5-2.snap.bad", "7-2.snap.bad"]


def test_f17_a_member_alone_keeps_everything_and_is_told_by_its_replica() -> None:
    env = FaultEnv()
    trimmed(env, **ALONE)
    for index in (5, 7):
        env.corrupt(f"{SNAPSHOTS}/{index}-2.snap", 40, 1)
    directory = open_member(env, **ALONE, **snapshots_of(env))
    assert contents(directory.log) == expected(6, 14, 2)
    assert directory.lost_entries is None


def test_f2_a_log_that_begins_behind_a_snapshot_keeps_its_front() -> None:
    env = FaultEnv()
    trimmed(env)
    rot(env, 12)
    again = noted(env, 12, **snapshots_of(env))
    assert again.log.before == EntryId(2, 5)
    assert contents(again.log) == expected(6, 12, 2)
    assert lost_upto(again) == EntryId(2, 13)


def test_f2_gaps_are_kept_byte_for_byte() -> None:
    env = FaultEnv()
    used(env, kill=False)
    directory = open_member(env)
    log = directory.native
    log.release([2, 3, 4, 7], Release.ANY)
    groups = [[row[0]] for row in log.segments()[:2]]
    work = log.rewrite(groups, CompactionLimits(13, 13, 0), major=True)
    work.run()
    log.install(work)
    durable(log)
    gaps = [gap for batch in log.scan(1, 11) for gap in batch.gaps()]
    assert gaps
    directory.close()
    again = noted(env, 12)
    assert [gap for batch in again.log.scan(1, 12) for gap in batch.gaps()] == gaps
    assert again.log.valid_from == max(gap[2] for gap in gaps)
    assert verify(PATH, env=env).ok


# ---- crashes -----------------------------------------------------------------------------------


def crashed_repairs(damage: list[int], *indexes: int) -> list[MemberDirectory]:
    """The power is cut after every operation of a repair; what the next start finds."""
    directories: list[MemberDirectory] = []
    clean = FaultEnv()
    with_snapshots(clean, *indexes)
    for index in damage:
        rot(clean, index)
    before = clean.clone()
    start = before.operations
    open_member(before, **snapshots_of(before))
    for operations in range(before.operations - start + 1):
        for seed in (1, 2, 3):
            env = clean.clone()
            env.stop_after(operations)
            with contextlib.suppress(DiskError):
                open_member(env, **snapshots_of(env))
            env.crash(operations * 7 + seed)
            directories.append(open_member(env, **snapshots_of(env)))
    return directories


def test_i24_a_repair_may_be_cut_anywhere_and_never_forgets_what_was_lost() -> None:
    for directory in crashed_repairs([4, 12]):
        assert contents(directory.log) == expected(1, 4, 2)
        assert lost_upto(directory) == EntryId(2, 13)
        assert directory.hard_state.current_term == 4
        assert not directory.fresh


def test_i24_a_repair_behind_a_snapshot_may_be_cut_anywhere() -> None:
    for directory in crashed_repairs([4, 12], 7):
        assert directory.log.before == EntryId(2, 7)
        assert contents(directory.log) == expected(8, 12, 2)
        assert lost_upto(directory) == EntryId(2, 13)


def test_i24_the_end_of_a_recovery_may_be_cut_anywhere() -> None:
    clean = FaultEnv()
    used(clean)
    rot(clean, 4)
    rot(clean, 12)
    directory = open_member(clean)
    grow(directory.log, 10, term=2)
    durable(directory.log)
    for operations in range(3):
        env = clean.clone()
        env.crash_process()
        again = open_member(env)
        env.stop_after(operations)
        assert again.lost_entries is None, "it held enough when it was opened"
        env.crash(operations)
        assert open_member(env).lost_entries is None
    assert directory.lost_entries is not None
    directory.lost_entries.clear()
    assert not clean.exists(f"{PATH}/{LOST_ENTRIES_FILE}")
    directory.lost_entries.clear()


def test_f2_a_damaged_block_of_a_packed_segment() -> None:
    """The entries in the blocks before it stay; a block has no mark behind which to continue."""
    env = FaultEnv()
    options: dict[str, Any] = {"compress": True, "max_segment_size": 1 << 18}
    directory = open_member(env, **options, max_entries_per_segment=200)
    log = directory.native
    for index in range(1, 301):
        log.append(batch(index, b"%d" % index + bytes(900)))
    durable(log)
    log.release([2], Release.ANY)
    work = log.rewrite([[log.segments()[0][0]]], CompactionLimits(300, 300, 0), major=True)
    work.run()
    log.install(work)
    durable(log)
    (row, *_) = segments(LOG, env=env)
    assert row.packed
    directory.close()
    path = f"{LOG}/{row.name}"
    env.corrupt(path, env.size(path) // 2, 0x10)  # the first block is the last in the file
    again = open_member(env, **options)
    with pytest.raises(CorruptLogError) as caught:
        contents(again.log)
    assert again.note(caught.value) is not None
    again.close()
    repaired = open_member(env, **options)
    last = repaired.log.last_index
    assert 0 < last < row.last_index
    assert [index for index, *_ in contents(repaired.log)] == [1, *range(3, last + 1)]
    assert lost_upto(repaired) == EntryId(1, 300)
    assert verify(PATH, env=env).ok
