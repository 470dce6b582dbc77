"""What a peer is sent next, decided by a `Replicator` alone: no leader, no votes, no majority."""

from __future__ import annotations

from dataclasses import dataclass, field

from copycat.raft.effects import Effect, EndShipping, Replicate, ShipSnapshot
from copycat.raft.progress import ProgressState
from copycat.raft.replication import LogSource, Replicator
from copycat.raft.term_index import TermIndex
from copycat.types import NO_ENTRY, EntryId, MemberId, Span, TermRun

A, B = MemberId(2), MemberId(3)


def two_terms() -> TermIndex:
    return TermIndex([TermRun(1, 1), TermRun(2, 4)], 1, 5)


@dataclass
class Source:
    """A log whose entries have the terms 1, 1, 1, 2, 2, all of it committed."""

    terms: TermIndex = field(default_factory=two_terms)
    current_term: int = 2
    commit_index: int = 5
    cluster_deletion_floor: int = 0
    effects: list[Effect] = field(default_factory=list)

    def take_effects(self) -> list[Effect]:
        """The effects since the last call."""
        effects, self.effects = self.effects, []
        return effects


def replicator(source: LogSource, *, next_index: int = 1) -> Replicator:
    """Two peers about which nothing is known; A is sent entries from `next_index` on."""
    made = Replicator(window=2)
    made.follow_members(source, (A, B), now_ms=0)
    made.progress[A].next_index = next_index
    return made


def spans(effects: list[Effect]) -> list[Span]:
    return [effect.span for effect in effects if isinstance(effect, Replicate)]


def test_a_probe_is_one_message_until_a_peer_accepts_one() -> None:
    source = Source()
    sender = replicator(source)
    sender.send_entries(source, A)
    assert spans(source.take_effects()) == [Span(1, 1, 4)], "one batch has one term"
    sender.on_sent(source, A, Span(1, 1, 2))
    assert source.take_effects() == [], "a probe"
    sender.on_accepted(source, A, sender.request)
    sender.send_entries(source, A)
    assert spans(source.take_effects()) == [Span(1, 2, 4)]
    sender.on_sent(source, A, Span(1, 2, 4))
    assert source.take_effects() == [], "the window has room for two messages"


def test_one_message_at_a_time_waits_to_be_sent() -> None:
    source = Source()
    sender = replicator(source)
    sender.on_accepted(source, A, 1)
    sender.send_entries(source, A)
    sender.send_entries(source, A)
    assert spans(source.take_effects()) == [Span(1, 1, 4)]
    sender.on_sent(source, A, Span(1, 1, 4))
    assert spans(source.take_effects()) == [Span(2, 4, 6)]


def test_request_numbers_rise_over_all_peers() -> None:
    source = Source()
    sender = replicator(source)
    for peer in (A, B, A):
        sender.send_heartbeat(source, peer)
    requests = [
        effect.request for effect in source.take_effects() if isinstance(effect, Replicate)
    ]
    assert requests == [1, 2, 3]


def test_a_heartbeat_says_what_comes_before_the_next_entry() -> None:
    source = Source(cluster_deletion_floor=9)
    sender = replicator(source, next_index=5)
    sender.send_heartbeat(source, A)
    assert source.take_effects() == [Replicate(A, 1, EntryId(2, 4), Span(2, 5, 5), 5, 5)]


def test_the_commit_index_is_sent_once_to_a_peer_that_can_be_reached() -> None:
    source = Source()
    sender = replicator(source)
    sender.on_unreachable(source, B)
    sender.send_commit_index(source)
    assert [effect.peer for effect in source.take_effects() if isinstance(effect, Replicate)] == [
        A
    ]
    sender.send_commit_index(source)
    assert source.take_effects() == []


def test_a_rejection_leads_to_a_probe_further_back() -> None:
    source = Source()
    sender = replicator(source, next_index=6)
    sender.send_heartbeat(source, A)
    assert sender.on_rejected(source, A, 1, EntryId(1, 7))
    assert sender.progress[A].next_index == 4, "over all of term 2"
    assert not sender.on_rejected(source, A, 1, NO_ENTRY), "it is late"


def test_a_snapshot_when_entries_would_not_do() -> None:
    trimmed = TermIndex([TermRun(2, 4)], 4, 5, EntryId(1, 3))
    for source in (Source(terms=trimmed), Source(cluster_deletion_floor=3)):
        sender = replicator(source, next_index=5)
        sender.send_heartbeat(source, A)
        source.take_effects()
        assert sender.on_rejected(source, A, 1, EntryId(1, 2))
        assert source.take_effects() == [ShipSnapshot(A, 2, source.cluster_deletion_floor)]
        assert sender.progress[A].state is ProgressState.SNAPSHOT
        sender.send_entries(source, A)
        assert source.take_effects() == [], "what it lacks is on its way"


def test_a_peer_that_needs_its_snapshot_no_more_is_sent_entries() -> None:
    source = Source(cluster_deletion_floor=3)
    sender = replicator(source)
    sender.send_snapshot(source, A, min_index=4)
    assert source.take_effects() == [ShipSnapshot(A, 1, 4)]
    sender.send_heartbeat(source, A)
    sender.on_accepted(source, A, 2)
    assert EndShipping(A, done=True) in source.take_effects()
    sender.send_entries(source, A)
    assert spans(source.take_effects()) == [Span(2, 5, 6)]


def test_a_broken_link_and_a_member_that_left_end_a_transfer() -> None:
    source = Source()
    sender = replicator(source)
    sender.send_snapshot(source, A)
    sender.on_unreachable(source, A)
    assert source.take_effects()[1:] == [EndShipping(A, done=False)]
    sender.send_snapshot(source, B)
    source.take_effects()
    progress = sender.progress
    sender.follow_members(source, (A,), now_ms=9)
    assert source.take_effects() == [EndShipping(B, done=False)]
    assert list(sender.progress) == [A]
    assert sender.progress is progress, "the leader refers to the same dict"
