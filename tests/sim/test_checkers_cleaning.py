"""Every law of cleaning has a test in which it fires: I22, I23 and I24 over logs with gaps."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import pytest

from copycat.errors import InvariantError
from copycat.sim.checkers.compaction import CompactionLaws, Frozen, Write
from copycat.sim.checkers.disk_model import DiskModel
from copycat.sim.checkers.log_history import Frame, Gap, LogHistory
from copycat.types import CompactionLimits, EntryId, Release, Span, TermRun

LAST = 20
ANY, SEQUENTIAL, UNKNOWN = Release.ANY, Release.SEQUENTIAL, Release.UNKNOWN


def fires(rule: str, words: str = "") -> AbstractContextManager[object]:
    return pytest.raises(InvariantError, match=f"^{rule}:.*{words}")


def frames(first: int, end: int) -> list[Frame]:
    """Of term 1 up to 10, of term 2 above."""
    return [(index, 1 if index <= 10 else 2, index * 1000) for index in range(first, end)]


class Known:
    """A reference of which a test says what it knows."""

    def __init__(self) -> None:
        self.last_acknowledged = LAST
        self.in_use = {1}
        self.writes: dict[Hashable, list[Write]] = {}

    def acknowledged_index(self) -> int:
        return self.last_acknowledged

    def needs_snapshot(self, index: int) -> bool:
        return index in self.in_use

    def key_writes(self) -> Mapping[Hashable, Sequence[Write]]:
        return self.writes


class FakeBatch(NamedTuple):
    span: Span
    entries: list[Frame]
    deleted: list[tuple[int, int, int]]

    def checksums(self) -> list[Frame]:
        return self.entries

    def gaps(self) -> list[tuple[int, int, int]]:
        return self.deleted


class FakeLog:
    """What is read after an install: entries with gaps between them, of two terms."""

    def __init__(self, gap_indexes: Mapping[int, int]) -> None:
        self.first_index, self.last_index = 1, LAST
        self.valid_from_of = dict(gap_indexes)
        self.runs = [TermRun(1, 1), TermRun(2, 11)]
        self.crc_of: dict[int, int] = {}

    def read(self, first: int, end: int, max_bytes: int) -> Any:
        term = 1 if first <= 10 else 2
        end = min(end, 11) if term == 1 else end
        entries = [
            (index, term, self.crc_of.get(index, crc))
            for index, term, crc in frames(first, end)
            if index not in self.valid_from_of
        ]
        deleted = [
            (index, index + 1, self.valid_from_of[index])
            for index in range(first, end)
            if index in self.valid_from_of
        ]
        return FakeBatch(Span(term, first, end), entries, deleted)

    def term_runs(self) -> list[TermRun]:
        return self.runs


class Three:
    """Three members with twenty entries, all committed and durable; member 0 cleans."""

    def __init__(self) -> None:
        history = LogHistory()
        history.appended(0, 0, frames(1, LAST + 1))
        history.committed.extend((term, crc) for _, term, crc in frames(1, LAST + 1))
        self.known = Known()
        self.disk_models = [DiskModel(number, history) for number in range(3)]
        self.laws = CompactionLaws(self.known, self.had_by_all)
        for disk_model in self.disk_models:
            disk_model.laws = self.laws
            disk_model.append(frames(1, LAST + 1))
            disk_model.durable = LAST
        self.disk_model = self.disk_models[0]
        self.disk_model.last_applied = lambda: LAST

    def had_by_all(self) -> int:
        return min(one.had for one in self.disk_models)

    def freeze(self, horizon: int = LAST, *, is_major: bool = True) -> Frozen:
        return self.disk_model.freeze(
            CompactionLimits(horizon, horizon, 0), 1, LAST - 1, is_major=is_major
        )

    def drop(
        self, *indexes: int, horizon: int = LAST, valid_from: int = LAST, is_major: bool = True
    ) -> int:
        """Rewrite and install: these go."""
        frozen = self.freeze(horizon, is_major=is_major)
        self.disk_model.installing(frozen)
        gap_indexes = dict.fromkeys([*self.disk_model.gaps.since, *indexes], valid_from)
        return self.disk_model.installed(FakeLog(gap_indexes), frozen)

    def recover(self, *gap_indexes: int, valid_from: int = LAST, last: int = LAST) -> None:
        """A crash; what recovery finds."""
        self.disk_model.crashed()
        remaining = [frame for frame in frames(1, last + 1) if frame[0] not in gap_indexes]
        gaps = [Gap(i, i + 1, 1 if i <= 10 else 2, valid_from) for i in gap_indexes]
        self.disk_model.recovered(remaining, (0, 0), gaps=gaps)


@pytest.fixture
def three() -> Iterator[Three]:
    made = Three()
    made.disk_model.released(8, [(ANY, [3, 4, 5])])
    made.disk_model.released(9, [(SEQUENTIAL, [6])])
    yield made
    assert made.disk_model.entries == made.disk_model.history.committed, "whole, whatever is a gap"


# ---- what may be deleted ------------------------------------------------------------------------


def test_what_the_machine_released_goes(three: Three) -> None:
    assert three.drop(3, 4) == 2
    assert three.drop(5, 6) == 2
    assert three.disk_model.history.deletions == {3: ANY, 4: ANY, 5: ANY, 6: SEQUENTIAL}


def test_c22_a_cleaning_above_its_horizon_or_of_a_log_that_is_replayed(three: Three) -> None:
    three.disk_model.durable = 12
    with fires("I23", "horizon"):
        three.freeze(13)
    three.disk_model.last_applied = lambda: 11
    with fires("I23", "horizon"):
        three.freeze(12)
    three.disk_model.valid_from = lambda: 12
    with fires("I23", "horizon"):
        three.freeze(1)
    three.freeze(0)


def test_i23_an_entry_above_the_horizon(three: Three) -> None:
    with fires("I23", "above the horizon"):
        three.drop(5, horizon=4)


def test_c19_an_entry_that_a_session_stands_on(three: Three) -> None:
    three.known.in_use.add(4)
    with fires("I23", "C19"):
        three.drop(3, 4)


def test_i23_an_entry_that_the_machine_needs(three: Three) -> None:
    with fires("I23", "still needs"):
        three.drop(7)


def test_i23_releases_of_an_earlier_process_do_not_count(three: Three) -> None:
    three.recover()
    three.disk_model.last_applied = lambda: LAST
    with fires("I23", "still needs"):
        three.drop(3)


def test_c21_an_entry_goes_before_the_replies_are_acknowledged(three: Three) -> None:
    three.known.last_acknowledged = 7
    with fires("I23", "C21"):
        three.drop(3)
    three.known.last_acknowledged = 8
    assert three.drop(4) == 1


def test_c21_the_replies_count_when_the_rewrite_is_frozen(three: Three) -> None:
    three.known.last_acknowledged = 7
    frozen = three.freeze()
    three.known.last_acknowledged = LAST
    three.disk_model.installing(frozen)
    with fires("I23", "C21"):
        three.disk_model.installed(FakeLog({3: LAST}), frozen)


def test_i22_a_deletion_that_some_member_does_not_have(three: Three) -> None:
    three.disk_models[2].durable = 5
    with fires("I22", "C23"):
        three.drop(6)
    three.disk_model.released(9, [(SEQUENTIAL, [7])])
    three.disk_models[2].durable = 7
    assert three.drop(7) == 1


def test_a_deletion_that_a_minor_compaction_takes_fires(three: Three) -> None:
    with fires("I23", "minor"):
        three.drop(6, is_major=False)


def test_c20_what_only_a_snapshot_may_take(three: Three) -> None:
    three.disk_model.released(9, [(UNKNOWN, [7]), (Release.SNAPSHOT, [8])])
    for index in (7, 8):
        with fires("I23", "only a snapshot"):
            three.drop(index)


def test_i23_a_gap_is_right_only_after_what_made_up_for_it(three: Three) -> None:
    with fires("I23", "before what made up"):
        three.drop(3, valid_from=7)


def test_a_deletion_that_leaves_before_what_it_deletes_fires(three: Three) -> None:
    three.known.writes = {"k": [Write(3, False), Write(6, True)]}
    with fires("I22", "before what it deletes"):
        three.drop(6)


def test_an_earlier_deletion_that_is_there_is_enough(three: Three) -> None:
    three.known.writes = {"k": [Write(2, False), Write(4, True), Write(5, False), Write(6, True)]}
    assert three.drop(5, 6) == 2


def test_what_every_snapshot_covers_is_not_replayed(three: Three) -> None:
    """Seed 5192: releases are not kept across a restart, so what a snapshot covers may stay in a
    log from which the deletion was deleted."""
    three.known.writes = {"k": [Write(3, False), Write(6, True)]}
    three.disk_model.published(EntryId(1, 6))
    assert three.drop(6) == 1
    three.disk_model.published(EntryId(1, 2))
    with fires("I22", "before what it deletes"):
        three.drop(4)
    three.disk_model.discarded([EntryId(1, 2)])
    assert three.drop(5) == 1


def test_what_was_deleted_by_itself_needs_no_deletion(three: Three) -> None:
    three.known.writes = {"k": [Write(3, False, 100, 120), Write(6, True, 121)]}
    assert three.drop(6) == 1
    swap = Write(4, False, 110, reads=True)
    three.known.writes = {"k": [Write(3, False, 100, 120), swap, Write(6, True, 121)]}
    three.laws.check_order(three.disk_model)
    three.known.writes = {"k": [swap, Write(6, True, 121)]}
    with fires("I22", "before what it deletes"):
        three.laws.check_order(three.disk_model)
    three.known.writes = {"k": [Write(3, False, 100, 121), Write(6, True, 121)]}
    with fires("I22", "before what it deletes"):
        three.drop(5)


# ---- what is left -----------------------------------------------------------------------


def test_i23_a_rewrite_changes_what_it_keeps(three: Three) -> None:
    frozen = three.freeze()
    log = FakeLog({3: LAST})
    log.crc_of[4] = 77
    three.disk_model.installing(frozen)
    with fires("I23", "changed what it kept"):
        three.disk_model.installed(log, frozen)


def test_i23_a_rewrite_brings_back_what_was_gone(three: Three) -> None:
    three.drop(3)
    frozen = three.freeze()
    three.disk_model.installing(frozen)
    with fires("I23", "brought back"):
        three.disk_model.installed(FakeLog({4: LAST}), frozen)


def test_a_cleaned_log_has_the_terms_that_it_had(three: Three) -> None:
    frozen = three.freeze()
    log = FakeLog({3: LAST})
    log.runs = [TermRun(1, 1), TermRun(2, 12)]
    three.disk_model.installing(frozen)
    with fires("I23", "other terms"):
        three.disk_model.installed(log, frozen)


@pytest.mark.parametrize(
    "gap",
    [Gap(3, 4, 1, LAST + 1), Gap(3, 6, 1, 4), Gap(3, 3, 1, 4), Gap(LAST, LAST + 2, 2, LAST + 1)],
)
def test_c22_a_gap_of_what_is_not_committed(three: Three, gap: Gap) -> None:
    with fires("I23", "not committed"):
        three.disk_model.history.filled(0, frames(1, 3), [gap])


def test_a_gap_of_another_term_is_answered_for(three: Three) -> None:
    with fires("I23", "another term"):
        three.disk_model.history.filled(0, [], [Gap(10, 12, 1, 12)])


# ---- what a follower is fed --------------------------------------------------------------


def fed(three: Three) -> DiskModel:
    """A member that lost what was not durable, and hears it again with gaps."""
    disk_model = three.disk_models[1]
    del disk_model.entries[2:]
    disk_model.durable = 2
    return disk_model


def gap_at(index: int) -> Any:
    return FakeBatch(Span(1, index, index + 1), [], [(index, index + 1, LAST)])


def test_i23_a_gap_that_nobody_made(three: Three) -> None:
    with fires("I23", "nobody made"):
        fed(three).announce(gap_at(3))


def test_i22_a_member_is_fed_around_a_deletion(three: Three) -> None:
    three.drop(3, 6)
    disk_model = fed(three)
    disk_model.append(disk_model.announce(gap_at(3)))
    assert disk_model.gaps.within(3, 4)
    disk_model.append(frames(4, 6))
    with fires("I22", "fed around"):
        disk_model.announce(gap_at(6))


def test_an_entry_may_come_where_a_gap_was_lost(three: Three) -> None:
    three.drop(3)
    disk_model = fed(three)
    disk_model.append(disk_model.announce(gap_at(3)))
    del disk_model.entries[2:]
    whole: Any = FakeBatch(Span(1, 3, 4), frames(3, 4), [])
    disk_model.announce(whole)
    assert not disk_model.gaps.within(3, 4)


# ---- after a crash ----------------------------------------------------------------------


def test_f16_an_install_that_was_not_synced_is_there_or_not() -> None:
    for gap_indexes in ((3, 4), (3,), ()):
        three = Three()
        three.disk_model.released(8, [(ANY, [3, 4])])
        three.drop(3)
        three.drop(4)
        three.recover(*gap_indexes)
        assert set(three.disk_model.gaps.since) == set(gap_indexes)


def test_i24_a_part_of_an_install(three: Three) -> None:
    three.drop(3, 4)
    with fires("I24", "neither the old segments nor the new"):
        three.recover(3)


def test_i24_an_install_that_was_synced_is_undone(three: Three) -> None:
    three.drop(3)
    three.disk_model.gaps.durable = 1
    with fires("I24", "neither the old segments nor the new"):
        three.recover()


def test_i24_a_gap_that_no_install_made(three: Three) -> None:
    with fires("I24", "neither the old segments nor the new"):
        three.recover(3)


def test_an_install_that_could_not_be_read_is_judged_when_it_is_found(three: Three) -> None:
    three.disk_model.installing(three.freeze())
    three.recover(3, 4)
    assert set(three.disk_model.gaps.since) == {3, 4}


def test_i23_what_could_not_be_read_is_no_excuse(three: Three) -> None:
    three.disk_model.installing(three.freeze())
    with fires("I23", "still needs"):
        three.recover(3, 7)


def test_i24_a_part_of_what_could_not_be_read(three: Three) -> None:
    three.drop(3)
    three.disk_model.installing(three.freeze())
    with fires("I24", "a part of an install"):
        three.recover(4)


def test_i23_above_what_was_proven_only_gaps_that_somebody_made(three: Three) -> None:
    three.disk_model.durable = 2
    with fires("I23", "nobody made"):
        three.recover(3)


def test_a_log_that_begins_anew_has_no_gaps_and_the_old_one_its_own(three: Three) -> None:
    three.drop(3)
    three.disk_model.gaps.durable = 1
    entry = EntryId(2, 15)
    three.disk_model.published(entry)
    three.disk_model.last_applied = lambda: 0
    three.disk_model.reset(entry)
    assert not three.disk_model.gaps.since
    three.disk_model.crashed()
    remaining = [frame for frame in frames(1, LAST + 1) if frame[0] != 3]
    three.disk_model.recovered(remaining, (0, 0), gaps=[Gap(3, 4, 1, LAST)], snapshots=[entry])
    assert set(three.disk_model.gaps.since) == {3}
