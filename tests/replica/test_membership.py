"""Changes of the members as one replica carries them out: entries, files, snapshots and links."""

from __future__ import annotations

import pytest

from copycat.errors import VersionMismatchError, WrongDirectoryError
from copycat.member.configuration_file import CONFIGURATION_FILES, NOTHING_STORED
from copycat.protocol.client import Failure, Refusal, Register, ViewRequest
from copycat.protocol.codec_client import encode_client
from copycat.protocol.codec_configuration import decode_configuration, encode_configuration
from copycat.protocol.codec_peer import (
    decode_peer,
    decode_return,
    encode_append,
    encode_forward,
)
from copycat.protocol.framing import split_frame
from copycat.protocol.peer import AppendEntries, AppendReply
from copycat.protocol.wire import FrameType
from copycat.replica.members import PeerRefused
from copycat.storage import encode_batch
from copycat.types import (
    NO_ENTRY,
    ChangeKind,
    Durability,
    EntryId,
    EntryKind,
    MemberType,
    ServerState,
    Span,
    StorageLevel,
)
from tests.replica.clusters import PATH, Cluster, Member

D, E = "127.0.0.1:4", "127.0.0.1:5"


def three(**options: object) -> Cluster:
    cluster = Cluster(3, **options)
    cluster.elect()
    return cluster


def test_a_cluster_that_never_changes_has_neither_file_nor_incarnation() -> None:
    cluster = three()
    for each in cluster.members:
        assert not any(each.env.exists(f"{PATH}/{name}") for name in CONFIGURATION_FILES)
        assert each.directory.identity.cluster_incarnation == 0
        assert each.replica.members.cluster_incarnation == 0


def test_a_member_that_is_added_gets_everything() -> None:
    cluster = three()
    added = cluster.add(D)
    for each in cluster.members:
        assert each.types[D] == "passive"
        assert each.configuration == cluster.leader.configuration
        assert each.executor.last_applied == cluster.leader.executor.last_applied
    assert added.replica.raft.state.value == "follower"


def test_c41_all_members_learn_the_incarnation_and_say_it() -> None:
    cluster = three()
    cluster.add(D)
    incarnations = {each.replica.members.cluster_incarnation for each in cluster.members}
    assert incarnations == {cluster.leader.directory.identity.incarnation}
    for each in cluster.members:
        assert {each.directory.identity.cluster_incarnation} == incarnations
        assert each.stored.cluster_incarnation in incarnations
    cluster.change(ChangeKind.REMOVE, cluster.members[-1], MemberType.INACTIVE)
    assert {each.replica.members.cluster_incarnation for each in cluster.members} == incarnations


# ---- the file, and a restart --------------------------------------------------------------------


@pytest.mark.parametrize("has_file", [True, False])
def test_a_restart_knows_what_its_log_holds(has_file: bool) -> None:
    cluster = three()
    cluster.add(D)
    cluster.add(E, MemberType.RESERVE)
    before = cluster.leader.configuration
    for each in cluster.members[:3]:
        cluster.cut(each)
        if not has_file:
            for name in CONFIGURATION_FILES:
                each.env.remove(f"{PATH}/{name}")
        each.crash()
        assert each.configuration == before
        cluster.mend(each)
    cluster.elect()
    cluster.run(20)
    assert all(each.replica.raft.known_configuration == before for each in cluster.members)
    assert all(each.stored.records[0].entry == before.entry for each in cluster.members)


def test_a_killed_process_finds_in_its_log_what_its_file_does_not_say_yet() -> None:
    """The entry is in the page cache, and the sync that writes the file never began."""
    cluster = three()
    leader = cluster.leader
    newcomer = cluster.newcomer(D)
    cluster.run(3)
    cluster.ask(ChangeKind.ADD, newcomer, MemberType.PASSIVE)
    leader.turn()
    newest = leader.configuration
    assert leader.types[D] == "passive"
    assert leader.stored == NOTHING_STORED
    leader.env.crash_process()
    leader.start()
    assert leader.configuration == newest
    assert leader.replica.members.cluster_incarnation == 0, "it is not known to be committed"


