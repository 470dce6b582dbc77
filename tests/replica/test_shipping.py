"""What one AppendEntries takes: whole batches while they are new, more when a peer lags."""

from __future__ import annotations

from copycat.protocol.codec_peer import decode_append
from copycat.protocol.framing import split_frame
from copycat.protocol.peer import AppendEntries
from copycat.raft.effects import Replicate
from copycat.replica.driver import EntrySender
from copycat.replica.inbound import received_batch
from copycat.storage import Batch, encode_batch, encode_gap
from copycat.storage.memory import MemoryLog
from copycat.storage.recent_batches import BatchReader, RecentBatches
from copycat.types import EntryId, EntryKind, MemberId, Span


def reader(log: MemoryLog, read_bytes_max: int = 1 << 16) -> BatchReader:
    return BatchReader(log, RecentBatches(1024, 1 << 20, keeps_newest=True), read_bytes_max)


def recent(batches: int, read_bytes_max: int = 1 << 16) -> tuple[BatchReader, MemoryLog]:
    log = MemoryLog()
    made = reader(log, read_bytes_max)
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


class Wire:
    """A host that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[AppendEntries] = []

    def send(self, peer: MemberId, header: bytes, body: Batch | None) -> bool:
        frame = split_frame(header + (b"" if body is None else bytes(memoryview(body))))
        message, data = decode_append(frame)
        received_batch(data, message)
        self.sent.append(message)
        return True


def test_c3_a_leader_that_started_anew_says_that_what_is_in_a_gap_was_committed() -> None:
    """Seed 4: a leader that restarts with a cleaned log knows of no commit index. A peer that
    lagged refused its gaps, and where that peer was needed for a majority nothing was ever
    committed again."""
    log, host = MemoryLog(), Wire()
    item = (int(EntryKind.TICK), 0, 0, 0, 1, b"")
    log.append(encode_batch(1, 1, 0, [item, item]))
    log.append(encode_gap(1, 3, 7, 0, 9))
    log.append(encode_batch(1, 7, 0, [item, item, item]))
    sender = EntrySender(reader(log), host)  # type: ignore[arg-type]
    for span, known, expected in (((1, 1, 3), 0, 0), ((1, 3, 10), 0, 6), ((1, 3, 10), 8, 8)):
        effect = Replicate(MemberId(2), 1, EntryId(1, span[1] - 1), Span(*span), known, 0)
        sender.ship(effect, term=1, leader=MemberId(1), log_time_ms=0)
        assert host.sent[-1].leader_commit == expected
