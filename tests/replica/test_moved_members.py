"""C44: an address is where to dial, and not who is there."""

from __future__ import annotations

import pytest

from copycat.protocol.codec_hello import decode_hello
from copycat.protocol.framing import split_frame
from copycat.types import ChangeKind, MemberId, MemberType, ServerState
from tests.replica.clusters import Cluster, Member


def elected() -> Cluster:
    cluster = Cluster(3)
    cluster.elect()
    return cluster


def followers(cluster: Cluster) -> list[Member]:
    return [each for each in cluster.members if each is not cluster.leader]


def addresses(member: Member) -> dict[MemberId, str]:
    """By the newest configuration that the member knows to be committed."""
    return {each.member: each.address for each in member.replica.members.committed.members}


def places(cluster: Cluster) -> dict[MemberId, str]:
    return {each.member: each.address for each in cluster.members}


def all_know(cluster: Cluster) -> bool:
    return all(addresses(each) == places(cluster) for each in cluster.up)


def run_until_all_know(cluster: Cluster) -> None:
    for _ in range(60):
        if all_know(cluster):
            return
        cluster.run(4, 100)
    raise AssertionError([addresses(each) for each in cluster.up])


def test_c44_moved() -> None:
    """It says Hello with another address, is dialled there, and the leader writes an entry."""
    cluster = elected()
    moved, other = followers(cluster)
    cluster.move(moved, "127.0.0.1:21")
    run_until_all_know(cluster)
    for each in (cluster.leader, other):
        assert each.host.dialled[moved.member] == "127.0.0.1:21"
        assert moved.member in each.replica.members.links
        assert not each.replica.members.moved
    cluster.restart(other)
    cluster.run(10, 100)
    assert other.host.dialled[moved.member] == "127.0.0.1:21", "the configuration is stored"


def test_c44_a_leader_that_moved_is_elected_and_writes_its_own_address() -> None:
    cluster = elected()
    leader = cluster.leader
    others = followers(cluster)
    cluster.move(leader, "127.0.0.1:21")
    cluster.run(2, 10)
    cluster.cut(others[1])  # the majority needs the one that moved
    run_until_all_know(cluster)
    assert cluster.leader in (leader, others[0])


def test_c44_all_moved() -> None:
    """While V was away, all others moved: its disk knows dead addresses only."""
    cluster = elected()
    away = followers(cluster)[0]
    cluster.cut(away)
    for number, each in enumerate([each for each in cluster.members if each is not away]):
        cluster.move(each, f"127.0.0.1:{31 + number}")
    cluster.seed(cluster.up[0], cluster.up[1].address)  # neither knows where the other is
    cluster.elect()
    run_until_all_know(cluster)
    cluster.restart(away)
    cluster.mend(away)
    cluster.run(10, 100)
    assert not away.replica.members.links, "it has dialled dead addresses"
    cluster.seed(away, cluster.up[0].address)
    run_until_all_know(cluster)
    assert away.replica.raft.state is ServerState.FOLLOWER


def test_c44_all_founders_moved_at_once() -> None:
    cluster = elected()
    for number, each in enumerate(cluster.members):
        cluster.move(each, f"127.0.0.1:{41 + number}")
    first = cluster.members[0]
    for each in cluster.members[1:]:
        cluster.seed(each, first.address)
    cluster.seed(cluster.members[1], cluster.members[2].address)
    cluster.elect()
    run_until_all_know(cluster)


def test_c44_who_answers_at_the_old_address_has_not_moved() -> None:
    """A Hello alone says nothing: whoever copied a directory says it too."""
    cluster = elected()
    member, _ = followers(cluster)
    before = addresses(cluster.leader)
    hello = decode_hello(split_frame(member.replica.hello()))
    assert hello.address == member.address
    member.replica.members._address = "127.0.0.1:21"
    cluster.leader.replica.accept_peer(split_frame(member.replica.hello()))
    cluster.run(130, 100)
    assert cluster.leader.host.dialled[member.member] == member.address
    assert addresses(cluster.leader) == before


def test_c44_an_address_that_does_not_answer_is_given_up_for_the_old_one() -> None:
    """It listens where it always did, and says that it listens elsewhere."""
    cluster = elected()
    member, other = followers(cluster)
    cluster.cut(member)
    member.replica.members._address = "127.0.0.1:21"
    for each in (cluster.leader, other):
        each.replica.accept_peer(split_frame(member.replica.hello()))
    cluster.run(130, 100)
    assert cluster.leader.replica.members.moved
    cluster.mend(member)
    cluster.run(60, 100)
    assert member.member in cluster.leader.replica.members.links
    assert cluster.leader.host.dialled[member.member] == member.address


def test_c44_a_move_and_a_change_do_not_disturb_each_other() -> None:
    cluster = elected()
    moved, other = followers(cluster)
    cluster.move(moved, "127.0.0.1:21")
    cluster.run(1, 10)
    while moved.member not in cluster.leader.replica.members.links:
        cluster.run(1, 10)
    cluster.run(3, 10)
    cluster.change(ChangeKind.DEMOTE, other, MemberType.PASSIVE)
    run_until_all_know(cluster)
    assert cluster.leader.types[other.address] == "passive"
    assert cluster.leader.types[moved.address] == "active"


@pytest.mark.parametrize("type", [MemberType.PASSIVE, MemberType.RESERVE])
def test_c44_members_without_a_vote_move_too(type: MemberType) -> None:
    cluster = elected()
    moved, _ = followers(cluster)
    cluster.change(ChangeKind.DEMOTE, moved, MemberType.PASSIVE)
    if type is MemberType.RESERVE:
        cluster.change(ChangeKind.DEMOTE, moved, type)
        cluster.run(10, 100)
    cluster.move(moved, "127.0.0.1:21")
    run_until_all_know(cluster)
    assert cluster.leader.types["127.0.0.1:21"] == type.value
