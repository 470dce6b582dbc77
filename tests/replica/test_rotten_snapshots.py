"""Snapshots that rot at a member with others, and what its log is worth without them (F17)."""

from __future__ import annotations

import pytest

from copycat.errors import CorruptLogError
from copycat.machine.kv import KeyValueStore
from copycat.protocol.client import KeepAlive, Register, Registered
from copycat.storage.snapshot_store import Snapshot
from copycat.types import Compaction, MemberId
from tests.replica.disks import SNAPSHOTS, Disk, Disks
from tests.replica.harness import Node, open_session
from tests.replica.test_cleaning import compact, put_many
from tests.replica.test_repair import submit
from tests.replica.test_snapshotting import append, lead, lone, same


def rot(disk: Disk) -> None:
    """Every snapshot on this disk."""
    for name in disk.snapshots:
        disk.env.corrupt(f"{SNAPSHOTS}/{name}", 100, 1)


def clean(disk: Disk) -> None:
    compact(disk.node, Compaction.MAJOR)
    disk.node.stabilize()


class Writer:
    """One session of a cluster that puts and deletes."""

    def __init__(self, net: Disks) -> None:
        self.net = net
        self.leader: Node = net.elect()
        self.leader.client(Register(1, "client", 60_000))
        net.stabilize(50)
        reply = self.leader.last_reply()
        assert isinstance(reply, Registered)
        self.session = reply.session
        self.sequence = 0

    def do(self, operation: object) -> int:
        """Its index."""
        self.sequence += 1
        return submit(self.net, self.leader, self.session, self.sequence, operation)

    def put_often(self, count: int) -> None:
        """Puts of one key, so that all but the last may be deleted; all of it acknowledged."""
        for _ in range(count):
            self.do(KeyValueStore.put("y", b"%d" % self.sequence))
        self.leader.client(KeepAlive(99, self.session, self.sequence))
        for _ in range(5):
            self.net.stabilize(100)


def with_what_stayed(net: Disks) -> MemberId:
    """A member whose log begins at 1 and holds a put, and nothing any more that undid it.

    It began from a snapshot that covers the put: what was released below was forgotten.
    """
    writer = Writer(net)
    member = next(one for one in net.nodes if one != writer.leader.member)
    disk = net.disks[member]
    put = writer.do(KeyValueStore.put("x", b"1"))
    writer.do(KeyValueStore.put("x", b"2"))
    for _ in range(5):
        net.stabilize(100)
    disk.take()
    writer.put_often(2)
    net.restart(member)
    for _ in range(10):
        net.stabilize(100)
    deletion = writer.do(KeyValueStore.delete("x"))
    writer.put_often(20)
    disk.take()
    writer.put_often(40)
    clean(disk)  # the first file now reaches beyond that snapshot, so it stays
    disk.take()
    writer.put_often(20)
    clean(disk)
    log = disk.log
    assert log.first_index == 1
    assert not log.read(put, put + 1, 1).has_gaps
    assert log.read(deletion, deletion + 1, 1).has_gaps
    assert len(disk.snapshots) == 2
    return member


def test_f17_a_log_with_gaps_is_not_whole_without_its_snapshots() -> None:
    net = Disks()
    member = with_what_stayed(net)
    disk = net.disks[member]
    rot(disk)
    net.cut(member)
    with pytest.raises(CorruptLogError, match="has gaps up to") as caught:
        disk.restart()
    assert caught.value.index == 1
    assert len(disk.snapshots) == 2, "nothing was changed"
    disk.store.set_aside()  # what a repair does, with the rest of this: all of it is missing
    net.nodes[member] = disk.cut(1)
    net.mend(member)
    for _ in range(60):
        net.stabilize(100)
    same(net)
    assert "x" not in disk.executor.machine.values  # type: ignore[attr-defined]
    assert disk.replica.status().missing_entries == ""


def test_f17_gaps_made_after_a_whole_replay_need_no_snapshot() -> None:
    """A log without gaps was replayed whole, and then cleaned: the bad one says nothing of it."""
    disk = lone()
    session = open_session(disk.node)
    append(disk.node, session, 1, 3)
    assert isinstance(disk.take(), Snapshot)
    rot(disk)
    disk.restart()
    lead(disk)
    put_many(disk.node, session, 4, 60)
    clean(disk)
    assert disk.log.first_index == 1
    assert disk.log.valid_from > 1
    values_before = disk.executor.machine.values  # type: ignore[attr-defined]
    assert len(values_before) == 5
    disk.restart()
    lead(disk)
    assert disk.executor.machine.values == values_before  # type: ignore[attr-defined]
