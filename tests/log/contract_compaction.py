"""The sentences of `ReplicaLog` about releases, rewrites and their installation.

`test_memory` and `test_native` run this suite too.
"""

from __future__ import annotations

import itertools
import threading
from array import array

import pytest

from copycat.errors import DiskError, DiskFullError, InvariantError
from copycat.storage._native import encode_gap
from copycat.storage.interface import ReplicaLog, Rewrite
from copycat.types import (
    CompactionLimits,
    CompactionResult,
    EntryId,
    EntryKind,
    Release,
    TermRun,
)
from tests.log.contract import BIG, Harness, batch, contents, durable, expected, grow
from tests.log.contract_cleaning import layout

__all__ = ["CompactionContract", "compact", "limits", "sealed"]


def limits(
    horizon: int, deletion_floor: int | None = None, snapshot_index: int = 0
) -> CompactionLimits:
    return CompactionLimits(
        horizon, horizon if deletion_floor is None else deletion_floor, snapshot_index
    )


def sealed(log: ReplicaLog) -> list[int]:
    return [row.id for row in log.segment_stats(limits(0)) if row.is_sealed]


def compact(
    log: ReplicaLog,
    upto: CompactionLimits,
    *,
    major: bool = False,
    groups: list[list[int]] | None = None,
) -> CompactionResult:
    """Rewrite these groups, or every sealed segment for itself, and install."""
    made = [[each] for each in sealed(log)] if groups is None else groups
    rewrite = log.rewrite(made, upto, major=major)
    rewrite.run()
    return log.install(rewrite)


def filled(log: ReplicaLog, count: int = 40) -> None:
    grow(log, count)
    durable(log)


def left(log: ReplicaLog) -> list[int]:
    return [index for index, _, kind in _ones(log) if kind != EntryKind.GAP]


def _ones(log: ReplicaLog) -> list[tuple[int, int, int]]:
    return [part for part in layout(log) if part[2] != EntryKind.GAP]


