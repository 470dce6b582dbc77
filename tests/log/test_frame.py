"""Batches: what is encoded comes back, and what a receiver must refuse is refused."""

from __future__ import annotations

import gc
import struct
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from copycat.errors import EntryTooLargeError, ProtocolError
from copycat.storage._native import Batch, check_commands, crc32c, encode_batch
from copycat.storage.interface import EncodeItem
from copycat.types import EntryKind, Run, Span

__all__: list[str] = []

_COMMAND = int(EntryKind.COMMAND)


def body_of(operations: list[bytes]) -> bytes:
    lengths = struct.pack(f"<{len(operations)}I", *map(len, operations))
    return lengths + b"".join(operations)


def commands(
    operations: list[bytes], session: int = 9, sequence: int = 5, acked: int = 0
) -> EncodeItem:
    return (_COMMAND, session, sequence, acked, len(operations), body_of(operations))


def other(kind: EntryKind, payload: bytes = b"") -> EncodeItem:
    return (int(kind), 0, 0, 0, 1, payload)


def batch_of(*items: EncodeItem, term: int = 3, first: int = 10, time_ms: int = 77) -> Batch:
    return encode_batch(term, first, time_ms, items)


def resealed(data: bytearray, at: int = 0) -> bytes:
    """With a checksum that fits again: so that the check behind it is the one that fires."""
    size = struct.unpack_from("<I", data, at + 4)[0]
    struct.pack_into("<I", data, at, crc32c(data[at + 4 : at + 32 + size]))
    return bytes(data)


def refused(data: bytes, span: Span, match: str | None = None) -> ProtocolError:
    with pytest.raises(ProtocolError, match=match) as caught:
        Batch.from_wire(data, span)
    return caught.value


# --- there and back ---------------------------------------------------------------------------

_items = st.lists(
    st.one_of(
        st.builds(
            commands,
            st.lists(st.binary(max_size=80), min_size=1, max_size=5),
            st.integers(1, 3),
            st.integers(4, 2**63),
            st.integers(0, 3),
        ),
        st.builds(
            other,
            st.sampled_from([EntryKind.NOOP, EntryKind.TICK, EntryKind.REGISTER]),
            st.binary(max_size=40),
        ),
    ),
    max_size=6,
)


@given(_items, st.integers(1, 2**60), st.integers(0, 2**48 - 1))
def test_what_is_encoded_comes_back(items: list[EncodeItem], first: int, time_ms: int) -> None:
    batch = encode_batch(4, first, time_ms, items)
    again = Batch.from_wire(bytes(batch), batch.span)
    assert batch.span == Span(4, first, first + sum(item[4] for item in items))
    assert bytes(again) == bytes(batch)
    assert again.runs(*batch.span[1:]) == batch.runs(*batch.span[1:])
    assert again.entries() == batch.entries()
    assert again.payloads() == [bytes(view) for view in batch.views()]
    payloads = [payload for run in batch.runs(*batch.span[1:]) for payload in run.payloads]
    expected: list[bytes] = []
    for kind, _, _, _, count, body in items:
        if kind == _COMMAND:
            lengths = struct.unpack_from(f"<{count}I", body)
            at = 4 * count
            for length in lengths:
                expected.append(bytes(body[at : at + length]))
                at += length
        else:
            expected.append(bytes(body))
    assert payloads == expected


def test_runs_join_consecutive_sequences_of_one_session() -> None:
    batch = batch_of(
        commands([b"a", b"b"], session=1, sequence=5, acked=2),
        commands([b"c"], session=1, sequence=7, acked=6),
        commands([b"d"], session=1, sequence=9, acked=6),
        commands([b"e"], session=2, sequence=10, acked=0),
        other(EntryKind.TICK),
    )
    assert batch.runs(10, 16) == [
        Run(10, _COMMAND, 77, 1, 5, 6, [b"a", b"b", b"c"]),
        Run(13, _COMMAND, 77, 1, 9, 6, [b"d"]),
        Run(14, _COMMAND, 77, 2, 10, 0, [b"e"]),
        Run(15, int(EntryKind.TICK), 77, 0, 0, 0, [b""]),
    ]
    assert all(type(run) is Run for run in batch.runs(10, 16))