def test_c35_what_is_rolled_back_is_forgotten_on_the_disk_too_and_names_no_cluster() -> None:
    cluster = three()
    old = cluster.leader
    newcomer = cluster.newcomer(D)
    cluster.run(3)
    cluster.ask(ChangeKind.ADD, newcomer, MemberType.PASSIVE)
    cluster.cut(old)
    old.turn()
    old.stabilize()
    assert old.stored.records[-1].cluster_incarnation == old.directory.identity.incarnation
    new = cluster.elect()
    cluster.append(3)
    cluster.mend(old)
    cluster.run(20)
    assert D not in old.types
    assert newcomer.member not in old.replica.members.peers
    assert {each.entry for each in old.stored.records} == {NO_ENTRY}
    cluster.change(ChangeKind.ADD, newcomer, MemberType.PASSIVE)
    assert old.replica.members.cluster_incarnation == new.directory.identity.incarnation
    assert old.directory.identity.cluster_incarnation == new.directory.identity.incarnation


def test_c35_a_snapshot_holds_the_configuration_in_force_at_its_index() -> None:
    cluster = three()
    leader = cluster.leader
    assert snapshot_configuration(leader) == b""
    added = cluster.add(D)
    at_d = leader.configuration
    data = snapshot_configuration(leader)
    record = decode_configuration(data, "x")
    assert (record.entry, record.members) == (at_d.entry, at_d.members)
    assert record.cluster_incarnation == leader.directory.identity.incarnation
    cluster.add(E, MemberType.RESERVE)
    leader.stop()
    leader.start()
    assert [row.entry for row in leader.replica.raft.configurations.rows][-2:] == [
        at_d.entry,
        leader.configuration.entry,
    ]
    assert added.configuration == leader.configuration


def snapshot_configuration(member: Member) -> bytes:
    """That of a snapshot that is taken now."""
    answers: list[object] = []
    member.replica.take_snapshot(answers.append)
    for _ in range(4):
        member.turn()
        member.stabilize()
    store = member.directory.snapshots
    assert store is not None
    assert store.newest is not None, answers
    return store.newest.configuration


def test_c35_a_snapshot_holds_no_configuration_that_is_not_committed() -> None:
    cluster = three()
    leader = cluster.leader
    newcomer = cluster.newcomer(D)
    cluster.append(1)
    cluster.run(2)
    answers = cluster.ask(ChangeKind.ADD, newcomer, MemberType.PASSIVE)
    for each in cluster.members[:3]:
        if each is not leader:
            cluster.cut(each)
    leader.turn()
    assert leader.types[D] == "passive", "it is the newest"
    assert not answers
    assert snapshot_configuration(leader) == b""


def test_who_is_behind_the_log_gets_configuration_and_cluster_with_a_snapshot() -> None:
    cluster = three()
    leader = cluster.leader
    away = next(each for each in cluster.members if each is not leader)
    cluster.cut(away)
    cluster.add(D)
    for _ in range(3):
        cluster.append(12)
        snapshot_configuration(leader)
    assert leader.directory.log.first_index > away.directory.log.last_index + 10
    cluster.mend(away)
    cluster.run(60)
    assert away.configuration == leader.configuration
    assert away.executor.last_applied == leader.executor.last_applied
    incarnation = leader.directory.identity.cluster_incarnation
    assert away.directory.identity.cluster_incarnation == incarnation
    away.crash()
    assert away.configuration == leader.configuration


