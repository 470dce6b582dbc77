"""Appending, answering, committing: what is promised, when, and to whom."""

from __future__ import annotations

import msgspec
import pytest

from copycat.errors import InvariantError
from copycat.protocol.peer import AppendReply
from copycat.raft.core import Raft
from copycat.raft.effects import (
    Append,
    Commit,
    Content,
    Effect,
    RoleChanged,
    SaveHardState,
    Sync,
    Truncate,
)
from copycat.raft.events import Saved, Synced, Tick, Unreachable
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState, Span
from tests.raft.helpers import append, complete_io, core, of, receive, sends


def following(*terms: int, term: int = 3) -> Raft:
    """Member 1 follows member 2 in `term`, saved."""
    raft = core(*terms)
    last = raft.last
    receive(raft, 2, append(term, 1, (last.term, last.index), []))
    complete_io(raft)
    return raft


def replies(effects: list[Effect]) -> list[AppendReply]:
    return [message for _, message in sends(effects) if isinstance(message, AppendReply)]


def test_order_of_effects() -> None:
    raft = following(1, 1, 2)
    effects = receive(raft, 2, append(3, 2, (1, 2), [3, 3]))
    assert [type(effect).__name__ for effect in effects] == ["Truncate", "Append", "Sync", "Send"]
    assert effects[:2] == [Truncate(2), Append(Span(3, 3, 5), Content.RECEIVED)]


def test_c1_answers_at_once_and_again_when_durable() -> None:
    raft = following(1)
    effects = receive(raft, 2, append(3, 2, (1, 1), [3, 3]))
    assert sends(effects) == [(2, AppendReply(3, 2, True, 1, NO_ENTRY, 1))]
    effects = receive(raft, 2, append(3, 3, (3, 3), []))
    assert sends(effects) == [(2, AppendReply(3, 3, True, 1, NO_ENTRY, 1))]
    effects = raft.step(Synced(raft.sync_ticket))
    assert sends(effects) == [(2, AppendReply(3, 3, True, 3, NO_ENTRY, 3))]
    assert raft.step(Synced(raft.sync_ticket)) == []


def test_c23_written_is_not_stable() -> None:
    """In the weaker modes a match is what was written; the floor goes by what was synced."""
    raft = following(1)
    receive(raft, 2, append(3, 2, (1, 1), [3, 3]))
    (written,) = replies(raft.step(Synced(raft.sync_ticket, synced_index=2)))
    assert (written.match_index, written.stable_index) == (3, 2)
    receive(raft, 2, append(3, 3, (3, 3), [3]))
    (synced,) = replies(raft.step(Synced(raft.sync_ticket, synced_index=4)))
    assert (synced.match_index, synced.stable_index) == (4, 4)


def test_c23_a_truncation_takes_back_what_was_synced() -> None:
    raft = following(1, 1, 2)
    receive(raft, 2, append(3, 2, (1, 2), [3, 3]))
    (reply,) = replies(raft.step(Synced(raft.sync_ticket, synced_index=2)))
    assert (reply.match_index, reply.stable_index) == (4, 2)


def test_a_match_is_what_the_request_verified_not_the_last_index() -> None:
    raft = following(1, 1, 1, 1)
    effects = receive(raft, 2, append(3, 2, (1, 2), []))
    assert sends(effects) == [(2, AppendReply(3, 2, True, 2, NO_ENTRY, 2))]


def test_c2_i8_commit_is_bounded_by_the_request_that_carried_it() -> None:
    raft = following(1, 1, 1)
    assert of(receive(raft, 2, append(3, 2, (1, 2), [], commit=9)), Commit) == [Commit(2)]
    assert of(receive(raft, 2, append(3, 3, (1, 1), [], commit=9)), Commit) == []


def test_c24_a_follower_commits_only_what_is_durable() -> None:
    raft = following(1)
    effects = receive(raft, 2, append(3, 2, (1, 1), [3, 3], commit=3))
    assert of(effects, Commit) == [Commit(1)]
    assert of(raft.step(Synced(raft.sync_ticket)), Commit) == [Commit(3)]


def test_c6_a_stale_sync_proves_nothing_about_what_came_after() -> None:
    raft = following(1)
    stale = of(receive(raft, 2, append(3, 2, (1, 1), [3, 3, 3])), Sync)[0]
    fresh = of(receive(raft, 3, append(4, 1, (1, 1), [4, 4])), Sync)[0]
    raft.step(Saved(raft.save_ticket))
    assert raft.step(Synced(stale.ticket)) == []
    assert raft.durable_index == 1
    effects = raft.step(Synced(fresh.ticket))
    assert sends(effects) == [(3, AppendReply(4, 1, True, 3, NO_ENTRY, 3))]


def test_what_an_older_leader_verified_is_not_told_to_a_newer_one() -> None:
    raft = following(1)
    receive(raft, 2, append(3, 2, (1, 1), [3, 3]))
    receive(raft, 3, append(4, 1, (1, 1), []))
    raft.step(Saved(raft.save_ticket))
    assert raft.step(Synced(raft.sync_ticket)) == [], "3 and 4 of term 3 may yet go"
    assert raft.durable_index == 3


