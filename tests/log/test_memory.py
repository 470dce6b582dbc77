"""The fake passes the suite of the real log."""

from __future__ import annotations

import itertools
import random

import pytest

from copycat.storage._native import encode_gap
from copycat.storage.memory import MemoryLog
from copycat.types import EntryId, Release
from tests.log.contract import BIG, Harness, LogContract, durable, grow
from tests.log.contract_cleaning import CleaningContract
from tests.log.contract_compaction import CompactionContract, compact, limits
from tests.log.contract_install import InstallContract


class MemoryHarness(Harness):
    def __init__(self) -> None:
        self._log = MemoryLog(max_entries_per_segment=self.segment_entries)

    def open(self) -> MemoryLog:
        self._log.reopen()
        return self._log

    def crash(self, seed: int) -> None:
        self._log.crash()

    def fail(self, operation: str, error: str) -> None:
        self._log.fail(operation, error)

    def set_full(self, full: bool) -> None:
        self._log.set_room(0 if full else None)


class TestMemoryLog(LogContract, CleaningContract, CompactionContract, InstallContract):
    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()


def changed(log: MemoryLog, rng: random.Random) -> None:
    """Make one change of any kind."""
    first, last = log.first_index, log.last_index
    term = max(1, log.last_entry.term)
    match rng.randrange(12):
        case 0 if last > first:
            log.truncate(rng.randrange(max(first, last - 6), last))
        case 1:
            log.trim(rng.randrange(first, first + 6))
        case 2:
            log.append(encode_gap(term, last + 1, last + 4, 7, last + rng.randrange(4, 40)))
        case 3:
            log.crash()
        case 4 if rng.random() < 0.1:
            log.reset(EntryId(term, last + 1))
        case 5 | 6 | 7:
            durable(log)
            indexes = [index for index in range(first, last + 1) if rng.random() < 0.3]
            log.release(indexes, Release.ANY)
            compact(log, limits(rng.randrange(last + 2)))
        case _:
            grow(log, rng.randrange(1, 6), term=term, each=rng.randrange(1, 4))


@pytest.mark.parametrize("seed", range(4))
def test_valid_from_is_that_of_the_gaps_after_each_change(seed: int) -> None:
    rng = random.Random(seed)
    log = MemoryLog(max_entries_per_segment=6)
    values = []
    for _ in range(150):
        changed(log, rng)
        gaps = []
        index = log.first_index
        while index <= log.last_index:
            batch = log.read(index, log.last_index + 1, BIG)
            gaps += batch.gaps()
            index = batch.span.end
        assert log.valid_from == max((gap[2] for gap in gaps), default=0)
        values.append(log.valid_from)
    assert any(new < old for old, new in itertools.pairwise(values)), "it never fell"
    assert len(set(values)) > 10
