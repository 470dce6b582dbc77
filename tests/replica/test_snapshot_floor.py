"""A snapshot on its way to the disk holds deletions back: a restart may begin with it (C23)."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from copycat.errors import DiskFullError
from copycat.machine.kv import KeyValueStore
from copycat.protocol.client import KeepAlive, Register, Registered
from copycat.protocol.peer import InstallReply, InstallSnapshot
from copycat.raft.effects import ReceiveSnapshot
from copycat.replica.host import Inbox, Lane
from copycat.replica.snapshot_receiver import SnapshotReceiver
from copycat.storage._native import FaultEnv
from copycat.storage.snapshot_store import SnapshotStore
from copycat.types import Compaction, EntryId, MemberId
from tests.log.test_snapshots import DIRECTORY, NEW, shipped
from tests.replica.disks import Disk, Disks, StubbornExecutor
from tests.replica.harness import FakeHost, Node
from tests.replica.test_cleaning import compact
from tests.replica.test_repair import submit
from tests.replica.test_snapshotting import left_behind, same


class Slow:
    """The aside thread of one member: what it is given waits until `go`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        node.host.slow.add(Lane.ASIDE)

    def go(self) -> None:
        self._node.host.slow.discard(Lane.ASIDE)
        self._node.stabilize()


class Story:
    """x is put and, later, deleted; y is put again and again; all have everything."""

    def __init__(self) -> None:
        self.net = Disks()
        self.leader = self.net.elect()
        self.leader.client(Register(1, "client", 60_000))
        self.net.stabilize(50)
        reply = self.leader.last_reply()
        assert isinstance(reply, Registered)
        self.session, self.sequence = reply.session, 1
        self.submit(KeyValueStore.put("x", b"1"))
        self.fill(20)

    def submit(self, operation: object) -> int:
        index = submit(self.net, self.leader, self.session, self.sequence, operation)
        self.sequence += 1
        return index

    def fill(self, count: int) -> None:
        for number in range(count):
            self.submit(KeyValueStore.put("y", b"%d" % number))
        self.leader.client(KeepAlive(99, self.session, self.sequence - 1))
        self.rounds(10)

    def rounds(self, count: int) -> None:
        for _ in range(count):
            self.net.stabilize(100)

    def disk(self, *, leads: bool) -> Disk:
        return next(
            disk
            for member, disk in self.net.disks.items()
            if (member == self.leader.member) is leads
        )


def has_gap(disk: Disk, index: int) -> bool:
    return disk.log.read(index, index + 1, 1).has_gaps


def all_agree(net: Disks) -> bool:
    return len({disk.executor.digest() for disk in net.disks.values()}) == 1


@pytest.mark.parametrize("leads", [False, True])
def test_a_deletion_above_a_snapshot_that_is_being_written_stays(leads: bool) -> None:
    """Without it, a restart from the snapshot would bring back what was deleted after it."""
    story = Story()
    disk, answers = story.disk(leads=leads), list[object]()
    slow = Slow(disk.node)
    disk.replica.take_snapshot(answers.append)
    disk.node.turn()
    disk.node.stabilize()
    assert not answers
    deletion = story.submit(KeyValueStore.delete("x"))
    story.fill(40)
    assert disk.replica.raft.deletion_floor >= deletion
    compact(disk.node, Compaction.MAJOR)
    assert disk.log.valid_from >= deletion, "what was superseded was deleted"
    assert not has_gap(disk, deletion)
    slow.go()
    story.rounds(5)
    assert disk.snapshots
    assert not has_gap(disk, deletion)
    member: MemberId = disk.node.member
    story.net.restart(member)
    story.rounds(80)
    machine: Any = story.net.disks[member].executor.machine
    assert machine.values.keys() == {"y"}
    assert all_agree(story.net)


def test_f13_a_snapshot_that_found_no_room_holds_nothing_back() -> None:
    story = Story()
    disk, answers = story.disk(leads=False), list[object]()
    slow = Slow(disk.node)
    disk.replica.take_snapshot(answers.append)
    disk.node.turn()
    disk.node.stabilize()
    deletion = story.submit(KeyValueStore.delete("x"))
    story.fill(20)
    disk.env.fail("write", 1, "ENOSPC")
    slow.go()
    disk.node.turn()
    assert isinstance(answers[0], DiskFullError)
    compact(disk.node, Compaction.MAJOR)
    assert has_gap(disk, deletion)
    assert all_agree(story.net)


# ---- one that arrives -----------------------------------------------------------------------


@pytest.mark.parametrize("commit_index", [NEW.index - 1, NEW.index])
def test_what_entries_have_overtaken_is_not_published(commit_index: int) -> None:
    """Until the last chunk nothing above it was cleaned, for nothing above it was committed;
    from then on it holds deletions back. Overtaken before, it could come too late for them."""
    snapshot, data = shipped(NEW)
    env, host = FaultEnv(1), FakeHost()
    clock: Any = SimpleNamespace(now_ms=0)
    raft: Any = SimpleNamespace(
        commit_index=0,
        current_term=2,
        leader=MemberId(1),
        terms=SimpleNamespace(term_at=lambda _: NEW.term),
    )
    inbox = Inbox(host)
    applier: Any = SimpleNamespace(pause=lambda: None)
    answers = list[object]()
    nobody: Any = None
    driver: Any = SimpleNamespace(
        step=lambda _: None, answer=lambda *answered: answers.append(answered)
    )
    receiving = SnapshotReceiver(
        raft,
        nobody,
        clock,
        inbox,
        applier,
        nobody,
        driver,
        SnapshotStore(env, DIRECTORY),
        StubbornExecutor(),
        taker=nobody,
        incarnations=nobody,
        configurations=nobody,
    )
    message = InstallSnapshot(2, MemberId(1), 1, NEW, snapshot.nbytes, snapshot.digest, 0)
    receiving.receive(ReceiveSnapshot(MemberId(1), message))
    assert answers == [(MemberId(1), InstallReply(2, 1, NEW, 0, done=False))]
    receiving.on_chunk(MemberId(1), message, data)
    assert receiving.pending_index == sys.maxsize
    raft.commit_index = commit_index
    while host.jobs[Lane.ASIDE]:
        work, done = host.jobs[Lane.ASIDE].pop(0)
        done(work())
        inbox.take()
    is_overtaken = commit_index >= NEW.index
    assert receiving.pending_index == (sys.maxsize if is_overtaken else NEW.index)
    assert len(host.jobs[Lane.APPLY]) == (0 if is_overtaken else 1), "it is being installed"
    assert len(answers) == 1
    assert env.list(DIRECTORY) == ([] if is_overtaken else ["20-2.snap"])


def test_f13_what_found_no_room_to_be_installed_is_no_start_for_anybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = Disks()
    _, away = left_behind(net)
    asked = list[EntryId]()

    def has_none(_: SnapshotReceiver, entry: EntryId) -> bool:
        asked.append(entry)
        return False

    with monkeypatch.context() as full:
        full.setattr(SnapshotReceiver, "_has_room", has_none)
        net.mend(away.node.member)
        for _ in range(10):
            net.stabilize(100)
    assert asked
    assert away.snapshots == [], "it was published, and is gone"
    assert away.replica.stopped is None
    for _ in range(130):
        net.stabilize(100)
    same(net)
    assert len(away.snapshots) == 1
