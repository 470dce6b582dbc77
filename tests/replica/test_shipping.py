"""What one AppendEntries takes: whole batches while they are new, more when a peer lags."""

from __future__ import annotations

from copycat.log.batch import encode_batch
from copycat.log.memory import MemoryLog
from copycat.replica.shipping import RecentBatches
from copycat.types import EntryKind


def recent(batches: int, read_bytes_max: int = 1 << 16) -> tuple[RecentBatches, MemoryLog]:
    log = MemoryLog()
    made = RecentBatches(log, 1 << 20, read_bytes_max)
    for number in range(batches):
        item = (int(EntryKind.TICK), 0, 0, 0, 1, b"")
        batch = encode_batch(1, 1 + 2 * number, 0, [item, item])
        log.append(batch)
        made.add(batch)
    return made, log


def test_the_newest_batch_goes_out_as_it_is() -> None:
    made, _ = recent(3)
    assert made.gather(5, 7) is made.read(5, 7)


def test_a_peer_that_lags_gets_many_small_batches_in_one_message() -> None:
    """Seed 20897: with one small batch a round trip, a follower whose disk is slower than the
    leader's turns never caught up."""
    made, _ = recent(40)
    assert made.read(1, 81).span.end == 3
    assert made.gather(1, 81).span == (1, 1, 81)
    assert made.gather(2, 81).span == (1, 2, 81)


def test_a_message_takes_no_more_than_its_limit() -> None:
    made, _ = recent(40, read_bytes_max=32 * 10)
    assert made.gather(1, 81).span.end <= 12
    assert made.gather(1, 81).span.end > 3
