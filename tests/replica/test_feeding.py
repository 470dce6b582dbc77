"""Members that are fed by others, in whole replicas (C26, C27, C29, C31)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from copycat.protocol.codec_feeding import (
    decode_fed_entries,
    decode_fed_snapshot,
    decode_feed_answer,
    decode_feed_request,
    encode_feed_request,
)
from copycat.protocol.feeding import (
    FeedAnswerKind,
    FeedRequest,
    FeedRequestKind,
)
from copycat.protocol.framing import Frame, split_frame
from copycat.protocol.wire import FrameType
from copycat.replica.feeder import HOLD_MS
from copycat.replica.host import Lane
from copycat.types import EntryId, MemberId, MemberType
from tests.replica.clusters import Cluster, Member
from tests.replica.disks import Disk, Disks
from tests.replica.test_snapshotting import left_behind, same
from tests.replica.test_transfers import path_of, wait


def cluster_with_passive(count: int = 3) -> tuple[Cluster, Member, Member]:
    """Three voters and a passive member that has everything; with the leader."""
    cluster = Cluster(count)
    leader = cluster.elect()
    passive = cluster.add("127.0.0.1:9")
    cluster.append(4)
    cluster.run(20)
    assert passive.replica.raft.commit_index == leader.replica.raft.commit_index
    return cluster, leader, passive


def feeder_of(cluster: Cluster, member: Member) -> Member:
    feeder, _ = member.replica.feeding.state
    return cluster.by_id(feeder)


def watch(members: list[Member], monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any, Frame]]:
    """Every frame that is sent from now on: from whom, to whom, and what."""
    frames: list[tuple[Any, Any, Frame]] = []
    for member in members:
        host = member.host
        whole = host.send

        def send(
            peer: MemberId, header: bytes, body: Any, member: Any = member, whole: Any = whole
        ) -> bool:
            data = header + (bytes(memoryview(body)) if body is not None else b"")
            frames.append((member.member, peer, split_frame(data)))
            return bool(whole(peer, header, body))

        monkeypatch.setattr(host, "send", send)
    return frames


def test_a_passive_member_is_fed_by_a_follower_and_sent_heartbeats_by_the_leader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, leader, passive = cluster_with_passive()
    feeder = feeder_of(cluster, passive)
    assert feeder is not leader
    frames = watch(cluster.members, monkeypatch)
    cluster.append(5)
    cluster.run(4)
    to_passive = [(source, frame) for source, to, frame in frames if to == passive.member]
    of_leader = [frame for source, frame in to_passive if source == leader.member]
    heartbeat = min(len(frame.body) for frame in of_leader)
    assert {len(frame.body) for frame in of_leader} == {heartbeat}, "no entries"
    status = passive.replica.status()
    assert (status.feeder, status.feeder_member) == (feeder.address, feeder.member)
    assert leader.replica.status().feeder == ""
    fed = [frame for source, frame in to_passive if frame.type == FrameType.FED_ENTRIES]
    assert fed
    assert {source for source, frame in to_passive if frame in fed} == {feeder.member}
    assert passive.replica.raft.commit_index == leader.replica.raft.commit_index
    assert passive.executor.last_applied == leader.executor.last_applied


def test_the_deletion_floor_moves_with_what_a_fed_member_says() -> None:
    cluster, leader, passive = cluster_with_passive()
    before = leader.replica.raft.cluster_deletion_floor
    cluster.append(6)
    cluster.run(10)
    assert leader.replica.raft.cluster_deletion_floor > before
    cluster.cut(passive)
    cluster.append(6)
    cluster.run(2)
    stays = leader.replica.raft.cluster_deletion_floor
    cluster.run(4)
    assert leader.replica.raft.cluster_deletion_floor == stays


def test_c27_a_feeder_that_is_cut_off_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It hears nothing from the leader, and the passive member hears it: it says that nothing
    newer is committed, for ever."""
    cluster, leader, passive = cluster_with_passive()
    feeder = feeder_of(cluster, passive)
    others = [each for each in cluster.members if each not in (feeder, passive)]
    for other in others:
        cluster.blocked |= {(other.member, feeder.member), (feeder.member, other.member)}
    frames = watch([feeder], monkeypatch)
    cluster.append(3)
    cluster.run(40, 100)
    answers = [decode_feed_answer(f) for _, _, f in frames if f.type == FrameType.FEED_ANSWER]
    assert FeedAnswerKind.NOTHING_NEWER in {each.kind for each in answers}
    assert feeder_of(cluster, passive) is not feeder
    assert passive.replica.feeding.state[1] == 1, "it left one feeder"
    assert passive.replica.raft.commit_index == leader.replica.raft.commit_index


