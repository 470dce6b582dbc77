"""Transfers that get nowhere: a bad file, a full receiver, one that is not heard of (F13, F17)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from copycat.errors import CorruptLogError, DiskFullError
from copycat.protocol.client import Register, Registered
from copycat.protocol.codec_peer import decode_peer, encode_install
from copycat.protocol.framing import split_frame
from copycat.protocol.peer import InstallReply, InstallSnapshot
from copycat.raft.core import Raft
from copycat.raft.effects import Effect
from copycat.raft.events import Event, Received
from copycat.replica import snapshot_receiver, snapshot_sender
from copycat.replica.host import Lane
from copycat.replica.snapshot_sender import STALLED_MS
from copycat.storage._native import FaultEnv
from copycat.storage.snapshot_store import Reception, Snapshot, SnapshotStore
from copycat.types import EntryId, ServerState
from tests.replica.disks import SNAPSHOTS, Disk, Disks
from tests.replica.harness import FakeHost
from tests.replica.test_snapshotting import append, left_behind, same

pytestmark = pytest.mark.usefixtures("no_follower_feeds")


def path_of(snapshot: Snapshot) -> str:
    return f"{SNAPSHOTS}/{snapshot.entry.index}-{snapshot.entry.term}.snap"


def newest(disk: Disk) -> Snapshot:
    snapshot = disk.store.newest
    assert snapshot is not None
    return snapshot


def wait(net: Disks, ms: int) -> None:
    for _ in range(ms // 100):
        net.stabilize(100)


def grow(net: Disks, disk: Disk) -> Snapshot:
    """A newer snapshot of the leader."""
    disk.node.client(Register(1, "client", 60_000))
    wait(net, 100)
    reply = disk.node.last_reply()
    assert isinstance(reply, Registered)
    append(disk.node, reply.session, 1, 30)
    wait(net, 300)
    newest_snapshot = disk.take()
    assert isinstance(newest_snapshot, Snapshot)
    return newest_snapshot


def until_offered(net: Disks, leader: Disk) -> None:
    """The leader has begun to send a snapshot."""
    for _ in range(20):
        net.stabilize(20, rounds=1)
        if "send INSTALL_SNAPSHOT" in leader.node.host.calls:
            return
    raise AssertionError("nothing is sent")


def no_room(*_: Any) -> int:
    raise DiskFullError("no room")


def test_f17_a_snapshot_that_rots_while_it_is_shipped_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    net = Disks()
    leader, away = left_behind(net)
    bad = newest(leader)
    leader.env.corrupt(path_of(bad), 100, 1)
    first_index = leader.log.first_index
    net.mend(away.node.member)
    wait(net, 3000)
    same(net)
    assert caplog.text.count("a snapshot that arrived is damaged") == 1
    assert caplog.text.count("is damaged, another one is sent") == 1
    assert leader.log.first_index == first_index
    assert newest(leader) is not bad
    assert leader.store.bad == []
    leader.store.check(newest(leader))


def test_f17_of_two_the_good_one_is_shipped_and_holds_the_log() -> None:
    net = Disks()
    leader, away = left_behind(net)
    older, bad = newest(leader), grow(net, leader)
    leader.env.corrupt(path_of(bad), 100, 1)
    leader.executor.obstacle = "no third one"
    net.mend(away.node.member)
    wait(net, 4000)
    same(net)
    assert away.store.entries == [older.entry], "the log continues from there"
    assert (leader.store.entries, leader.store.bad) == ([older.entry], [bad.entry])
    assert leader.env.exists(path_of(bad)), "what was there must be known to a restart"
    leader.executor.obstacle = ""
    third = grow(net, leader)
    assert leader.store.entries == [older.entry, third.entry]
    assert not leader.env.exists(path_of(bad))
    assert leader.log.first_index <= older.entry.next


def test_f17_without_any_good_one_the_log_keeps_its_front() -> None:
    """Nor is the bad one taken for none: what a restart could still read counts (C23)."""
    net = Disks()
    leader, away = left_behind(net)
    bad = newest(leader)
    leader.env.corrupt(path_of(bad), 100, 1)
    leader.executor.obstacle = "none now"
    first_index = leader.log.first_index
    net.mend(away.node.member)
    wait(net, 4000)
    assert (leader.store.entries, leader.store.bad) == ([], [bad.entry])
    assert leader.store.oldest_index == 0, "nothing covers what would be trimmed"
    assert leader.log.first_index == first_index
    assert leader.replica.raft.oldest_snapshot_index == bad.entry.index


def test_a_short_file_stops_nobody() -> None:
    net = Disks()
    leader, away = left_behind(net)
    bad = newest(leader)
    data = leader.env.read_file(path_of(bad))
    leader.env.replace_file(path_of(bad), data[:-10])
    net.mend(away.node.member)
    wait(net, 2000)
    same(net)
    assert leader.node.host.stopped is None


def test_f13_a_full_follower_does_not_hold_the_leaders_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = Disks()
    leader, away = left_behind(net)
    with monkeypatch.context() as disk:
        disk.setattr(Reception, "write", no_room)
        net.mend(away.node.member)
        wait(net, 2000)
        retained = [newest(leader), grow(net, leader)]
        for _ in range(3):
            wait(net, 3000)
            retained = [retained[-1], grow(net, leader)]
        assert leader.store.entries == [one.entry for one in retained]
        assert retained[0].entry.index - 8 < leader.log.first_index <= retained[0].entry.next
        assert away.executor.last_applied < leader.log.first_index
    wait(net, 3000)
    same(net)
    assert away.log.before == retained[1].entry, "it was sent the newest"


@pytest.mark.parametrize("hindrance", ["silent", "gone"])
def test_a_transfer_that_gains_nothing_holds_the_log_for_a_minute_and_no_longer(
    hindrance: str,
) -> None:
    net = Disks()
    leader, away = left_behind(net)
    net.mend(away.node.member)
    until_offered(net, leader)
    if hindrance == "gone":
        net.cut(away.node.member)
    else:
        away.node.host.links.clear()  # it hears everything, and nobody hears it
    first = newest(leader)
    for _ in range(2):
        grow(net, leader)
        wait(net, 1000)
    assert first.entry in leader.store.entries
    assert leader.log.first_index <= first.entry.next
    wait(net, STALLED_MS)
    retained = [grow(net, leader) for _ in range(2)]
    assert leader.store.entries == [one.entry for one in retained]
    assert retained[0].entry.index - 8 < leader.log.first_index <= retained[0].entry.next


def test_c23_a_bad_one_counts_until_its_file_is_gone() -> None:
    store = SnapshotStore(FaultEnv(1), SNAPSHOTS)
    older, newer, third = (
        store.save(EntryId(1, index), time_ms=7, data=b"state") for index in (10, 20, 30)
    )
    for one in (older, newer):
        store.admit(one)
    assert store.reject(older)
    assert (store.oldest_index, store.newest) == (10, newer), "it may be read again by a restart"
    assert not store.reject(older), "once"
    assert store.admit(third) == [older.entry]
    store.forget(store.discard([older.entry]))
    assert store.oldest_index == 20
    assert store.reject(third)
    assert (store.oldest_index, store.newest) == (20, newer)


def test_a_file_that_was_written_anew_is_not_rejected() -> None:
    store = SnapshotStore(FaultEnv(1), SNAPSHOTS)
    first = store.save(EntryId(1, 10), time_ms=7, data=b"state")
    store.admit(first)
    assert store.reject(first)
    again = store.save(EntryId(1, 10), time_ms=8, data=b"state")
    assert store.admit(again) == []
    assert not store.reject(first), "what was read was the old file"
    store.check(again)
    with pytest.raises(CorruptLogError, match="it should be"):
        store.check(first)
    assert store.newest is again


class SlowDisk:
    """Takes one small chunk of a snapshot in so many ms; what comes in between is lost."""

    def __init__(self, away: Disk, monkeypatch: pytest.MonkeyPatch, ms: int) -> None:
        self.away = away
        self.again_ms = 0
        self.ms = ms
        self.chunk_count = 0
        self.write = Reception.write
        monkeypatch.setattr(snapshot_sender, "CHUNK_NBYTES", 512)
        monkeypatch.setattr(Reception, "write", self)

    def __get__(self, reception: Reception, _: type) -> Any:
        return lambda offset, data: self.take(reception, offset, data)

    def take(self, reception: Reception, offset: int, data: bytes) -> int:
        now_ms = self.away.node.now_ms
        if now_ms < self.again_ms or offset != reception.end:
            return reception.end
        self.again_ms = now_ms + self.ms
        self.chunk_count += 1
        return self.write(reception, offset, data)


def test_a_slow_transfer_holds_the_log_until_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Disks()
    leader, away = left_behind(net)
    first = newest(leader)
    disk = SlowDisk(away, monkeypatch, STALLED_MS // 3)
    net.mend(away.node.member)
    for _ in range(3):
        wait(net, STALLED_MS // 2)
        grow(net, leader)
    assert 4 < disk.chunk_count < first.nbytes / 512
    assert first.entry in leader.store.entries
    assert leader.log.first_index <= first.entry.next
    disk.ms = 0
    wait(net, 20_000)
    same(net)
    assert away.log.before == first.entry


def test_who_lost_what_it_held_is_sent_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Disks()
    leader, away = left_behind(net)
    disk = SlowDisk(away, monkeypatch, 2000)
    net.mend(away.node.member)
    wait(net, 5000)
    assert disk.chunk_count > 1
    newest_snapshot = grow(net, leader)
    net.restart(away.node.member)
    disk.again_ms = disk.ms = 0
    wait(net, 5000)
    same(net)
    assert away.log.before == newest_snapshot.entry


def test_a_transfer_that_gains_nothing_leaves_its_place_to_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_sender, "SENDING_MAX", 1)
    net = Disks(5)
    leader = net.elect()
    waits = [member for member in net.nodes if member != leader.member][-1]
    net.cut(waits)
    _, away = left_behind(net)
    net.mend(away.node.member)
    for _ in range(20):
        net.stabilize(20, rounds=1)
        if "send INSTALL_SNAPSHOT" in leader.host.calls:
            break
    away.node.host.links.clear()
    net.mend(waits)
    away.node.host.links.clear()
    last = leader.replica.status().last_applied
    wait(net, 3000)
    assert net.disks[waits].executor.last_applied < last, "there is no place"
    wait(net, STALLED_MS)
    assert net.disks[waits].executor.last_applied >= last


def test_i12_entries_that_are_quicker_than_their_snapshot_are_not_undone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A snapshot is whole and verified, and before its member hears of that, another leader has
    fed it with the entries themselves, and more: the state stays what it is."""
    net = Disks()
    leader = net.disks[net.elect().member]
    away, other = (disk for disk in net.disks.values() if disk is not leader)
    leader.node.client(Register(1, "client", 600_000))
    wait(net, 100)
    opened = leader.node.last_reply()
    assert isinstance(opened, Registered)
    append(leader.node, opened.session, 1, 2)
    wait(net, 100)
    net.cut(away.node.member)
    append(leader.node, opened.session, 3, 30)
    wait(net, 100)
    shipped = leader.take()
    assert leader.log.first_index > away.log.last_index + 1
    assert other.log.first_index == 1

    late: list[tuple[Any, Any]] = []

    def run(lane: Lane, work: Any, done: Any) -> None:
        def heard(result: Any) -> None:
            if isinstance(result, snapshot_receiver._Whole):
                late.append((done, result))
            else:
                done(result)

        FakeHost.run(away.node.host, lane, work, heard)

    monkeypatch.setattr(away.node.host, "run", run)
    net.mend(away.node.member)
    wait(net, 1000)
    assert len(late) == 1
    assert away.executor.last_applied < shipped.entry.index
    net.cut(leader.node.member)
    wait(net, 4000)
    assert other.node.replica.raft.state is ServerState.LEADER
    assert away.executor.last_applied > shipped.entry.index
    applied, digest = away.executor.last_applied, away.executor.digest()
    ((done, whole),) = late
    done(whole)
    away.node.stabilize()
    assert (away.executor.last_applied, away.executor.digest()) == (applied, digest)
    assert away.store.entries == [shipped.entry]
    net.mend(leader.node.member)
    same(net)


