"""Golden hex: the bytes of format version 2, field by field. A change here is a new version."""

from __future__ import annotations

import struct

import pytest

from copycat.storage._native import (
    Batch,
    FaultEnv,
    crc32c,
    encode_batch,
    encode_mark,
    open_hard_state,
)
from copycat.types import EntryKind, MemberId

__all__: list[str] = []

_TERM, _INDEX, _TIME_MS = 0x0102030405060708, 0x1112131415161718, 0x212223242526
_SESSION, _SEQUENCE, _ACKED = 0x31, 0x4142, 0x4100
_UUID = bytes(range(16))


def command(*operations: bytes, acked: int = _ACKED, sequence: int = _SEQUENCE) -> Batch:
    body = struct.pack(f"<{len(operations)}I", *map(len, operations)) + b"".join(operations)
    item = (EntryKind.COMMAND, _SESSION, sequence, acked, len(operations), body)
    return encode_batch(_TERM, _INDEX, _TIME_MS, [item])


def test_frame_and_envelope() -> None:
    golden = (
        "0ccf0f45 17000000 1817161514131211 0807060504030201 262524232221 01 00"  # header
        "3100000000000000 4241000000000000 42000000"  # session, sequence, distance
        "616263 00"  # operation, padding
    )
    assert bytes(command(b"abc")).hex() == golden.replace(" ", "")


def test_frame_of_another_kind_has_no_envelope() -> None:
    batch = encode_batch(1, 2, 3, [(EntryKind.NOOP, 0, 0, 0, 1, b"")])
    golden = "fd8eb788 00000000 0200000000000000 0100000000000000 030000000000 02 00"
    assert bytes(batch).hex() == golden.replace(" ", "")


def test_data_has_lengths_and_no_envelope() -> None:
    item = (EntryKind.DATA, 0, 0, 0, 2, struct.pack("<2I", 3, 0) + b"abc")
    batch = encode_batch(1, 2, 3, [item])
    assert [row[1:] for row in batch.entries()] == [(10, 3, b"abc"), (10, 3, b"")]
    assert batch.nbytes == 40 + 32


def test_crc_covers_everything_behind_it_but_the_padding() -> None:
    data = bytes(command(b"abc"))
    assert struct.unpack_from("<I", data)[0] == crc32c(data[4 : 32 + 23])


def test_distance_saturates() -> None:
    far = command(b"", acked=1, sequence=2**40)
    assert bytes(far)[32 + 16 : 32 + 20] == b"\xff\xff\xff\xff"
    assert far.runs(_INDEX, _INDEX + 1)[0].acked == 2**40 - (2**32 - 1)


def test_mark() -> None:
    batch = command(b"abc", b"")
    mark = encode_mark(batch, durable_upto=0x5152, uuid=_UUID, offset=4096, flags=2)
    crcs = b"".join(crc.to_bytes(4, "little") for _, _, crc in batch.checksums())
    golden = "f4e70ca7 70000000 1817161514131211 5251000000000000 b9b4fc5f 0000 0e 02"
    assert mark.hex() == golden.replace(" ", "")
    assert mark[24:28] == crc32c(crcs).to_bytes(4, "little")
    place = _UUID + (4096).to_bytes(8, "little")
    assert mark[:4] == crc32c(mark[4:] + place).to_bytes(4, "little")


def test_a_mark_fits_one_place_only() -> None:
    batch = command(b"abc")
    here = encode_mark(batch, durable_upto=1, uuid=_UUID, offset=4096)
    assert here != encode_mark(batch, durable_upto=1, uuid=_UUID, offset=4104)
    assert here != encode_mark(batch, durable_upto=1, uuid=_UUID[::-1], offset=4096)
    with pytest.raises(ValueError, match="16 bytes"):
        encode_mark(batch, durable_upto=1, uuid=b"short", offset=0)


def test_hard_state() -> None:
    env = FaultEnv()
    env.make_directory("/d")
    state = open_hard_state(env, "/d", create=True)
    ticket = state.begin_save(7, MemberId(0x0102 << 112 | 3))
    ticket.run()
    state.end_save(ticket)
    golden = (
        "434f505948535400 02000000 9b92d11e 0200000000000000 0700000000000000"
        "03000000000000000000000000000201"
    )
    data = env.read_file("/d/hard-state-a")
    assert data.hex() == golden.replace(" ", "")
    assert data == env.read_file("/d/hard-state-b")
    assert data[12:16] == crc32c(data[16:]).to_bytes(4, "little")
