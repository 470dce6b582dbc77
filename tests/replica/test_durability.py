"""Durability of a member in its three modes (docs/decisions/0016).

The hard state is synced in every mode; entries are acknowledged when they are written in the
weaker two, and what was synced is the log's own knowledge.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from copycat.machine.kv import KeyValueStore
from copycat.protocol.client import Results
from copycat.protocol.codec_peer import decode_peer, encode_append
from copycat.protocol.framing import split_frame
from copycat.protocol.peer import AppendEntries
from copycat.raft.effects import SaveHardState
from copycat.raft.events import Saved, Synced
from copycat.replica.options import ReplicaOptions
from copycat.replica.sync_scheduler import SyncScheduler
from copycat.storage._native import FaultEnv, NativeLog, open_log
from copycat.storage.memory import MemoryLog
from copycat.types import NO_ENTRY, Durability, EntryId, MemberId, ServerState, Span
from tests.log.contract import batch
from tests.replica.harness import FakeHost, MemoryHardState, Node, commands, open_session

DIRECTORY = "/log"
PUT = KeyValueStore.put("k", b"v")


def opened(env: FaultEnv) -> NativeLog:
    env.make_directory(DIRECTORY)
    return open_log(env, DIRECTORY, max_segment_size=1 << 16, max_entries_per_segment=16)


def durable_over(log: NativeLog | MemoryLog, mode: Durability) -> tuple[SyncScheduler, FakeHost]:
    host = FakeHost()
    options = ReplicaOptions(
        cluster_name="test", address="", members=(), durability=mode, sync_interval_ms=20
    )
    return SyncScheduler(log, MemoryHardState(), host, options), host


def leader(mode: Durability, log: NativeLog) -> Node:
    """A cluster of one in `mode` that leads; its host keeps every sync waiting."""
    node = Node("127.0.0.1:1", ("127.0.0.1:1",), log=log, durability=mode)
    for _ in range(40):
        node.turn(100)
        node.finish_saves()
        node.finish_work()
    assert node.replica.raft.state is ServerState.LEADER
    return node


def answered(node: Node) -> int:
    """How many of `PUT`s were answered, with no sync ever ending."""
    session = open_session(node)
    count = 0
    for sequence in range(1, 4):
        node.replica.receive_client(7, commands(session, sequence, PUT))
        for _ in range(3):
            node.turn()
            node.finish_work()
        count += isinstance(node.last_reply(), Results)
    return count


@pytest.mark.parametrize("mode", [Durability.INTERVAL, Durability.OS])
def test_an_append_is_answered_by_its_write_in_the_weaker_modes(mode: Durability) -> None:
    log = MemoryLog()
    durable, host = durable_over(log, mode)
    log.append(batch(1, b"a"))
    durable.request_sync(7)
    assert durable.take_completed() == [Synced(7, synced_index=0)]
    assert not durable.has_completed
    assert not host.syncs
    assert log.durable_index == 0, "the log knows better"


def test_interval_syncs_once_when_the_interval_is_over() -> None:
    log = MemoryLog()
    durable, host = durable_over(log, Durability.INTERVAL)
    durable.begin(1000)
    for index in (1, 2):
        log.append(batch(index, b"a"))
        durable.request_sync(index)
    assert durable.due_ms == 1020
    assert not durable.sync_is_due
    durable.take_completed()
    durable.begin(1020)
    assert durable.sync_is_due
    durable.start_sync()
    assert not durable.sync_is_due
    (ticket,) = host.syncs
    ticket.run()
    durable.completed(ticket)
    assert durable.take_completed() == []
    assert log.durable_index == 2
    durable.begin(5000)
    assert not durable.sync_is_due, "nothing was written since"


def test_os_syncs_when_a_segment_was_rolled_only() -> None:
    log = opened(FaultEnv(1))
    durable, host = durable_over(log, Durability.OS)
    for index in range(1, 17):
        log.append(batch(index, b"a"))
        durable.request_sync(index)
    assert not durable.sync_is_due
    log.append(batch(17, b"a"))
    assert durable.sync_is_due
    durable.start_sync()
    host.syncs[0].run()
    durable.completed(host.syncs[0])
    durable.take_completed()
    assert log.durable_index == 17
    assert not durable.sync_is_due


@pytest.mark.parametrize("mode", list(Durability))
def test_i2_the_hard_state_waits_for_its_disk_in_every_mode(mode: Durability) -> None:
    durable, host = durable_over(MemoryLog(), mode)
    durable.request_save(SaveHardState(3, MemberId(1), 9))
    durable.start_save()
    assert durable.take_completed() == []
    (ticket,) = host.saves
    ticket.run()
    durable.completed(ticket)
    assert durable.take_completed() == [Saved(9)]


@pytest.mark.parametrize("mode", [Durability.INTERVAL, Durability.OS])
def test_commands_are_answered_while_no_sync_ends(mode: Durability) -> None:
    node = leader(mode, opened(FaultEnv(1)))
    assert answered(node) == 3
    status = node.replica.status()
    assert status.durability is mode
    assert status.durable_index < status.commit_index == status.last_index


def test_with_fsync_no_command_is_answered_before_its_sync() -> None:
    node = Node("127.0.0.1:1", ("127.0.0.1:1",))
    for _ in range(40):
        node.turn(100)
        node.stabilize()
    session = open_session(node)
    before = len(node.host.replies)
    node.replica.receive_client(7, commands(session, 1, PUT))
    for _ in range(3):
        node.turn()
        node.finish_work()
    assert len(node.host.replies) == before
    assert node.replica.status().durability is Durability.FSYNC


def test_c1_a_follower_says_what_it_has_written() -> None:
    members = ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
    node = Node(members[0], members, durability=Durability.OS)
    peer = next(p for p in node.replica.raft.peers)
    node.host.links.add(peer)
    entries = batch(1, b"a")
    message = AppendEntries(1, peer, 1, NO_ENTRY, Span(1, 1, 2), 0)
    header = encode_append(message, entries.nbytes)
    node.replica.receive_peer(peer, split_frame(header + bytes(memoryview(entries))))
    node.turn()
    node.finish_saves()  # the term, which is synced all the same
    node.turn()
    replies = [decode_peer(frame) for _, frame in node.host.sent]
    assert [getattr(reply, "match_index", None) for reply in replies][-1] == 1
    assert not node.host.syncs


def after(mode: Durability, stop: Callable[[FaultEnv], None]) -> tuple[int, int, EntryId]:
    """(synced, last written, last entry after `stop` and a restart) of a member in `mode`."""
    env = FaultEnv(1)
    node = leader(mode, opened(env))
    assert answered(node) == 3
    status = node.replica.status()
    stop(env)
    return status.durable_index, status.last_index, opened(env).last_entry


@pytest.mark.parametrize("mode", [Durability.INTERVAL, Durability.OS])
def test_sigkill_loses_nothing_in_the_weaker_modes(mode: Durability) -> None:
    _, written, last = after(mode, FaultEnv.crash_process)
    assert last.index == written


@pytest.mark.parametrize("mode", [Durability.INTERVAL, Durability.OS])
def test_power_loss_takes_only_what_was_not_synced(mode: Durability) -> None:
    lost = 0
    for seed in range(8):

        def power_off(env: FaultEnv, seed: int = seed) -> None:
            env.crash(seed)

        synced, written, last = after(mode, power_off)
        assert synced <= last.index <= written
        lost += last.index < written
    assert lost, "no image lost anything: the test shows nothing"


@pytest.mark.parametrize("mode", list(Durability))
def test_c35_no_mode_answers_before_a_file_that_is_to_be_written_is(mode: Durability) -> None:
    log = MemoryLog()
    durable, host = durable_over(log, mode)
    done: list[str] = []
    durable.request_write(lambda: done.append("first"), lambda: done.append("heard"))
    log.append(batch(1, b"a"))
    durable.request_sync(7)
    durable.request_write(lambda: done.append("written"), lambda: done.append("heard"))
    assert not durable.has_completed
    assert durable.take_completed() == []
    assert durable.sync_is_due
    durable.start_sync()
    assert durable.take_completed() == []
    (ticket,) = host.syncs
    assert done == []
    ticket.run()
    durable.completed(ticket)
    events = durable.take_completed() + durable.take_completed()
    assert [event.ticket for event in events] == [7]
    assert done == ["written", "heard"], "the newest stands for all before it"


def test_c35_a_sync_that_is_under_way_answers_what_was_there_before() -> None:
    log = MemoryLog()
    durable, host = durable_over(log, Durability.FSYNC)
    log.append(batch(1, b"a"))
    durable.request_sync(7)
    durable.start_sync()
    done: list[str] = []
    log.append(batch(2, b"b"))
    durable.request_write(lambda: done.append("written"), lambda: done.append("heard"))
    durable.request_sync(8)
    for expected in (7, 8):
        ticket = host.syncs.pop()
        ticket.run()
        durable.completed(ticket)
        assert [event.ticket for event in durable.take_completed()] == [expected]
        if expected == 7:
            assert done == []
            durable.start_sync()
    assert done == ["written", "heard"]


@pytest.mark.parametrize("mode", list(Durability))
def test_it_is_known_after_each_step_whether_something_completed(mode: Durability) -> None:
    log = MemoryLog()
    durable, host = durable_over(log, mode)
    rng = random.Random(3)
    ticket = written = 0
    is_requested = is_writing = False
    """A file is to be written, or is being written: what was appended is answered after that."""
    completed: list[object] = []
    outcomes = set()
    for step in range(400):
        match rng.randrange(5):
            case 0:
                log.append(batch(log.last_index + 1, b"a"))
                ticket += 1
                durable.request_sync(ticket)
                written = ticket if mode is not Durability.FSYNC else 0
            case 1 if rng.random() < 0.3:
                durable.request_write(lambda: None, lambda: None)
                is_requested = True
            case 2 if host.syncs and not completed:
                (sync,) = host.syncs
                sync.run()
                completed.append(sync)
                durable.completed(sync)
            case 3:
                durable.begin(20 * step)
                if durable.sync_is_due:
                    durable.start_sync()
                    is_writing, is_requested = is_requested, False
            case 4 if durable.has_completed:
                durable.take_completed()
                written = written if is_requested or is_writing else 0
                if completed:
                    host.syncs.clear()
                    completed.clear()
                    is_writing = False
        may_answer = written > 0 and not (is_requested or is_writing)
        assert durable.has_completed == (bool(completed) or may_answer), step
        outcomes.add((durable.has_completed, is_requested or is_writing))
    assert len(outcomes) == 4