class CompactionContract:
    """The sentences; a subclass gives the fixture `harness`."""

    @pytest.fixture
    def log(self, harness: Harness) -> ReplicaLog:
        return harness.open()

    # --- releases ----------------------------------------------------------------------------

    def test_stats_are_of_every_segment_the_tail_last(self, log: ReplicaLog) -> None:
        filled(log)
        rows = log.segment_stats(limits(40))
        assert [row.is_sealed for row in rows] == [True] * (len(rows) - 1) + [False]
        assert rows[0].first_index == 1
        assert rows[-1].last_index == 40
        assert all(a.last_index + 1 == b.first_index for a, b in itertools.pairwise(rows))
        assert sum(row.entries for row in rows) == 40
        assert all(row.nbytes > 0 and row.version == 1 for row in rows)
        assert sum(row.released + row.removable_minor + row.removable_major for row in rows) == 0

    def test_a_segment_that_is_not_durable_is_not_sealed_for_a_compaction(
        self, log: ReplicaLog
    ) -> None:
        grow(log, 10)
        assert log.durable_index == 0
        assert len(log.segment_stats(limits(0))) > 1
        assert sealed(log) == []
        durable(log)
        assert sealed(log) != []

    def test_release_is_idempotent_and_a_stricter_class_never_replaces_a_looser(
        self, log: ReplicaLog
    ) -> None:
        filled(log)
        log.release([3], Release.SEQUENTIAL)
        log.release(array("Q", [3, 3]), Release.SEQUENTIAL)
        row = log.segment_stats(limits(40))[0]
        assert (row.released, row.removable_minor, row.removable_major) == (1, 0, 1)
        log.release((3,), Release.ANY)
        log.release([3], Release.UNKNOWN)
        row = log.segment_stats(limits(40))[0]
        assert (row.released, row.removable_minor, row.removable_major) == (1, 1, 1)

    @pytest.mark.parametrize(
        ("policy", "reach"),
        [
            (Release.ANY, (30, 30)),
            (Release.STABLE, (20, 20)),
            (Release.SEQUENTIAL, (0, 20)),
            (Release.SNAPSHOT, (10, 10)),
            (Release.UNKNOWN, (0, 10)),
        ],
    )
    def test_what_each_mode_lets_be_deleted_and_when(
        self, log: ReplicaLog, policy: Release, reach: tuple[int, int]
    ) -> None:
        filled(log)
        log.release(range(1, 41), policy)
        rows = log.segment_stats(CompactionLimits(30, 20, 10))
        removable = sum(r.removable_minor for r in rows), sum(r.removable_major for r in rows)
        assert removable == reach
        for major in (False, True):
            compact(log, CompactionLimits(30, 20, 10), major=major)
            assert left(log) == list(range(reach[major] + 1, 41))

    def test_a_release_above_the_log_is_an_index_error_and_does_nothing(
        self, log: ReplicaLog
    ) -> None:
        filled(log)
        with pytest.raises(IndexError, match="41"):
            log.release([1, 2, 41], Release.ANY)
        assert log.segment_stats(limits(40))[0].released == 0

    def test_a_release_below_the_log_or_in_a_gap_is_ignored(self, log: ReplicaLog) -> None:
        filled(log)
        log.release(range(1, 6), Release.ANY)
        compact(log, limits(40))
        log.release(range(6), Release.ANY)
        assert log.segment_stats(limits(40))[0].released == 0
        log.trim(20)
        log.release(range(1, 10), Release.ANY)
        assert sum(row.released for row in log.segment_stats(limits(40))) == 0

    def test_c22_nothing_above_the_horizon_or_what_is_durable_goes(self, log: ReplicaLog) -> None:
        filled(log, 20)
        grow(log, 20)
        log.release(range(1, 41), Release.ANY)
        removable = sum(r.removable_minor for r in log.segment_stats(limits(1000)))
        assert 16 <= removable <= log.durable_index < 40
        assert sum(r.removable_minor for r in log.segment_stats(limits(11))) == 11

    def test_the_last_entry_and_the_tail_are_never_touched(self, log: ReplicaLog) -> None:
        filled(log)
        log.release(range(1, 41), Release.ANY)
        rows = log.segment_stats(limits(1000))
        assert rows[-1].released == rows[-1].entries
        assert rows[-1].removable_minor == 0
        log.truncate(12)  # leaves an empty tail behind a sealed segment
        assert sum(r.removable_minor for r in log.segment_stats(limits(1000))) == 11

    def test_a_truncation_takes_releases_back(self, log: ReplicaLog) -> None:
        filled(log)
        log.release(range(1, 41), Release.ANY)
        log.truncate(12)
        grow(log, 20, term=2)
        durable(log)
        assert sum(row.released for row in log.segment_stats(limits(32))) == 12

    def test_releases_are_found_again_when_the_tail_is_sealed(self, log: ReplicaLog) -> None:
        grow(log, 3)
        log.release([2], Release.ANY)
        grow(log, 20)
        log.release([3], Release.ANY)
        durable(log)
        assert log.segment_stats(limits(20))[0].removable_minor == 2

    # --- rewriting ---------------------------------------------------------------------------

    def test_terms_and_prev_answer_as_before(self, log: ReplicaLog, harness: Harness) -> None:
        for term in (1, 3, 4):
            grow(log, 15, term=term)
        durable(log)
        rows = {row[0]: row for row in contents(log)}
        runs = log.term_runs()
        dropped_indexes = [i for i in range(1, 46) if i % 7 and i % 15]
        log.release(dropped_indexes, Release.ANY)
        before = log.segment_stats(limits(45))
        result = compact(log, limits(45))
        after = log.segment_stats(limits(45))
        dropped = sum(row.removable_minor for row in before)
        assert result.entries_dropped == dropped > 20
        assert result.segments_before == result.segments_after == len(before) - 1
        assert [row.version for row in after[:-1]] == [2] * result.segments_after
        assert result.bytes_before == sum(row.nbytes for row in before[:-1])
        plain = sum(row.nbytes for row in after[:-1])
        if harness.packs:
            assert 0 < result.bytes_after < plain / 2
        else:
            assert result.bytes_after == plain
        assert sum(row.entries for row in after) == 45 - dropped
        self.check_compacted(log, rows, runs)
        durable(log)
        harness.crash(seed=8)
        self.check_compacted(harness.open(), rows, runs)

    def check_compacted(
        self, log: ReplicaLog, rows: dict[int, tuple[int, int, bytes]], runs: list[TermRun]
    ) -> None:
        left = contents(log)
        assert len(left) < len(rows)
        assert all(rows[row[0]] == row for row in left)
        assert log.term_runs() == runs
        assert log.valid_from == 45
        assert log.last_entry == EntryId(4, 45)
        assert (log.first_index, log.last_index) == (1, 45)
        covered = layout(log)
        assert covered[0][0] == 1
        assert all(a[1] == b[0] for a, b in itertools.pairwise(covered))

    def test_live_frames_are_copied_verbatim(self, log: ReplicaLog) -> None:
        filled(log)
        before = {row[0]: row for row in log.read(1, 9, BIG).checksums()}
        log.release([2, 3, 5], Release.ANY)
        compact(log, limits(40))
        read = log.read(1, 9, BIG)
        assert read.checksums() == [before[i] for i in sorted(before) if i not in {2, 3, 5}]
        assert read.gaps() == [(2, 4, 40), (5, 6, 40)]

    def test_neighbouring_gaps_become_one_with_the_later_valid_from(self, log: ReplicaLog) -> None:
        filled(log)
        log.release([2, 4], Release.ANY)
        compact(log, limits(20))
        log.release([3], Release.ANY)
        compact(log, limits(30))
        assert log.read(1, 9, BIG).gaps() == [(2, 5, 30)]
        assert log.valid_from == 30

    def test_a_gap_never_spans_two_terms(self, log: ReplicaLog) -> None:
        grow(log, 5)
        grow(log, 15, term=2)
        durable(log)
        log.release(range(1, 21), Release.ANY)
        compact(log, limits(20))
        assert log.term_runs() == [TermRun(1, 1), TermRun(2, 6)]
        assert log.read(1, 20, BIG).gaps() == [(1, 6, 20)]

    def test_a_group_becomes_one_segment(self, log: ReplicaLog, harness: Harness) -> None:
        filled(log)
        ids = sealed(log)
        log.release(range(2, 40), Release.ANY)
        result = compact(log, limits(40), groups=[ids[:2], ids[2:]])
        assert (result.segments_before, result.segments_after) == (len(ids), 2)
        assert sealed(log) == [ids[0], ids[2]]
        durable(log)
        log.close()
        again = harness.open()
        assert sealed(again) == [ids[0], ids[2]]
        assert left(again)[0] == 1
        log = again
        grow(log, 30)
        durable(log)
        log.release(range(1, 70), Release.ANY)
        compact(log, limits(70), groups=[sealed(log)])
        assert len(log.segment_stats(limits(0))) == 2
        assert log.segment_stats(limits(0))[0].version == 3

    def test_a_group_of_other_than_sealed_neighbours_is_refused(self, log: ReplicaLog) -> None:
        filled(log)
        ids = sealed(log)
        tail = log.segment_stats(limits(0))[-1].id
        for group in ([], [ids[0], ids[2]], [ids[1], ids[0]], [tail], [ids[-1], tail], [9999]):
            with pytest.raises(ValueError, match=r"segment"):
                log.rewrite([group], limits(40), major=False)

    def test_a_configuration_that_nobody_released_stays(self, log: ReplicaLog) -> None:
        grow(log, 2)
        log.append(batch(3, b"members", kind=EntryKind.CONFIGURATION))
        grow(log, 20)
        durable(log)
        log.release([1, 2, 4, 5], Release.ANY)
        compact(log, limits(20))
        assert left(log)[:2] == [3, 6]
        assert log.read(3, 20, BIG).span.length == 1

    # --- installing --------------------------------------------------------------------------

    def test_what_is_released_meanwhile_is_carried_over(self, log: ReplicaLog) -> None:
        filled(log)
        log.release([2, 3], Release.ANY)
        log.release([5], Release.UNKNOWN)
        rewrite = log.rewrite([[each] for each in sealed(log)], limits(40), major=False)
        log.release([4, 9], Release.ANY)
        rewrite.run()
        log.release([6], Release.SEQUENTIAL)
        assert log.install(rewrite).entries_dropped == 2
        row = log.segment_stats(limits(40, snapshot_index=40))[0]
        assert (row.released, row.removable_minor, row.removable_major) == (3, 1, 3)
        compact(log, limits(40))
        assert left(log)[:6] == [1, 5, 6, 7, 8, 10]

    def test_what_is_appended_meanwhile_stays(self, log: ReplicaLog, harness: Harness) -> None:
        filled(log)
        log.release(range(1, 20), Release.ANY)
        rewrite = log.rewrite([[each] for each in sealed(log)], limits(40), major=False)
        worker = threading.Thread(target=rewrite.run)
        worker.start()
        grow(log, 30)
        durable(log)
        worker.join()
        grow(log, 3)
        log.install(rewrite)
        assert durable(log) == 73
        harness.crash(seed=4)
        assert contents(harness.open()) == expected(20, 74)

    def test_a_rewrite_is_installed_once_after_its_run(self, log: ReplicaLog) -> None:
        filled(log)
        rewrite = log.rewrite([sealed(log)], limits(40), major=False)
        with pytest.raises(InvariantError):
            log.install(rewrite)
        rewrite.run()
        log.install(rewrite)
        with pytest.raises(InvariantError):
            log.install(rewrite)

    @pytest.mark.parametrize("change", ["truncate", "trim", "reset"])
    def test_what_the_log_lets_go_before_a_rewrite_begins_is_no_error(
        self, log: ReplicaLog, harness: Harness, change: str
    ) -> None:
        """Seed 31: the files of a trimmed front were gone when the rewrite came to them, and the
        member stopped."""
        filled(log)
        log.release([3, 27], Release.ANY)
        ids = sealed(log)
        rewrites = [log.rewrite([[each]], limits(40), major=False) for each in (ids[0], ids[3])]
        if change == "truncate":
            log.truncate(12)
        elif change == "trim":
            log.trim(12)
        else:
            log.reset(EntryId(2, 100))
        durable(log)  # their files go with the manifest
        for rewrite in rewrites:
            rewrite.run()
        dropped = [log.install(rewrite).entries_dropped for rewrite in rewrites]
        assert dropped == {"truncate": [1, 0], "trim": [0, 1], "reset": [0, 0]}[change]
        covered = layout(log)
        durable(log)
        log.close()
        assert layout(harness.open()) == covered

    @pytest.mark.parametrize("change", ["truncate", "trim", "reset"])
    def test_a_group_that_the_log_changed_under_is_dropped(
        self, log: ReplicaLog, harness: Harness, change: str
    ) -> None:
        filled(log)
        ids = sealed(log)
        log.release(range(1, 40), Release.ANY)
        rewrite = log.rewrite([[each] for each in ids], limits(40), major=False)
        rewrite.run()
        if change == "truncate":
            log.truncate(12)
        elif change == "trim":
            log.trim(12)
        else:
            log.reset(EntryId(5, 100))
        result = log.install(rewrite)
        segments = {"truncate": 1, "trim": len(ids) - 1, "reset": 0}[change]
        assert result.segments_before == segments
        last = log.last_index
        covered = layout(log)
        durable(log)
        log.close()
        again = harness.open()
        assert again.last_index == last
        assert layout(again) == covered

    def test_an_abandoned_rewrite_leaves_nothing(self, log: ReplicaLog) -> None:
        filled(log)
        log.release(range(1, 40), Release.ANY)
        made: list[Rewrite] = []
        for after_run in (False, True):
            rewrite = log.rewrite([sealed(log)], limits(40), major=False)
            if after_run:
                rewrite.run()
            rewrite.abandon()
            rewrite.run()
            made.append(rewrite)
            with pytest.raises(InvariantError):
                log.install(rewrite)
        assert contents(log) == expected(1, 41)
        compact(log, limits(40))
        assert len(contents(log)) < 10

    def test_f16_a_crash_before_the_sync_leaves_the_old_segments_or_the_new(
        self, log: ReplicaLog, harness: Harness
    ) -> None:
        filled(log)
        log.release(range(1, 40), Release.ANY)
        compact(log, limits(40))
        new = contents(log)
        harness.crash(seed=0)
        assert contents(harness.open()) in (expected(1, 41), new)

    @pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
    def test_f13_a_rewrite_that_the_disk_refuses_changes_nothing(
        self, log: ReplicaLog, harness: Harness, error: str
    ) -> None:
        filled(log)
        log.release(range(1, 40), Release.ANY)
        rewrite = log.rewrite([sealed(log)], limits(40), major=False)
        harness.fail("write", error)
        with pytest.raises(DiskFullError if error == "ENOSPC" else DiskError):
            rewrite.run()
        with pytest.raises(InvariantError):
            log.install(rewrite)
        grow(log, 3)
        assert durable(log) == 43
        assert contents(log) == expected(1, 44)
        compact(log, limits(40))
        assert len(contents(log)) < 12

    def test_a_view_of_what_was_rewritten_keeps_its_bytes(self, log: ReplicaLog) -> None:
        filled(log)
        entries = log.read(1, 5, BIG)
        before = bytes(entries)
        log.release(range(1, 40), Release.ANY)
        compact(log, limits(40))
        durable(log)
        durable(log)
        assert bytes(memoryview(entries)) == before

    def test_a_received_gap_is_rewritten_like_a_made_one(self, log: ReplicaLog) -> None:
        grow(log, 2)
        log.append(encode_gap(1, 3, 30, 9, 29))
        grow(log, 30)
        durable(log)
        log.release([2, 30], Release.ANY)
        compact(log, limits(40))
        assert (2, 31, EntryKind.GAP) in layout(log)
        assert log.valid_from == 40
