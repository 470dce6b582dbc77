"""A configuration: members with types and addresses, in one order, under the name of its entry."""

from __future__ import annotations

import pytest

from copycat.errors import InvariantError
from copycat.protocol.peer import (
    AppendReply,
    LogPosition,
    PreVote,
    PreVoteReply,
    RequestVote,
    TimeoutNow,
)
from copycat.raft.configuration import BOOTSTRAP, Configuration, MemberRecord
from copycat.raft.core import Raft
from copycat.raft.effects import ConfigurationChanged, Replicate, TransferFinished
from copycat.raft.events import Proposed, Reachable, Saved, StorageFull, Tick, TransferRequested
from copycat.raft.initial_state import InitialState
from copycat.raft.leader_state import NEVER_MS
from copycat.raft.state import NOBODY
from copycat.types import EntryId, MemberId, MemberType, ServerState
from tests.raft.helpers import OPTIONS, adopt, append, core, leader, of, receive, sends

ME, B, C, D = map(MemberId, (1, 2, 3, 4))


def test_order_and_doubles_do_not_matter() -> None:
    assert Configuration.of(MemberId(3), MemberId(1), MemberId(3)).voters == (1, 3)


def test_quorum_and_others() -> None:
    configuration = Configuration.of(*map(MemberId, (1, 2, 3, 4)))
    assert configuration.quorum_size == 3
    assert configuration.others(MemberId(2)) == (1, 3, 4)


def test_members_that_do_not_vote() -> None:
    configuration = Configuration.of(B, ME, non_voters=(D, C))
    assert configuration.voters == (1, 2)
    assert configuration.ids == (1, 2, 3, 4)
    assert configuration.others(B) == (1, 3, 4)
    assert configuration.has_vote(B)
    assert not configuration.has_vote(D)
    with pytest.raises(InvariantError, match="votes or does not"):
        Configuration.of(ME, non_voters=(ME,))


def test_nobody_cannot_vote() -> None:
    with pytest.raises(InvariantError, match="nobody"):
        Configuration.of(MemberId(0))
    with pytest.raises(InvariantError, match="needs a voter"):
        Configuration.of()


def test_founders_are_voters_in_the_order_that_is_given() -> None:
    configuration = Configuration.bootstrap({C: "a:1", ME: "b:1"})
    assert configuration.voters == (3, 1)
    assert configuration.members == (
        MemberRecord(C, MemberType.ACTIVE, "a:1"),
        MemberRecord(ME, MemberType.ACTIVE, "b:1"),
    )
    assert configuration.entry == BOOTSTRAP


def test_a_configuration_is_named_by_its_entry() -> None:
    members = Configuration.of(ME, B).members
    of_term_3 = Configuration.from_members(members, EntryId(3, 7))
    assert of_term_3.entry == (3, 7)
    assert of_term_3 != Configuration.from_members(members, EntryId(4, 7))


def test_all_three_types_and_what_they_have() -> None:
    members = [
        MemberRecord(ME, MemberType.ACTIVE),
        MemberRecord(B, MemberType.RESERVE, "b:1"),
        MemberRecord(C, MemberType.PASSIVE, "c:1", 7, is_promotable=True),
    ]
    configuration = Configuration.from_members(members, EntryId(2, 9))
    assert configuration.voters == (ME,)
    assert configuration.stateful == (ME, C)
    assert configuration.record(C) == members[2]
    assert configuration.record(D) is None
    assert [configuration.type(each) for each in (ME, B, C, D)] == [
        MemberType.ACTIVE,
        MemberType.RESERVE,
        MemberType.PASSIVE,
        MemberType.INACTIVE,
    ]


@pytest.mark.parametrize(
    "record",
    [
        MemberRecord(B, MemberType.INACTIVE),
        MemberRecord(B, MemberType.PASSIVE, since=10),
        MemberRecord(B, MemberType.ACTIVE, is_promotable=True),
    ],
)
def test_a_record_that_no_configuration_can_hold(record: MemberRecord) -> None:
    with pytest.raises(InvariantError, match="no configuration can hold"):
        Configuration.from_members([MemberRecord(ME, MemberType.ACTIVE), record], EntryId(2, 9))


