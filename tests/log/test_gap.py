"""C3: a gap is a frame. Encoding, checking, cutting and walking batches with gaps."""

from __future__ import annotations

import pytest

from copycat.errors import ProtocolError
from copycat.storage._native import (
    Batch,
    FaultEnv,
    NativeLog,
    crc32c,
    encode_batch,
    encode_gap,
    open_log,
)
from copycat.types import EntryKind, Run, Span
from tests.log.contract import batch, durable
from tests.log.test_native import DIRECTORY, open_small

_GAP = EntryKind.GAP


def joined(*parts: Batch) -> Batch:
    span = Span(parts[0].span.term, parts[0].span.first, parts[-1].span.end)
    return Batch.from_wire(b"".join(bytes(part) for part in parts), span)


def sparse() -> Batch:
    """5, a gap [6, 20), 20 and 21, a gap [22, 23), 23."""
    return joined(
        batch(5, b"five"),
        encode_gap(1, 6, 20, 90, 40),
        batch(20, b"twenty", b""),
        encode_gap(1, 22, 23, 91, 41),
        batch(23, b"last"),
    )


def gap(first: int, end: int, valid_from: int = 40, time_ms: int = 90) -> Run:
    return Run(first, _GAP, time_ms, 0, end, valid_from, [])


def test_golden_bytes_of_a_gap() -> None:
    gap = encode_gap(
        0x0102030405060708, 0x1112131415161718, 0x1112131415161800, 0x212223242526, 0x31
    )
    golden = (
        "d4642be3 10000000 1817161514131211 0807060504030201 262524232221 0f 00"
        "0018161514131211 3100000000000000"
    )
    assert bytes(gap).hex() == golden.replace(" ", "")
    assert gap.span == Span(0x0102030405060708, 0x1112131415161718, 0x1112131415161800)


@pytest.mark.parametrize(
    ("first", "end", "valid_from"),
    [(0, 5, 0), (5, 5, 0), (6, 5, 0), (1, 1 << 63, 0), (1, 2, 1 << 63)],
)
def test_no_gap_is_empty_or_beyond_the_last_index(first: int, end: int, valid_from: int) -> None:
    with pytest.raises(ValueError, match="no gap"):
        encode_gap(1, first, end, 0, valid_from)


def test_c3_frames_and_gaps_tile_a_span_exactly() -> None:
    whole = bytes(sparse())
    assert Batch.from_wire(whole, Span(1, 5, 24)).gaps() == [(6, 20, 40), (22, 23, 41)]
    for span in (Span(1, 5, 23), Span(1, 5, 25), Span(1, 4, 24), Span(2, 5, 24)):
        with pytest.raises(ProtocolError):
            Batch.from_wire(whole, span)
    overlapping = bytes(encode_gap(1, 6, 20, 0, 0)) + bytes(batch(19, b"x"))
    with pytest.raises(ProtocolError, match="19 stands where entry 20"):
        Batch.from_wire(overlapping, Span(1, 6, 20 + 1))


def test_c3_a_gap_with_another_payload_is_refused() -> None:
    tick = bytearray(bytes(encode_batch(1, 5, 7, [(int(EntryKind.TICK), 0, 0, 0, 1, bytes(24))])))
    tick[30] = _GAP
    tick[:4] = crc32c(bytes(tick[4 : 32 + 24])).to_bytes(4, "little")
    with pytest.raises(ProtocolError, match="a gap"):
        Batch.from_wire(bytes(tick), Span(1, 5, 6))


def test_what_lists_entries_leaves_gaps_out() -> None:
    entries = sparse()
    assert [row[0] for row in entries.entries()] == [5, 20, 21, 23]
    assert entries.payloads() == [b"five", b"twenty", b"", b"last"]
    assert [bytes(view) for view in entries.views()] == entries.payloads()
    assert [row[:2] for row in entries.checksums()] == [(5, 1), (20, 1), (21, 1), (23, 1)]
    assert entries.has_gaps
    assert not batch(5, b"x").has_gaps
    assert (entries.first_time_ms, entries.last_time_ms) == (7, 7)
    assert entries.slice(5, 10).last_time_ms == 90


def test_runs_show_gaps() -> None:
    runs = sparse().runs(5, 24)
    assert [run for run in runs if run.kind == _GAP] == [gap(6, 20), gap(22, 23, 41, 91)]
    assert [(run.first_index, run.end) for run in runs] == [
        (5, 6), (6, 20), (20, 21), (21, 22), (22, 23), (23, 24),
    ]  # fmt: skip
    assert runs[1].valid_from == 40


