"""Who is no member any more, and whom nobody could tell that while it was away."""

from __future__ import annotations

import pytest

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