def test_the_next_configuration_changes_one_record() -> None:
    before = Configuration.of(ME, B)
    passive = MemberRecord(B, MemberType.PASSIVE)
    assert before.with_record(passive, EntryId(1, 2)) == Configuration.from_members(
        [before.members[0], passive], EntryId(1, 2)
    )
    added = before.with_record(MemberRecord(C, MemberType.RESERVE), EntryId(1, 2))
    assert added.ids == (ME, B, C)
    assert added.without(B, EntryId(1, 3)).ids == (ME, C)
    with pytest.raises(InvariantError, match="needs a voter"):
        before.without(B, EntryId(1, 3)).without(ME, EntryId(1, 4))


# ---- the core ---------------------------------------------------------------------------------


def passive() -> Raft:
    """Member 4, which does not vote, of three voters."""
    raft = Raft(
        D,
        Configuration.of(ME, B, C, non_voters=(D,)),
        OPTIONS,
        InitialState(
            current_term=1,
        ),
        seed=0,
    )
    raft.step(Tick(100))
    return raft


def test_who_has_no_vote_never_campaigns() -> None:
    raft = passive()
    for _ in range(100):
        assert raft.step(Tick(100)) == []
    assert receive(raft, ME, TimeoutNow(1)) == []
    assert raft.state is ServerState.FOLLOWER


def test_who_gets_a_vote_campaigns_and_who_loses_it_does_not() -> None:
    raft = passive()
    adopt(raft, Configuration.of(ME, B, C, D))
    asked = sends(raft.step(Tick(2 * OPTIONS.election_timeout_ms)))
    assert [(peer, type(message)) for peer, message in asked] == [
        (peer, PreVote) for peer in (ME, B, C)
    ]
    adopt(raft, Configuration.of(ME, B, C, non_voters=(D,)))
    for _ in range(100):
        assert sends(raft.step(Tick(100))) == []


def test_who_is_no_member_votes_for_nobody_and_does_not_campaign() -> None:
    raft = core(member=4, voters=3, young=True)
    raft.step(Tick(100))
    answers = sends(receive(raft, B, PreVote(9, 1, EntryId(8, 99))))
    assert answers == [(B, PreVoteReply(0, 1, False))]
    for _ in range(100):
        assert raft.step(Tick(100)) == []


def test_progress_follows_the_configuration() -> None:
    """A new passive member is sent what is committed; one that was removed is sent nothing."""
    raft, _ = leader(1, 1)
    configuration = Configuration.of(ME, B, non_voters=(D,))
    effects = adopt(raft, configuration)
    assert effects == [ConfigurationChanged(configuration)]
    assert raft.leader_state is not None
    assert list(raft.leader_state.progress) == [B, D]
    assert raft.leader_state.progress[B].match_index == 0
    assert of(raft.step(Proposed(1)), Replicate) == [], "what was sent to B is not answered yet"
    heartbeats = of(raft.step(Tick(OPTIONS.heartbeat_interval_ms)), Replicate)
    assert [effect.peer for effect in heartbeats] == [B, D]
    assert receive(raft, C, LogPosition(raft.current_term, EntryId(1, 1))) == []
    assert raft.ignored == 1


def test_f8_who_is_no_member_any_more_is_not_told_what_it_lost() -> None:
    raft, _ = leader(1, 1)
    raft.acknowledgements.unconfirmed[C] = EntryId(1, 2)
    adopt(raft, Configuration.of(ME, B))
    assert sends(raft.step(Reachable(C, fresh=False, lost=False))) == []


def test_a_member_without_a_vote_is_no_target_of_a_transfer() -> None:
    raft, _ = leader(1, 1)
    adopt(raft, Configuration.of(ME, B, non_voters=(D,)))
    [answer] = of(raft.step(TransferRequested(D)), TransferFinished)
    assert not answer.ok


