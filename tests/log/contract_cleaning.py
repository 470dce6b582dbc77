"""The sentences of `ReplicaLog` about a log that is not whole: resets, gaps, compaction.

`test_memory` and `test_native` run this suite too.
"""

from __future__ import annotations

import pytest

from copycat.storage._native import encode_gap
from copycat.storage.interface import ReplicaLog
from copycat.types import NO_ENTRY, EntryId, EntryKind, Run, Span, TermRun
from tests.log.contract import BIG, Harness, batch, contents, durable, expected, grow

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

    # --- gaps --------------------------------------------------------------------------------

    def test_c3_a_gap_is_appended_and_read_like_any_batch(
        self, log: ReplicaLog, harness: Harness
    ) -> None:
        with_gaps(log)
        assert layout(log) == LAYOUT
        assert log.valid_from == 40
        assert log.term_runs() == [TermRun(1, 1), TermRun(2, 60)]
        assert durable(log) == 70
        harness.crash(seed=6)
        again = harness.open()
        assert layout(again) == LAYOUT
        assert again.valid_from == 40

    def test_c3_a_read_that_begins_inside_a_gap_gives_the_rest_of_it(
        self, log: ReplicaLog
    ) -> None:
        with_gaps(log)
        for first in range(4, 30):
            part = log.read(first, 35, 1)
            assert part.span == Span(1, first, 30)
            assert part.runs(first, 30) == [Run(first, EntryKind.GAP, 9, 0, 30, 40, [])]
        assert log.read(7, 12, BIG).span == Span(1, 7, 12)

    def test_c4_a_gap_and_what_follows_is_never_read_across_a_term(self, log: ReplicaLog) -> None:
        with_gaps(log)
        assert log.read(60, 71, BIG).span.term == 2
        assert log.read(30, 71, BIG).span.end <= 60

    @pytest.mark.parametrize("after", [3, 4, 17, 29, 30, 65])
    def test_a_truncation_may_end_inside_a_gap(
        self, log: ReplicaLog, harness: Harness, after: int
    ) -> None:
        with_gaps(log)
        durable(log)
        log.truncate(after)
        grow(log, 2, term=3)
        assert durable(log) == after + 2
        log.close()
        again = harness.open()
        cut = [(first, min(end, after + 1), kind) for first, end, kind in LAYOUT if first <= after]
        new = [(after + 1 + step, after + 2 + step, EntryKind.TICK) for step in range(2)]
        assert layout(again) == cut + new

    def test_a_gap_elsewhere_than_at_the_end_is_refused(self, log: ReplicaLog) -> None:
        grow(log, 3)
        with pytest.raises(ValueError, match=r"\d"):
            log.append(encode_gap(1, 5, 9, 9, 9))


LAYOUT = [
    *((index, index + 1, EntryKind.TICK) for index in range(1, 4)),
    (4, 30, EntryKind.GAP),
    *((index, index + 1, EntryKind.TICK) for index in range(30, 60)),
    (60, 70, EntryKind.GAP),
    (70, 71, EntryKind.TICK),
]


def with_gaps(log: ReplicaLog) -> None:
    """Terms 1 and 2, with a gap in each."""
    grow(log, 3)
    log.append(encode_gap(1, 4, 30, 9, 40))
    grow(log, 30, each=3)
    log.append(encode_gap(2, 60, 70, 9, 39))
    grow(log, 1, term=2)


def layout(log: ReplicaLog) -> list[tuple[int, int, int]]:
    """(first, end, kind) of every entry and gap; neighbouring parts of a gap as one."""
    parts: list[tuple[int, int, int]] = []
    index = log.first_index
    while index <= log.last_index:
        span = log.read(index, log.last_index + 1, 256).span
        for run in log.read(index, span.end, 256).runs(index, span.end):
            first = run.first_index
            if parts and run.kind == parts[-1][2] == EntryKind.GAP and parts[-1][1] == first:
                first = parts.pop()[0]
            parts.append((first, run.end, run.kind))
        index = span.end
    return parts
