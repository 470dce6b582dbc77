"""Entries of a bare log on their way in: the native body of plain bytes, and the others'."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from copycat.errors import SerializationError
from copycat.log.entries import encode_payloads
from copycat.storage._native import Batch, Env, encode_batch, encode_bytes, encode_gap, open_log

LISTS: list[list[bytes]] = [
    [b"one"],
    [b"", b"a", b"", bytes(300)],
    [bytes([n % 256]) * (n % 70) for n in range(1000)],
]


def data_of(items: list[Any]) -> list[bytes]:
    """What comes out again when the bodies of `items` are encoded."""
    batches: list[Batch] = []
    for item in encode_payloads(items):
        first = batches[-1].span.end if batches else 1
        batches.append(encode_batch(1, first, 0, [item]))
    return [payload for batch in batches for payload in batch.payloads()]


@pytest.mark.parametrize("items", LISTS)
def test_the_native_body_is_lengths_and_bytes(items: list[bytes]) -> None:
    lengths = struct.pack(f"<{len(items)}I", *map(len, items))
    assert encode_bytes(items, 1 << 20) == lengths + b"".join(items)


@pytest.mark.parametrize("items", LISTS)
def test_buffers_of_every_type_give_the_same_body(items: list[bytes]) -> None:
    assert list(encode_payloads(items)) == list(encode_payloads(map(memoryview, items)))
    assert data_of(items) == data_of([bytearray(item) for item in items]) == items


def test_the_native_body_leaves_alone_what_is_not_its_own() -> None:
    assert encode_bytes([b"a", bytearray(b"b")], 100) is None
    assert encode_bytes([b"a", "b"], 100) is None
    assert encode_bytes([bytes(60), bytes(41)], 100) is None
    assert encode_bytes([bytes(60), bytes(40)], 100) is not None
    with pytest.raises(SerializationError):
        list(encode_payloads([b"a", "b"]))  # type: ignore[list-item]


def test_a_list_above_the_limits_is_cut_and_nothing_is_lost() -> None:
    many = [b"%d" % n for n in range(9000)]
    assert [item[4] for item in encode_payloads(many)] == [4096, 4096, 808]
    assert data_of(many) == many
    heavy = [bytes(1 << 20) for _ in range(9)]
    assert [item[4] for item in encode_payloads(heavy)] == [4, 4, 1]


def test_the_native_log_makes_entries_of_the_class_it_is_told(tmp_path: Any) -> None:
    class EntryRow(tuple[int, int, bytes]):
        __slots__ = ()

    log = open_log(Env(), str(tmp_path), max_segment_size=16384, max_entries_per_segment=8)
    log.append(encode_batch(3, 1, 0, [next(encode_payloads([b"data"]))]))
    row = log.entry(1, EntryRow)
    assert type(row) is EntryRow
    assert row == (1, 3, b"data")
    with pytest.raises(ValueError, match="subclass of tuple"):
        log.entry(1, int)  # type: ignore[type-var]
    with pytest.raises(IndexError):
        log.entry(2, EntryRow)
    log.append(encode_gap(3, 2, 5, 0, 4))
    assert log.entry(3, EntryRow) is None
    log.close()


def test_a_batch_makes_the_same_entries() -> None:
    class EntryRow(tuple[int, int, bytes]):
        __slots__ = ()

    batch = encode_batch(3, 7, 0, [next(encode_payloads([b"a", b"b", b"c"]))])
    assert [batch.entry(index, EntryRow) for index in (9, 7, 8)] == [
        (9, 3, b"c"),
        (7, 3, b"a"),
        (8, 3, b"b"),
    ]
    assert type(batch.entry(7, EntryRow)) is EntryRow
    assert encode_gap(3, 7, 9, 0, 8).entry(8, EntryRow) is None
    for outside in (6, 10, 11):
        with pytest.raises(IndexError):
            batch.entry(outside, EntryRow)
