"""F7: the newest batches against a plain list, at every boundary, whatever was done to the log."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from copycat.errors import CorruptLogError
from copycat.storage import Batch, encode_batch
from copycat.storage.interface import Batch as AnyBatch
from copycat.storage.memory import MemoryLog
from copycat.storage.recent_batches import BatchReader, RecentBatches
from copycat.types import EntryId, EntryKind

Row = tuple[int, int, bytes]
READ_BYTES = 600


class CountedLog(MemoryLog):
    """Counts how often it is asked."""

    reads = 0

    def read(self, first: int, end: int, max_bytes: int) -> Batch:
        self.reads += 1
        return super().read(first, end, max_bytes)


def rows_of(batch: AnyBatch) -> list[Row]:
    span = batch.span
    return [
        (run.first_index + step, span.term, bytes(payload))
        for run in batch.runs(span.first, span.end)
        for step, payload in enumerate(run.payloads)
    ]


class Model:
    """The log as a list of rows, beside the batches that are to tell the same."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.bytes_max, self.entries_max = self.rng.choice(
            [(1 << 20, 1024), (2000, 1024), (1 << 20, 12), (900, 6), (0, 0)]
        )
        self.log = CountedLog(max_segment_size=8192, max_entries_per_segment=8)
        self.recent = RecentBatches[AnyBatch](self.entries_max, self.bytes_max, keeps_newest=True)
        self.reader = BatchReader(self.log, self.recent, READ_BYTES)
        self.rows: list[Row] = []
        self.term = 1
        self.edges = {1}
        """Where batches began or the log was cut."""

    @property
    def end(self) -> int:
        return self.log.last_index + 1

    def append(self) -> Batch:
        self.term += self.rng.random() < 0.1
        payloads = [
            self.rng.randbytes(self.rng.choice([0, 1, 40, 300]))
            for _ in range(self.rng.choice([1, 1, 1, 2, 5, 9]))
        ]
        items = [(int(EntryKind.NOOP), 0, 0, 0, 1, payload) for payload in payloads]
        batch = encode_batch(self.term, self.end, 0, items)
        self.rows += [(self.end + at, self.term, payload) for at, payload in enumerate(payloads)]
        self.edges.add(self.end)
        self.log.append(batch)
        self.reader.add(batch)
        return batch

    def apply(self) -> None:
        self.reader.applied_up_to(self.rng.randrange(self.recent.applied, self.end))

    def truncate(self) -> None:
        lowest = max(self.log.first_index - 1, self.recent.applied, self.end - 14)
        after = self.rng.randrange(lowest, self.end)
        self.reader.truncate(after)
        self.log.truncate(after)
        self.rows = [row for row in self.rows if row[0] <= after]
        self.edges.add(after + 1)

    def trim(self) -> None:
        self.sync()
        self.log.trim(self.rng.randrange(self.log.first_index, self.end + 1))
        self.rows = [row for row in self.rows if row[0] >= self.log.first_index]
        self.edges.add(self.log.first_index)

    def reset(self) -> None:
        """A snapshot was installed (C24)."""
        self.sync()
        entry = EntryId(self.term, self.end + self.rng.randrange(20))
        self.reader.truncate(0)
        self.log.reset(entry)
        self.reader.applied_up_to(entry.index)
        self.rows = []
        self.edges = {entry.index + 1}

    def sync(self) -> None:
        ticket = self.log.begin_sync()
        ticket.run()
        self.log.end_sync(ticket)

    def check(self) -> None:
        """Each read that begins or ends beside an edge."""
        lowest = max(self.log.first_index, self.end - 40)
        near = {edge + step for edge in self.edges for step in (-1, 0, 1)}
        places = sorted(one for one in near if lowest <= one <= self.end)
        for first in places:
            for end in (one for one in places if one > first):
                for read in (self.reader.read, self.reader.gather):
                    batch = read(first, end)
                    assert batch.span.first == first < batch.span.end <= end
                    assert rows_of(batch) == self.between(first, batch.span.end)
        if places and places[0] < self.end:
            batches = list(self.reader.walk(places[0], self.end))
            assert all(one.span.end == next_.span.first for one, next_ in pairwise(batches))
            rows_read = [row for batch in batches for row in rows_of(batch)]
            assert rows_read == self.between(places[0], self.end)

    def between(self, first: int, end: int) -> list[Row]:
        return [row for row in self.rows if first <= row[0] < end]

    def check_bounds(self) -> None:
        batches_left = [batch for _, _, batch, _, _ in self.recent._rows]
        assert self.recent.nbytes == sum(one.nbytes + 512 for one in batches_left)
        books = [(first, end, entries) for first, end, _, entries, _ in self.recent._rows]
        for (first, end, entries), (next_first, _, next_entries) in pairwise(books):
            assert next_first >= end, "a batch that was forgotten may be missing"
            assert next_entries - entries == end - first
        assert len(batches_left) <= 1 or self.recent.nbytes <= self.bytes_max

    def check_drops(self) -> None:
        """After an append: the oldest batch is there since it is still needed."""
        spans = [batch.span for _, _, batch, _, _ in self.recent._rows]
        if len(spans) > 1 and spans[0].last <= self.recent.applied:
            assert sum(span.end - span.first for span in spans[1:-1]) < self.entries_max


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(16))
def test_the_newest_batches_are_what_a_list_holds(seed: int) -> None:
    model = Model(seed)
    for _ in range(150):
        step = model.rng.random()
        if step < 0.6:
            newest = model.append()
            before = model.log.reads
            assert model.reader.read(newest.span.first, newest.span.end) is newest
            assert model.log.reads == before, "the newest is there"
            model.check_drops()
        elif step < 0.75:
            model.apply()
        elif step < 0.87:
            model.truncate()
        elif step < 0.97:
            model.trim()
        else:
            model.reset()
        model.check_bounds()
        model.check()


