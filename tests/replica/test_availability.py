"""C38: a leader writes whom it hears, once for each change, and every member shows it."""

from __future__ import annotations

import pytest

from copycat.machine.envelope import decode_availability
from copycat.raft.configuration import Configuration
from copycat.types import EntryKind, MemberId, MemberStatus, MemberType
from tests.replica.clusters import Cluster, Member


class Statuses:
    """Implements `ClusterListener`: what one member says of the others."""

    def __init__(self, member: Member) -> None:
        self.heard: list[tuple[MemberId, MemberStatus]] = []
        member.replica.on_cluster_change(self)

    def configuration_committed(self, configuration: Configuration) -> None: ...

    def leader_changed(self, leader: MemberId, term: int) -> None: ...

    def status_changed(self, member: MemberId, status: MemberStatus) -> None:
        self.heard.append((member, status))


def elected() -> tuple[Cluster, Member, list[Member]]:
    cluster = Cluster(3)
    cluster.elect()
    cluster.run(20)
    leader = cluster.leader
    return cluster, leader, [each for each in cluster.members if each is not leader]


def entries(member: Member) -> list[tuple[int, bool]]:
    """What its log says of members, in order."""
    log = member.directory.log
    statuses: list[tuple[int, bool]] = []
    index = log.first_index
    while index <= log.last_index:
        batch = log.read(index, log.last_index + 1, 1 << 20)
        index = batch.span.end
        statuses += [
            decode_availability(run.payloads[0])
            for run in batch.runs(batch.span.first, index)
            if run.kind == EntryKind.AVAILABILITY
        ]
    return statuses


def test_c38_each_change_is_one_entry_and_is_heard_everywhere() -> None:
    cluster, leader, (silent, other) = elected()
    listeners = [Statuses(leader), Statuses(other)]
    assert entries(leader) == []
    cluster.cut(silent)
    cluster.run(60)
    assert entries(leader) == [(silent.member, False)]
    for each in (leader, other):
        assert each.replica.status().unavailable == {silent.member}
    cluster.mend(silent)
    cluster.run(60)
    assert entries(leader) == [(silent.member, False), (silent.member, True)]
    for each in cluster.members:
        assert each.replica.status().unavailable == frozenset()
    for listener in listeners:
        assert listener.heard == [
            (silent.member, MemberStatus.UNAVAILABLE),
            (silent.member, MemberStatus.AVAILABLE),
        ]


def nothing() -> None:
    """Its disk syncs nothing, and it answers heartbeats."""


def test_c38_the_entry_that_waits_for_its_commit_is_not_written_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, leader, (silent, other) = elected()
    cluster.cut(silent)
    monkeypatch.setattr(other, "finish_syncs", nothing)
    committed = leader.replica.raft.commit_index
    cluster.run(60)
    assert leader.replica.raft.commit_index == committed
    assert entries(leader) == [(silent.member, False)]


def test_c38_a_leader_is_available_by_its_own_word() -> None:
    cluster, before, (one, other) = elected()
    cluster.cut(before)
    cluster.elect()
    leader = cluster.leader
    assert leader in (one, other)
    cluster.run(60)
    assert leader.replica.status().unavailable == {before.member}
    cluster.mend(before)
    cluster.run(60)
    assert leader.replica.status().unavailable == frozenset()
    cluster.restart(before)
    cluster.run(20)
    assert before.replica.status().unavailable == frozenset(), "it read its log again"


def test_c38_a_reserve_goes_by_its_links() -> None:
    cluster, _, (silent, _) = elected()
    reserve = cluster.add("127.0.0.1:9", MemberType.RESERVE)
    cluster.run(20)
    heard = Statuses(reserve)
    cluster.cut(silent)
    cluster.run(4)
    assert heard.heard == [(silent.member, MemberStatus.UNAVAILABLE)]
    assert reserve.replica.status().unavailable == {silent.member}