def test_a_feeder_that_stops_is_replaced_without_a_gap() -> None:
    cluster, leader, passive = cluster_with_passive()
    feeder = feeder_of(cluster, passive)
    cluster.cut(feeder)
    cluster.append(5)
    cluster.run(30, 100)
    assert feeder_of(cluster, passive) is not feeder
    assert passive.replica.raft.commit_index == leader.replica.raft.commit_index
    assert passive.executor.last_applied == leader.executor.last_applied


def test_without_a_follower_the_leader_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(1)
    leader = cluster.elect()
    passive = cluster.add("127.0.0.1:9")
    frames = watch(cluster.members, monkeypatch)
    cluster.append(5)
    cluster.run(10)
    assert feeder_of(cluster, passive) is leader
    cluster.add("127.0.0.1:8", MemberType.ACTIVE)
    cluster.run(40)
    assert feeder_of(cluster, passive) is not leader, "there is a follower now"
    assert passive.replica.feeding.state[1] == 0, "nobody failed"
    cluster.append(5)
    cluster.run(10)
    assert FrameType.FED_ENTRIES in {FrameType(frame.type) for _, _, frame in frames}
    assert passive.replica.raft.commit_index == leader.replica.raft.commit_index


def test_c31_a_feeder_refuses_who_has_another_since(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, _, passive = cluster_with_passive()
    feeder = feeder_of(cluster, passive)
    frames = watch([feeder], monkeypatch)
    own = passive.replica.raft.own_record
    good = FeedRequest(
        FeedRequestKind.ENTRIES, 99, 1, EntryId(0, 0), own.configuration, own.since, True
    )
    stale = msgspec.structs.replace(good, since=own.since + 1, stream=100)
    for request in (good, stale):
        feeder.replica.receive_peer(passive.member, split_frame(encode_feed_request(request)))
    stranger = MemberId(12345)
    feeder.host.links.add(stranger)
    feeder.replica.receive_peer(stranger, split_frame(encode_feed_request(good)))
    feeder.turn()
    answers = {
        (to, answer.stream): answer.kind
        for _, to, frame in frames
        if frame.type == FrameType.FEED_ANSWER
        for answer in [decode_feed_answer(frame)]
    }
    assert answers[passive.member, 100] is FeedAnswerKind.NOT_YET
    assert answers[stranger, 99] is FeedAnswerKind.NOT_YET
    assert answers.get((passive.member, 99)) is not FeedAnswerKind.NOT_YET


# ---- voters that were away ----------------------------------------------------------------------


def fed_frames(disks: list[Disk]) -> list[str]:
    return [call for disk in disks for call in disk.node.host.calls if "FED_" in call]


def test_c29_a_voter_that_was_away_is_fed_a_snapshot_and_the_log_by_a_follower() -> None:
    net = Disks()
    leader, away = left_behind(net)
    (follower,) = [each for each in net.disks.values() if each not in (leader, away)]
    net.mend(away.node.member)
    wait(net, 2000)
    same(net)
    assert "send FED_SNAPSHOT" in follower.node.host.calls
    assert "send INSTALL_SNAPSHOT" not in leader.node.host.calls
    assert fed_frames([leader]) == []
    assert away.replica.feeding.state[0] == 0, "the leader's own stream serves it again"
    assert away.node.host.stopped is None


def test_a_snapshot_goes_on_where_its_link_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("copycat.replica.feeder.CHUNK_NBYTES", 64)
    monkeypatch.setattr("copycat.replica.feed_client.CHUNK_NBYTES", 64)
    net = Disks()
    leader, away = left_behind(net)
    (follower,) = [each for each in net.disks.values() if each not in (leader, away)]
    net.mend(away.node.member)
    offsets: list[int] = []
    whole = away.replica.receive_peer

    def receive(peer: MemberId, frame: Frame) -> None:
        if frame.type == FrameType.FED_SNAPSHOT:
            offsets.append(decode_fed_snapshot(frame)[0].offset)
        whole(peer, frame)

    monkeypatch.setattr(away.replica, "receive_peer", receive)
    for _ in range(200):
        net.stabilize(20, rounds=1)
        if len(offsets) >= 3:
            break
    assert len(offsets) >= 3
    for one, two in ((away, follower), (follower, away)):
        one.node.host.links.discard(two.node.member)
        one.replica.peer_down(two.node.member)
    net.stabilize(20)
    before = len(offsets)
    net.mend(away.node.member)
    wait(net, 4000)
    same(net)
    assert min(offsets[before:]) > 0, "the file is not sent from its beginning again"


def test_f17_a_feeder_whose_snapshot_is_damaged_notices_and_feeds_another() -> None:
    net = Disks()
    leader, away = left_behind(net)
    (follower,) = [each for each in net.disks.values() if each not in (leader, away)]
    bad = follower.store.newest
    assert bad is not None
    follower.env.corrupt(path_of(bad), 100, 1)
    net.mend(away.node.member)
    wait(net, 4000)
    same(net)
    newest = follower.store.newest
    assert newest is not None
    assert newest is not bad
    assert away.node.host.stopped is None


def test_c27_a_slow_install_goes_on_with_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The install takes longer than the feeder keeps the front of its log for: it is kept all the
    same, for the asker says that it is still here; and the log goes on without a second
    snapshot."""
    net = Disks()
    leader, away = left_behind(net)
    (follower,) = [each for each in net.disks.values() if each not in (leader, away)]
    away.node.host.slow.add(Lane.ASIDE)
    net.mend(away.node.member)
    for _ in range(100):
        net.stabilize(20, rounds=1)
        if away.replica._snapshot_receiver.is_finishing:
            break
        away.node.host.finish(Lane.ASIDE)
    assert away.replica._snapshot_receiver.is_finishing
    snapshot = follower.store.newest
    assert snapshot is not None
    still = 0
    for _ in range(2 * HOLD_MS // 500):
        away.node.host.calls.clear()
        net.stabilize(500, rounds=2)
        still += away.node.host.calls.count("send FEED_REQUEST")
        assert follower.replica.feeding._feeder.indexes_in_use() == [snapshot.entry.index]
    assert still > 10
    away.node.host.slow.discard(Lane.ASIDE)
    follower.node.host.calls.clear()
    wait(net, 3000)
    same(net)
    assert follower.node.host.calls.count("send FED_SNAPSHOT") == 0, "no second one"


def test_a_full_disk_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, _, passive = cluster_with_passive()
    passive.replica.disk_space.is_full = True
    monkeypatch.setattr(passive.replica.disk_space, "begin", lambda _: None)
    cluster.run(2)
    frames = watch([passive], monkeypatch)
    cluster.append(3)
    cluster.run(30, 100)
    requests = [decode_feed_request(f) for _, _, f in frames if f.type == FrameType.FEED_REQUEST]
    assert {each.kind for each in requests} == {FeedRequestKind.STILL_HERE}
    assert len(requests) >= 2


def test_a_damaged_batch_makes_the_asker_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, leader, passive = cluster_with_passive()
    feeder = feeder_of(cluster, passive)
    whole = feeder.host.send

    def send(peer: MemberId, header: bytes, body: Any) -> bool:
        if header[4] == FrameType.FED_ENTRIES:
            damaged = bytearray(memoryview(body))
            damaged[-1] ^= 1
            body = bytes(damaged)
        return whole(peer, header, body)

    monkeypatch.setattr(feeder.host, "send", send)
    cluster.append(3)
    cluster.run(4)
    assert passive.replica.feeding.state[1] == 1, "it left at once"
    cluster.run(30, 100)
    assert feeder_of(cluster, passive) is not feeder
    assert passive.replica.feeding.state[1] >= 1
    assert passive.replica.raft.commit_index == leader.replica.raft.commit_index
    assert passive.replica.stopped is None


def test_questions_are_pipelined_and_one_is_in_flight_at_the_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, leader, passive = cluster_with_passive()
    cluster.cut(passive)
    monkeypatch.setattr(leader.replica._reader, "_read_bytes_max", 256)
    for member in cluster.members:
        monkeypatch.setattr(member.replica._reader, "_read_bytes_max", 256)
    cluster.append(30)
    cluster.run(5)
    frames = watch(cluster.members, monkeypatch)
    in_flight: list[int] = []
    advance = passive.replica.feeding.advance

    def advanced(now_ms: int) -> None:
        advance(now_ms)
        in_flight.append(passive.replica.feeding._client._in_flight)

    monkeypatch.setattr(passive.replica.feeding, "advance", advanced)
    cluster.mend(passive)
    cluster.run(20)
    assert max(in_flight) == 3
    assert passive.replica.feeding._client._in_flight <= 1
    fed = [frame for _, _, frame in frames if frame.type == FrameType.FED_ENTRIES]
    spans = [decode_fed_entries(frame)[0].span for frame in fed]
    assert len(spans) > 3
    assert all(one.end == two.first for one, two in pairwise(spans))


def test_batches_are_compressed_where_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, leader, passive = cluster_with_passive()
    cluster.cut(passive)
    for member in cluster.members:
        monkeypatch.setattr(member.replica._reader, "_read_bytes_max", 512)
    cluster.append(60)
    cluster.run(5)
    choice = passive.replica.feeding._client._compression
    monkeypatch.setattr(choice, "is_measuring", False)
    monkeypatch.setattr(choice, "compresses", True)
    frames = watch(cluster.members, monkeypatch)
    cluster.mend(passive)
    cluster.run(20)
    fed = [frame for _, _, frame in frames if frame.type == FrameType.FED_ENTRIES]
    assert any(decode_fed_entries(frame)[0].raw_nbytes for frame in fed)
    assert passive.replica.raft.commit_index == leader.replica.raft.commit_index
    assert passive.executor.last_applied == leader.executor.last_applied