def with_a_passive_member_that_has_everything() -> Raft:
    """The leader of two voters whose passive member has its whole log, and whose voter lags."""
    raft, _ = leader(1, 1)
    adopt(raft, Configuration.of(ME, B, non_voters=(D,)))
    for peer, match_index in ((B, 1), (D, raft.last.index)):
        assert raft.leader_state is not None
        raft.leader_state.replicator.send_heartbeat(raft, peer)
        request = raft.leader_state.progress[peer].last_request
        receive(raft, peer, AppendReply(raft.current_term, request, True, match_index, raft.last))
    assert raft.match_index(D) > raft.match_index(B)
    return raft


def test_f12_a_full_leader_hands_over_to_a_voter() -> None:
    """A member without a vote is passed over, although no log has more than its own."""
    raft = with_a_passive_member_that_has_everything()
    raft.step(StorageFull(True))
    targets: set[MemberId] = set()
    for _ in range(3 * OPTIONS.election_timeout_ms // 10):
        assert raft.leader_state is not None
        targets.add(raft.leader_state.transfer_to)
        raft.leader_state.check_at_ms = NEVER_MS  # the answers of both would only be noise here
        raft.step(Tick(10))
    assert targets - {NOBODY} == {B}


def test_f15_a_slow_leader_hands_over_to_a_voter() -> None:
    raft = with_a_passive_member_that_has_everything()
    raft.step(Proposed(1))
    assert raft.leader_state is not None
    raft.leader_state.check_at_ms = NEVER_MS
    while raft.leader_state.transfer_to == NOBODY:
        raft.step(Tick(10))
    assert raft.leader_state.transfer_to == B


def test_the_best_follower_is_a_voter() -> None:
    raft = with_a_passive_member_that_has_everything()
    raft.step(TransferRequested(NOBODY))
    assert raft.leader_state is not None
    assert raft.leader_state.transfer_to == B


def test_a_transfer_ends_when_its_target_loses_its_vote() -> None:
    raft = with_a_passive_member_that_has_everything()
    raft.step(TransferRequested(B))
    [answer] = of(adopt(raft, Configuration.of(ME, non_voters=(B, D))), TransferFinished)
    assert (answer.ok, answer.to) == (False, B)
    assert raft.can_propose


def test_a_sole_voter_asks_nobody_and_leads_on() -> None:
    """Who has no vote is not needed for its election, and cannot take over from a slow disk."""
    members = Configuration.of(ME, non_voters=(D,))
    raft = Raft(ME, members, OPTIONS, InitialState(current_term=1), seed=0)
    raft.step(Tick(2 * OPTIONS.election_timeout_ms))
    raft.step(Saved(raft.save_ticket))
    assert raft.state is ServerState.LEADER
    raft.step(StorageFull(True))
    for _ in range(3 * OPTIONS.election_timeout_ms // 10):
        raft.step(Tick(10))
    assert raft.disk_age_ms > OPTIONS.election_timeout_ms
    assert raft.leader_state is not None
    assert raft.leader_state.transfer_to == NOBODY


def test_a_leader_that_was_alone_sends_heartbeats_to_a_new_member() -> None:
    raft = core(1, 1, voters=1, young=True)
    raft.step(Tick(1))
    raft.step(Saved(raft.save_ticket))
    assert raft.state is ServerState.LEADER
    assert raft.timeout_ms > 1_000_000
    adopt(raft, Configuration.of(ME, non_voters=(D,)))
    heartbeats = of(raft.step(Tick(OPTIONS.heartbeat_interval_ms)), Replicate)
    assert [effect.peer for effect in heartbeats] == [D]
    assert adopt(raft, Configuration.of(ME))[1:] == []
    assert raft.timeout_ms > 1_000_000


def test_c32_a_stranger_does_not_move_a_leader() -> None:
    """A member that was removed campaigns: whoever removed it leads on."""
    raft, _ = leader(1, 1)
    term, stranger = raft.current_term, MemberId(9)
    for sender in (stranger, C):
        adopt(raft, Configuration.of(ME, B))
        assert receive(raft, sender, RequestVote(term + 5, EntryId(term + 4, 99), True)) == []
        assert receive(raft, sender, append(term + 5, 1, (1, 1), [])) == []
        assert (raft.state, raft.current_term) == (ServerState.LEADER, term)
    receive(raft, B, append(term + 5, 1, (1, 1), []))
    assert (raft.state, raft.leader) == (ServerState.FOLLOWER, B)