def test_every_slice_of_a_sparse_batch_is_a_batch() -> None:
    whole = sparse()
    for first in range(5, 25):
        for end in range(first, 25):
            part = whole.slice(first, end)
            assert part.span == Span(1, first, end)
            again = Batch.from_wire(bytes(part), part.span)
            assert again.runs(first, end) == whole.runs(first, end)
            assert part.runs(first, end) == whole.runs(first, end)


def test_runs_taken_in_order_use_the_cursor_inside_a_gap() -> None:
    whole = sparse()
    runs = [run for first in range(5, 24) for run in whole.runs(first, first + 1)]
    assert [(run.first_index, run.end) for run in runs] == [(i, i + 1) for i in range(5, 24)]


def test_an_entry_in_a_gap_is_absent() -> None:
    log = open_small(FaultEnv(1), entries=8)
    log.append(joined(batch(1, b"one"), encode_gap(1, 2, 9, 0, 8), batch(9, b"nine")))
    assert [log.get(index) is None for index in range(1, 10)] == [False] + 7 * [True] + [False]
    assert log.index_array(log.segments()[-1][0])["size"].tolist() == [3, 16 | 1 << 31, 4]


def huge(log: NativeLog) -> None:
    """Entries around gaps of ten million and of more than a segment can count."""
    log.append(batch(1, b"one", b"two"))
    log.append(encode_gap(1, 3, 10_000_003, 9, 10_000_002))
    log.append(batch(10_000_003, b"three"))
    log.append(encode_gap(1, 10_000_004, 10_000_004 + (1 << 40), 9, 77))
    log.append(batch(10_000_004 + (1 << 40), b"four", b"five", term=2))


def test_a_huge_gap_costs_neither_memory_nor_bytes() -> None:
    env = FaultEnv(1)
    env.make_directory(DIRECTORY)
    log = open_small(env, entries=100)
    huge(log)
    durable(log)
    assert log.size < 3 * 4096 + 1000
    for close in (False, True):
        if close:
            log.close()
        else:
            env.crash(4)
        log = open_small(env, entries=100)
        assert log.last_index == 10_000_005 + (1 << 40)
        assert log.valid_from == 10_000_002
        assert log.get(5_000_000) is None
        assert log.read(7, 8, 100).runs(7, 8) == [Run(7, _GAP, 9, 0, 8, 10_000_002, [])]
        entries = [row for part in log.scan(1, log.last_index + 1) for row in part.entries()]
        assert [row[3] for row in entries] == [b"one", b"two", b"three", b"four", b"five"]
    for name in env.list(DIRECTORY):
        if name.endswith(".idx"):
            assert env.size(f"{DIRECTORY}/{name}") < 200


def test_f3_a_gap_that_is_no_gap_is_damage() -> None:
    """An index that is skipped without a frame that says so is loss, and refused."""
    with pytest.raises(ProtocolError, match="stands where"):
        Batch.from_wire(bytes(batch(5, b"x")) + bytes(batch(7, b"y")), Span(1, 5, 8))


@pytest.mark.parametrize("after", [1, 2, 3, 7, 10_000_002, 10_000_003, 10_000_004])
def test_a_log_may_be_cut_inside_a_gap(after: int) -> None:
    env = FaultEnv(1)
    env.make_directory(DIRECTORY)
    log = open_small(env, entries=100)
    huge(log)
    durable(log)
    log.truncate(after)
    log.append(batch(after + 1, b"new", term=3))
    durable(log)
    last = after + 1
    for seed in (None, 3, 5):
        if seed is not None:
            env.crash(seed)
            for name in env.list(DIRECTORY) if seed == 5 else ():
                if name.endswith(".idx"):
                    env.remove(f"{DIRECTORY}/{name}")  # what opens must not need them
            log = open_log(env, DIRECTORY, max_segment_size=16384, max_entries_per_segment=100)
        assert log.last_index == last
        runs = [run for part in log.scan(1, last + 1) for run in part.runs(*part.span[1:])]
        assert [run.first_index for run in runs[1:]] == [run.end for run in runs[:-1]]
        assert runs[-1].payloads == [b"new"]
        assert runs[-1].end == last + 1