@pytest.mark.parametrize("size", [1, 6, 9, 12, 4096])
def test_a_peer_that_is_one_batch_behind_reads_from_memory(size: int) -> None:
    """Also when one batch alone has more entries than the limit says."""
    log = CountedLog()
    recent = RecentBatches[AnyBatch](12, 1 << 20, keeps_newest=True)
    reader = BatchReader(log, recent, 1 << 16)
    for first in range(1, 20 * size, size):
        batch = encode_batch(1, first, 0, [(int(EntryKind.NOOP), 0, 0, 0, 1, b"x")] * size)
        log.append(batch)
        reader.add(batch)
        if first > size:
            assert reader.read(first - size, first).span == (1, first - size, first)
        reader.applied_up_to(log.last_index)
    assert log.reads == 0
    assert sum(one.span.end - one.span.first for _, _, one, _, _ in recent._rows) < 12 + 2 * size


def test_one_that_was_read_and_then_cut_off_is_read_anew() -> None:
    """Not from the newest batches, but from what the last read of the log left."""
    log = MemoryLog()
    reader = BatchReader(log, RecentBatches(1024, 1 << 20, keeps_newest=True), 1 << 16)
    item = (int(EntryKind.NOOP), 0, 0, 0, 1, b"old")
    log.append(encode_batch(1, 1, 0, [item] * 6))
    assert reader.read(2, 7).span == (1, 2, 7)
    reader.truncate(3)
    log.truncate(3)
    log.append(encode_batch(2, 4, 0, [(*item[:5], b"new")] * 3))
    assert [row[2] for row in rows_of(reader.read(4, 7))] == [b"new"] * 3


def test_what_cannot_be_read_is_not_remembered() -> None:
    class Rotten(MemoryLog):
        is_bad = True

        def read(self, first: int, end: int, max_bytes: int) -> Batch:
            if self.is_bad:
                raise CorruptLogError("bad", path="/log", offset=0, index=first)
            return super().read(first, end, max_bytes)

    log = Rotten()
    reader = BatchReader(log, RecentBatches(1024, 1 << 20, keeps_newest=True), 1 << 16)
    log.append(encode_batch(1, 1, 0, [(int(EntryKind.NOOP), 0, 0, 0, 1, b"x")]))
    with pytest.raises(CorruptLogError):
        reader.read(1, 2)
    log.is_bad = False
    assert rows_of(reader.read(1, 2)) == [(1, 1, b"x")]