# ---- what the two sides count between themselves ------------------------------------------------


def test_the_core_hears_of_begin_and_end_and_of_no_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_sender, "CHUNK_NBYTES", 512)
    heard = Counter[str]()
    step = Raft.step

    def stepped(raft: Raft, event: Event) -> list[Effect]:
        heard[type(event.message if isinstance(event, Received) else event).__name__] += 1
        return step(raft, event)

    net = Disks()
    leader, away = left_behind(net)
    chunks = -(-newest(leader).nbytes // 512)
    assert chunks > 5
    monkeypatch.setattr(Raft, "step", stepped)
    net.mend(away.node.member)
    wait(net, 3000)
    same(net)
    assert heard["LeaderHeard"] == chunks
    assert heard["PeerHeard"] == chunks, "one for the offer, and one for each chunk but the last"
    assert heard["InstallSnapshot"] <= 2
    assert heard["InstallReply"] <= 2
    assert heard["SnapshotShipping"] == heard["SnapshotInstalled"] == 1


def test_an_offer_that_nobody_answers_is_repeated_with_each_heartbeat() -> None:
    net = Disks()
    leader, away = left_behind(net)
    net.mend(away.node.member)
    until_offered(net, leader)
    away.node.host.links.clear()
    interval_ms = leader.replica.raft.options.heartbeat_interval_ms
    leader.node.host.calls.clear()
    for _ in range(10):
        net.stabilize(interval_ms, rounds=1)
    assert leader.replica.raft.state is ServerState.LEADER
    assert 8 <= leader.node.host.calls.count("send INSTALL_SNAPSHOT") <= 11


def test_who_cannot_take_a_snapshot_yet_is_sent_one_when_there_is_one() -> None:
    """The core asks once. The sender keeps that in mind while there is no file to send."""
    net = Disks()
    leader, away = left_behind(net)
    leader.env.corrupt(path_of(newest(leader)), 100, 1)
    leader.executor.obstacle = "not now"
    net.mend(away.node.member)
    wait(net, 3000)
    assert away.executor.last_applied < leader.log.first_index
    leader.executor.obstacle = ""
    wait(net, 3000)
    same(net)


def test_bytes_of_a_leader_that_was_replaced_are_refused_with_the_newer_term() -> None:
    net = Disks()
    leader, away = left_behind(net)
    net.mend(away.node.member)
    net.stabilize(20, rounds=1)
    term = away.replica.raft.current_term
    snapshot = newest(leader)
    leader_id, digest = leader.node.member, snapshot.digest
    chunk = InstallSnapshot(term - 1, leader_id, 1, snapshot.entry, snapshot.nbytes, digest, 0)
    away.node.host.sent.clear()
    frame = split_frame(encode_install(chunk, 3) + b"abc")
    away.replica.receive_peer(leader_id, frame)
    away.node.turn()
    answers = [decode_peer(frame) for _, frame in away.node.host.sent]
    assert InstallReply(term, 1, snapshot.entry, 0, done=False) in answers
    assert not [name for name in away.snapshots if name.endswith(".part")]


def test_bytes_that_name_another_leader_than_their_sender_are_dropped() -> None:
    net = Disks()
    leader, away = left_behind(net)
    net.mend(away.node.member)
    net.stabilize(20, rounds=1)
    raft, host = away.replica.raft, away.node.host
    assert raft.leader == leader.node.member
    snapshot, third = newest(leader), next(iter({*raft.peers} - {raft.leader}))
    is_written: list[bool] = []
    for named, data in ((raft.leader, b""), (third, b"abc"), (raft.leader, b"abc")):
        chunk = InstallSnapshot(
            raft.current_term, named, 9, snapshot.entry, snapshot.nbytes, snapshot.digest, 0
        )
        frame = split_frame(encode_install(chunk, len(data)) + data)
        away.replica.receive_peer(raft.leader, frame)
        away.node.turn()
        is_written.append(bool(host.jobs[Lane.ASIDE]))
    assert is_written == [False, False, True]
