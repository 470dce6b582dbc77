"""The LZ4 block coder of csrc/lz4_block.cpp against the `lz4` package, both ways."""

from __future__ import annotations

import random
from collections.abc import Iterator

import lz4.block
import pytest

from copycat.storage._native import lz4_compress, lz4_decompress

MOST = 1 << 16


def samples() -> Iterator[bytes]:
    """Sizes at the edges of the format, of noise, of what repeats at every distance, and mixed."""
    rng = random.Random(4)
    for size in (*range(40), 254, 255, 256, 270, 271, 1000, 4095, 16384, MOST - 1, MOST):
        yield bytes(size)
        yield rng.randbytes(size)
        yield (b"abcdefg" * (size // 7 + 1))[:size]
        yield bytes(rng.choices(b"ab", k=size))
    for distance in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 255, 256, 65535 // 2):
        seed = rng.randbytes(distance)
        yield (seed * (MOST // distance + 1))[:MOST]
        yield (seed + rng.randbytes(300) + seed + rng.randbytes(12))[:MOST]
    for _ in range(60):
        parts = [rng.randbytes(rng.randrange(1, 400)) for _ in range(4)]
        yield b"".join(rng.choices(parts, k=rng.randrange(1, 60)))[:MOST]
    yield rng.randbytes(600) + bytes(MOST - 600)


def test_what_it_packs_the_package_unpacks_and_the_reverse() -> None:
    shorter = 0
    for plain in samples():
        ours = lz4_compress(plain)
        if ours is not None:
            shorter += 1
            assert len(ours) < len(plain)
            assert lz4.block.decompress(ours, uncompressed_size=len(plain)) == plain
            assert lz4_decompress(ours, len(plain)) == plain
        theirs = lz4.block.compress(plain, store_size=False)
        assert lz4_decompress(theirs, len(plain)) == plain
    assert shorter > 100


def test_it_packs_about_as_well_as_the_package() -> None:
    ours = theirs = 0
    for plain in samples():
        if len(plain) < 1000:
            continue
        ours += len(lz4_compress(plain) or plain)
        theirs += min(len(plain), len(lz4.block.compress(plain, store_size=False)))
    assert ours < 1.05 * theirs


def test_what_is_longer_than_a_block_is_not_packed() -> None:
    assert lz4_compress(bytes(MOST)) is not None
    assert lz4_compress(bytes(MOST + 1)) is None


@pytest.mark.parametrize(
    ("block", "size"),
    [
        (b"", 0),  # no token
        (b"", 1),
        (b"\x00", 1),  # too few bytes
        (b"\x10a", 2),
        (b"\x10a", 0),  # too many
        (b"\x20a", 2),  # literals that are not there
        (b"\xf0", 15),  # a length that is not there
        (b"\xf0\xff", 300),
        (b"\xf0" + b"\xff" * 40, 15),  # a length beyond all bounds
        (b"\x10a\x01", 6),  # half a distance
        (b"\x10a\x00\x00\x50edcba", 10),  # distance 0
        (b"\x10a\x02\x00\x50edcba", 10),  # before the beginning
        (b"\x00\x01\x00\x50edcba", 9),  # a match of nothing
        (b"\x10a\x01\x00", 5),  # it ends in a match
        (b"\x1fa\x01\x00\xff\xff\xff\x00\x50edcba", 10),  # a match beyond the end
    ],
)
def test_f28_what_is_no_block_is_refused(block: bytes, size: int) -> None:
    assert lz4_decompress(block, size) is None


def test_f28_changed_blocks_give_what_they_say_or_nothing() -> None:
    rng = random.Random(9)
    plain = b"".join(rng.choices([b"copycat", b"log", rng.randbytes(9), bytes(20)], k=200))
    block = lz4_compress(plain)
    assert block is not None
    for at in range(len(block)):
        changed = bytearray(block)
        changed[at] ^= 1 << (at % 8)
        ours = lz4_decompress(bytes(changed), len(plain))
        try:
            theirs = lz4.block.decompress(bytes(changed), uncompressed_size=len(plain))
        except lz4.block.LZ4BlockError:
            theirs = None
        if ours is not None and theirs is not None and len(theirs) == len(plain):
            assert ours == theirs
        assert ours is None or len(ours) == len(plain)
    for size in range(len(block)):
        assert lz4_decompress(block[:size], len(plain)) is None
