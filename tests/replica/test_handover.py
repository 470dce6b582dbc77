"""Leadership that is handed over: done when the other was heard to lead, else why not."""

from __future__ import annotations

from copycat.raft.configuration import Configuration
from copycat.raft.effects import ConfigurationChanged, TransferFailure
from copycat.replica.leadership_transfer import TransferOutcome
from copycat.types import MemberId, MemberType, ServerState
from tests.raft.helpers import adopt
from tests.replica.disks import Disks
from tests.replica.harness import Node


def three() -> tuple[Disks, Node, list[Node]]:
    net = Disks()
    leader = net.elect()
    net.stabilize(100)
    return net, leader, [node for node in net.nodes.values() if node is not leader]


def asked(node: Node, to: MemberId) -> list[TransferOutcome]:
    outcomes: list[TransferOutcome] = []
    node.replica.transfer_leadership(to, outcomes.append)
    node.turn()
    return outcomes


def test_it_is_done_when_the_other_was_heard_to_lead() -> None:
    net, leader, (heir, _) = three()
    outcomes = asked(leader, heir.member)
    assert outcomes == [], "not when it was told to campaign"
    net.stabilize(50)
    assert outcomes == [TransferOutcome(ok=True, leader=heir.address)]
    assert heir.replica.raft.state is ServerState.LEADER


def test_a_target_without_a_vote_is_named_with_the_reason() -> None:
    _, leader, (heir, _) = three()
    raft = leader.replica.raft
    members = [
        record._replace(type=MemberType.PASSIVE) if record.member == heir.member else record
        for record in raft.configuration.members
    ]
    for effect in adopt(raft, Configuration.from_members(members)):
        assert isinstance(effect, ConfigurationChanged)
        leader.replica.on_member_effect(effect)
    (outcome,) = asked(leader, heir.member)
    assert outcome.failure is TransferFailure.NO_TARGET
    assert outcome.why == (
        f"{heir.address} has no vote, so it cannot lead; {leader.address} remains the leader"
    )


def test_a_target_that_is_away_is_named_with_the_reason() -> None:
    net, leader, (heir, _) = three()
    net.cut(heir.member)
    outcomes = asked(leader, heir.member)
    for _ in range(20):
        net.stabilize(100)
    (outcome,) = outcomes
    assert outcome.failure is TransferFailure.UNREACHABLE
    assert outcome.why == f"{leader.address} has no link to {heir.address}, and remains the leader"
    assert leader.replica.raft.state is ServerState.LEADER


def test_a_target_that_campaigns_and_is_cut_off_did_not_take_over() -> None:
    net, leader, (heir, other) = three()
    outcomes = asked(leader, heir.member)
    net.deliver()
    heir.turn()
    heir.finish_saves()
    heir.turn()
    net.deliver()
    leader.turn()
    assert leader.replica.raft.state is ServerState.FOLLOWER
    net.cut(heir.member)
    for _ in range(60):
        net.stabilize(100)
    (outcome,) = outcomes
    assert outcome.failure in {TransferFailure.ANOTHER_LEADS, TransferFailure.NOBODY_LEADS}
    assert heir.address in outcome.why
    assert other.replica.raft.leader in {leader.member, other.member}


def test_two_that_ask_for_different_members_are_not_both_told_that_it_was_done() -> None:
    net, leader, (first, second) = three()
    outcomes: list[TransferOutcome] = []
    leader.replica.transfer_leadership(first.member, outcomes.append)
    leader.replica.transfer_leadership(second.member, outcomes.append)
    net.stabilize(50)
    assert [outcome.ok for outcome in outcomes] == [True, False]
    assert outcomes[1].why == (
        f"{second.address} did not win the election: {first.address} leads term "
        f"{leader.replica.raft.current_term}"
    )


def test_the_second_of_two_is_not_told_what_is_wrong_with_the_first() -> None:
    net, leader, (first, second) = three()
    net.cut(first.member)
    outcomes = asked(leader, first.member)
    leader.replica.transfer_leadership(second.member, outcomes.append)
    leader.replica.transfer_leadership(MemberId(0), outcomes.append)
    for _ in range(20):
        net.stabilize(100)
    failures = [outcome.failure for outcome in outcomes]
    away = TransferFailure.UNREACHABLE
    assert failures == [away, TransferFailure.BUSY, away]
    assert outcomes[1].why == (
        f"{leader.address} was handing leadership to {first.address} when {second.address} was"
        f" asked for; that failed, and {leader.address} remains the leader"
    )
    assert outcomes[2].why == outcomes[0].why
    done = asked(leader, second.member)
    net.stabilize(50)
    assert [outcome.ok for outcome in done] == [True]


def test_who_does_not_lead_says_so_at_once() -> None:
    _, _, (follower, other) = three()
    (outcome,) = asked(follower, other.member)
    assert outcome.failure is TransferFailure.NO_TARGET
    assert outcome.why == f"{follower.address} does not lead"
