"""What a member makes of fed entries, and whom a leader has fed by whom (C26, C27, C29)."""

from __future__ import annotations

import pytest

from copycat.protocol.peer import AppendReply
from copycat.raft.core import Raft
from copycat.raft.effects import Append, Commit, EndShipping, Replicate, Truncate
from copycat.raft.events import EntriesFed, Proposed, Synced, Tick
from copycat.raft.progress import ProgressState, Scope
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState, Span
from tests.raft.helpers import append, complete_io, core, leader, of, receive, ship

A, B, C, D = map(MemberId, (1, 2, 3, 4))


def fed(term: int, prev: tuple[int, int], span: Span, *, has_gaps: bool = False) -> EntriesFed:
    return EntriesFed(B, term, EntryId(*prev), span, has_gaps)


def test_c26_a_candidate_and_a_leader_take_nothing() -> None:
    raft, _ = leader()
    before = raft.last
    assert raft.step(fed(9, (0, 0), Span(9, 1, 4))) == []
    assert (raft.state, raft.last) == (ServerState.LEADER, before)
    raft = core()
    raft.election_at_ms = 0
    raft.state = ServerState.CANDIDATE
    assert raft.step(fed(9, (0, 0), Span(9, 1, 4))) == []


def test_c26_what_is_fed_is_committed_once_it_is_durable_and_acknowledged_to_nobody() -> None:
    raft = core()
    effects = raft.step(fed(3, (0, 0), Span(2, 1, 4)))
    assert [each.span for each in of(effects, Append)] == [Span(2, 1, 4)]
    assert of(effects, Commit) == []
    assert raft.current_term == 3, "the term of the feeder is adopted"
    assert raft.leader == 0, "and nobody is known to lead it"
    effects = raft.step(Synced(raft.sync_ticket))
    assert of(effects, Commit) == [Commit(3)]
    assert raft.verified_index == 0
    assert not [each for each in effects if hasattr(each, "message")]


def test_c26_nothing_committed_is_replaced_and_what_conflicts_above_is() -> None:
    raft = core()
    receive(raft, C, append(2, 1, (0, 0), [1, 1], commit=1))
    complete_io(raft)
    effects = raft.step(fed(3, (1, 1), Span(3, 2, 3)))
    assert of(effects, Truncate) == [Truncate(1)]
    assert raft.last == EntryId(3, 2)


def test_c26_a_fed_entry_is_no_sign_of_a_leader() -> None:
    raft = core()
    raft.step(Tick(5))
    timer, heard = raft.election_at_ms, raft.leader_active_until_ms
    raft.step(fed(0, (0, 0), Span(0, 1, 1)))
    raft.step(fed(1, (0, 0), Span(1, 1, 2)))
    assert (raft.election_at_ms, raft.leader_active_until_ms) == (timer, heard)


@pytest.mark.parametrize("prev", [(2, 5), (1, 2)])
def test_entries_that_do_not_continue_this_log_are_left(prev: tuple[int, int]) -> None:
    raft = core()
    receive(raft, C, append(2, 1, (0, 0), [2, 2]))
    before = raft.last
    raft.step(fed(2, prev, Span(2, prev[1] + 1, prev[1] + 2)))
    assert raft.last == before


def test_c29_a_voter_is_fed_from_the_whole_and_streamed_to_from_the_half() -> None:
    """The leader has 1 to 21, and in memory those from 11 on."""
    raft, _ = leader()
    assert raft.leader_state is not None
    of_b = raft.leader_state.progress[B]
    reply(raft, B, of_b.last_request, 1)
    ship(raft, raft.step(Proposed(20)))
    complete_io(raft)
    last = raft.last
    reply(raft, B, of_b.last_request, last.index)
    assert raft.commit_index == last.index
    progress = raft.leader_state.progress[C]
    progress.next_index = 10
    effects = raft.step(Tick(raft.options.heartbeat_interval_ms, 11))
    assert [each.feeder for each in of(effects, Replicate) if each.peer == C] == [B]
    assert progress.is_fed
    half = 11 + (last.next - 11) // 2
    for commit_index, is_fed in ((half - 2, True), (half - 1, False)):
        receive(raft, C, rejected(raft, progress.last_request, commit_index))
        assert progress.is_fed is is_fed
    assert progress.match_index == 0, "what was fed is no answer to a request of this leader"


def reply(raft: Raft, peer: MemberId, request: int, match_index: int) -> None:
    receive(raft, peer, AppendReply(raft.current_term, request, True, match_index, NO_ENTRY))


def rejected(raft: Raft, request: int, commit_index: int) -> AppendReply:
    hint = EntryId(raft.current_term, commit_index)
    return AppendReply(raft.current_term, request, False, 0, hint, commit_index=commit_index)


def test_c27_who_is_sent_a_snapshot_and_becomes_passive_is_fed_and_sent_nothing() -> None:
    """Two senders of two files would each make it begin anew."""
    raft, _ = leader()
    assert raft.leader_state is not None
    reply(raft, B, raft.leader_state.progress[B].last_request, 1)
    complete_io(raft)
    progress = raft.leader_state.progress[C]
    raft.leader_state.replicator.send_snapshot(raft, C, 1)
    raft.effects.clear()
    progress.scope, progress.sends_all = Scope.COMMITTED, False
    progress.begin_feeding(progress.next_index, 0)
    effects = raft.step(Tick(raft.options.heartbeat_interval_ms))
    assert of(effects, EndShipping) == [EndShipping(C, done=False)]
    assert progress.is_fed
    assert progress.state is ProgressState.PROBE
