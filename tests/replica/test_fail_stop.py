"""An exception in what follows an answer of a thread stops the member, whichever answer it is."""

from __future__ import annotations

import ast
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

import copycat.replica
from copycat.machine.kv import KeyValueStore
from copycat.member.ballast_file import BallastFile
from copycat.protocol.client import QueryRequest
from copycat.protocol.operations import encode_operation
from copycat.raft import leader_feeding
from copycat.replica.compaction import CompactionRunner
from copycat.replica.connections import Connections
from copycat.replica.disk_space import DiskSpace
from copycat.replica.feeder import Feeder
from copycat.replica.maintenance import Maintenance
from copycat.replica.queries import Queries
from copycat.replica.replica import Replica
from copycat.replica.snapshot_receiver import SnapshotReceiver
from copycat.replica.snapshot_sender import SnapshotSender
from copycat.replica.snapshot_taker import SnapshotTaker
from copycat.replica.status import RecoveryStatus
from copycat.storage._native import FaultEnv
from copycat.types import ConsistencyLevel
from tests.replica.disks import Disks
from tests.replica.harness import CLIENT, Node, commands, lone_leader, open_session
from tests.replica.test_cleaning import compact, opened, put_many
from tests.replica.test_older_copy import back_and_told, with_an_image
from tests.replica.test_snapshotting import left_behind
from tests.replica.test_transfers import grow, newest, path_of, wait


class Raised(Exception):
    """What goes wrong in a turn."""


def the_log_is_cleaned() -> None:
    node = lone_leader(log=opened(FaultEnv(1)))
    session = open_session(node)
    put_many(node, session, 1, 400)
    compact(node)
    for _ in range(5):
        node.turn(100)
        node.stabilize()


def a_client_asks() -> None:
    node = lone_leader()
    session = open_session(node)
    query = encode_operation(KeyValueStore.items("k"))
    node.client(QueryRequest(1, session, 0, 0, ConsistencyLevel.SEQUENTIAL, query))
    node.turn()
    node.stabilize()


def replies_wait_for_room() -> None:
    node = lone_leader()
    session = open_session(node)
    node.host.unsent[CLIENT] = 1 << 30
    node.replica.receive_client(CLIENT, commands(session, 1, KeyValueStore.put("k", b"v")))
    node.stabilize()
    node.host.unsent[CLIENT] = 0
    node.stabilize()


def ballast_is_made() -> None:
    env = FaultEnv(1)
    env.make_directory("/log")
    ballast = BallastFile(env, "/log", 4096, 4096)
    node = lone_leader(log=opened(env), ballast=ballast)
    ballast.release()
    for _ in range(30):
        node.turn(100)
        node.stabilize()


def a_follower_gets_a_snapshot() -> None:
    net = Disks()
    leader, away = left_behind(net)
    net.mend(away.node.member)
    wait(net, 1000)
    grow(net, leader)
    grow(net, leader)
    wait(net, 1000)


def a_leader_sends_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader_feeding, "feeders", lambda *_: [])
    a_follower_gets_a_snapshot()


def a_snapshot_rots_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader_feeding, "feeders", lambda *_: [])
    net = Disks()
    leader, away = left_behind(net)
    leader.env.corrupt(path_of(newest(leader)), 100, 1)
    net.mend(away.node.member)
    wait(net, 3000)


def a_fed_snapshot_is_damaged() -> None:
    net = Disks()
    leader, away = left_behind(net)
    for disk in net.disks.values():
        if disk not in (leader, away):
            disk.env.corrupt(path_of(newest(disk)), 100, 1)
    net.mend(away.node.member)
    wait(net, 3000)


def a_snapshot_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SnapshotReceiver, "_has_room", lambda *_: False)
    a_follower_gets_a_snapshot()


def an_older_copy_is_fed() -> None:
    net = Disks()
    leader, victim, _ = with_an_image(net)
    back_and_told(net, leader, victim)
    for _ in range(40):
        net.stabilize(100)


SITES: list[tuple[type, str, Callable[..., None]]] = [
    (Replica, "on_applied", the_log_is_cleaned),
    (Queries, "_answered", a_client_asks),
    (Connections, "_fetched", replies_wait_for_room),
    (CompactionRunner, "_acknowledged_read", the_log_is_cleaned),
    (CompactionRunner, "_rewritten", the_log_is_cleaned),
    (Maintenance, "_prepared", the_log_is_cleaned),
    (Maintenance, "_removed", the_log_is_cleaned),
    (DiskSpace, "_ballast_made", ballast_is_made),
    (Maintenance, "_note_written", a_follower_gets_a_snapshot),
    (SnapshotTaker, "_on_taken", a_follower_gets_a_snapshot),
    (SnapshotTaker, "_saved", a_follower_gets_a_snapshot),
    (SnapshotTaker, "_discarded", a_follower_gets_a_snapshot),
    (SnapshotSender, "_was_read", a_leader_sends_a_snapshot),
    (Feeder, "_was_read", a_follower_gets_a_snapshot),
    (Feeder, "_checked", a_fed_snapshot_is_damaged),
    (SnapshotSender, "_checked", a_snapshot_rots_on_its_way),
    (SnapshotReceiver, "_written", a_follower_gets_a_snapshot),
    (SnapshotReceiver, "_finished", a_follower_gets_a_snapshot),
    (SnapshotReceiver, "_not_installed", a_snapshot_has_no_room),
    (SnapshotReceiver, "_installed", a_follower_gets_a_snapshot),
    (RecoveryStatus, "_written", an_older_copy_is_fed),
    (RecoveryStatus, "_removed", an_older_copy_is_fed),
]
IGNORED = {"_ignore"}
"""Answers that nobody waits for."""


@pytest.mark.parametrize(
    ("owner", "method", "story"), SITES, ids=[f"{o.__name__}.{m}" for o, m, _ in SITES]
)
def test_what_raises_after_a_threads_answer_stops_the_member(
    owner: type, method: str, story: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes: list[Node] = []
    build = Node.__init__

    def built(node: Node, *given: Any, **named: Any) -> None:
        build(node, *given, **named)
        nodes.append(node)

    def raises(*_: Any) -> None:
        raise Raised

    monkeypatch.setattr(Node, "__init__", built)
    monkeypatch.setattr(owner, method, raises)
    with pytest.raises(Raised):
        story(monkeypatch) if "monkeypatch" in signature(story).parameters else story()
    assert any(isinstance(node.replica.stopped, Raised) for node in nodes)


def test_every_answer_of_a_thread_is_in_the_list_above() -> None:
    """By the code of the package: who hands work to a thread, and what follows its answer."""
    methods: set[str] = set()
    hosts: set[str] = set()
    for path in Path(copycat.replica.__path__[0]).glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            if call.func.attr != "run" or len(call.args) != 3:
                continue
            if ast.unparse(call.func.value).endswith("host"):
                hosts.add(path.name)
            else:
                done = call.args[2]
                if isinstance(done, ast.Call):  # partial(self._method, ...)
                    done = done.args[0]
                methods.add(ast.unparse(done).removeprefix("self."))
    assert hosts == {"host.py"}, "every answer is an event of a turn"
    # One name stands for a `partial` that is written above it.
    named = {"rewritten": "_rewritten"}
    listed = {method for _, method, _ in SITES}
    assert {named.get(one, one) for one in methods} - IGNORED == listed
