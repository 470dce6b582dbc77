"""A member that came back with an older copy of its disk: named on both sides, bound, fed (F8)."""

from __future__ import annotations

import logging

import pytest

from copycat.errors import DirectoryRefusedError
from copycat.machine.kv import KeyValueStore
from copycat.member.markers import LOST_ENTRIES_FILE, read_lost_entries
from copycat.protocol import codec_peer
from copycat.protocol.client import Register, Registered
from copycat.protocol.framing import split_frame
from copycat.protocol.peer import AppendEntries, LogPosition
from copycat.raft.configuration import Configuration
from copycat.raft.events import Reachable
from copycat.types import NO_ENTRY, MemberId, ServerState, Span
from tests.replica.disks import Disk, Disks
from tests.replica.harness import CLIENT, Node, commands
from tests.replica.test_snapshotting import same


def session_of(net: Disks, leader: Node) -> int:
    leader.client(Register(1, "client", 60_000))
    net.stabilize(50)
    reply = leader.last_reply()
    assert isinstance(reply, Registered)
    return reply.session


def puts(net: Disks, leader: Node, session: int, first: int, end: int) -> None:
    for sequence in range(first, end):
        frame = commands(session, sequence, KeyValueStore.put("x", b"%d" % sequence), acked=0)
        leader.replica.receive_client(CLIENT, frame)
        net.stabilize(50)


def with_an_image(net: Disks) -> tuple[Node, Disk, int]:
    """A leader, a follower of whose disk a copy was taken, and how much that one acknowledged."""
    leader = net.elect()
    session = session_of(net, leader)
    puts(net, leader, session, 1, 4)
    net.stabilize(100)
    victim = next(disk for member, disk in net.disks.items() if member != leader.member)
    victim.take_image()
    puts(net, leader, session, 4, 8)
    net.stabilize(100)
    return leader, victim, victim.node.replica.status().last_index


def back_and_told(net: Disks, leader: Node, victim: Disk) -> Node:
    """The third member is cut off: whatever follows is between the two, and the leader needs the
    one that comes back (C42)."""
    member = victim.node.member
    third = next(third for third in net.nodes if third not in (leader.member, member))
    net.cut(third)
    for _ in range(20):
        net.stabilize(50)
    net.regress(member)
    net.cut(third)
    for _ in range(3):
        net.stabilize(50)
        if victim.node.replica.status().missing_entries:
            break
    return net.nodes[member]


def test_c42_restored_while_its_leader_leads() -> None:
    """The leader hears a majority without it: it stops for good under its id."""
    net = Disks()
    leader, victim, last = with_an_image(net)
    net.regress(victim.node.member)
    with pytest.raises(DirectoryRefusedError, match="this directory is an older copy") as caught:
        net.stabilize(100)
    assert caught.value.acknowledged_index == last > caught.value.last_index
    assert net.nodes[victim.node.member].replica.stopped is caught.value
    assert not victim.env.exists(f"/member/{LOST_ENTRIES_FILE}"), "it promises nothing any more"
    assert leader.replica.raft.state is ServerState.LEADER


def test_it_is_named_in_status_and_log_on_both_sides(caplog: pytest.LogCaptureFixture) -> None:
    net = Disks()
    leader, victim, _ = with_an_image(net)
    with caplog.at_level(logging.ERROR, "copycat.replica"):
        node = back_and_told(net, leader, victim)
    status, last = node.replica.status(), leader.replica.status().last_index
    assert status.missing_entries.endswith(f"to {last}")
    assert status.regressed == (node.address,)
    assert node.address in leader.replica.status().regressed
    reported = [record.getMessage() for record in caplog.records]
    assert any(f"{node.address} came back with an older copy" in one for one in reported)
    assert any(
        one.startswith(f"{node.address}: this directory is an older copy") for one in reported
    )


def test_a_member_that_was_removed_is_not_named_any_more() -> None:
    net = Disks()
    leader, victim, _ = with_an_image(net)
    node = back_and_told(net, leader, victim)
    replica = leader.replica
    assert replica.status().regressed == (node.address,)
    replica.members.commit(
        Configuration.from_members(
            record for record in replica.raft.configuration.members if record.member != node.member
        )
    )
    assert replica.status().regressed == ()
    leader.turn(100)
    assert replica.stopped is None


