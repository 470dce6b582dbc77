"""What peers send: nonsense is counted and hurts nobody, terms do not leap, laws are law."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from copycat.errors import InvariantError
from copycat.protocol.peer import (
    AppendEntries,
    AppendReply,
    LogPosition,
    PeerMessage,
    PreVote,
    PreVoteReply,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from copycat.raft.events import Reachable, Saved, Sent, Synced, Tick, Unreachable
from copycat.raft.invariants import check, observe
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState, Span
from tests.raft.helpers import append, core, leader, receive

numbers = st.one_of(
    st.integers(-1, 8), st.sampled_from([1 << 33, 1 << 62, 1 << 63, (1 << 64) - 1])
)
entries = st.builds(EntryId, numbers, numbers)
messages = st.one_of(
    # leader_commit stays 0: a leader that replaces what it called committed stops a member.
    # One of the two peers is named as the leader: half of the senders are that one.
    st.builds(
        AppendEntries,
        numbers,
        st.one_of(st.integers(2, 3), numbers),
        numbers,
        entries,
        st.builds(Span, *[numbers] * 3),
        st.just(0),
    ),
    st.builds(AppendReply, numbers, numbers, st.booleans(), numbers, entries),
    st.builds(PreVote, numbers, numbers, entries),
    st.builds(PreVoteReply, numbers, numbers, st.booleans()),
    st.builds(RequestVote, numbers, entries, st.booleans()),
    st.builds(VoteReply, numbers, st.booleans()),
    st.builds(TimeoutNow, numbers),
)


@pytest.mark.slow
@settings(max_examples=150)
@given(st.booleans(), st.lists(st.tuples(st.integers(0, 4), messages), max_size=25))
def test_no_message_of_a_peer_raises_or_breaks_a_law(
    leading: bool, arrivals: list[tuple[int, PeerMessage]]
) -> None:
    raft = leader(1, 2, 2)[0] if leading else core(1, 2, 2)
    for sender, message in arrivals:
        before = observe(raft)
        receive(raft, sender, message)
        check(before, observe(raft))


@pytest.mark.parametrize("term", [0, -1, (1 << 32) + 2, 1 << 63, 1 << 64])
@pytest.mark.parametrize("kind", ["entries", "vote", "reply", "now"])
def test_terms_that_leap_are_ignored(term: int, kind: str) -> None:
    raft = core(1)
    of_kind: dict[str, PeerMessage] = {
        "entries": append(term, 1, (1, 1), []),
        "vote": RequestVote(term, EntryId(9, 9), True),
        "reply": AppendReply(term, 1, False, 0, NO_ENTRY),
        "now": TimeoutNow(term),
    }
    before = observe(raft)
    assert receive(raft, 2, of_kind[kind]) == []
    assert (observe(raft), raft.ignored) == (before, 1)


@pytest.mark.parametrize("sender", [0, 1])
def test_nobody_and_the_member_itself_are_not_heard(sender: int) -> None:
    raft = core()
    assert receive(raft, sender, append(1, 1, (0, 0), [1])) == []
    assert (raft.current_term, raft.ignored) == (0, 1)


def test_c32_who_is_no_member_that_is_known_may_lead_and_nothing_else() -> None:
    raft = core()
    assert receive(raft, 9, LogPosition(1, NO_ENTRY)) == []
    assert receive(raft, 9, AppendReply(1, 1, True, 1, NO_ENTRY)) == []
    assert (raft.current_term, raft.ignored) == (0, 2)
    receive(raft, 9, append(1, 1, (0, 0), [1]))
    assert (raft.current_term, raft.leader, raft.ignored) == (1, 9, 2)


@pytest.mark.parametrize(
    ("prev", "span"),
    [
        (EntryId(1, 1), Span(1, 3, 4)),
        (EntryId(1, 1), Span(1, 2, 1)),
        (EntryId(2, 1), Span(1, 2, 3)),
        (EntryId(1, 1), Span(4, 2, 3)),
        (EntryId(0, 1), Span(3, 2, 3)),
        (EntryId(3, 0), Span(3, 1, 2)),
        (EntryId(4, 1), Span(4, 2, 2)),
        (EntryId(1, 1), Span(1, 2, 1 << 63)),
    ],
)
def test_entries_that_no_leader_sends_move_not_even_the_term(prev: EntryId, span: Span) -> None:
    raft = core(1)
    assert receive(raft, 2, AppendEntries(3, MemberId(2), 1, prev, span, 0)) == []
    assert (raft.current_term, raft.ignored) == (1, 1)


def test_a_higher_term_makes_a_follower_of_everybody() -> None:
    raft, _ = leader()
    receive(raft, 2, VoteReply(7, False))
    assert (raft.state, raft.current_term, raft.voted_for) == (ServerState.FOLLOWER, 7, 0)


def test_time_only_passes_forward() -> None:
    raft = core()
    before = raft.now_ms
    raft.step(Tick(0))
    raft.step(Tick(-5))
    assert raft.now_ms == before


def test_a_single_voter_leads_at_once() -> None:
    raft = core(voters=1, young=True)
    assert raft.timeout_ms == 0
    raft.step(Tick(0))
    raft.step(Saved(1))
    assert raft.state is ServerState.LEADER
    assert raft.can_propose
    raft.step(Synced(raft.sync_ticket))
    assert raft.commit_index == 1
    assert raft.match_index(MemberId(1)) == 1


def test_events_about_strangers_do_nothing() -> None:
    for raft in (core(), leader()[0]):
        for event in (
            Unreachable(MemberId(9)),
            Unreachable(MemberId(0)),
            Reachable(MemberId(9), fresh=True),
            Sent(MemberId(9), Span(1, 1, 2)),
        ):
            assert raft.step(event) == []
        assert raft.match_index(MemberId(9)) == 0


def test_a_ticket_that_was_never_given_out_is_a_broken_law() -> None:
    with pytest.raises(InvariantError, match="never asked for"):
        core().step(Synced(1))
    with pytest.raises(InvariantError, match="never asked for"):
        core().step(Saved(1))
