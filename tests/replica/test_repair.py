"""A member that owes entries is fed (0017), and never over holes: what they stood for is gone."""

from __future__ import annotations

import pytest

from copycat.log.debt import DEBT_FILE
from copycat.machine.kv import KeyValueStore
from copycat.protocol.client import KeepAlive, Register, Registered
from copycat.raft.state import State
from copycat.types import Compaction, MemberId
from tests.replica.disks import Disk, Disks
from tests.replica.harness import CLIENT, Node, commands
from tests.replica.test_cleaning import compact
from tests.replica.test_snapshotting import same


def submit(net: Disks, leader: Node, session: int, sequence: int, operation: object) -> int:
    """One command, applied everywhere and acknowledged; its index."""
    frame = commands(session, sequence, operation, acked=sequence - 1)
    leader.replica.receive_client(CLIENT, frame)
    net.settle(50)
    return leader.replica.status().last_applied


def with_a_deletion(net: Disks) -> tuple[MemberId, int]:
    """x is put and deleted, all have both; two of them let both go, and forget the floor.

    (the third member, index of the deletion)
    """
    leader = net.elect()
    leader.client(Register(1, "client", 60_000))
    net.settle(50)
    reply = leader.last_reply()
    assert isinstance(reply, Registered)
    session = reply.session
    submit(net, leader, session, 1, KeyValueStore.put("x", b"1"))
    deletion = submit(net, leader, session, 2, KeyValueStore.delete("x"))
    for sequence in range(3, 40):
        submit(net, leader, session, sequence, KeyValueStore.put("y", b"%d" % sequence))
    leader.client(KeepAlive(99, session, 39))
    for _ in range(10):
        net.settle(100)
    other = next(member for member in net.nodes if member != leader.member)
    cleaned = [member for member in net.nodes if member != other]
    for member in cleaned:
        assert net.nodes[member].replica.raft.floor > deletion
        compact(net.nodes[member], Compaction.MAJOR)
        net.nodes[member].settle()
    forget_the_floor(net, cleaned)
    for member in cleaned:
        found = net.disks[member].log.read(deletion, deletion + 1, 1)
        assert found.has_gaps, "the deletion went with the put, for good"
    return other, deletion


def forget_the_floor(net: Disks, members: list[MemberId]) -> None:
    for member in members:
        net.restart(member)
        assert net.nodes[member].replica.raft.floor_known == 0


def repaired(net: Disks, other: MemberId, index: int) -> Disk:
    net.damage(other, index)
    disk = net.disks[other]
    assert disk.replica.status().owed
    for _ in range(60):
        net.settle(100)
    return disk


def test_c12_a_deletion_that_went_is_not_forgotten_by_who_lost_it() -> None:
    """The leader has forgotten the floor, and would feed holes to a member that still has x."""
    net = Disks()
    other, deletion = with_a_deletion(net)
    disk = repaired(net, other, deletion)
    same(net)
    assert "x" not in disk.executor.machine.values  # type: ignore[attr-defined]
    assert disk.replica.status().owed == ""
    assert not disk.env.exists(f"/member/{DEBT_FILE}")
    assert disk.log.before.index >= deletion, "it was sent a snapshot"


def test_c12_without_the_rule_what_was_deleted_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(State, "refuses_gaps", property(lambda _: False))
    net = Disks()
    other, deletion = with_a_deletion(net)
    disk = repaired(net, other, deletion)
    assert "x" in disk.executor.machine.values  # type: ignore[attr-defined]


def test_c12_entries_without_holes_are_enough(caplog: pytest.LogCaptureFixture) -> None:
    net = Disks()
    leader = net.elect()
    leader.client(Register(1, "client", 60_000))
    net.settle(50)
    reply = leader.last_reply()
    assert isinstance(reply, Registered)
    for sequence in range(1, 30):
        submit(net, leader, reply.session, sequence, KeyValueStore.put("y", b"%d" % sequence))
    other = next(member for member in net.nodes if member != leader.member)
    forget_the_floor(net, [member for member in net.nodes if member != other])
    disk = repaired(net, other, 10)
    same(net)
    assert disk.log.first_index == 1
    assert disk.replica.status().owed == ""
    assert "were damaged on this disk" in caplog.text
    assert "are here again" in caplog.text
