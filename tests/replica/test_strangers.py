"""Who is no member any more, and whom nobody could tell that while it was away."""

from __future__ import annotations

import pytest

from copycat.protocol.client import Failure, Refusal, Register, ServerMessage, ViewRequest
from copycat.replica.leadership_transfer import TransferOutcome
from copycat.types import ChangeKind, MemberType
from tests.replica.clusters import Cluster, Member

D, E = "127.0.0.1:4", "127.0.0.1:5"


def with_a_member_that_is_away() -> tuple[Cluster, Member]:
    """Three voters, and a passive member that was removed while it was away."""
    cluster = Cluster(3)
    cluster.elect()
    member = cluster.add(D)
    cluster.append(2)
    cluster.cut(member)
    cluster.change(ChangeKind.REMOVE, member, MemberType.INACTIVE)
    assert member.types[D] == "passive"
    assert member.directory.log.last_index > 0
    return cluster, member


def test_c33_who_was_removed_while_away_is_told_when_it_is_back() -> None:
    cluster, member = with_a_member_that_is_away()
    cluster.restart(member)
    cluster.mend(member)
    cluster.run(10)
    assert D not in member.types
    assert member.was_wiped
    assert member.directory.log.last_index == 0


def test_c33_a_leader_that_is_elected_later_tells_it() -> None:
    """Nobody leads while it comes back, for much longer than a silent guest is linked."""
    cluster, member = with_a_member_that_is_away()
    one, *others = cluster.members[:3]
    for each in others:
        cluster.cut(each)
    cluster.mend(member)
    cluster.run(90, 1000)
    assert member.types[D] == "passive", "nobody leads"
    assert member.member in one.host.links
    member.host.dialled.clear()  # it does not come again by itself
    cluster.mend(others[0])
    cluster.elect()
    cluster.run(10)
    assert D not in member.types
    assert member.was_wiped


@pytest.mark.parametrize("remembers", [False, True])
def test_c33_a_leader_that_it_does_not_know_tells_it(remembers: bool) -> None:
    """It was removed by a leader that joined while it was away, and that has no link to it; it may
    remember the leader before, which it has a link to."""
    cluster = Cluster(3)
    cluster.elect()
    member = cluster.add(D)
    cluster.cut(member)
    newer = cluster.add(E, MemberType.ACTIVE)
    done: list[TransferOutcome] = []
    cluster.leader.replica.transfer_leadership(newer.member, done.append)
    cluster.run(20)
    assert cluster.leader is newer
    cluster.change(ChangeKind.REMOVE, member, MemberType.INACTIVE)
    cluster.mend(member)
    cluster.run(10)
    assert member.types[D] == "passive"
    assert newer.member not in member.host.dialled
    if remembers:
        member.replica.raft.leader = cluster.members[0].member
    cluster.run(40, 500)
    assert D not in member.types
    assert member.directory.log.last_index == 0


def not_heard_of_its_leader(type: MemberType) -> tuple[Cluster, Member]:
    """A member of this type that nothing of the leader reaches from now on."""
    cluster = Cluster(3)
    cluster.elect()
    member = cluster.add(D, type)
    cluster.append(2)
    cluster.blocked = {(cluster.leader.member, member.member)}
    return cluster, member


@pytest.mark.parametrize("type", [MemberType.PASSIVE, MemberType.ACTIVE])
def test_c33_who_keeps_its_own_links_notices_that_it_was_removed(type: MemberType) -> None:
    """The leader has no link to it at that moment, and its own links to all of them stay open."""
    cluster, member = not_heard_of_its_leader(type)
    leader = cluster.leader
    leader.host.links.discard(member.member)
    leader.replica.peer_down(member.member)
    cluster.run(2)
    assert len(member.host.links) == 3
    cluster.change(ChangeKind.REMOVE, member, MemberType.INACTIVE)
    assert member.types[D] == type.value
    cluster.blocked = set()
    cluster.run(20, 100)
    assert D not in member.types
    assert member.was_wiped


@pytest.mark.parametrize("type", [MemberType.PASSIVE, MemberType.ACTIVE])
def test_c33_the_next_leader_tells_whom_the_one_before_could_not(type: MemberType) -> None:
    """No link breaks; the leader that removed it dies before its notice has arrived."""
    cluster, member = not_heard_of_its_leader(type)
    leader = cluster.leader
    cluster.change(ChangeKind.REMOVE, member, MemberType.INACTIVE)
    assert member.types[D] == type.value
    cluster.cut(leader)
    cluster.elect()
    cluster.run(20, 100)
    assert D not in member.types
    assert member.was_wiped


