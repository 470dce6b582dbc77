"""Payloads of system entries: round trips and golden bytes (they are the disk format)."""

from __future__ import annotations

import pytest

from copycat.errors import InvariantError
from copycat.machine import envelope


def test_golden_bytes() -> None:
    assert envelope.encode_register("ü", 5000).hex() == "88130000c3bc"
    assert envelope.encode_keep_alive(17, 400).hex() == "11000000000000009001000000000000"
    assert envelope.encode_close(17).hex() == "1100000000000000"
    assert envelope.encode_expire(17, 99).hex() == "11000000000000006300000000000000"
    assert envelope.encode_incarnation(1, 2).hex() == "01" + 15 * "00" + "02" + 15 * "00"


def test_round_trips() -> None:
    assert envelope.decode_register(envelope.encode_register("c", 1)) == ("c", 1)
    assert envelope.decode_keep_alive(envelope.encode_keep_alive(1, 2)) == (1, 2)
    assert envelope.decode_close(envelope.encode_close(3)) == 3
    assert envelope.decode_expire(envelope.encode_expire(1, 2)) == (1, 2)
    wide = (1 << 127) + 5
    assert envelope.decode_incarnation(envelope.encode_incarnation(wide, 7)) == (wide, 7)


def test_a_session_needs_a_timeout() -> None:
    with pytest.raises(InvariantError, match="timeout"):
        envelope.encode_register("c", 0)
    with pytest.raises(InvariantError, match="timeout"):
        envelope.decode_register(b"\0\0\0\0c")


def test_other_sizes_are_a_broken_law() -> None:
    for decode in (
        envelope.decode_keep_alive,
        envelope.decode_close,
        envelope.decode_expire,
        envelope.decode_incarnation,
    ):
        with pytest.raises(InvariantError, match="size"):
            decode(b"\0" * 33)