def test_runs_of_a_part_begin_and_end_where_they_are_told() -> None:
    batch = batch_of(commands([b"a", b"b", b"c", b"d"], sequence=5, acked=1))
    assert batch.runs(11, 13) == [Run(11, _COMMAND, 77, 9, 6, 1, [b"b", b"c"])]
    # forwards, backwards and again: the place that was kept never leads astray
    for first in (10, 12, 11, 10, 13, 10):
        assert batch.runs(first, first + 1)[0].first_sequence == first - 5
    assert batch.runs(14, 14) == []


def test_a_run_has_one_time() -> None:
    parts = [
        encode_batch(3, 10 + i, time_ms, [commands([b"x"], sequence=5 + i)])
        for i, time_ms in enumerate([70, 70, 71])
    ]
    both = Batch.from_wire(b"".join(map(bytes, parts)), Span(3, 10, 13))
    assert [(run.time_ms, len(run.payloads)) for run in both.runs(10, 13)] == [(70, 2), (71, 1)]
    assert (both.first_time_ms, both.last_time_ms) == (70, 71)


def test_slices_share_the_bytes_and_keep_them() -> None:
    batch = batch_of(commands([b"a", b"bb", b"ccc"]), other(EntryKind.NOOP))
    part = batch.slice(11, 13)
    whole = bytes(batch)
    views = part.views()
    del batch
    gc.collect()
    assert part.span == Span(3, 11, 13)
    assert bytes(part) in whole
    assert [bytes(view[20:]) for view in views] == [b"bb", b"ccc"]
    assert Batch.from_wire(bytes(part), part.span).entries() == part.entries()


def test_a_view_keeps_the_received_buffer_alive() -> None:
    buffer = bytearray(bytes(batch_of(commands([b"operation"]))))
    view = memoryview(Batch.from_wire(buffer, Span(3, 10, 11)))
    gc.collect()
    with pytest.raises(BufferError):
        buffer.append(0)
    view.release()
    gc.collect()
    buffer.append(0)


def test_batches_are_read_only() -> None:
    view = memoryview(batch_of(other(EntryKind.NOOP)))
    assert view.readonly
    with pytest.raises(TypeError):
        view[0] = 1
    with pytest.raises(TypeError):
        cast("type", Batch)()


@pytest.mark.parametrize(("first", "end"), [(9, 11), (10, 13), (12, 11), (13, 13)])
def test_outside_the_span(first: int, end: int) -> None:
    batch = batch_of(commands([b"a", b"b"]))
    with pytest.raises(IndexError):
        batch.slice(first, end)
    with pytest.raises(IndexError):
        batch.runs(first, end)


def test_an_empty_batch() -> None:
    empty = encode_batch(3, 10, 5, [])
    assert (empty.span, empty.nbytes, bytes(empty)) == (Span(3, 10, 10), 0, b"")
    assert (empty.runs(10, 10), empty.views(), empty.last_time_ms) == ([], [], 0)
    assert Batch.from_wire(b"", empty.span).nbytes == 0


# --- what an item may not be ------------------------------------------------------------------


@pytest.mark.parametrize(
    "item",
    [
        (int(EntryKind.MARK), 0, 0, 0, 1, b""),
        (int(EntryKind.GAP), 0, 0, 0, 1, b""),
        (0, 0, 0, 0, 1, b""),
        (int(EntryKind.NOOP), 0, 0, 0, 2, b""),
        (_COMMAND, 1, 5, 5, 1, body_of([b"a"])),
        (_COMMAND, 1, 5, 6, 1, body_of([b"a"])),
        (_COMMAND, 1, 2**64 - 1, 0, 1, body_of([b"a"])),
        (_COMMAND, 1, 5, 0, 0, b""),
        (_COMMAND, 1, 5, 0, 2, body_of([b"a"])),
        (_COMMAND, 1, 5, 0, 1, body_of([b"a"]) + b"more"),
        (300, 0, 0, 0, 1, b""),
    ],
)
def test_items_that_no_batch_may_hold(item: EncodeItem) -> None:
    with pytest.raises(ValueError):
        batch_of(item)


def test_c4_a_configuration_travels_alone() -> None:
    configuration = other(EntryKind.CONFIGURATION, b"members")
    alone = batch_of(configuration)
    assert Batch.from_wire(bytes(alone), alone.span).nbytes == alone.nbytes
    with pytest.raises(ValueError, match="C4"):
        batch_of(configuration, other(EntryKind.NOOP))
    tail = encode_batch(3, 11, 77, [other(EntryKind.NOOP)])
    refused(bytes(alone) + bytes(tail), Span(3, 10, 12), "C4")