@pytest.mark.slow
@pytest.mark.parametrize("operations", range(0, 60, 3))
def test_c35_an_acknowledged_configuration_survives_a_power_cut_anywhere(operations: int) -> None:
    """At level "memory" only the file knows it; what was not acknowledged may be lost."""
    cluster = three(level=StorageLevel.MEMORY)
    leader = cluster.leader
    victim = next(each for each in cluster.members if each is not leader)
    newcomer = cluster.newcomer(D)
    old = victim.configuration
    answers = cluster.ask(ChangeKind.ADD, newcomer, MemberType.PASSIVE)
    victim.env.stop_after(operations)
    cluster.run(6)
    entry = leader.configuration.entry
    assert answers or entry == leader.configuration.entry
    is_acknowledged = leader.replica.raft.match_index(victim.member) >= entry.index > 0
    cluster.cut(victim)
    victim.crash(operations)
    assert victim.configuration in (old, leader.configuration)
    if is_acknowledged:
        assert victim.configuration == leader.configuration


@pytest.mark.parametrize("durability", list(Durability))
@pytest.mark.parametrize("level", [StorageLevel.MEMORY, StorageLevel.DISK])
def test_c35_it_is_on_the_disk_before_it_is_acknowledged_in_every_mode(
    level: StorageLevel, durability: Durability
) -> None:
    cluster = three(level=level, durability=durability)
    leader = cluster.leader
    newcomer = cluster.newcomer(D)
    cluster.run(2)
    cluster.ask(ChangeKind.ADD, newcomer, MemberType.PASSIVE)
    for _ in range(60):
        cluster.run(1)
        index = leader.configuration.entry.index
        for each in cluster.members:
            if index and leader.replica.raft.match_index(each.member) >= index:
                env = each.env.clone()
                env.crash(7)
                assert each.directory.configuration_file.read().records[-1].entry.index == index
    assert leader.types[D] == "passive"


def test_c35_memory_forgets_nobody() -> None:
    """The log is in memory. D and E are added, A, B and C lose everything at the same time: they
    know that D and E are voters too, and do not begin again without them."""
    cluster = three(level=StorageLevel.MEMORY)
    added = [cluster.add(address, MemberType.ACTIVE) for address in (D, E)]
    assert set(cluster.leader.types.values()) == {"active"}
    cluster.append(3)
    last_index = cluster.leader.directory.log.last_index
    for each in added:
        cluster.cut(each)
    for each in cluster.members[:3]:
        cluster.restart(each, cleanly=False)
    cluster.run(60, 100)
    for each in cluster.members[:3]:
        assert len(each.configuration.voters) == 5
        assert each.replica.raft.state is not ServerState.LEADER
        assert each.directory.log.last_index < last_index
    for each in added:
        assert each.directory.log.last_index == last_index


# ---- versions -----------------------------------------------------------------------------------


def unknown_version(member: Member) -> None:
    """The log of this member ends with a configuration of a version that nobody knows."""
    log = member.directory.log
    record = member.directory.configuration_file.read().records[0]
    payload = bytearray(encode_configuration(record))
    payload[0] = 2
    item = (int(EntryKind.CONFIGURATION), 0, 0, 0, 1, bytes(payload))
    log.append(encode_batch(log.last_entry.term, log.last_index + 1, 0, [item]))
    ticket = log.begin_sync()
    ticket.run()
    log.end_sync(ticket)


def test_c47_a_start_stops_at_an_entry_of_an_unknown_version() -> None:
    cluster = three()
    cluster.add(D)
    member = cluster.members[0]
    unknown_version(member)
    with pytest.raises(VersionMismatchError, match="is a configuration of version 2"):
        member.crash()


def test_c47_a_member_that_receives_one_stops_and_says_so() -> None:
    cluster = three()
    cluster.add(D)
    leader = cluster.leader
    cluster.cut(leader)
    unknown_version(leader)
    for each in cluster.members:
        if each is not leader and each.replica.raft.state is not ServerState.LEADER:
            batch = leader.directory.log.read(
                leader.directory.log.last_index, leader.directory.log.last_index + 1, 1 << 20
            )
            message = append_of(leader, batch.span)
            header = encode_append(message, batch.nbytes)
            each.replica.receive_peer(
                leader.member, split_frame(header + bytes(memoryview(batch)))
            )
            each.turn()
            assert isinstance(each.replica.stopped, VersionMismatchError)
            assert "is a configuration of version 2" in str(each.replica.stopped)
            break


