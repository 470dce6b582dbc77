"""A member that lacks entries is fed (0017), never over gaps: what they stood for is deleted."""

from __future__ import annotations

import pytest

from copycat.machine.kv import KeyValueStore
from copycat.member.markers import ACCEPTED_LOSS_FILE, LOST_ENTRIES_FILE, read_lost_entries
from copycat.protocol.client import (
    ClusterView,
    KeepAlive,
    Refusal,
    Register,
    Registered,
    ViewRequest,
)
from copycat.raft.eligibility import Eligibility
from copycat.raft.events import Reachable
from copycat.storage.snapshot_store import Snapshot
from copycat.types import Compaction, MemberId
from tests.replica.disks import Disk, Disks
from tests.replica.harness import CLIENT, Node, commands
from tests.replica.test_cleaning import compact
from tests.replica.test_snapshotting import same


def submit(net: Disks, leader: Node, session: int, sequence: int, operation: object) -> int:
    """One command, applied everywhere and acknowledged; its index."""
    frame = commands(session, sequence, operation, acked=sequence - 1)
    leader.replica.receive_client(CLIENT, frame)
    net.stabilize(50)
    return leader.replica.status().last_applied


def with_a_deletion(net: Disks) -> tuple[MemberId, int]:
    """x is put and deleted, all have both; two of them let both go, and forget the floor.

    (the third member, index of the deletion)
    """
    leader = net.elect()
    leader.client(Register(1, "client", 60_000))
    net.stabilize(50)
    reply = leader.last_reply()
    assert isinstance(reply, Registered)
    session = reply.session
    submit(net, leader, session, 1, KeyValueStore.put("x", b"1"))
    deletion = submit(net, leader, session, 2, KeyValueStore.delete("x"))
    for sequence in range(3, 40):
        submit(net, leader, session, sequence, KeyValueStore.put("y", b"%d" % sequence))
    leader.client(KeepAlive(99, session, 39))
    for _ in range(10):
        net.stabilize(100)
    other = next(member for member in net.nodes if member != leader.member)
    cleaned = [member for member in net.nodes if member != other]
    for member in cleaned:
        assert net.nodes[member].replica.raft.deletion_floor > deletion
        compact(net.nodes[member], Compaction.MAJOR)
        net.nodes[member].stabilize()
    forget_the_floor(net, cleaned)
    for member in cleaned:
        batch = net.disks[member].log.read(deletion, deletion + 1, 1)
        assert batch.has_gaps, "the deletion was deleted with the put"
    return other, deletion


def forget_the_floor(net: Disks, members: list[MemberId]) -> None:
    for member in members:
        net.restart(member)
        assert net.nodes[member].replica.raft.cluster_deletion_floor == 0


def repaired(net: Disks, other: MemberId, index: int) -> Disk:
    net.damage(other, index)
    disk = net.disks[other]
    assert disk.replica.status().missing_entries
    for _ in range(60):
        net.stabilize(100)
    return disk


def test_c12_a_deletion_that_went_is_not_forgotten_by_who_lost_it() -> None:
    """The leader has forgotten the floor, and would feed gaps to a member that still has x."""
    net = Disks()
    other, deletion = with_a_deletion(net)
    disk = repaired(net, other, deletion)
    same(net)
    assert "x" not in disk.executor.machine.values  # type: ignore[attr-defined]
    assert disk.replica.status().missing_entries == ""
    assert not disk.env.exists(f"/member/{LOST_ENTRIES_FILE}")
    assert disk.log.before.index >= deletion, "it was sent a snapshot"


def test_c12_without_the_rule_what_was_deleted_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Eligibility, "accepts_gaps", property(lambda _: True))
    net = Disks()
    other, deletion = with_a_deletion(net)
    disk = repaired(net, other, deletion)
    assert "x" in disk.executor.machine.values  # type: ignore[attr-defined]


