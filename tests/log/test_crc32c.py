"""CRC32C: the published check values, and both implementations alike."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copycat.storage._native import crc32c, crc32c_force_table, crc32c_is_hardware

__all__: list[str] = []

# RFC 3720, appendix B.4, and the check value of the catalogues.
_KNOWN = [
    (b"", 0),
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
]


@pytest.fixture
def table() -> Iterator[None]:
    crc32c_force_table(True)
    yield
    crc32c_force_table(False)


def by_table(data: bytes, seed: int = 0) -> int:
    crc32c_force_table(True)
    try:
        return crc32c(data, seed)
    finally:
        crc32c_force_table(False)


@pytest.mark.parametrize(("data", "value"), _KNOWN)
def test_known_values(data: bytes, value: int) -> None:
    assert crc32c(data) == value


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(("data", "value"), _KNOWN)
def test_known_values_by_table(data: bytes, value: int) -> None:
    assert not crc32c_is_hardware()
    assert crc32c(data) == value


def test_every_length_agrees_with_the_table() -> None:
    # all block sizes of the interleaved loop, at every alignment, and beyond its largest block
    data = bytes((i * i * 31 + i // 7) & 0xFF for i in range(7000))
    for size in [*range(700), 3071, 3072, 3073, 3191, 3192, 6143, 6263, 6999]:
        part = data[size % 13 : size % 13 + size]
        assert crc32c(part, size) == by_table(part, size)


@given(st.binary(max_size=400), st.integers(0, 400), st.integers(0, 2**32 - 1))
def test_seed_continues(data: bytes, cut: int, seed: int) -> None:
    assert crc32c(data[cut:], crc32c(data[:cut], seed)) == crc32c(data, seed)


def test_large_buffers_and_views() -> None:
    data = bytes(range(256)) * 1024
    assert crc32c(memoryview(data)[1:]) == by_table(data[1:])
    assert crc32c(bytearray(data)) == crc32c(data)