def test_other_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match="first index"):
        encode_batch(1, 0, 0, [])
    with pytest.raises(ValueError, match="48 bits"):
        encode_batch(1, 1, 2**48, [])
    with pytest.raises(OverflowError):
        encode_batch(-1, 1, 0, [])
    with pytest.raises(TypeError):
        encode_batch(1, 1, 0, cast("list[EncodeItem]", [(1, 2)]))


def test_check_commands() -> None:
    body = body_of([b"abc", b"", b"de"])
    check_commands(body, 3, 3)
    with pytest.raises(EntryTooLargeError) as caught:
        check_commands(body, 3, 2)
    assert (vars(caught.value)["size"], vars(caught.value)["limit"]) == (3, 2)
    for count, data in [
        (0, b""),
        (2, body),
        (4, body),
        (3, body[:-1]),
        (3, body + b"x"),
        (3, b""),
    ]:
        with pytest.raises(ValueError):
            check_commands(data, count, 100)
    with pytest.raises(ValueError):
        check_commands(body, 2**62 + 1, 100)


# --- what a receiver refuses ------------------------------------------------------------------


def test_every_law_of_a_received_batch_fires() -> None:
    good = bytearray(bytes(batch_of(commands([b"abc", b"de"]))))
    span = Span(3, 10, 12)
    second = 56

    def changed(at: int, value: int, *, seal: int | None = None) -> bytes:
        data = bytearray(good)
        data[at] = value
        return bytes(data) if seal is None else resealed(data, seal)

    assert bytes(Batch.from_wire(bytes(good), span)) == bytes(good)
    refused(changed(34, 0xEE), span, "checksum")
    refused(changed(55, 1), span, "padding")
    refused(changed(31, 1, seal=0), span, "flags")
    refused(changed(30, 14, seal=0), span, "kind")  # a mark never travels (C5)
    refused(changed(30, 15, seal=0), span, "kind")
    refused(changed(second + 8, 12, seal=second), span, "entry 11 belongs")
    refused(changed(second + 16, 4, seal=second), span, "another term")
    refused(bytes(good) + bytes(8), span, "follow")
    refused(bytes(good[:-8]), span, "cut")
    short = bytearray(bytes(batch_of(other(EntryKind.NOOP, b"short"))))
    short[30] = _COMMAND
    refused(resealed(short), Span(3, 10, 11), "envelope")
    error = refused(changed(second + 40, 0xEE), span)
    assert (vars(error)["offset"], vars(error)["index"]) == (second, 11)


@pytest.mark.parametrize(
    "span", [Span(3, 0, 1), Span(3, 11, 10), Span(3, 10, 11), Span(3, 10, 13), Span(3, 10, 2**63)]
)
def test_a_span_that_the_bytes_do_not_fill(span: Span) -> None:
    refused(bytes(batch_of(commands([b"a", b"b"]))), span)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x40000000, 0x40000001, 64, 33])
def test_sizes_that_lead_outside(size: int) -> None:
    data = bytearray(bytes(batch_of(other(EntryKind.NOOP))))
    struct.pack_into("<I", data, 4, size)
    refused(bytes(data), Span(3, 10, 11), "cut")


_GOOD = bytes(batch_of(commands([b"abc", b"", b"x" * 30]), other(EntryKind.TICK)))
_SPAN = Span(3, 10, 14)


@pytest.mark.slow
@settings(max_examples=400)
@given(
    st.lists(
        st.tuples(st.integers(0, len(_GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4
    ),
    st.integers(0, len(_GOOD)),
    st.binary(max_size=40),
    st.booleans(),
)
@example([(0, _GOOD[0])], len(_GOOD), b"", False)
def test_mutated_bytes_are_refused_or_equal(
    changes: list[tuple[int, int]], length: int, tail: bytes, seal: bool
) -> None:
    data = bytearray(_GOOD)
    for at, value in changes:
        data[at] = value
    if seal and 32 + struct.unpack_from("<I", data, 4)[0] <= len(data):
        data = bytearray(resealed(data))
    mutated = bytes(data[:length]) + tail
    try:
        batch = Batch.from_wire(mutated, _SPAN)
    except ProtocolError:
        return
    assert bytes(batch) == mutated
    assert seal or mutated == _GOOD
    for run in batch.runs(10, 14):
        assert run.first_index in range(10, 14)


@given(st.binary(max_size=200), st.integers(0, 5), st.integers(0, 5))
def test_noise_is_refused(data: bytes, first: int, length: int) -> None:
    if data or length or not first:
        refused(data, Span(0, first, first + length))
