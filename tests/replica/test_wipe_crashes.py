"""The crash points of a member that becomes a reserve and comes back: notice, file, deletion, new
start, order, append, acknowledgement. What it acknowledged as a member is on its disk after each
of them, whatever the crash keeps (C33, C35)."""

from __future__ import annotations

import pytest

from copycat.member.directory import MemberDirectory
from copycat.storage import FaultEnv
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import ChangeKind, MemberType, StorageLevel
from tests.replica.clusters import PATH, Cluster, Member
from tests.replica.harness import CLUSTER

D = "127.0.0.1:4"


class Watched(Cluster):
    """Keeps a copy of the disk of one member as it was when its frames left. When the leader has
    taken them, a crash of that copy must leave all that the leader counts as this member's."""

    watched: Member | None = None
    then: FaultEnv | None = None
    match_index = 0
    checks = 0
    losses = 0

    def _deliver(self) -> None:
        if self.then is not None and self.watched is not None:
            self._check(self.watched, self.then)
        self.then = None
        if self.watched is not None and self.watched.host.sent:
            self.then = self.watched.env.clone()
        super()._deliver()

    def _check(self, member: Member, then: FaultEnv) -> None:
        leader = self.leader.replica.raft
        record = leader.configuration.record(member.member)
        match_index = leader.match_index(member.member)
        if record is None or not record.is_stateful or match_index == self.match_index:
            return
        self.match_index = match_index
        self.checks += 1
        for kill in (FaultEnv.crash_process, power_cut):
            env = then.clone()
            kill(env)
            env.stop_after(1 << 62)
            index, is_lost = restarted(env, member)
            assert is_lost or index >= match_index
            self.losses += is_lost


def power_cut(env: FaultEnv) -> None:
    env.crash(3)


def restarted(env: FaultEnv, member: Member) -> tuple[int, bool]:
    """After a new start on this disk: the last index of the log, or of the snapshot that it
    continues; and whether the member knows that it may lack what it acknowledged."""
    directory = MemberDirectory.open(
        env,
        PATH,
        cluster_name=CLUSTER,
        address=member.address,
        members=member.founders,
        member=member.member,
        incarnation_source=lambda: 1,
        max_segment_size=16384,
        max_entries_per_segment=8,
        level=member.level,
        snapshots=lambda: SnapshotStore(env, f"{PATH}/snapshots"),
    )
    index = directory.log.last_index
    assert directory.snapshots is not None
    newest = directory.snapshots.look()
    directory.close(lost=directory.lost)
    return max(index, 0 if newest is None else newest[0].entry.index), directory.lost


@pytest.mark.parametrize("level", [StorageLevel.DISK, StorageLevel.MEMORY])
@pytest.mark.parametrize("goal", [MemberType.PASSIVE, MemberType.ACTIVE])
def test_c33_what_a_reserve_acknowledges_once_it_is_back_survives_a_crash(
    goal: MemberType, level: StorageLevel
) -> None:
    """Or the member knows that it may lack it: a log in memory is lost with its process."""
    cluster = Watched(3, level=level)
    cluster.elect()
    member = cluster.watched = cluster.add(D)
    cluster.append(2)
    cluster.change(ChangeKind.DEMOTE, member, MemberType.RESERVE)
    cluster.run(10)
    assert member.was_wiped
    assert member.directory.log.last_index == 0
    cluster.checks = cluster.losses = 0
    cluster.change(ChangeKind.PROMOTE, member, goal)
    cluster.append(3)
    cluster.run(10)
    assert member.types[D] == goal.value
    assert cluster.checks > 3
    assert (cluster.losses > 0) == (level is StorageLevel.MEMORY)
    assert member.directory.log.last_index == cluster.leader.directory.log.last_index


@pytest.mark.slow
@pytest.mark.parametrize("operations", range(0, 150, 3))
def test_c33_a_crash_anywhere_between_the_notice_and_the_first_acknowledgements(
    operations: int,
) -> None:
    """The member becomes a reserve, and comes back; it is killed, or the power fails, after so
    many operations of its disk. It has all that was counted, or is the reserve that it is."""
    cluster = Watched(3)
    cluster.elect()
    member = cluster.watched = cluster.add(D)
    cluster.append(2)
    member.env.stop_after(operations)
    cluster.change(ChangeKind.DEMOTE, member, MemberType.RESERVE)
    cluster.run(10)
    answers = cluster.ask(ChangeKind.PROMOTE, member, MemberType.PASSIVE)
    cluster.run(10)
    leader = cluster.leader.replica.raft
    record = leader.configuration.record(member.member)
    assert record is not None
    match_index = leader.match_index(member.member) if record.is_stateful else 0
    cluster.cut(member)
    if operations % 2:
        member.env.crash_process()
        member.env.stop_after(1 << 62)
        member.start()
    else:
        member.crash(operations)
    member.now_ms = cluster.leader.now_ms
    assert member.directory.log.last_index >= match_index
    assert not member.stored.is_wiped
    cluster.mend(member)
    cluster.run(30)
    if record.type is MemberType.RESERVE:
        assert answers, "a promotion is refused while its member is away"
        cluster.change(ChangeKind.PROMOTE, member, MemberType.PASSIVE)
    cluster.append(1)
    cluster.run(10)
    assert member.types[D] == "passive"
    assert member.directory.log.last_index == cluster.leader.directory.log.last_index
    assert member.executor.last_applied == cluster.leader.executor.last_applied
