"""Snapshots in whole replicas: taken, reloaded, shipped, installed; the log loses its front."""

from __future__ import annotations

import random
from typing import Any

import pytest

from copycat.errors import (
    CorruptLogError,
    DiskError,
    DiskFullError,
    IllegalMemberStateError,
    ProtocolError,
)
from copycat.machine.kv import KeyValueStore
from copycat.machine.machine_section import SectionWriter
from copycat.protocol.client import Register, Registered
from copycat.protocol.codec_peer import encode_append
from copycat.protocol.framing import Frame, split_frame
from copycat.protocol.peer import AppendEntries
from copycat.replica.snapshot_sender import CHUNK_NBYTES
from copycat.storage._native import encode_gap
from copycat.storage.snapshot_store import Snapshot
from copycat.types import EntryId, MemberId, ServerState
from tests.replica.disks import SNAPSHOTS, Disk, Disks
from tests.replica.harness import Node, commands, open_session


def lone(threshold: int = 0) -> Disk:
    disk = Disk("127.0.0.1:1", ("127.0.0.1:1",), threshold)
    lead(disk)
    return disk


def lead(disk: Disk) -> None:
    for _ in range(40):
        disk.node.turn(100)
        disk.node.stabilize()
    assert disk.replica.raft.state is ServerState.LEADER


def append(node: Node, session: int, first: int, count: int, size: int = 100) -> None:
    for sequence in range(first, first + count):
        operation = KeyValueStore.append("k", random.Random(sequence).randbytes(size))
        node.replica.receive_client(7, commands(session, sequence, operation, acked=0))
        node.turn()
        node.stabilize(rounds=2)


def test_on_demand_and_a_restart_from_it() -> None:
    disk = lone()
    session = open_session(disk.node)
    append(disk.node, session, 1, 30)
    result = disk.take()
    assert isinstance(result, Snapshot)
    assert disk.take() == result, "nothing was applied since"
    status = disk.replica.status()
    assert status.snapshot_index == result.entry.index == status.last_applied
    assert result.entry.index - 8 < status.first_index <= result.entry.index + 1
    append(disk.node, session, 31, 3)
    digest = disk.executor.digest()
    disk.restart()
    assert disk.executor.last_applied == result.entry.index, "the rest waits for its commit"
    lead(disk)
    assert disk.executor.last_applied > result.entry.index + 3
    assert len(disk.executor.machine.lists["k"]) == 33  # type: ignore[attr-defined]
    assert disk.replica.status().sessions == 1
    again = lone()
    assert again.executor.digest() != digest
    append(disk.node, session, 34, 1)
    assert len(disk.executor.machine.lists["k"]) == 34  # type: ignore[attr-defined]


def test_by_growth_and_two_are_kept() -> None:
    disk = lone(threshold=2000)
    session = open_session(disk.node)
    append(disk.node, session, 1, 100)
    assert len(disk.snapshots) == 2
    status = disk.replica.status()
    oldest = disk.store.entries[0].index
    assert oldest - 8 < status.first_index <= oldest + 1, "the log reaches back to the older one"
    assert disk.replica.raft.oldest_snapshot_index == oldest
    disk.env.corrupt(f"{SNAPSHOTS}/{disk.snapshots[1]}", 200, 1)
    disk.restart()
    assert disk.executor.last_applied == oldest, "F17: the one before it, and the log from there"
    lead(disk)
    assert len(disk.executor.machine.lists["k"]) == 100  # type: ignore[attr-defined]


def test_f17_nothing_reaches_back() -> None:
    disk = lone()
    append(disk.node, open_session(disk.node), 1, 30)
    assert isinstance(disk.take(), Snapshot)
    disk.env.corrupt(f"{SNAPSHOTS}/{disk.snapshots[0]}", 200, 1)
    with pytest.raises(CorruptLogError, match="the log begins at"):
        disk.restart()


def test_f17_a_whole_log_needs_no_snapshot() -> None:
    disk = lone()
    append(disk.node, open_session(disk.node), 1, 3)
    assert isinstance(disk.take(), Snapshot)
    disk.env.corrupt(f"{SNAPSHOTS}/{disk.snapshots[0]}", 200, 1)
    disk.restart()
    lead(disk)
    assert len(disk.executor.machine.lists["k"]) == 3  # type: ignore[attr-defined]