def test_a_stale_shorter_request_never_truncates() -> None:
    raft = following(1, 3, 3, 3)
    effects = receive(raft, 2, append(3, 2, (1, 1), [3]))
    assert of(effects, Truncate) + of(effects, Append) == []
    assert raft.last == EntryId(3, 4)


def test_only_the_new_part_is_appended() -> None:
    raft = following(1, 3, 3)
    effects = receive(raft, 2, append(3, 2, (1, 1), [3, 3, 3, 3]))
    assert of(effects, Append) == [Append(Span(3, 4, 6), Content.RECEIVED)]


@pytest.mark.parametrize(
    ("prev", "hint"), [((3, 9), (2, 4)), ((1, 4), (1, 3)), ((3, 3), (1, 3)), ((2, 3), (1, 3))]
)
def test_a_rejection_names_the_newest_entry_not_above(
    prev: tuple[int, int], hint: tuple[int, int]
) -> None:
    raft = following(1, 1, 1, 2)
    effects = receive(raft, 2, append(3, 2, prev, []))
    assert sends(effects) == [(2, AppendReply(3, 2, False, 0, EntryId(*hint)))]


def test_an_old_term_is_told_ours_and_resets_nothing() -> None:
    raft = following(1)
    deadline, active_until_ms = raft.election_at_ms, raft.leader_active_until_ms
    raft.step(Tick(10))
    effects = receive(raft, 3, append(2, 50, (1, 1), [2]))
    assert sends(effects) == [(3, AppendReply(3, 50, False, 0, NO_ENTRY))]
    assert (raft.election_at_ms, raft.leader_active_until_ms) == (deadline, active_until_ms)
    receive(raft, 2, append(3, 2, (1, 1), []))
    assert raft.leader_active_until_ms == active_until_ms + 10


def test_c9_nothing_of_a_new_term_leaves_before_it_is_saved() -> None:
    raft = core(1)
    effects = receive(raft, 2, append(3, 1, (1, 1), [3]))
    assert [type(effect) for effect in effects] == [SaveHardState, RoleChanged, Append, Sync]
    assert raft.step(Synced(raft.sync_ticket)) == []
    assert [reply.match_index for reply in replies(raft.step(Saved(1)))] == [1, 2]


def test_i1_a_second_leader_of_the_term_is_nonsense() -> None:
    raft = following(1)
    assert receive(raft, 3, append(3, 1, (1, 1), [3])) == []
    assert raft.ignored == 1
    assert raft.leader == 2


def test_entries_count_for_the_leader_that_they_name() -> None:
    """Who sends them is not taken for the leader, nor for a sign of one."""
    raft = following(1)
    entries = msgspec.structs.replace(append(3, 2, (1, 1), [3]), leader=MemberId(2))
    assert receive(raft, 3, entries) == []
    of_nobody = msgspec.structs.replace(entries, term=4, leader=MemberId(9))
    assert receive(raft, 3, of_nobody) == []
    assert (raft.ignored, raft.leader, raft.current_term) == (2, 2, 3)


def test_c23_a_floor_of_other_members_is_not_adopted() -> None:
    """It was computed for a configuration that this member does not have."""
    raft = following(1, 1)
    heartbeat = append(3, 2, (1, 2), [], commit=2)
    heartbeat = msgspec.structs.replace(heartbeat, deletion_floor=2)
    receive(raft, 2, msgspec.structs.replace(heartbeat, configuration=EntryId(3, 1)))
    assert raft.cluster_deletion_floor == 0
    receive(raft, 2, heartbeat)
    assert raft.cluster_deletion_floor == 2


def test_i10_committed_entries_are_never_replaced() -> None:
    raft = following(1, 1)
    receive(raft, 2, append(3, 2, (1, 2), [], commit=2))
    with pytest.raises(InvariantError, match="replace committed"):
        receive(raft, 2, append(3, 3, (1, 1), [3]))


def test_i10_not_even_before_they_are_durable_here() -> None:
    raft = following(1)
    receive(raft, 2, append(3, 2, (1, 1), [3], commit=2))
    assert raft.commit_index == 1
    with pytest.raises(InvariantError, match="replace committed"):
        receive(raft, 3, append(4, 3, (1, 1), [4]))


def test_a_leader_that_became_unreachable_is_news() -> None:
    raft = following(1)
    effects = raft.step(Unreachable(MemberId(2)))
    assert effects == [RoleChanged(ServerState.FOLLOWER, 3, MemberId(0))]
    assert raft.timeout_ms < 13
    assert raft.step(Unreachable(MemberId(2))) == []
    assert raft.step(Unreachable(MemberId(3))) == []


def test_its_next_message_sets_everything_right_again() -> None:
    raft = following(1)
    raft.step(Unreachable(MemberId(2)))
    effects = receive(raft, 2, append(3, 2, (1, 1), []))
    assert of(effects, RoleChanged) == [RoleChanged(ServerState.FOLLOWER, 3, MemberId(2))]
    assert raft.hears_leader


def test_a_leader_heard_in_the_same_moment_still_resets_the_timer() -> None:
    raft = following(1)
    raft.step(Tick(10))
    receive(raft, 2, append(3, 2, (1, 1), []))
    raft.step(Unreachable(MemberId(2)))
    receive(raft, 2, append(3, 3, (1, 1), []))
    assert raft.timeout_ms >= 100
