"""Level "memory": all members of a cluster whose members were changed are restarted (C13, C35)."""

from __future__ import annotations

from copycat.protocol.client import ServerMessage, TransferRequest
from copycat.types import ChangeKind, MemberType, ServerState, StorageLevel
from tests.replica.clusters import Cluster
from tests.replica.test_membership import D, E, snapshot_configuration, three

F = "127.0.0.1:6"


def restart_all(cluster: Cluster) -> None:
    for each in cluster.members:
        if each.member not in cluster.away:
            cluster.restart(each, cleanly=False)


def check_all_are_members(cluster: Cluster, voters: int) -> None:
    leader = cluster.elect()
    cluster.run(40, 100)
    leader = cluster.leader
    cluster.append(2)
    cluster.run(10, 100)
    for each in cluster.up:
        raft = each.replica.raft
        assert each.configuration == leader.configuration
        assert raft.known_configuration == leader.configuration
        assert len(each.configuration.voters) == voters
        assert raft.eligibility.restrictions == (), each.address
        assert raft.last == leader.replica.raft.last
        assert each.executor.last_applied == leader.executor.last_applied


def test_c35_all_voters_stay_voters() -> None:
    cluster = three(level=StorageLevel.MEMORY)
    for address in (D, E):
        cluster.add(address, MemberType.ACTIVE)
    cluster.append(3)
    restart_all(cluster)
    check_all_are_members(cluster, 5)


def without_founders(*addresses: str) -> Cluster:
    """A cluster in memory whose founders were replaced by members at these addresses."""
    cluster = three(level=StorageLevel.MEMORY)
    founders = list(cluster.members)
    answers: list[ServerMessage] = []
    for address in addresses:
        cluster.add(address, MemberType.ACTIVE)
    for each in founders:
        if cluster.leader is each:
            to = cluster.members[-1].member
            cluster.leader.replica.request(TransferRequest(1, to), answers.append)
            cluster.run(20)
        cluster.change(ChangeKind.REMOVE, each, MemberType.INACTIVE)
    for each in founders:
        cluster.cut(each)
    return cluster


def test_c13_no_founder_is_left() -> None:
    cluster = without_founders(D, E, F)
    restart_all(cluster)
    check_all_are_members(cluster, 3)
    restart_all(cluster)
    check_all_are_members(cluster, 3)


def test_c13_one_voter_is_left_and_was_no_founder() -> None:
    cluster = without_founders(D)
    restart_all(cluster)
    check_all_are_members(cluster, 1)


def test_c13_while_one_voter_runs_nobody_begins_anew() -> None:
    cluster = without_founders(D, E, F)
    runs = cluster.by_id(cluster.leader.member)
    for each in cluster.up:
        if each is not runs:
            cluster.restart(each, cleanly=False)
    cluster.run(60, 100)
    for each in cluster.up:
        raft = each.replica.raft
        assert raft.state is not ServerState.LEADER
        assert raft.eligibility.is_lost is (each is not runs)
        assert not raft.eligibility.has_proof_of_loss


def test_c35_who_was_away_during_the_changes_does_not_begin_again_with_the_founders() -> None:
    cluster = Cluster(5, level=StorageLevel.MEMORY)
    leader = cluster.elect()
    away = next(each for each in cluster.members if each is not leader)
    cluster.cut(away)
    for address in (D, E):
        cluster.add(f"{address}0", MemberType.ACTIVE)
    cluster.mend(away)
    restart_all(cluster)
    assert len(away.configuration.voters) == 5
    timeout_ms = away.replica.raft.options.election_timeout_ms
    cluster.run(timeout_ms // 10 + 1, 10)
    assert all(each.replica.raft.eligibility.has_proof_of_loss for each in cluster.members)
    away.turn(2 * timeout_ms)
    for _ in range(60):
        cluster.run(1, 50)
        for each in cluster.members:
            raft = each.replica.raft
            assert raft.state is not ServerState.LEADER or len(raft.configuration.voters) == 7
    check_all_are_members(cluster, 7)


def test_c13_the_newest_that_is_left_survives() -> None:
    """Only one has a snapshot: two others are a majority, and must not begin with less."""
    cluster = three(level=StorageLevel.MEMORY)
    cluster.append(5)
    one = cluster.members[-1]
    snapshot_configuration(one)
    restart_all(cluster)
    applied = one.executor.last_applied
    assert applied > 5
    assert {each.executor.last_applied for each in cluster.members} == {0, applied}
    leader = cluster.elect()
    assert leader is one
    cluster.run(20, 100)
    assert {each.replica.raft.last for each in cluster.members} == {leader.replica.raft.last}
    assert all(each.executor.last_applied > applied for each in cluster.members)