def test_c24_a_snapshot_ahead_of_the_log() -> None:
    disk = lone()
    append(disk.node, open_session(disk.node), 1, 10)
    assert isinstance(disk.take(), Snapshot)
    entry = disk.store.entries[-1]
    lost = Disk("127.0.0.1:1", ("127.0.0.1:1",), 0)
    lost.env.make_directory(SNAPSHOTS)
    for name in disk.snapshots:
        lost.env.replace_file(f"{SNAPSHOTS}/{name}", disk.env.read_file(f"{SNAPSHOTS}/{name}"))
    lost.restart()
    assert lost.log.first_index == entry.next
    assert lost.log.last_entry == entry
    lead(lost)
    assert len(lost.executor.machine.lists["k"]) == 10  # type: ignore[attr-defined]
    lost.restart()
    lead(lost)
    assert lost.log.last_index > entry.index + 1


def test_f13_a_full_disk_keeps_the_old_state_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = lone(threshold=2000)
    session = open_session(disk.node)
    begin = disk.store.begin

    def full(*args: object, **rest: object) -> Snapshot:
        raise DiskFullError("no room")

    monkeypatch.setattr(disk.store, "begin", full)
    append(disk.node, session, 1, 30)
    assert disk.snapshots == []
    assert disk.node.host.stopped is None
    monkeypatch.setattr(disk.store, "begin", begin)
    disk.node.turn(10_000)
    disk.node.stabilize()
    assert len(disk.snapshots) == 1
    monkeypatch.setattr(disk.store, "begin", full)
    append(disk.node, session, 31, 1)
    assert isinstance(disk.take(), DiskFullError)


def test_a_state_that_cannot_be_a_snapshot_says_why(caplog: pytest.LogCaptureFixture) -> None:
    disk = lone()
    append(disk.node, open_session(disk.node), 1, 1)
    disk.executor.obstacle = "a lambda waits for 17"
    answer = disk.take()
    assert isinstance(answer, IllegalMemberStateError)
    assert "a lambda waits for 17" in str(answer)
    assert "a lambda waits for 17" in caplog.text


def test_a_member_without_a_store_says_so() -> None:
    node = Node("127.0.0.1:1", ("127.0.0.1:1",))
    answers: list[object] = []
    node.replica.take_snapshot(answers.append)
    node.turn()
    assert isinstance(answers[0], IllegalMemberStateError)


# ---- shipping ---------------------------------------------------------------------------


def left_behind(net: Disks, *, size: int = 100, count: int = 40) -> tuple[Disk, Disk]:
    """(leader, a follower that lacks what the leader's log no longer has)."""
    leader = net.elect()
    away = next(m for m in net.nodes if m != leader.member)
    leader.client(Register(1, "client", 60_000))
    net.stabilize(50)
    reply = leader.last_reply()
    assert isinstance(reply, Registered)
    session = reply.session
    append(leader, session, 1, 2)
    net.stabilize(50)
    net.cut(away)
    for first in range(3, count, 10):
        append(leader, session, first, 10, size)
        net.stabilize(50)
    for member, disk in net.disks.items():
        if member != away:
            assert isinstance(disk.take(), Snapshot)
    return net.disks[leader.member], net.disks[away]


def same(net: Disks) -> None:
    for _ in range(12):
        net.stabilize(100)
    digests = {disk.executor.digest() for disk in net.disks.values()}
    lasts = {disk.executor.last_applied for disk in net.disks.values()}
    assert len(lasts) == 1, lasts
    assert len(digests) == 1


@pytest.mark.usefixtures("no_follower_feeds")
def test_a_follower_that_was_away_is_sent_a_snapshot() -> None:
    net = Disks()
    leader, away = left_behind(net)
    member = away.node.member
    snapshot = leader.store.newest
    assert snapshot is not None
    assert away.replica.status().last_index < leader.log.first_index - 1
    net.mend(member)
    same(net)
    assert away.log.before == snapshot.entry
    assert away.store.entries == [snapshot.entry]
    assert away.replica.raft.oldest_snapshot_index == snapshot.entry.index
    assert away.replica.status().sessions == 1
    assert leader.store.stale() == []
    net.restart(member)
    same(net)
    assert away.node.host.stopped is None


