"""Feeding when one of the two sides starts again, or waits for its disk (C27)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from copycat.protocol.codec_feeding import (
    decode_fed_entries,
    encode_feed_request,
)
from copycat.protocol.feeding import FeedAnswerKind, FeedRequest, FeedRequestKind
from copycat.protocol.framing import split_frame
from copycat.protocol.wire import FrameType
from copycat.replica.host import Lane
from copycat.storage.snapshot_store import Snapshot
from copycat.types import NO_ENTRY, EntryId, MemberId
from tests.replica.clusters import Member
from tests.replica.disks import Disk, Disks
from tests.replica.test_feeding import cluster_with_passive, feeder_of, watch
from tests.replica.test_snapshotting import left_behind, same
from tests.replica.test_transfers import grow, newest, path_of, wait


def question(member: Member, stream: int, number: int, **rest: Any) -> FeedRequest:
    own = member.replica.raft.own_record
    kind = FeedRequestKind.ENTRIES
    return FeedRequest(kind, stream, number, NO_ENTRY, own.configuration, own.since, False, **rest)


def ask(feeder: Member, asker: Member, request: FeedRequest) -> None:
    feeder.replica.receive_peer(asker.member, split_frame(encode_feed_request(request)))
    feeder.turn()


def test_who_left_a_feeder_and_is_fed_no_more_has_nothing_due() -> None:
    """It left its feeder, and the next heartbeat names nobody: the stream of the leader serves it
    from then on."""
    _, _, passive = cluster_with_passive()
    client = passive.replica.feeding._client
    client.damaged(client.feeder, "as if")
    passive.replica.raft.feeder = MemberId(0)
    for _ in range(10):
        passive.turn(passive.replica.raft.options.election_timeout_ms // 2)
    now_ms = passive.replica._clock.now_ms
    assert passive.replica.feeding.due_ms > now_ms, "no turn after the other for ever"
    assert passive.replica._driver.left_feeder == 0, "it may be named again later"


def test_an_asker_that_starts_again_counts_its_streams_from_one_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The feeder knows a stream of this number, of the process before: it goes by the question."""
    cluster, _, passive = cluster_with_passive()
    feeder = feeder_of(cluster, passive)
    feeder.replica.feeding.link_ended(passive.member)
    frames = watch([feeder], monkeypatch)
    for _ in range(2):
        ask(feeder, passive, question(passive, 77, 1))
    fed = [decode_fed_entries(f)[0] for _, _, f in frames if f.type == FrameType.FED_ENTRIES]
    assert [each.prev for each in fed if each.stream == 77] == [NO_ENTRY, NO_ENTRY]


def unlink(source: Member, target: Member) -> None:
    """`source` cannot write to `target` any more."""
    source.host.links.discard(target.member)
    source.replica.peer_down(target.member)
    source.turn()


