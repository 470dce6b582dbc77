"""What the leader believes of a peer: never more than it sent, never less than it knew."""

from __future__ import annotations

from copycat.raft.progress import Progress, ProgressState
from copycat.types import EntryId, Span


def shipped(progress: Progress, request: int, first: int, end: int) -> None:
    progress.pending_request = request
    progress.last_request = request
    assert progress.on_sent(Span(1, first, end))


def test_i9_no_reply_proves_more_than_its_request_reached() -> None:
    progress = Progress(11, 0)
    shipped(progress, 1, 11, 14)
    shipped(progress, 2, 14, 20)
    assert not progress.acknowledge(1, 14)
    assert progress.match_index == 0
    assert progress.acknowledge(1, 13)
    assert progress.acknowledge(2, 15)
    assert not progress.acknowledge(2, 20)
    assert (progress.match_index, progress.next_index, len(progress.sent)) == (15, 20, 1)


def test_a_rewind_forgets_what_was_in_flight() -> None:
    progress = Progress(11, 0)
    shipped(progress, 1, 11, 14)
    shipped(progress, 2, 14, 20)
    assert progress.rewind(1, EntryId(1, 4))
    assert (progress.next_index, progress.state) == (5, ProgressState.PROBE)
    assert not progress.rewind(2, EntryId(1, 2)), "sent before the rewind"
    assert not progress.acknowledge(2, 19), "the next probe will tell"


def test_a_rejection_never_lowers_a_match_or_raises_next() -> None:
    progress = Progress(11, 0)
    shipped(progress, 1, 11, 14)
    assert progress.acknowledge(1, 12)
    progress.last_request = 2
    assert progress.rewind(2, EntryId(1, 3))
    assert (progress.match_index, progress.next_index) == (12, 13)
    progress.last_request = 3
    assert not progress.rewind(3, EntryId(1, 3)), "F8: no probes for ever"
    assert not progress.rewind(3, EntryId(9, 99))


def test_sent_that_answers_nothing_is_ignored() -> None:
    progress = Progress(11, 0)
    assert not progress.on_sent(Span(1, 11, 12))
    progress.pending_request = 1
    assert not progress.on_sent(Span(1, 12, 13))
    assert not progress.on_sent(Span(1, 11, 11))
    assert progress.on_sent(Span(1, 11, 12))


def test_a_lost_link_keeps_next_index() -> None:
    progress = Progress(11, 0)
    shipped(progress, 1, 11, 14)
    progress.mark_lost()
    assert (progress.next_index, progress.state, len(progress.sent)) == (14, ProgressState.LOST, 0)
