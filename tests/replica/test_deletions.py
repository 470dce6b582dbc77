"""Deletions leave the log of a member, alone in its cluster, and nothing comes back (C23)."""

from __future__ import annotations

from typing import Any

from copycat.machine import StateMachine
from copycat.machine.kv import KeyValueStore
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.client import KeepAlive
from copycat.protocol.operations import Operation
from copycat.storage._native import FaultEnv, NativeLog, open_log
from copycat.types import Compaction, CompactionLimits
from tests.machine.test_release_by_hand import Strict
from tests.replica.harness import CLIENT, Node, commands, lone_leader, open_session


def opened() -> NativeLog:
    env = FaultEnv(1)
    env.make_directory("/log")
    return open_log(env, "/log", max_segment_size=8192, max_entries_per_segment=32)


def submit(node: Node, operations: list[Operation[Any]]) -> None:
    """By one client, all replies acknowledged."""
    session = open_session(node)
    for first in range(0, len(operations), 10):
        batch = operations[first : first + 10]
        node.replica.receive_client(CLIENT, commands(session, first + 1, *batch, acked=first))
        node.stabilize(3)
    node.client(KeepAlive(99, session, len(operations)))
    node.stabilize(3)


def compact(node: Node) -> None:
    reports: list[Any] = []
    node.replica.compact(Compaction.MAJOR, reports.append)
    for _ in range(6):
        node.turn(100)
        node.stabilize(2)
    assert [report.failure for report in reports] == [None]


def entries_of(log: NativeLog) -> int:
    return sum(row.entries for row in log.segment_stats(CompactionLimits(0, 0, 0)))


def digest_again(log: NativeLog, machine: StateMachine, upto: int) -> bytes:
    """What a restart comes to."""
    executor = SessionExecutor(machine)
    first = 1
    while first <= upto:
        batch = log.read(first, upto + 1, 1 << 20)
        executor.apply(batch.runs(first, batch.span.end))
        first = batch.span.end
    return executor.digest()


def played(log: NativeLog, machine: Any, put: Any, drop: Any) -> Node:
    """100 keys are put and dropped, then one is put again and again; a major compaction."""
    node = lone_leader(log=log, machine=machine)
    names = [f"k{n}" for n in range(100)]
    submit(node, [*map(put, names), *map(drop, names), *[put("filler") for _ in range(100)]])
    compact(node)
    return node


def test_c23_alone_in_its_cluster_a_member_lets_deletions_go_before_any_snapshot() -> None:
    log = opened()
    put, drop = (lambda name: KeyValueStore.put(name, b"")), KeyValueStore.delete
    node = played(log, KeyValueStore(), put, drop)
    assert node.replica.raft.deletion_floor == node.replica.raft.commit_index
    assert entries_of(log) < 100, "100 puts, 100 deletions and 99 puts could go"
    full = node.executor
    assert digest_again(log, KeyValueStore(), full.last_applied) == full.digest()


def test_c23_deletions_by_hand_stay_with_what_only_a_snapshot_may_take() -> None:
    log = opened()
    node = played(log, Strict(), Strict.put, Strict.drop)
    full = node.executor
    assert digest_again(log, Strict(), full.last_applied) == full.digest()
    assert entries_of(log) >= 300
