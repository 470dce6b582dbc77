"""F12, end to end in a replica: refused before the disk refuses, queries continue, and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from copycat.errors import DiskFullError
from copycat.machine.kv import KeyValueStore
from copycat.member.ballast_file import disk_full
from copycat.protocol.client import (
    CommandsRefused,
    Failure,
    KeepAlive,
    QueryRequest,
    QueryResult,
    Refusal,
    Register,
    Registered,
    Results,
)
from copycat.protocol.operations import encode_operation
from copycat.raft.events import Reachable
from copycat.storage._native import Env, FaultEnv, open_log
from copycat.storage.interface import ReplicaLog
from copycat.storage.snapshot_store import Snapshot
from copycat.types import ConsistencyLevel, ServerState
from tests.replica.disks import Disk
from tests.replica.harness import Network, Node, commands, lone_leader, open_session

ITEM = KeyValueStore.append("k", b"a")


def fill(node: Node) -> None:
    node.log.set_room(0)
    node.turn()


def empty(node: Node) -> None:
    """Room again, and for long enough."""
    node.log.set_room(None)
    for _ in range(15):
        node.turn(100)
        node.stabilize()


def send(node: Node, session: int, first: int) -> None:
    node.replica.receive_client(7, commands(session, first, ITEM))
    node.stabilize()


def test_f12_a_full_leader_refuses_entries_and_names_its_disk() -> None:
    node = lone_leader()
    session = open_session(node)
    fill(node)
    send(node, session, 1)
    reason = f"the disk of {node.address} is full"
    refused = CommandsRefused(session, 1, Refusal.DISK_FULL, node.address, reason)
    assert node.last_reply() == refused
    for request in (Register(5, "another", 0), KeepAlive(5, session, 0)):
        node.client(request)
        node.stabilize()
        assert node.last_reply() == Failure(5, Refusal.DISK_FULL, node.address, reason)
    assert node.replica.status().storage_full


def test_f12_a_turn_looks_at_the_disk_before_the_core_hears_of_the_time() -> None:
    """When time has passed a leader may append by itself: a vote, or the end of a promotion."""
    node = lone_leader()
    raft = node.replica.raft
    now_ms, seen_ms = raft.now_ms, []
    node.replica.on_storage_change(lambda _: seen_ms.append(raft.now_ms))
    node.log.set_room(0)
    node.turn(100)
    assert seen_ms == [now_ms]
    assert raft.now_ms == now_ms + 100


def test_f12_queries_and_known_replies_go_on() -> None:
    node = lone_leader()
    session = open_session(node)
    send(node, session, 1)
    fill(node)
    query = encode_operation(KeyValueStore.size())
    node.client(QueryRequest(9, session, 1, 0, ConsistencyLevel.LINEARIZABLE, query))
    node.stabilize()
    assert isinstance(node.last_reply(), QueryResult)
    send(node, session, 1)
    assert isinstance(node.last_reply(), Results), "a resent command is answered as before"


def test_f12_the_log_goes_on_when_there_was_room_for_a_second() -> None:
    node = lone_leader()
    session = open_session(node)
    fill(node)
    send(node, session, 1)
    node.log.set_room(None)
    for _ in range(5):
        node.turn(100)
    assert node.replica.status().storage_full, "not at the first sight of room"
    empty(node)
    assert not node.replica.status().storage_full
    send(node, session, 1)
    assert node.machine.lists == {"k": [b"a"]}


def test_f12_nobody_expires_for_a_keep_alive_that_was_refused() -> None:
    node = lone_leader()
    session = open_session(node)
    fill(node)
    for _ in range(200):
        node.turn(100)
        node.stabilize()
    last_index = node.log.last_index
    assert node.replica.status().sessions == 1, "leader-written entries wait too"
    empty(node)
    send(node, session, 1)
    assert (node.replica.status().sessions, node.machine.lists) == (1, {"k": [b"a"]})
    assert node.log.last_index == last_index + 1


def test_f12_what_was_admitted_before_waits_and_is_not_lost() -> None:
    node = lone_leader()
    session = open_session(node)
    node.log.set_room(1 << 20)
    big = KeyValueStore.append("k", b"x" * ((1 << 20) - 60))
    node.replica.receive_client(7, commands(session, 1, big))
    node.stabilize()
    assert (node.replica.status().storage_full, node.machine.lists) == (True, {})
    empty(node)
    assert len(node.machine.lists["k"]) == 1


def open_session_in(net: Network, leader: Node) -> int:
    leader.client(Register(1, "client", 5000))
    net.stabilize()
    reply = leader.last_reply()
    assert isinstance(reply, Registered), reply
    return reply.session


def elected(net: Network) -> Node:
    """Everybody up to date, one leader."""
    leader = net.elect()
    for _ in range(4):
        net.stabilize(100)
    return leader


def test_f12_a_full_follower_neither_nacks_nor_acknowledges_what_it_has_no_room_for() -> None:
    net = Network()
    leader = elected(net)
    full = next(node for node in net.nodes.values() if node is not leader)
    session = open_session_in(net, leader)
    before = full.log.last_index
    fill(full)
    for first in range(1, 4):
        leader.replica.receive_client(7, commands(session, first, ITEM))
        net.stabilize(50)
    assert (full.log.last_index, full.replica.status().storage_full) == (before, True)
    assert len(leader.machine.lists["k"]) == 3, "the other two are a majority"
    assert leader.replica.raft.match_index(full.member) == before
    assert leader.replica.raft.state is ServerState.LEADER
    full.log.set_room(None)
    for _ in range(30):
        net.stabilize(100)
    assert full.machine.lists == leader.machine.lists


def test_f12_a_full_leader_hands_over_and_the_cluster_goes_on() -> None:
    net = Network()
    leader = elected(net)
    session = open_session_in(net, leader)
    fill(leader)
    for _ in range(20):
        net.stabilize(100)
    (new,) = [n for n in net.nodes.values() if n.replica.raft.state is ServerState.LEADER]
    assert new is not leader
    new.replica.receive_client(8, commands(session, 1, ITEM))
    for _ in range(4):
        net.stabilize(100)
    assert new.machine.lists == {"k": [b"a"]}
    assert leader.machine.lists == {}
    leader.log.set_room(None)
    for _ in range(30):
        net.stabilize(100)
    assert leader.machine.lists == {"k": [b"a"]}


def test_f12_a_full_follower_with_a_tail_of_its_own_keeps_it_until_there_is_room() -> None:
    net = Network()
    leader = elected(net)
    session = open_session_in(net, leader)
    net.cut(leader.member)
    leader.replica.receive_client(7, commands(session, 1, ITEM))
    leader.stabilize()
    tail = leader.log.last_index
    fill(leader)
    for _ in range(30):
        net.stabilize(100)
    for member, node in net.nodes.items():
        for peer in net.nodes:
            if peer != member:
                node.host.links.add(peer)
                node.replica.peer_up(Reachable(peer, fresh=False))
    for _ in range(20):
        net.stabilize(100)
    assert leader.replica.raft.state is ServerState.FOLLOWER
    assert leader.log.last_index == tail
    leader.log.set_room(None)
    for _ in range(30):
        net.stabilize(100)
    logs = {tuple(node.log.read(tail, tail + 1, 1).checksums()) for node in net.nodes.values()}
    assert len(logs) == 1


def native_leader(env: FaultEnv) -> Node:
    """A cluster of one over the native log, in small segments."""
    log: ReplicaLog = open_log(
        env, "/disk", max_segment_size=4 << 20, max_entries_per_segment=1 << 12
    )
    node = lone_leader(inline=True, log=log)
    assert not node.replica.status().storage_full
    return node


def test_f12_a_spare_that_finds_no_space_does_not_stop_the_member() -> None:
    env = FaultEnv(3)
    env.make_directory("/disk")
    node = native_leader(env)
    session = open_session(node)
    env.set_free_space(1 << 20)
    big = KeyValueStore.append("k", b"x" * 100_000)
    for first in range(1, 60):
        node.replica.receive_client(7, commands(session, first, big))
        node.stabilize()
    assert node.replica.status().storage_full
    assert node.host.stopped is None
    assert 0 < len(node.machine.lists["k"]) < 40
    count_before = len(node.machine.lists["k"])
    env.set_free_space(1 << 30)
    for _ in range(15):
        node.turn(100)
        node.stabilize()
    for first in range(count_before + 1, 60):
        node.replica.receive_client(7, commands(session, first, big))
        node.stabilize()
    assert len(node.machine.lists["k"]) == 59
    env.crash(1)
    again = open_log(env, "/disk", max_segment_size=4 << 20, max_entries_per_segment=1 << 12)
    assert again.last_index == node.replica.status().last_index


def test_f12_the_disk_itself_says_no_only_after_the_replica_did() -> None:
    node = lone_leader()
    session = open_session(node)
    node.log.set_room(200)
    batch = node.log.read(1, 2, 1)
    with pytest.raises((DiskFullError, ValueError)):
        node.log.append(batch)
    for first in range(1, 20):
        send(node, session, first)
    assert node.host.stopped is None
    assert node.replica.status().storage_full


# ---- a snapshot before it gives up -----------------------------------------------------


def short_of_room(threshold: int = 0) -> tuple[Disk, int]:
    """A member alone on a disk that is full, with some files of log behind it."""
    disk = Disk("127.0.0.1:1", ("127.0.0.1:1",), threshold)
    for _ in range(12):
        disk.node.turn(100)
        disk.node.stabilize()
    session = open_session(disk.node)
    for sequence in range(1, 41):
        send(disk.node, session, sequence)
    disk.env.set_free_space(0)
    return disk, session


def test_f12_a_full_disk_is_answered_with_a_snapshot_that_lets_the_log_be_trimmed() -> None:
    disk, session = short_of_room()
    assert (disk.snapshots, disk.log.first_index) == ([], 1)
    for _ in range(3):
        disk.node.turn(100)
        disk.node.stabilize()
    assert len(disk.snapshots) == 1
    assert disk.log.first_index > 30
    assert disk.replica.status().storage_full
    disk.env.set_free_space(1 << 40)
    for _ in range(15):
        disk.node.turn(100)
        disk.node.stabilize()
    send(disk.node, session, 41)
    assert len(disk.executor.machine.lists["k"]) == 41  # type: ignore[attr-defined]


def test_f12_a_snapshot_that_would_free_nothing_is_not_taken() -> None:
    disk, session = short_of_room()
    for _ in range(200):
        disk.node.turn(100)
        disk.node.stabilize()
    assert len(disk.snapshots) == 1, "nothing was applied since"
    disk.env.set_free_space(1 << 40)
    for _ in range(15):
        disk.node.turn(100)
        disk.node.stabilize()
    send(disk.node, session, 41)
    disk.env.set_free_space(0)
    for _ in range(200):
        disk.node.turn(100)
        disk.node.stabilize()
    assert len(disk.snapshots) == 1, "the log has one file, and none of it goes"


def test_f12_a_snapshot_that_finds_no_room_either_is_tried_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, _ = short_of_room()
    tries = []

    def full(*_: object, **__: object) -> Snapshot:
        tries.append(1)
        raise DiskFullError("no room")

    monkeypatch.setattr(disk.store, "begin", full)
    for _ in range(99):
        disk.node.turn(100)
        disk.node.stabilize()
    assert len(tries) == 1
    for _ in range(99):
        disk.node.turn(100)
        disk.node.stabilize()
    assert len(tries) == 2
    assert disk.node.host.stopped is None


def test_f12_the_error_of_a_full_disk_names_what_makes_room(tmp_path: Path) -> None:
    hint = DiskFullError("full").hint or ""
    assert "take_snapshot()" in hint
    assert "copycat compact" in hint
    env = Env()
    env.make_directory(str(tmp_path / "log"))
    log = open_log(env, str(tmp_path / "log"), max_segment_size=16384, max_entries_per_segment=8)
    hint = disk_full(env, str(tmp_path), log, 1 << 20, 1 << 20).hint or ""
    log.close()
    assert "server.take_snapshot()" in hint
    assert "storage.min_free_space" in hint