def test_it_is_fed_with_the_third_member_down_and_all_is_as_it_was() -> None:
    net = Disks()
    leader, victim, last = with_an_image(net)
    third = next(node for node in net.nodes.values() if node not in (leader, victim.node))
    node = back_and_told(net, leader, victim)
    assert victim.env.exists(f"/member/{LOST_ENTRIES_FILE}")
    for _ in range(40):
        net.stabilize(100)
    assert leader.replica.raft.state is ServerState.LEADER, "nobody else has all of it"
    status = node.replica.status()
    assert (status.missing_entries, status.regressed) == ("", ())
    assert status.last_applied == leader.replica.status().last_applied > last
    assert not victim.env.exists(f"/member/{LOST_ENTRIES_FILE}")
    assert leader.replica.status().regressed == ()
    net.mend(third.member)
    for _ in range(4):
        net.stabilize(100)
    same(net)


def test_a_new_process_knows_what_the_last_one_was_told() -> None:
    net = Disks()
    leader, victim, _ = with_an_image(net)
    member = victim.node.member
    back_and_told(net, leader, victim)
    last = leader.replica.status().last_index
    net.restart(member)
    status = net.nodes[member].replica.status()
    assert status.missing_entries.endswith(f"to {last}")
    assert status.regressed == (victim.address,)
    lost_entries = read_lost_entries(victim.env, "/member", 1)
    assert lost_entries is not None
    assert lost_entries.is_regressed
    assert status.term >= lost_entries.term > lost_entries.lost_upto.term
    reported = net.nodes[member].replica.raft.position
    assert reported.term == lost_entries.lost_upto.term, "who knows of more has to hear of it"


def test_what_it_lacks_was_trimmed_and_comes_as_a_snapshot() -> None:
    net = Disks()
    leader, victim, last = with_an_image(net)
    for disk in net.disks.values():
        if disk is not victim:
            disk.take()
    member = victim.node.member
    back_and_told(net, leader, victim)
    net.mend(next(third for third in net.nodes if third not in (leader.member, member)))
    for _ in range(40):
        net.stabilize(100)
    status = net.nodes[member].replica.status()
    assert status.missing_entries == ""
    assert status.last_applied > last
    same(net)


def test_an_older_copy_of_the_leader_follows() -> None:
    net = Disks()
    leader = net.elect()
    session = session_of(net, leader)
    net.disks[leader.member].take_image()
    puts(net, leader, session, 1, 5)
    net.stabilize(100)
    last = leader.replica.status().last_applied
    net.regress(leader.member)
    for _ in range(40):
        net.stabilize(100)
    states = {node.replica.raft.state for node in net.nodes.values()}
    assert states == {ServerState.LEADER, ServerState.FOLLOWER}
    assert net.nodes[MemberId(leader.member)].replica.status().last_applied > last
    same(net)


def test_i2_a_new_link_hears_of_a_term_when_it_is_on_the_disk() -> None:
    """Seed 878792032906: a link opened while the term of a new leader was being saved."""
    node = Node("127.0.0.1:1", tuple(f"127.0.0.1:{n}" for n in (1, 2, 3)))
    one, other = (peer for peer in node.replica.raft.peers)
    node.host.links |= {one, other}
    heartbeat = AppendEntries(5, one, 1, NO_ENTRY, Span(5, 1, 1), 0)
    node.replica.receive_peer(one, split_frame(codec_peer.encode_peer(heartbeat)))
    node.turn()
    assert node.replica.raft.is_saving
    node.replica.peer_up(Reachable(other, fresh=False))
    node.turn()
    assert positions(node, other) == []
    node.finish_saves()
    node.turn()
    assert positions(node, other) == [node.replica.raft.position]


def positions(node: Node, peer: MemberId) -> list[LogPosition]:
    frames = [codec_peer.decode_peer(frame) for to, frame in node.host.sent if to == peer]
    return [message for message in frames if isinstance(message, LogPosition)]


def test_clients_without_a_leader_hear_who_misses_what() -> None:
    net = Disks()
    leader, victim, _ = with_an_image(net)
    node = back_and_told(net, leader, victim)
    last = leader.replica.status().last_index
    net.cut(leader.member)
    for _ in range(30):
        net.stabilize(100)
    reason = node.replica.outage.explain().reason
    assert f"{node.address} misses entries" in reason
    assert f"to {last} and votes only for a member that has them" in reason
    reason = leader.replica.outage.explain().reason
    assert f"{node.address} runs on an older copy of its directory" in reason