def test_c12_entries_without_gaps_are_enough(caplog: pytest.LogCaptureFixture) -> None:
    net = Disks()
    leader = net.elect()
    leader.client(Register(1, "client", 60_000))
    net.stabilize(50)
    reply = leader.last_reply()
    assert isinstance(reply, Registered)
    for sequence in range(1, 30):
        submit(net, leader, reply.session, sequence, KeyValueStore.put("y", b"%d" % sequence))
    other = next(member for member in net.nodes if member != leader.member)
    forget_the_floor(net, [member for member in net.nodes if member != other])
    disk = repaired(net, other, 10)
    same(net)
    assert disk.log.first_index == 1
    assert disk.replica.status().missing_entries == ""
    assert "were damaged on this disk" in caplog.text
    assert "are here again" in caplog.text


def with_gaps(net: Disks, *, has_snapshot: bool) -> Node:
    """y is written over and over; the leader, which is returned, cleaned its log to the end."""
    leader = net.elect()
    leader.client(Register(1, "client", 60_000))
    net.stabilize(50)
    reply = leader.last_reply()
    assert isinstance(reply, Registered)
    for sequence in range(1, 60):
        submit(net, leader, reply.session, sequence, KeyValueStore.put("y", b"%d" % sequence))
        if has_snapshot and sequence == 20:
            for disk in net.disks.values():
                assert isinstance(disk.take(), Snapshot)
    leader.client(KeepAlive(99, reply.session, 59))
    for _ in range(10):
        net.stabilize(100)
    compact(leader, Compaction.MINOR)
    leader.stabilize()
    for _ in range(5):
        net.stabilize(100)
    return leader


def join(net: Disks, one: MemberId, two: MemberId) -> None:
    """These two hear each other again, and nobody else."""
    for here, there in ((one, two), (two, one)):
        net.nodes[here].host.links.add(there)
        net.nodes[here].replica.peer_up(Reachable(there, fresh=False))


def frames_of(net: Disks, turns: int) -> int:
    """So many turns of 100 ms; how many frames were delivered."""
    frames = 0
    for _ in range(turns):
        for node in net.nodes.values():
            node.turn(100)
        for _ in range(12):
            frames += net.deliver()
            for node in net.nodes.values():
                node.stabilize(rounds=2)
    return frames


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("has_snapshot", [False, True])
def test_c12_a_leader_that_started_anew_feeds_who_takes_no_gaps(
    count: int, has_snapshot: bool
) -> None:
    """It has everything and knows of no commit; of the others one lacks entries, and one is away.

    What its gaps are valid from was committed (C22), so it can give what is asked for: a
    snapshot.
    """
    net = Disks(count)
    one = with_gaps(net, has_snapshot=has_snapshot).member
    two = next(member for member in net.nodes if member != one)
    for member in net.nodes:
        net.cut(member)
    net.nodes[one] = net.disks[one].restart()
    net.nodes[two] = net.disks[two].cut(net.disks[two].log.last_index - 20)
    join(net, one, two)
    here, other = net.disks[one], net.disks[two]
    valid_from = here.log.valid_from
    assert here.replica.raft.commit_index < valid_from <= here.log.last_index
    frames = frames_of(net, 40)
    assert here.replica.raft.commit_index == here.log.last_index > valid_from
    assert other.replica.status().missing_entries == ""
    assert other.executor.last_applied == here.executor.last_applied
    assert other.executor.digest() == here.executor.digest()
    assert frames < 400, "the same gaps are not sent again and again"


