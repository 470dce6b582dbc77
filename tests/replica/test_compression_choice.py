"""Fed batches are compressed where that brings more of them in the same time."""

from __future__ import annotations

import pytest

from copycat.errors import ProtocolError
from copycat.replica.compression_choice import BATCHES_BETWEEN, SKIPPED, TRIAL, CompressionChoice
from copycat.storage import encode_batch
from copycat.storage.fed_bytes import RAW_NBYTES_MAX, compressed, frames_of
from copycat.types import EntryKind

MIB = 1 << 20


def feed(choice: CompressionChoice, raw_ms: int, compressed_ms: int, count: int) -> list[bool]:
    """So many batches of 1 MiB, each of which takes that long by its kind; which kinds."""
    now_ms, kinds = 1000, []
    for _ in range(count):
        kinds.append(choice.compresses)
        now_ms += compressed_ms if choice.compresses else raw_ms
        choice.batch_arrived(MIB, now_ms)
    return kinds


@pytest.mark.parametrize(
    ("raw_ms", "compressed_ms", "wins"), [(10, 4, True), (4, 10, False), (5, 5, False)]
)
def test_the_kind_that_brings_more_is_kept(raw_ms: int, compressed_ms: int, wins: bool) -> None:
    choice = CompressionChoice()
    once = SKIPPED + TRIAL
    kinds = feed(choice, raw_ms, compressed_ms, 2 * once)
    assert kinds == [False] * once + [True] * once, "both are measured"
    assert not choice.is_measuring
    assert feed(choice, raw_ms, compressed_ms, BATCHES_BETWEEN) == [wins] * BATCHES_BETWEEN


def test_it_is_measured_again_and_may_turn_out_otherwise() -> None:
    choice = CompressionChoice()
    once = SKIPPED + TRIAL
    feed(choice, 10, 4, 2 * once + BATCHES_BETWEEN)
    assert choice.is_measuring
    kinds = feed(choice, 2, 4, 2 * once + 5)
    assert kinds == [False] * once + [True] * once + [False] * 5


def test_a_pause_counts_for_neither_kind() -> None:
    choice = CompressionChoice()
    feed(choice, 10, 4, SKIPPED + 2)
    choice.interrupted()
    assert feed(choice, 10, 4, SKIPPED + TRIAL) == [False] * (SKIPPED + TRIAL)
    assert choice.compresses


def test_frames_that_are_compressed_are_restored_or_refused() -> None:
    item = (int(EntryKind.NOOP), 0, 0, 0, 1, b"")
    batch = encode_batch(1, 1, 5, [item] * 50)
    body = compressed(batch)
    assert body is not None
    assert len(body) < batch.nbytes
    assert bytes(frames_of(memoryview(body), batch.nbytes)) == bytes(memoryview(batch))
    assert bytes(frames_of(memoryview(b"raw"), 0)) == b"raw"
    for data, nbytes in ((body[:-1], batch.nbytes), (body, 1), (body, RAW_NBYTES_MAX + 1)):
        with pytest.raises(ProtocolError, match="compressed bytes are no"):
            frames_of(memoryview(data), nbytes)