def append_of(leader: Member, span: Span) -> AppendEntries:
    raft = leader.replica.raft
    prev = raft.terms.last
    return AppendEntries(raft.current_term, leader.member, 1 << 40, prev, span, raft.commit_index)


# ---- reserves -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_reserve_has_no_log_and_comes_back_as_a_joiner() -> None:
    cluster = three()
    member = cluster.add(D)
    cluster.append(3)
    assert member.directory.log.last_index > 0
    cluster.change(ChangeKind.DEMOTE, member, MemberType.RESERVE)
    cluster.run(20)
    assert member.directory.log.last_index == 0
    assert member.executor.last_applied == 0
    assert member.was_wiped
    assert not member.stored.is_wiped, "nothing is left to delete"
    assert member.configuration == cluster.leader.configuration
    assert member.directory.hard_state.current_term == cluster.leader.replica.raft.current_term
    cluster.restart(member, cleanly=False)
    cluster.run(10)
    assert member.directory.log.last_index == 0
    cluster.change(ChangeKind.PROMOTE, member, MemberType.PASSIVE)
    cluster.append(2)
    cluster.run(20)
    assert not member.stored.is_wiped
    assert member.executor.last_applied == cluster.leader.executor.last_applied
    cluster.restart(member, cleanly=False)
    assert member.directory.log.last_index > 0, "it keeps the log that it has again"


@pytest.mark.slow
@pytest.mark.parametrize("operations", range(0, 40, 2))
def test_a_wipe_that_a_power_cut_ended_is_completed_or_has_not_begun(operations: int) -> None:
    cluster = three()
    member = cluster.add(D)
    cluster.append(2)
    answers = cluster.ask(ChangeKind.DEMOTE, member, MemberType.RESERVE)
    member.env.stop_after(operations)
    cluster.run(30)
    member.env.crash(operations)
    member.env.stop_after(1 << 62)
    cluster.cut(member)
    cluster.mend(member)
    member.start()
    member.now_ms = cluster.leader.now_ms
    cluster.run(40)
    assert answers
    assert member.was_wiped
    assert not member.stored.is_wiped, "nothing is left to delete"
    assert member.directory.log.last_index == 0
    assert member.types[D] == "reserve"


# ---- links --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_c41_founders_again_do_not_reach_the_members_that_replaced_them() -> None:
    cluster = three()
    old = cluster.leader
    for address in (D, E, "127.0.0.1:6"):
        cluster.add(address, MemberType.ACTIVE)
    founders, others = cluster.members[:3], cluster.members[3:]
    for each in [one for one in founders if one is not old]:
        cluster.change(ChangeKind.REMOVE, each, MemberType.INACTIVE)
    again = Cluster(3, salt=1)
    again.elect()
    again.add("127.0.0.1:9")
    new = again.members[0]
    assert new.member == founders[0].member
    with pytest.raises(PeerRefused, match="is a member of another cluster"):
        others[0].replica.accept_peer(split_frame(new.replica.hello()))
    answer = split_frame(others[0].replica.hello())
    with pytest.raises(WrongDirectoryError, match="is a member of another cluster"):
        new.replica.check_hello(others[0].member, answer)