@pytest.mark.slow
@pytest.mark.usefixtures("no_follower_feeds")
def test_a_big_snapshot_goes_in_chunks_and_goes_on_where_it_broke_off() -> None:
    net = Disks()
    leader, away = left_behind(net, size=CHUNK_NBYTES // 20, count=120)
    member = away.node.member
    snapshot = leader.store.newest
    assert snapshot is not None
    assert snapshot.nbytes > 4 * CHUNK_NBYTES
    net.mend(member)
    shipped = 0
    for _ in range(400):
        net.deliver()
        for node in net.nodes.values():
            shipped += sum(frame.type == 12 for _, frame in node.host.sent)
            node.stabilize(rounds=1)
            node.turn(20)
        part = [name for name in away.snapshots if name.endswith(".part")]
        if part and away.env.size(f"{SNAPSHOTS}/{part[0]}") >= 2 * CHUNK_NBYTES:
            break
    else:
        raise AssertionError("nothing arrived")
    net.cut(member)
    for node in net.nodes.values():
        node.host.sent.clear()
    net.mend(member)
    before = shipped
    for _ in range(60):
        net.deliver()
        for node in net.nodes.values():
            shipped += sum(frame.type == 12 for _, frame in node.host.sent)
            node.stabilize(rounds=1)
            node.turn(20)
    same(net)
    assert away.store.entries == [snapshot.entry]
    chunks = -(-snapshot.nbytes // CHUNK_NBYTES)
    assert shipped - before < chunks + 4, "it began where it broke off"


def test_the_leader_changes_in_the_middle() -> None:
    net = Disks()
    leader, away = left_behind(net)
    member = away.node.member
    net.mend(member)
    for _ in range(3):
        net.deliver()
        for node in net.nodes.values():
            node.stabilize(rounds=1)
            node.turn(20)
    net.cut(leader.node.member)
    for _ in range(80):
        net.stabilize(100)
    net.mend(leader.node.member)
    same(net)
    assert away.log.before.index > 0


def test_a_full_disk_at_the_receiver_is_no_end() -> None:
    net = Disks()
    leader, away = left_behind(net)
    away.env.fail("create", 1, "ENOSPC")
    net.mend(away.node.member)
    for _ in range(30):
        net.stabilize(100)
    same(net)
    assert away.node.host.stopped is None
    assert leader.replica.status().deletion_floor <= leader.store.oldest_index


# ---- gaps -------------------------------------------------------------------------------


def gap(leader: MemberId, first: int, end: int, commit: int) -> Frame:
    """An AppendEntries of one gap, as a leader with that commit index would send it."""
    batch = encode_gap(1, first, end, 1000, commit)
    message = AppendEntries(1, leader, 5, EntryId(1, first - 1), batch.span, commit)
    return split_frame(encode_append(message, batch.nbytes) + bytes(memoryview(batch)))


def test_c3_a_gap_above_the_commit_index_closes_the_connection() -> None:
    net = Disks()
    leader = net.elect()
    follower = next(node for node in net.nodes.values() if node is not leader)
    last = follower.replica.status().last_index
    assert last >= 1
    with pytest.raises(ProtocolError, match="above the leader's commit index"):
        follower.replica.receive_peer(
            leader.member, gap(leader.member, last + 1, last + 5, last + 3)
        )
    follower.replica.receive_peer(leader.member, gap(leader.member, last + 1, last + 5, last + 4))
    follower.turn()
    follower.stabilize()
    assert follower.replica.status().last_index == last + 4
    assert follower.host.stopped is None


def test_a_gap_of_millions_is_one_frame_for_a_full_disk() -> None:
    net = Disks()
    leader = net.elect()
    follower = next(node for node in net.nodes.values() if node is not leader)
    last = follower.replica.status().last_index
    far = last + 50_000_000
    follower.replica.receive_peer(leader.member, gap(leader.member, last + 1, far, far))
    follower.turn()
    assert not follower.replica.status().storage_full
    assert follower.replica.status().last_index == far - 1


# ---- what a snapshot costs -----------------------------------------------------------------


def test_members_take_their_snapshots_one_after_the_other_and_the_leader_last() -> None:
    net = Disks(3, threshold=4000)
    leader = net.elect()
    leader.client(Register(1, "client", 60_000))
    net.stabilize()
    session = next(m.session for _, m in leader.host.replies if isinstance(m, Registered))
    order: list[MemberId] = []
    for sequence in range(1, 200):
        operation = KeyValueStore.append("k", b"x" * 100)
        leader.replica.receive_client(7, commands(session, sequence, operation))
        net.stabilize(elapsed_ms=10)
        order += [m for m, disk in net.disks.items() if disk.snapshots and m not in order]
        if len(order) == 3:
            break
    indexes = [disk.store.entries[0].index for disk in net.disks.values()]
    assert len(set(indexes)) == 3, "none at the entry of another"
    assert order[-1] == leader.member


def test_a_state_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = lone()
    append(disk.node, open_session(disk.node), 1, 10)
    count: list[int] = []
    write = SectionWriter.write_state

    def counted(*arguments: Any) -> None:
        count.append(1)
        write(*arguments)

    monkeypatch.setattr(SectionWriter, "write_state", counted)
    assert isinstance(disk.take(), Snapshot)
    assert len(count) == 1


def test_f13_a_disk_that_fails_while_the_state_is_written_stops_the_member() -> None:
    disk = lone()
    append(disk.node, open_session(disk.node), 1, 10)
    disk.env.fail("create", 1, "EIO")
    disk.replica.take_snapshot(lambda _: None)
    with pytest.raises(DiskError):
        disk.node.stabilize()
    assert isinstance(disk.node.host.stopped, DiskError)