def after_both_accepted(net: Disks) -> tuple[Disk, Disk]:
    """A deletion was deleted at two members; one of them never comes back, the others are damaged.

    An operator accepts both losses. (who lacks two entries, who lacks the deletion too)
    """
    other, deletion = with_a_deletion(net)
    one = next(member for member in net.nodes if member != other)
    leader = net.elect()
    row = net.disks[leader.member].executor.session_rows()[0]
    for sequence in range(row.sequence + 1, row.sequence + 6):
        submit(net, leader, row.session, sequence, KeyValueStore.put("y", b"%d" % sequence))
    for member in net.nodes:
        net.cut(member)
    assert net.disks[one].log.valid_from < net.disks[one].log.last_index - 1, "gaps tell truth"
    here, there = net.disks[one], net.disks[other]
    here.cut(here.log.last_index - 1)
    there.cut(deletion)
    for member in (one, other):
        net.nodes[member] = net.disks[member].accept_loss()
        assert not net.disks[member].env.exists(f"/member/{LOST_ENTRIES_FILE}")
        assert net.disks[member].replica.status().missing_entries == ""
    join(net, one, other)
    return here, there


def test_c12_whose_loss_was_accepted_takes_no_gaps_in_its_place() -> None:
    """It votes without what it lost. But the deletion went since it had it: x must not be back."""
    net = Disks()
    here, there = after_both_accepted(net)
    frames_of(net, 150)
    assert here.executor.last_applied == there.executor.last_applied == here.log.last_index
    assert here.executor.digest() == there.executor.digest()
    assert "x" not in there.executor.machine.values  # type: ignore[attr-defined]
    for disk in (here, there):
        assert not disk.env.exists(f"/member/{ACCEPTED_LOSS_FILE}"), "a later entry is committed"


def test_c12_an_accepted_loss_outlives_restarts() -> None:
    net = Disks()
    _, there = after_both_accepted(net)
    member = there.node.member
    net.cut(member)
    net.nodes[member] = there.restart()
    assert there.replica.raft.eligibility.has_accepted_loss
    assert not there.replica.raft.eligibility.accepts_gaps
    assert not there.replica.raft.eligibility.is_recovering


def test_c12_a_mark_that_cannot_be_read_refuses_most() -> None:
    disk = Disks().disks
    env = next(iter(disk.values())).env
    env.replace_file(f"/member/{ACCEPTED_LOSS_FILE}", b"nonsense")
    lost_entries = read_lost_entries(env, "/member", 7)
    assert lost_entries is not None
    assert lost_entries.is_accepted
    assert lost_entries.lost_upto.term == 7
    again = read_lost_entries(env, "/member", 9)
    assert again is not None
    assert again.lost_upto == lost_entries.lost_upto, "it was written anew"
    again.clear()
    assert read_lost_entries(env, "/member", 9) is None


def test_c12_who_waits_in_vain_says_for_whom_and_what_to_do() -> None:
    """The leader has an entry that nobody else has, and loses it; another voter is away."""
    net = Disks()
    leader = net.elect()
    absent, other = (member for member in net.nodes if member != leader.member)
    net.cut(absent)
    net.cut(leader.member)
    leader.client(Register(1, "client", 60_000))
    net.stabilize(50)
    assert leader.replica.status().last_index > net.nodes[other].replica.status().last_index
    net.damage(leader.member, leader.replica.status().last_index)
    net.cut(absent)
    damaged = net.nodes[leader.member].replica
    net.stabilize(100)
    obstacles = damaged.outage.obstacles()
    assert obstacles.endswith("and votes only for a member that has them"), "it may take a moment"
    for _ in range(60):
        net.stabilize(100)
    obstacles, address = damaged.outage.obstacles(), net.nodes[absent].address
    assert f"it waits for {address}, which it cannot reach, to come back" in obstacles
    assert "run: copycat recover /member --accept-missing-entries" in obstacles
    node = net.nodes[leader.member]
    node.client(ViewRequest(1, is_local=True))
    node.turn()
    view = node.last_reply()
    assert isinstance(view, ClusterView)
    assert view.obstacles == obstacles
    whole = net.nodes[other].replica.outage.explain()
    assert (whole.code, whole.missing) == (Refusal.NO_LEADER, ())
    assert whole.reason.endswith(f"; unreachable: {address}")
    net.mend(absent)
    for _ in range(60):
        net.stabilize(100)
    assert damaged.raft.leader
    assert damaged.outage.obstacles() == ""
