"""C39: a leader that heals, over whole members; and for whom it waits."""

from __future__ import annotations

import logging
from typing import NamedTuple

import pytest

from copycat.protocol.client import ChangeRequest, ServerMessage
from copycat.protocol.member_record import HealingPolicy
from copycat.raft.changes import ConfigurationChange
from copycat.raft.configuration import Configuration, MemberRecord
from copycat.replica.healing import REST_MS_MAX, Healing
from copycat.replica.leadership_transfer import TransferOutcome
from copycat.types import ChangeKind, EntryId, MemberId, MemberType
from tests.raft.cluster import Cluster as Cores
from tests.replica.clusters import Cluster, Member

C = MemberId(3)
POLICY = HealingPolicy(3, 1, 3_000, 2_000, 20_000, is_on=True)


def set_policy(cluster: Cluster, policy: HealingPolicy) -> None:
    """Any member may be asked, as for every change."""
    answers: list[ServerMessage] = []
    base = cluster.leader.replica.members.committed.entry
    request = ChangeRequest(
        1, ChangeKind.POLICY, MemberId(0), MemberType.INACTIVE, base, policy=policy
    )
    cluster.leader.replica.request(request, answers.append)
    cluster.run(10)
    assert len(answers) == 1
    assert cluster.leader.replica.members.committed.policy == policy


def grown() -> tuple[Cluster, Member, Member]:
    """Three voters and a passive member that heal; a follower, and the passive one."""
    cluster = Cluster(3)
    cluster.elect()
    passive = cluster.add("127.0.0.1:9")
    set_policy(cluster, POLICY)
    follower = next(each for each in cluster.members[:3] if each is not cluster.leader)
    return cluster, follower, passive


def types(cluster: Cluster) -> dict[str, str]:
    return cluster.leader.types


def test_c39_a_passive_member_takes_the_place_of_a_dead_voter(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster, dead, passive = grown()
    reserve = cluster.add("127.0.0.1:10", MemberType.RESERVE)
    cluster.cut(dead)
    with caplog.at_level(logging.WARNING, "copycat.replica"):
        cluster.run(150, 100)
    assert types(cluster)[dead.address] == "passive"
    assert types(cluster)[passive.address] == "active"
    assert types(cluster)[reserve.address] == "passive"
    lines = [line for line in caplog.messages if " heals: " in line]
    assert len(lines) == 3
    reason = f"{dead.address} becomes passive, since {dead.address} was not heard for 3."
    assert reason in lines[0]
    cluster.run(120, 100)
    assert types(cluster)[dead.address] == "reserve", "it was away for the time of suspension"


def test_c39_what_hinders_it_is_logged_once_while_a_link_comes_and_goes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = Cluster(3)
    cluster.elect()
    set_policy(cluster, POLICY._replace(target_passive=0))
    away = next(each for each in cluster.members if each is not cluster.leader)
    with caplog.at_level(logging.WARNING, "copycat.replica"):
        for _ in range(3):
            cluster.cut(away)
            cluster.run(50, 100)
            cluster.mend(away)
            cluster.run(20, 100)
    lines = [line for line in caplog.messages if " cannot heal: " in line]
    assert len(lines) == 1
    assert lines[0].endswith(f"no passive member can take the place of {away.address}")


def nothing(outcome: TransferOutcome) -> None:
    """The test looks who leads."""


def test_c39_a_new_leader_waits_until_it_knows_who_is_away() -> None:
    cluster, _, passive = grown()
    set_policy(cluster, POLICY._replace(target_active=4, is_on=False))
    before = cluster.leader
    before.replica.transfer_leadership(MemberId(0), nothing)
    cluster.run(10, 50)
    leader = cluster.leader
    assert leader is not before
    set_policy(cluster, POLICY._replace(target_active=4))
    cluster.run(10, 100)
    assert leader.replica.healing.steps == 0, "it has led for two of three seconds"
    cluster.run(30, 100)
    assert leader.replica.healing.steps == 1
    assert types(cluster)[passive.address] == "active"


def test_c39_the_same_member_rests_for_a_time_that_doubles() -> None:
    cluster, dead, passive = grown()
    leader = cluster.leader
    cluster.cut(dead)
    cluster.run(58, 100)
    healing = leader.replica.healing
    assert (healing.steps, types(cluster)[passive.address]) == (1, "passive"), "the interval"
    cluster.run(30, 100)
    assert types(cluster)[passive.address] == "active"
    cluster.mend(dead)
    cluster.run(20, 100)
    cluster.cut(passive)
    cluster.run(80, 100)
    assert types(cluster)[dead.address] == "active"
    assert types(cluster)[passive.address] == "passive"


class Remembered:
    """What one process remembers of C, whose type changes, and where nobody leads."""

    def __init__(self) -> None:
        self.cluster = Cores(1)
        self.entry = 0
        self.healing = Healing(self.cluster.nodes[1].raft, Table(self.configuration("p")), ignore)

    def configuration(self, mark: str) -> Configuration:
        self.entry += 1
        kind = MemberType.ACTIVE if mark == "a" else MemberType.PASSIVE
        records = [MemberRecord(MemberId(1), MemberType.ACTIVE), MemberRecord(C, kind)]
        policy = POLICY._replace(heal_interval_ms=100)
        return Configuration.from_members(records, EntryId(1, self.entry), policy)

    def becomes(self, mark: str) -> None:
        self.healing.configuration_committed(self.configuration(mark))

    def rests_for(self, limit_ms: int) -> int:
        """How long it is until C has rested."""
        for waited_ms in range(0, limit_ms, 100):
            if C not in self.healing.resting:
                return waited_ms
            self.cluster.tick(1, 100)
        return limit_ms


class Table(NamedTuple):
    """See `HealedMembers`."""

    committed: Configuration
    own_address: str = "a"


def ignore(change: ConfigurationChange) -> None:
    """Nobody is asked."""


def test_c39_a_rest_doubles_begins_anew_with_the_end_of_the_vote_and_is_forgotten() -> None:
    process = Remembered()
    assert process.rests_for(1_000) == 0
    process.becomes("a")
    assert process.rests_for(1_000) == 100
    for rest_ms in (200, 400, 800):
        process.becomes("p")
        assert process.rests_for(2_000) == rest_ms // 2
        process.becomes("a")
        assert process.rests_for(2_000) == rest_ms
    process.cluster.tick(1, REST_MS_MAX)
    process.becomes("p")
    assert process.rests_for(2_000) == 100, "it was quiet for long"


def test_c39_nothing_is_done_while_it_is_off() -> None:
    cluster, dead, _ = grown()
    set_policy(cluster, POLICY._replace(is_on=False))
    cluster.cut(dead)
    cluster.run(100, 100)
    assert types(cluster)[dead.address] == "active"
    set_policy(cluster, POLICY)
    cluster.run(60, 100)
    assert types(cluster)[dead.address] == "passive"