def test_c33_a_frame_of_somebody_without_a_link_closes_its_connection() -> None:
    """However it came to that: it dials again, and is answered."""
    cluster, member = not_heard_of_its_leader(MemberType.ACTIVE)
    leader = cluster.leader
    cluster.closes_arrive = False
    leader.host.links.discard(member.member)
    leader.replica.peer_down(member.member)
    cluster.run(2)
    cluster.change(ChangeKind.REMOVE, member, MemberType.INACTIVE)
    cluster.blocked, cluster.closes_arrive = set(), True
    assert leader.member in member.host.links
    assert member.member not in leader.host.dialled
    cluster.run(60, 100)
    assert D not in member.types
    assert member.was_wiped


def test_c33_who_hears_of_a_leader_that_it_has_a_link_to_dials_it_again() -> None:
    """A passive member sends nothing by itself, except for its question who leads."""
    cluster, member = not_heard_of_its_leader(MemberType.PASSIVE)
    leader = cluster.leader
    cluster.closes_arrive = False
    leader.host.links.discard(member.member)
    leader.replica.peer_down(member.member)
    cluster.run(2)
    cluster.change(ChangeKind.REMOVE, member, MemberType.INACTIVE)
    for each in cluster.members[:3]:  # a follower answers its question, and it has no other link
        if each is not leader:
            each.host.connect(member.member, D)
    cluster.run(2)
    cluster.blocked = set()
    cluster.run(60, 500)
    assert D not in member.types
    assert member.was_wiped


@pytest.mark.parametrize("joined_leads", [False, True])
def test_c41_a_founder_that_missed_the_first_change_hears_that_it_was_removed(
    joined_leads: bool,
) -> None:
    """It does not know which cluster this is, and it may not know who leads; a member that joined
    has no list of founders."""
    cluster = Cluster(3)
    cluster.elect()
    founder = next(each for each in cluster.members if each is not cluster.leader)
    cluster.cut(founder)
    newer = cluster.add(D)
    cluster.change(ChangeKind.REMOVE, founder, MemberType.INACTIVE)
    if joined_leads:
        cluster.change(ChangeKind.PROMOTE, newer, MemberType.ACTIVE)
        done: list[TransferOutcome] = []
        cluster.leader.replica.transfer_leadership(newer.member, done.append)
        cluster.run(20)
        assert cluster.leader is newer
    cluster.mend(founder)
    cluster.restart(founder, cleanly=False)
    assert founder.types[founder.address] == "active"
    cluster.run(80, 200)
    assert founder.address not in founder.types
    assert founder.was_wiped


def test_c41_a_founder_that_never_came_hears_what_it_needs() -> None:
    """No leader ever met it, so its directory may be of another cluster with this name."""
    cluster = Cluster(3)
    founder = cluster.members[0]
    cluster.away.add(founder.member)
    cluster.elect()
    cluster.add(D)
    cluster.change(ChangeKind.REMOVE, founder, MemberType.INACTIVE)
    cluster.mend(founder)
    cluster.run(80, 200)
    assert founder.types[founder.address] == "active"
    why = founder.replica.outage.explain().reason
    assert "it was removed before it ever took part" in why
    assert "needs an empty directory, and joins" in why


def test_c41_clients_of_a_member_that_was_removed_hear_that() -> None:
    cluster = Cluster(3)
    cluster.elect()
    member = cluster.add(D)
    cluster.change(ChangeKind.REMOVE, member, MemberType.INACTIVE)
    cluster.run(60)
    assert member.was_wiped
    assert member.replica.raft.leader == cluster.leader.member
    member.client(Register(1, "client", 60_000), 77)
    cluster.run(10)
    (answer,) = [message for connection, message in member.host.replies if connection == 77]
    assert isinstance(answer, Failure)
    assert answer.code == Refusal.ILLEGAL_MEMBER_STATE  # the client leaves at once
    assert answer.reason.startswith(f"{D} is no member of this cluster")


def test_a_request_of_this_process_that_was_forwarded_is_forgotten_with_its_answer() -> None:
    cluster = Cluster(3)
    cluster.elect()
    follower = next(each for each in cluster.members if each is not cluster.leader)
    answers: list[ServerMessage] = []
    for number in range(5):
        follower.replica.request(ViewRequest(number + 1), answers.append)
        cluster.run(2)
    assert len(answers) == 5
    assert not follower.replica._requests.forwarded_requests._by_connection
