"""The sentences of `ReplicaLog` about a log that is not whole: resets, gaps, compaction.

`test_memory` and `test_native` run this suite too.
"""

from __future__ import annotations

import pytest

from copycat.log.interface import ReplicaLog
from copycat.types import NO_ENTRY, EntryId
from tests.log.contract import Harness, batch, contents, durable, expected, grow

__all__ = ["CleaningContract"]


class CleaningContract:
    """The sentences; a subclass gives the fixture `harness`."""

    @pytest.fixture
    def log(self, harness: Harness) -> ReplicaLog:
        return harness.open()

    # --- reset -------------------------------------------------------------------------------

    def test_before_is_the_entry_below_the_first(self, log: ReplicaLog) -> None:
        assert log.before == NO_ENTRY
        grow(log, 20, term=3)
        assert log.before == NO_ENTRY
        log.trim(18)
        assert log.before == EntryId(3, log.first_index - 1)
        assert log.valid_from == 0

    @pytest.mark.parametrize("entry", [EntryId(2, 7), EntryId(2, 20), EntryId(9, 4000)])
    def test_c24_reset_begins_anew_right_after_an_entry(
        self, log: ReplicaLog, harness: Harness, entry: EntryId
    ) -> None:
        grow(log, 20)
        durable(log)
        log.reset(entry)
        assert log.first_index == entry.index + 1
        assert log.last_entry == log.before == entry
        assert contents(log) == []
        assert log.term_runs() == []
        assert log.durable_index <= entry.index
        with pytest.raises(ValueError, match=r"\d"):
            log.append(batch(entry.index + 1, b"x", term=entry.term - 1))
        grow(log, 12, term=9)
        assert durable(log) == entry.index + 12
        harness.crash(seed=5)
        again = harness.open()
        assert again.before == entry
        assert contents(again) == expected(entry.index + 1, entry.index + 13, term=9)

    def test_c24_a_crash_before_the_sync_leaves_the_old_log_or_the_new(
        self, log: ReplicaLog, harness: Harness
    ) -> None:
        grow(log, 20)
        durable(log)
        log.reset(EntryId(2, 300))
        harness.crash(seed=2)
        again = harness.open()
        assert contents(again) in ([], expected(1, 21))
        assert again.last_entry in (EntryId(2, 300), EntryId(1, 20))

    def test_c6_a_sync_of_before_a_reset_proves_nothing_after_it(self, log: ReplicaLog) -> None:
        grow(log, 6)
        ticket = log.begin_sync()
        ticket.run()
        log.reset(EntryId(2, 3))
        grow(log, 4, term=2)
        assert log.end_sync(ticket) == 3
        assert durable(log) == 7

    def test_a_reset_to_nothing_is_a_new_log(self, log: ReplicaLog) -> None:
        grow(log, 20)
        log.reset(NO_ENTRY)
        assert (log.first_index, log.last_index) == (1, 0)
        with pytest.raises(ValueError, match=r"\d"):
            log.reset(EntryId(0, 7))
