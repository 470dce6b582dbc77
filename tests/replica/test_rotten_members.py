"""Members whose list of members cannot be read, in both copies: who they are then says the log, or
nothing does (F5, C35)."""

from __future__ import annotations

import pytest

from copycat.errors import CorruptLogError, DiskFullError
from copycat.member.configuration_file import CONFIGURATION_FILES
from copycat.types import ChangeKind, MemberType
from tests.replica.clusters import PATH, Cluster, Member

D, E = "127.0.0.1:4", "127.0.0.1:5"


def cluster_of_three() -> Cluster:
    cluster = Cluster(3)
    cluster.elect()
    return cluster


def take_snapshot(member: Member) -> None:
    answers: list[object] = []
    member.replica.take_snapshot(answers.append)
    for _ in range(4):
        member.turn()
        member.stabilize()
    assert answers


def rotten(member: Member) -> None:
    """Neither copy of its list of members can be read."""
    for name in CONFIGURATION_FILES:
        member.env.corrupt(f"{PATH}/{name}", 40, 1)


@pytest.mark.parametrize("is_trimmed", [False, True])
def test_f5_a_member_that_joined_is_who_its_log_or_snapshot_says(is_trimmed: bool) -> None:
    """It was no founder, so that its identity names nobody (C35)."""
    cluster = cluster_of_three()
    member = cluster.add(D, MemberType.ACTIVE)
    cluster.append(2)
    if is_trimmed:
        for _ in range(3):
            cluster.append(12)
            take_snapshot(member)
        assert member.directory.log.first_index > member.configuration.entry.index
    before = member.configuration
    cluster.cut(member)
    rotten(member)
    member.crash()
    assert member.configuration == before
    assert member.replica.members.cluster_incarnation == incarnation_of(cluster)
    cluster.mend(member)
    member.now_ms = cluster.leader.now_ms
    cluster.run(20)
    assert member.stored.records[-1].entry == before.entry, "the file is written again"
    assert member.replica.raft.eligibility.may_vote
    assert member.executor.last_applied == cluster.leader.executor.last_applied


def incarnation_of(cluster: Cluster) -> int:
    return cluster.leader.directory.identity.cluster_incarnation


def test_f5_a_joiner_whose_log_names_nobody_does_not_start() -> None:
    cluster = cluster_of_three()
    joiner = cluster.newcomer(D)
    cluster.cut(joiner)
    rotten(joiner)
    with pytest.raises(CorruptLogError) as caught:
        joiner.crash()
    text = caught.value.render()
    assert "nothing in this directory says who the members are now" in text
    assert D in text
    assert f"{joiner.member:032x}" in text
    assert "join a new member" in text


def test_f5_a_joiner_that_its_log_does_not_name_yet_waits_without_a_vote() -> None:
    """Its log has a list without it: it starts, and the leader says what it is."""
    cluster = cluster_of_three()
    cluster.add(E, MemberType.RESERVE)
    member = cluster.newcomer(D)
    log, source = member.directory.log, cluster.leader.directory.log
    while log.last_index < source.last_index:
        log.append(source.read(log.last_index + 1, source.last_index + 1, 1 << 20))
    ticket = log.begin_sync()
    ticket.run()
    log.end_sync(ticket)
    rotten(member)
    member.crash()
    assert member.types[E] == "reserve"
    assert D not in member.types
    assert not member.replica.raft.eligibility.may_vote
    cluster.run(3)
    cluster.change(ChangeKind.ADD, member, MemberType.PASSIVE)
    cluster.append(1)
    cluster.run(5)
    assert member.types[D] == "passive"
    assert member.executor.last_applied == cluster.leader.executor.last_applied


def test_a_wiped_member_without_its_file_does_not_start() -> None:
    """It must not believe that it is a founder with an empty log (C33)."""
    cluster = cluster_of_three()
    cluster.add(D, MemberType.ACTIVE)
    founder = next(each for each in cluster.members[:3] if each is not cluster.leader)
    cluster.change(ChangeKind.DEMOTE, founder, MemberType.PASSIVE)
    cluster.change(ChangeKind.DEMOTE, founder, MemberType.RESERVE)
    cluster.run(20)
    assert founder.was_wiped
    founder.stop()
    rotten(founder)
    with pytest.raises(CorruptLogError, match="in this directory says who the members are now"):
        founder.start()


@pytest.mark.slow
def test_f12_a_disk_that_is_full_while_the_list_is_written_stops_the_member() -> None:
    """It has acknowledged nothing of it, and goes on when there is room."""
    paths = {full_disk(nth) for nth in range(1, 6)}
    assert {f"{PATH}/{name}.new" for name in CONFIGURATION_FILES} <= paths


def full_disk(nth: int) -> str:
    """The file that the member could not create; empty if that was no reason to stop."""
    cluster = cluster_of_three()
    newcomer = cluster.newcomer(D)
    cluster.run(3)
    member = next(each for each in cluster.members[:3] if each is not cluster.leader)
    answers = cluster.ask(ChangeKind.ADD, newcomer, MemberType.PASSIVE)
    member.env.fail("create", nth, "ENOSPC")
    cluster.run(10)
    assert answers, "the others are a majority"
    entry = cluster.leader.configuration.entry
    error = member.replica.stopped
    if error is None:
        return ""
    assert isinstance(error, DiskFullError)
    assert cluster.leader.replica.raft.match_index(member.member) < entry.index
    cluster.restart(member, cleanly=False)
    member.now_ms = cluster.leader.now_ms
    cluster.run(20)
    assert member.replica.stopped is None
    assert member.stored.records[-1].entry == entry
    assert cluster.leader.replica.raft.match_index(member.member) >= entry.index
    return error.path