def test_a_member_that_only_some_know_is_answered_by_all() -> None:
    """E was added while B was away; then two of those that know it die. What is left is a
    majority, if B answers E, which it does not know."""
    cluster = Cluster(4)
    cluster.elect()
    leader = cluster.leader
    behind, *others = [each for each in cluster.members if each is not leader]
    cluster.cut(behind)
    added = cluster.add(E, MemberType.ACTIVE)
    for each in (leader, others[0]):
        cluster.cut(each)
    cluster.mend(behind)
    assert E not in behind.types
    cluster.run(1)
    assert added.member in behind.host.dialled
    cluster.elect()
    cluster.run(20, 100)
    assert behind.types[E] == "active"


def test_who_is_removed_is_told_and_then_not_dialled_any_more() -> None:
    cluster = three()
    member = cluster.add(D)
    cluster.change(ChangeKind.REMOVE, member, MemberType.INACTIVE)
    cluster.run(40)
    assert member.types.get(D) is None, "it was told"
    assert member.was_wiped
    assert not member.stored.is_wiped, "nothing is left to delete"
    assert member.member not in cluster.leader.replica.members


def test_c28_each_answer_says_where_the_log_ends() -> None:
    """An answer that accepts, one that rejects, and that of a reserve."""
    cluster = three()
    reserve = cluster.add(D, MemberType.RESERVE)
    cluster.append(3)
    leader = cluster.leader
    follower = next(each for each in cluster.members[:3] if each is not leader)
    raft = leader.replica.raft
    before = follower.replica.raft.last
    beyond = EntryId(raft.current_term, before.index + 5)
    for asked, prev, expected in (
        (follower, before, (True, before, follower.replica.raft.commit_index)),
        (follower, beyond, (False, before, follower.replica.raft.commit_index)),
        (reserve, before, (True, NO_ENTRY, 0)),
    ):
        span = Span(raft.current_term, prev.index + 1, prev.index + 1)
        heartbeat = AppendEntries(raft.current_term, leader.member, 900, prev, span, 0)
        asked.host.sent.clear()
        asked.replica.receive_peer(leader.member, split_frame(encode_append(heartbeat, 0)))
        asked.turn()
        (answer,) = [
            decode_peer(frame)
            for peer, frame in asked.host.sent
            if peer == leader.member and frame.type == FrameType.APPEND_REPLY
        ]
        assert isinstance(answer, AppendReply)
        assert (answer.accepted, answer.last, answer.commit_index) == expected


def test_c41_who_is_no_member_may_ask_about_the_members_only() -> None:
    cluster = three()
    cluster.add(D)
    stranger = cluster.newcomer(E)
    leader = cluster.leader
    for request, answer in (
        (Register(1, "client", 5000), FrameType.FAILURE),
        (ViewRequest(2), FrameType.CLUSTER_VIEW),
    ):
        frame = encode_forward(7, split_frame(encode_client(request)))
        leader.replica.receive_peer(stranger.member, split_frame(frame))
        leader.host.links.add(stranger.member)
        leader.host.sent.clear()
        leader.turn()
        (returned,) = [
            frame
            for peer, frame in leader.host.sent
            if peer == stranger.member and frame.type == FrameType.RETURN
        ]
        assert split_frame(decode_return(returned)[1]).type == answer


@pytest.mark.slow
def test_f12_a_leader_whose_log_has_no_room_refuses_a_change_and_runs_on() -> None:
    cluster = Cluster(1)
    cluster.elect()
    leader = cluster.leader
    newcomers = [cluster.newcomer(f"127.0.0.1:{n}") for n in range(4, 22)]
    cluster.run(5)
    leader.env.set_free_space(0)
    asked = []
    for newcomer in newcomers:
        asked.append(cluster.ask(ChangeKind.ADD, newcomer, MemberType.RESERVE))
        cluster.run(10)
    assert leader.replica.stopped is None
    refused = [each for answers in asked for each in answers if isinstance(each, Failure)]
    assert refused
    assert {each.code for each in refused} == {Refusal.DISK_FULL}
    leader.env.set_free_space(1 << 40)
    cluster.run(30)
    cluster.change(ChangeKind.ADD, cluster.newcomer(E), MemberType.RESERVE)
