"""One suite for every sentence of `ReplicaLog`; `test_memory` and `test_native` run it.

A harness makes logs of the kind under test and injects what a disk may do to them.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

import pytest

from copycat.errors import DiskError, DiskFullError, InvariantError, LogPoisonedError
from copycat.storage._native import Batch, encode_batch
from copycat.storage.interface import ReplicaLog
from copycat.types import NO_ENTRY, EntryId, EntryKind, Span, TermRun

__all__ = ["Harness", "LogContract", "batch", "contents", "durable"]

BIG = 1 << 20


class Harness(ABC):
    """One log under test, over something that can fail."""

    segment_entries = 8
    packs = False
    """Whether what a rewrite makes is compressed."""

    @abstractmethod
    def open(self) -> ReplicaLog:
        """A new log, or the same one again after `close` or `crash`."""

    @abstractmethod
    def crash(self, seed: int) -> None:
        """Power loss; the open log is dead."""

    @abstractmethod
    def fail(self, operation: str, error: str) -> None:
        """The next "write" or "sync" answers with `error`."""

    @abstractmethod
    def set_full(self, full: bool) -> None:
        """The disk has no free space left, or plenty again."""


def batch(first: int, *payloads: bytes, term: int = 1, kind: EntryKind = EntryKind.TICK) -> Batch:
    return encode_batch(term, first, 7, [(int(kind), 0, 0, 0, 1, payload) for payload in payloads])


def grow(log: ReplicaLog, count: int, *, term: int = 1, each: int = 1) -> None:
    """Append `count` entries, `each` to a batch; payloads name term and index."""
    end = log.last_index + 1 + count
    while log.last_index + 1 < end:
        first = log.last_index + 1
        last = min(first + each, end)
        log.append(batch(first, *(b"%d:%d" % (term, i) for i in range(first, last)), term=term))


def durable(log: ReplicaLog) -> int:
    ticket = log.begin_sync()
    ticket.run()
    return log.end_sync(ticket)


def contents(log: ReplicaLog) -> list[tuple[int, int, bytes]]:
    """(index, term, payload) of every entry, through `read`."""
    rows: list[tuple[int, int, bytes]] = []
    index = log.first_index
    while index <= log.last_index:
        part = log.read(index, log.last_index + 1, 256)
        span = part.span
        assert span.first == index
        for run in part.runs(span.first, span.end):
            rows += [
                (run.first_index + step, span.term, payload)
                for step, payload in enumerate(run.payloads)
            ]
        index = span.end
    return rows


def expected(first: int, end: int, term: int = 1) -> list[tuple[int, int, bytes]]:
    return [(index, term, b"%d:%d" % (term, index)) for index in range(first, end)]


class LogContract:
    """The sentences; a subclass gives the fixture `harness`."""

    @pytest.fixture
    def log(self, harness: Harness) -> ReplicaLog:
        return harness.open()

    # --- positions ---------------------------------------------------------------------------

    def test_a_new_log_is_empty(self, log: ReplicaLog) -> None:
        assert (log.first_index, log.last_index, log.durable_index) == (1, 0, 0)
        assert log.last_entry == NO_ENTRY
        assert log.term_runs() == []
        assert contents(log) == []

    def test_indexes_are_contiguous_from_first_to_last(self, log: ReplicaLog) -> None:
        grow(log, 5, each=2)
        assert (log.first_index, log.last_index) == (1, 5)
        assert log.last_entry == EntryId(1, 5)
        assert contents(log) == expected(1, 6)

    def test_term_runs_are_of_the_whole_log_oldest_first(self, log: ReplicaLog) -> None:
        for term in (1, 1, 3, 7, 7):
            grow(log, 5, term=term)
        assert log.term_runs() == [TermRun(1, 1), TermRun(3, 11), TermRun(7, 16)]

    # --- append ------------------------------------------------------------------------------

    @pytest.mark.parametrize("first", [1, 3, 5, 9])
    def test_append_elsewhere_than_at_the_end_is_refused(
        self, log: ReplicaLog, first: int
    ) -> None:
        grow(log, 3)
        with pytest.raises(ValueError, match=r"\d"):
            log.append(batch(first, b"x"))
        assert contents(log) == expected(1, 4)

    def test_append_of_an_older_term_is_refused(self, log: ReplicaLog) -> None:
        grow(log, 1, term=5)
        with pytest.raises(ValueError, match="4"):
            log.append(batch(2, b"x", term=4))
        log.append(batch(2, b"5:2", term=5))
        assert contents(log) == expected(1, 3, term=5)

    def test_an_empty_payload_is_an_entry(self, log: ReplicaLog) -> None:
        log.append(batch(1, b"", b"x", b""))
        assert contents(log) == [(1, 1, b""), (2, 1, b"x"), (3, 1, b"")]

    def test_what_is_read_is_byte_for_byte_what_was_appended(self, log: ReplicaLog) -> None:
        given = batch(1, b"a", b"bc" * 300, b"", term=4)
        log.append(given)
        copy = log.read(1, 4, BIG)
        assert bytes(copy) == bytes(given)
        assert copy.checksums() == given.checksums()

    # --- durability --------------------------------------------------------------------------

    def test_append_is_not_durable_until_a_sync_begun_later_ends(self, log: ReplicaLog) -> None:
        grow(log, 2)
        ticket = log.begin_sync()
        grow(log, 2)
        assert log.durable_index == 0
        ticket.run()
        assert log.durable_index == 0
        assert log.end_sync(ticket) == 2
        assert (log.durable_index, log.last_index) == (2, 4)
        assert durable(log) == 4

    def test_run_may_happen_in_another_thread(self, log: ReplicaLog) -> None:
        grow(log, 3)
        ticket = log.begin_sync()
        worker = threading.Thread(target=ticket.run)
        worker.start()
        grow(log, 9)  # rolls while the sync may run
        worker.join()
        assert log.end_sync(ticket) == 3

    def test_at_most_one_sync_is_in_flight(self, log: ReplicaLog) -> None:
        grow(log, 1)
        log.begin_sync()
        with pytest.raises(InvariantError):
            log.begin_sync()

    def test_a_sync_of_nothing_new_is_harmless(self, log: ReplicaLog) -> None:
        assert durable(log) == 0
        grow(log, 1)
        assert durable(log) == 1
        assert durable(log) == 1

    def test_a_ticket_that_was_not_run_proves_nothing(self, log: ReplicaLog) -> None:
        grow(log, 1)
        with pytest.raises(InvariantError):
            log.end_sync(log.begin_sync())

    def test_c6_end_sync_is_clamped_by_a_truncation_since(self, log: ReplicaLog) -> None:
        grow(log, 6)
        ticket = log.begin_sync()
        ticket.run()
        log.truncate(2)
        grow(log, 4, term=2)
        assert log.end_sync(ticket) == 2
        assert log.durable_index == 2
        assert durable(log) == 6

    def test_c6_the_lowest_of_several_truncations_counts(self, log: ReplicaLog) -> None:
        grow(log, 6)
        ticket = log.begin_sync()
        log.truncate(2)
        grow(log, 3, term=2)
        log.truncate(4)
        ticket.run()
        assert log.end_sync(ticket) == 2

    def test_durable_entries_survive_power_loss(self, log: ReplicaLog, harness: Harness) -> None:
        grow(log, 11, each=3)
        durable(log)
        grow(log, 2)
        harness.crash(seed=1)
        again = harness.open()
        rows = contents(again)
        assert rows[:11] == expected(1, 12)
        assert rows == expected(1, len(rows) + 1)
        assert again.durable_index == again.last_index

    def test_after_close_everything_is_kept_and_durable(
        self, log: ReplicaLog, harness: Harness
    ) -> None:
        grow(log, 13)
        log.close()
        again = harness.open()
        assert contents(again) == expected(1, 14)
        assert again.durable_index == 13

    # --- read --------------------------------------------------------------------------------

    def test_read_gives_at_least_one_frame(self, log: ReplicaLog) -> None:
        log.append(batch(1, b"x" * 500, b"y" * 500))
        assert log.read(1, 3, 1).span == Span(1, 1, 2)
        assert log.read(2, 3, 0).span == Span(1, 2, 3)

    def test_read_passes_over_no_entry_that_does_not_fit(self, log: ReplicaLog) -> None:
        """The entry behind it would have fitted."""
        for index, size in enumerate((8, 400, 8, 400, 400, 8), start=1):
            log.append(batch(index, bytes(size)))
        for first in range(1, 7):
            for limit in range(0, 1400, 40):
                span = log.read(first, 7, limit).span
                assert (span.first, span.term) == (first, 1)
        assert [index for index, _, _ in contents(log)] == [1, 2, 3, 4, 5, 6]

    def test_read_stops_at_its_end_and_about_max_bytes(self, log: ReplicaLog) -> None:
        grow(log, 8)
        assert log.read(2, 5, BIG).span == Span(1, 2, 5)
        some = log.read(1, 9, 160)
        assert 1 <= some.span.length < 8
        assert some.nbytes <= 160

    def test_c4_read_never_crosses_a_term(self, log: ReplicaLog) -> None:
        grow(log, 2, term=1)
        grow(log, 2, term=2)
        assert log.read(1, 5, BIG).span == Span(1, 1, 3)
        assert log.read(3, 5, BIG).span == Span(2, 3, 5)

    def test_c4_a_configuration_travels_alone(self, log: ReplicaLog) -> None:
        grow(log, 2)
        log.append(batch(3, b"members", kind=EntryKind.CONFIGURATION))
        grow(log, 2)
        spans = [log.read(first, 6, BIG).span for first in (1, 3, 4)]
        assert spans == [Span(1, 1, 3), Span(1, 3, 4), Span(1, 4, 6)]

    @pytest.mark.parametrize(("first", "end"), [(0, 2), (5, 6), (6, 7)])
    def test_read_outside_the_log_is_an_index_error(
        self, log: ReplicaLog, first: int, end: int
    ) -> None:
        grow(log, 4)
        with pytest.raises(IndexError):
            log.read(first, end, BIG)

    def test_a_batch_keeps_its_bytes_when_the_log_changes(self, log: ReplicaLog) -> None:
        grow(log, 4)
        durable(log)
        entries = log.read(1, 5, BIG)
        before = bytes(entries)
        view = memoryview(entries)
        log.truncate(1)
        grow(log, 20, term=2)
        log.close()
        assert bytes(entries) == before == bytes(view)

    # --- truncate and trim -------------------------------------------------------------------

    @pytest.mark.parametrize("after", [0, 1, 7, 8, 9, 15, 16, 17, 19])
    def test_truncate_drops_every_entry_above(
        self, log: ReplicaLog, harness: Harness, after: int
    ) -> None:
        grow(log, 20)
        durable(log)
        log.truncate(after)
        assert (log.last_index, log.durable_index) == (after, after)
        assert contents(log) == expected(1, after + 1)
        grow(log, 3, term=2)
        durable(log)
        log.close()
        both = expected(1, after + 1) + expected(after + 1, after + 4, term=2)
        assert contents(harness.open()) == both

    def test_truncate_at_or_above_the_end_is_nothing(self, log: ReplicaLog) -> None:
        grow(log, 3)
        durable(log)
        log.truncate(3)
        assert (log.last_index, log.durable_index) == (3, 3)

    def test_truncate_takes_terms_back(self, log: ReplicaLog) -> None:
        grow(log, 3, term=1)
        grow(log, 3, term=4)
        log.truncate(4)
        assert log.term_runs() == [TermRun(1, 1), TermRun(4, 4)]
        log.truncate(3)
        assert log.term_runs() == [TermRun(1, 1)]
        assert log.last_entry == EntryId(1, 3)
        grow(log, 1, term=2)
        assert log.last_entry == EntryId(2, 4)

    def test_trim_lets_whole_segments_go(self, log: ReplicaLog, harness: Harness) -> None:
        grow(log, 30)
        durable(log)
        log.trim(20)
        first = log.first_index
        assert 20 - harness.segment_entries < first <= 20
        assert contents(log) == expected(first, 31)
        log.close()
        again = harness.open()
        assert again.first_index == first
        assert contents(again) == expected(first, 31)

    def test_trim_below_the_first_entry_is_nothing(self, log: ReplicaLog) -> None:
        grow(log, 3)
        log.trim(0)
        log.trim(1)
        assert log.first_index == 1

    def test_trim_keeps_the_terms_of_what_stays(self, log: ReplicaLog) -> None:
        grow(log, 20, term=1)
        grow(log, 20, term=2)
        log.trim(19)
        assert log.term_runs() == [TermRun(1, log.first_index), TermRun(2, 21)]

    def test_a_log_trimmed_and_truncated_to_nothing_knows_what_came_before(
        self, log: ReplicaLog
    ) -> None:
        grow(log, 20, term=3)
        log.trim(16)
        log.truncate(log.first_index - 1)
        assert log.last_index == log.first_index - 1
        assert log.last_entry == EntryId(3, log.last_index)
        assert contents(log) == []

    # --- failures ----------------------------------------------------------------------------

    def test_f9_a_failed_sync_poisons(self, log: ReplicaLog, harness: Harness) -> None:
        grow(log, 2)
        ticket = log.begin_sync()
        harness.fail("sync", "EIO")
        with pytest.raises(DiskError):
            ticket.run()
        self.check_poisoned(log)
        assert log.durable_index == 0

    def test_f10_a_failed_write_poisons(self, log: ReplicaLog, harness: Harness) -> None:
        grow(log, 2)
        harness.fail("write", "EIO")
        with pytest.raises(DiskError):
            grow(log, 1)
        self.check_poisoned(log)

    def check_poisoned(self, log: ReplicaLog) -> None:
        for verb in (
            lambda: log.append(batch(log.last_index + 1, b"x")),
            log.begin_sync,
            lambda: log.truncate(1),
            lambda: log.trim(1),
        ):
            with pytest.raises(LogPoisonedError):
                verb()

    def test_f12_a_full_disk_leaves_the_log_unchanged(
        self, log: ReplicaLog, harness: Harness
    ) -> None:
        grow(log, 2)
        harness.fail("write", "ENOSPC")
        with pytest.raises(DiskFullError):
            grow(log, 1)
        assert contents(log) == expected(1, 3)
        grow(log, 2)
        assert durable(log) == 4
        assert contents(log) == expected(1, 5)

    def test_f12_has_room_tells_before_an_append_finds_out(
        self, log: ReplicaLog, harness: Harness
    ) -> None:
        assert log.has_room(1 << 12)
        assert log.has_room(1 << 20)
        assert log.has_room(1 << 12, in_new_segment=True)
        grow(log, 2)
        durable(log)
        harness.set_full(True)
        assert not log.has_room(1 << 20)
        assert not log.has_room(1, in_new_segment=True)
        with pytest.raises(DiskFullError):
            log.truncate(1)
        while log.has_room(64):
            grow(log, 1)
        assert log.last_index < 2 + 2 * harness.segment_entries
        with pytest.raises(DiskFullError):
            grow(log, 2 * harness.segment_entries)
        harness.set_full(False)
        assert log.has_room(1 << 12)
        grow(log, 3)
        last = durable(log)
        assert contents(log) == expected(1, last + 1)
        harness.crash(seed=3)
        assert contents(harness.open()) == expected(1, last + 1)

    # --- spares and the end ------------------------------------------------------------------

    def test_spares_are_made_until_none_is_wanted(self, log: ReplicaLog) -> None:
        grow(log, 20)
        for _ in range(4):
            if not log.wants_spare():
                break
            log.prepare_spare()
        assert not log.wants_spare()
        grow(log, 20)
        assert contents(log) == expected(1, 41)

    def test_an_idle_mark_changes_nothing_that_is_seen(
        self, log: ReplicaLog, harness: Harness
    ) -> None:
        grow(log, 3)
        durable(log)
        log.mark_idle()
        grow(log, 3)
        assert durable(log) == 6
        log.close()
        assert contents(harness.open()) == expected(1, 7)

    def test_a_second_close_is_nothing(self, log: ReplicaLog) -> None:
        grow(log, 1)
        log.close()
        log.close()
