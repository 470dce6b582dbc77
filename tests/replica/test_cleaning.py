"""A member's log is cleaned: what was superseded goes, and what is left means the same."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from copycat.errors import DiskFullError
from copycat.machine.apply_result import ApplyResult
from copycat.machine.kv import KeyValueStore
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.client import KeepAlive
from copycat.replica.compaction import CompactionRunner
from copycat.replica.host import Inbox, Lane
from copycat.replica.options import ReplicaOptions
from copycat.storage._native import FaultEnv, NativeLog, open_log
from copycat.storage.compaction import CompactionOptions, SegmentLimits
from copycat.types import (
    Compaction,
    CompactionLimits,
    CompactionReport,
    Durability,
    Release,
    SegmentStats,
)
from tests.replica.harness import CLIENT, FakeHost, Job, Node, commands, lone_leader, open_session


def opened(env: FaultEnv) -> NativeLog:
    env.make_directory("/log")
    return open_log(env, "/log", max_segment_size=8192, max_entries_per_segment=64)


def put_many(node: Node, session: int, first: int, count: int, *, others: int = 1000) -> int:
    """`count` puts over five keys, but each `others`th has its own; each is acknowledged with the
    next. The next sequence."""
    for sequence in range(first, first + count, 10):
        batch = [
            KeyValueStore.put(f"k{n % 5 if n % others else n}", b"%d" % n + bytes(40))
            for n in range(sequence, sequence + 10)
        ]
        frame = commands(session, sequence, *batch, acked=sequence - 1)
        node.replica.receive_client(CLIENT, frame)
        node.stabilize(3)
    node.client(KeepAlive(99, session, first + count - 1))
    node.stabilize(3)
    return first + count


def compact(node: Node, compaction: Compaction = Compaction.MAJOR) -> CompactionReport:
    reports: list[CompactionReport] = []
    node.replica.compact(compaction, reports.append)
    for _ in range(20):
        node.turn(100)
        node.stabilize(2)
        if reports:
            return reports[0]
    raise AssertionError("no report")


def rows(log: NativeLog) -> list[SegmentStats]:
    return log.segment_stats(CompactionLimits(0, 0, 0))


def entries_of(log: NativeLog) -> int:
    """How many entries are there."""
    return sum(row.entries for row in rows(log))


def files(env: FaultEnv) -> set[str]:
    """Names of segment files."""
    return {name for name in env.list("/log") if name.endswith(".log")}


def replayed(log: NativeLog, upto: int) -> SessionExecutor:
    executor = SessionExecutor(KeyValueStore())
    first = log.first_index
    while first <= upto:
        batch = log.read(first, upto + 1, 1 << 20)
        executor.apply(batch.runs(first, batch.span.end))
        first = batch.span.end
    return executor


def test_superseded_commands_go_and_a_replay_comes_to_the_same_i23() -> None:
    env = FaultEnv(1)
    log = opened(env)
    node = lone_leader(log=log)
    session = open_session(node)
    put_many(node, session, 1, 600)
    report = compact(node)
    assert report.failure is None
    assert report.segments_after < report.segments_before
    assert report.bytes_reclaimed > 0
    assert log.valid_from > 0
    assert entries_of(log) < 300, "600 puts over five keys"
    full, again = node.executor, replayed(log, node.executor.last_applied)
    assert again.digest() == full.digest()
    put_many(node, session, 601, 20)
    assert not log.wants_sync(), "a sync wrote the manifest"
    assert files(env) == {f"{row.id}-{row.version}.log" for row in rows(log)}, "and the old files"


def test_c22_a_member_that_replays_over_gaps_cleans_nothing() -> None:
    """What it applied is no state of the whole log yet, so what that releases means nothing."""
    env = FaultEnv(3)
    log = opened(env)
    first = lone_leader(log=log)
    session = open_session(first)
    for sequence in range(1, 400, 10):  # a third of these is superseded: a minor run lets it be
        keys = [f"u{n}" if n % 3 else "k" for n in range(sequence, sequence + 10)]
        batch = [KeyValueStore.put(key, bytes(40)) for key in keys]
        frame = commands(session, sequence, *batch, acked=sequence - 1)
        first.replica.receive_client(CLIENT, frame)
        first.stabilize(3)
    put_many(first, session, 401, 600)
    assert compact(first, Compaction.MINOR).bytes_reclaimed > 0
    first.stabilize(20)
    log.close()

    log = opened(env)
    node = Node("127.0.0.1:1", ("127.0.0.1:1",), log=log)
    for _ in range(40):  # it leads, and has been handed the first slice
        node.turn(100)
        node.finish_saves()
        node.finish_syncs()
    for _ in range(2):  # the second slice acknowledges the replies of the first
        node.finish_work()
        node.turn()
    assert 0 < node.executor.last_applied < log.valid_from
    before, reports = entries_of(log), list[CompactionReport]()
    node.replica.compact(Compaction.MAJOR, reports.append)
    while not reports:
        node.turn(100)
        for work, done in node.host.work[1:]:  # the acknowledged index; the next slice waits
            done(work())
        del node.host.work[1:]
        node.turn()
    assert node.executor.last_applied < log.valid_from
    assert reports[0].failure is None
    assert entries_of(log) == before
    node.stabilize(20)
    assert node.executor.last_applied >= log.valid_from


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_f4_a_file_that_cannot_be_removed_stops_no_member(error: str) -> None:
    env = FaultEnv(1)
    log = opened(env)
    node = lone_leader(log=log)
    session = open_session(node)
    put_many(node, session, 1, 600)
    env.fail("unlink", 1, error)
    assert compact(node).failure is None
    put_many(node, session, 601, 20)
    assert node.host.stopped is None
    left = files(env) - {f"{row.id}-{row.version}.log" for row in rows(log)}
    assert len(left) == 1
    log.close()
    assert left <= set(opened(env).report.obsolete_files)


def test_what_is_not_acknowledged_stays_c21() -> None:
    log = opened(FaultEnv(2))
    node = lone_leader(log=log)
    session = open_session(node)
    for sequence in range(1, 400, 10):
        batch = [KeyValueStore.put("k", bytes(40)) for _ in range(10)]
        node.replica.receive_client(CLIENT, commands(session, sequence, *batch, acked=0))
        node.stabilize(3)
    compact(node)  # merges small segments, and drops nothing
    assert entries_of(log) == log.last_index
    node.client(KeepAlive(99, session, 400))
    node.stabilize(3)
    compact(node)
    assert entries_of(log) < 100


class Slow:
    """The log of a leader whose own disk lags behind what others made durable."""

    first_index, last_index, valid_from = 1, 130, 0

    def __init__(self) -> None:
        self.durable_index = 106
        self.released: list[int] = []

    def release(self, indexes: Sequence[int], policy: Release) -> None:
        self.released += indexes

    def segment_stats(self, limits: CompactionLimits) -> list[SegmentStats]:
        return []


@pytest.mark.parametrize("by", [122, 100])
def test_what_is_not_durable_here_lets_nothing_go_c22(by: int) -> None:
    """Seed 128: entry 122 overwrote 88 and was applied, but this disk ended at 106. With 88
    gone, a restart would come to a state that never was, and take it for whole from 106 on.

    Seed 434624406531: entry 100 overwrote it, but what acknowledged the replies is above 106."""
    log: Any = Slow()
    host, reports = FakeHost(), list[CompactionReport]()
    applier: Any = SimpleNamespace(last_applied=122)
    raft: Any = SimpleNamespace(deletion_floor=0)
    clock: Any = SimpleNamespace(now_ms=0)
    syncs: Any = SimpleNamespace(request_full_sync=lambda: None)
    inbox = Inbox(host)
    options = ReplicaOptions(cluster_name="test", address="", members=())
    executor: Any = SimpleNamespace(acknowledged_index=lambda: 122, last_applied=122)
    snapshots: Any = SimpleNamespace(pending_index=0)
    cleaning = CompactionRunner(
        options,
        raft,
        log,
        clock,
        host,
        inbox,
        syncs,
        applier,
        executor,
        snapshot_taker=snapshots,
        snapshot_receiver=snapshots,
    )
    cleaning.applied(ApplyResult(by, 0, [], [], [], 0, [(Release.ANY, array("Q", [88]))]))
    cleaning.ask(Compaction.MINOR, reports.append)
    cleaning.keep(0, is_short=False)
    ((work, done),) = host.work
    done(work())
    inbox.take()
    for durable_index, released in ((106, []), (121, []), (122, [88])):
        log.durable_index = durable_index
        cleaning.keep(0, is_short=False)
        assert log.released == released
        assert len(reports) == (1 if released else 0), "it waits for this disk"


@pytest.mark.parametrize("durability", list(Durability))
def test_c22_a_run_takes_all_that_was_released_when_it_was_asked_for(
    durability: Durability,
) -> None:
    """Seed 197804164607: an entry was applied and not yet durable at the moment that the run
    asked, so the run took what the one before it had found, seconds ago, and left the rest."""
    env = FaultEnv(3)
    log = opened(env)
    node = lone_leader(log=log, durability=durability)
    session = open_session(node)
    put_many(node, session, 1, 400)
    if durability is Durability.OS:
        assert log.durable_index < log.last_index, "nothing asked for a sync"
    assert compact(node).bytes_reclaimed > 0
    assert entries_of(log) < 100


def test_f13_a_full_disk_is_a_report_and_no_end() -> None:
    env = FaultEnv(3)
    log = opened(env)
    node = lone_leader(log=log)
    session = open_session(node)
    put_many(node, session, 1, 400)
    env.fail("create", 1, "ENOSPC")
    report = compact(node)
    assert isinstance(report.failure, DiskFullError)
    assert report.bytes_reclaimed == 0
    assert node.replica.stopped is None
    assert compact(node).bytes_reclaimed > 0


class BlockedJobs:
    """The compaction thread of a member: what it is given waits until the test runs it."""

    def __init__(self, node: Node) -> None:
        self._host = node.host
        self._host.slow.add(Lane.COMPACT)

    @property
    def jobs(self) -> list[Job]:
        return self._host.jobs[Lane.COMPACT]

    def run(self) -> None:
        self._host.finish(Lane.COMPACT)


def turns(node: Node, count: int, step_ms: int = 100) -> None:
    for _ in range(count):
        node.turn(step_ms)
        node.stabilize(2)


def test_behind_a_group_that_was_trimmed_in_part_nothing_is_deleted() -> None:
    """A snapshot trims the front of the first group while all wait for their thread: what that
    group was to lose stays, so what deletes it stays too. Each group is a rewrite of its own."""
    log = opened(FaultEnv(1))
    node = lone_leader(log=log)
    session = open_session(node)
    put_many(node, session, 1, 600, others=10)
    scheduler = node.replica._compaction._scheduler
    scheduler._options = CompactionOptions(segment_limits=SegmentLimits(16384, 20))
    blocked, reports = BlockedJobs(node), list[CompactionReport]()
    node.replica.compact(Compaction.MAJOR, reports.append)
    turns(node, 6)
    assert len(blocked.jobs) > 2, "several groups"
    log.trim(rows(log)[1].first_index)
    before = rows(log)[:-1]
    blocked.run()
    turns(node, 2)
    assert [(row.id, row.version) for row in rows(log)[: len(before)]] == [
        (row.id, row.version) for row in before
    ]
    (report,) = reports
    assert report.failure is None
    assert report.segments_after == report.segments_before
    assert report.bytes_reclaimed == 0
    node.host.slow.discard(Lane.COMPACT)
    assert compact(node).bytes_reclaimed > 0, "the next run takes all of it"


def test_a_run_with_nothing_to_do_says_how_many_segments_there_are() -> None:
    log = opened(FaultEnv(1))
    node = lone_leader(log=log)
    session = open_session(node)
    put_many(node, session, 1, 600)
    compact(node)
    before = log.segments()
    report = compact(node, Compaction.MINOR)
    assert (report.segments_before, report.segments_after) == (len(before), len(before))
    assert report.bytes_reclaimed == 0
    assert log.segments() == before


def test_f13_a_short_disk_is_cleaned_again_after_a_failure() -> None:
    """What the failed run was to take had been forgotten: a full disk stayed full until the next
    entry was released, and nothing is released on a disk that takes no entries."""
    env = FaultEnv(3)
    log = opened(env)
    node = lone_leader(log=log)
    session = open_session(node)
    put_many(node, session, 1, 400)
    env.set_free_space(0)
    turns(node, 30)
    assert not any(version > 1 for _, version, *_ in log.segments())
    assert node.replica.stopped is None
    blocked = BlockedJobs(node)
    turns(node, 60)
    assert blocked.jobs == [], "not before the back-off is over"
    turns(node, 40)
    assert blocked.jobs != []


def test_it_runs_by_the_clock() -> None:
    log = opened(FaultEnv(4))
    node = lone_leader(log=log)
    session = open_session(node)
    put_many(node, session, 1, 400)
    node.client(KeepAlive(100, session, 400))
    for _ in range(700):
        node.turn(100)
        node.stabilize(1)
    assert any(version > 1 for _, version, *_ in log.segments())