def test_an_answer_waits_for_the_link_to_the_asker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The asker has just started and dialled the feeder, which dials it back: without its link
    the answer would be lost, and the asker would wait an election timeout for it."""
    cluster, _, passive = cluster_with_passive()
    feeder = feeder_of(cluster, passive)
    unlink(feeder, passive)
    frames = watch([feeder], monkeypatch)
    ask(feeder, passive, question(passive, 77, 1))
    assert not frames
    cluster.run(1, 0)
    fed = [decode_fed_entries(f)[0] for _, _, f in frames if f.type == FrameType.FED_ENTRIES]
    assert [each.stream for each in fed] == [77]


def test_an_answer_waits_no_longer_than_the_asker(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, _, passive = cluster_with_passive()
    feeder = feeder_of(cluster, passive)
    cluster.blocked.add((feeder.member, passive.member))
    unlink(feeder, passive)
    ask(feeder, passive, question(passive, 77, 1))
    feeder.turn(feeder.replica.raft.options.election_timeout_ms)
    assert not feeder.replica.feeding._feeder._parked


def test_what_is_asked_without_a_link_is_asked_as_soon_as_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, _, passive = cluster_with_passive()
    feeder = feeder_of(cluster, passive)
    unlink(passive, feeder)
    frames = watch([passive], monkeypatch)
    cluster.run(2, 0)  # no time passes
    assert FrameType.FEED_REQUEST in {f.type for _, to, f in frames if to == feeder.member}
    assert feeder_of(cluster, passive) is feeder


def test_a_question_that_waits_for_a_save_makes_no_turn_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, _, passive = cluster_with_passive()
    feeder = feeder_of(cluster, passive)
    raft = feeder.replica.raft
    raft.save_ticket += 1
    assert raft.is_saving
    ask(feeder, passive, question(passive, 77, 1))
    feeder.turn(2 * raft.options.heartbeat_interval_ms)
    assert feeder.replica.feeding.due_ms > feeder.replica._clock.now_ms
    frames = watch([feeder], monkeypatch)
    raft.save_ticket -= 1
    feeder.turn()
    assert FrameType.FED_ENTRIES in {frame.type for _, _, frame in frames}


def fed_of(disk: Disk) -> int:
    return disk.node.host.calls.count("send FED_SNAPSHOT")


def test_a_chunk_that_was_read_during_a_save_is_sent_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = Disks()
    leader, away = left_behind(net)
    (follower,) = [each for each in net.disks.values() if each not in (leader, away)]
    follower.node.host.slow.add(Lane.ASIDE)
    net.mend(away.node.member)
    for _ in range(100):
        net.stabilize(20, rounds=1)
        hold = follower.replica.feeding._feeder._holds.get(away.node.member)
        if hold is not None and hold.snapshot is not None:
            break
    raft = follower.replica.raft
    raft.save_ticket += 1
    follower.node.host.finish(Lane.ASIDE)
    follower.node.turn()
    assert fed_of(follower) == 0, "the term of the answer is not on the disk"
    raft.save_ticket -= 1
    follower.node.turn()
    follower.node.host.finish(Lane.ASIDE)
    follower.node.turn()
    assert fed_of(follower) == 1
    follower.node.host.slow.discard(Lane.ASIDE)
    wait(net, 2000)
    same(net)
    assert away.replica.feeding.state[1] == 0, "no feeder was left"


def test_c27_gaps_that_are_made_during_a_transfer_do_not_end_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The asker takes no gaps, and each compaction makes some that are valid from above the file
    that it receives: with a newer file for each of them none would ever be whole."""
    net = Disks()
    leader, away = left_behind(net)
    (follower,) = [each for each in net.disks.values() if each not in (leader, away)]
    feeder, own = follower.replica.feeding._feeder, away.replica.raft.own_record
    follower.replica.raft.links |= {away.node.member}

    def ask_after(number: int, entry: EntryId) -> EntryId:
        kind = FeedRequestKind.SNAPSHOT
        request = FeedRequest(
            kind, 5, number, NO_ENTRY, own.configuration, own.since, False, snapshot=entry
        )
        feeder.on_request(away.node.member, request)
        snapshot = feeder._holds[away.node.member].snapshot
        return NO_ENTRY if snapshot is None else snapshot.entry

    first = ask_after(1, NO_ENTRY)
    assert first != NO_ENTRY
    grow(net, leader)
    newer = follower.take()
    assert isinstance(newer, Snapshot)
    assert newer.entry.index > first.index
    monkeypatch.setattr(feeder, "_log", SimpleNamespace(valid_from=newer.entry.index))
    assert ask_after(2, first) == first, "the same file goes on"
    assert ask_after(3, NO_ENTRY) == newer.entry, "who begins gets one above the gaps"


def test_f17_the_only_feeder_finds_its_damaged_snapshot() -> None:
    """Nobody else can feed the passive member: the same bytes once more would not help it."""
    net = Disks()
    leader, away = left_behind(net)
    (follower,) = [each for each in net.disks.values() if each not in (leader, away)]
    bad = {disk: newest(disk) for disk in (leader, follower)}
    for disk, snapshot in bad.items():
        disk.env.corrupt(path_of(snapshot), 100, 1)
    net.mend(away.node.member)
    wait(net, 20_000)
    same(net)
    assert away.replica.stopped is None


def test_c27_who_lacks_what_a_snapshot_would_cover_is_not_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An asker waits long for a feeder that is busy, and this one may be cut off."""
    net = Disks()
    leader, away = left_behind(net)
    (follower,) = [each for each in net.disks.values() if each not in (leader, away)]
    feeder, own = follower.replica.feeding._feeder, away.replica.raft.own_record
    follower.replica.raft.links |= {away.node.member}
    kinds: list[FeedAnswerKind] = []

    def answer(peer: MemberId, request: FeedRequest, kind: FeedAnswerKind) -> None:
        kinds.append(kind)

    monkeypatch.setattr(feeder, "_answer", answer)
    kind = FeedRequestKind.SNAPSHOT
    for number, min_index in ((1, 10_000), (2, follower.replica.raft.commit_index)):
        request = FeedRequest(
            kind, 5, number, NO_ENTRY, own.configuration, own.since, True, min_index=min_index
        )
        feeder.on_request(away.node.member, request)
    assert kinds == [FeedAnswerKind.NOT_YET, FeedAnswerKind.BUSY]


def test_c27_a_feeder_that_was_started_again_keeps_its_log_for_who_is_still_here() -> None:
    cluster, _, passive = cluster_with_passive()
    feeder = feeder_of(cluster, passive)
    feeder.replica.feeding.link_ended(passive.member)
    feeder.replica.feeding._feeder._end_hold(passive.member)
    last = EntryId(1, 2)
    request = msgspec.structs.replace(
        question(passive, 77, 0), kind=FeedRequestKind.STILL_HERE, last=last
    )
    ask(feeder, passive, msgspec.structs.replace(request, since=request.since + 1))
    assert feeder.replica.feeding._feeder.indexes_in_use() == []
    ask(feeder, passive, request)
    assert feeder.replica.feeding._feeder.indexes_in_use() == [last.index]
