"""What a member says when it cannot serve: no leader, no quorum, who is missing, since when."""

from __future__ import annotations

from copycat.config import RaftOptions
from copycat.machine.kv import KeyValueStore
from copycat.protocol.client import CommandsRefused, Failure, KeepAlive, QueryRequest, Refusal
from copycat.protocol.operations import encode_operation
from copycat.raft.configuration import Configuration, MemberRecord
from copycat.raft.effects import ConfigurationChanged
from copycat.replica.log_clock import LogClock
from copycat.replica.members import MemberTable
from copycat.replica.proposals import WriteStall
from copycat.replica.status import Outage
from copycat.types import ConsistencyLevel, EntryId, MemberId, MemberType, ServerState
from tests.raft.helpers import adopt
from tests.replica.harness import Network, Node, commands

A, B, C, D = (MemberId(number) for number in (1, 2, 3, 4))
ADDRESSES = {A: "a:1", B: "b:1", C: "c:1"}
VOTERS = Configuration.bootstrap(ADDRESSES)


def outage(clock: LogClock) -> Outage:
    members = MemberTable(A, VOTERS)
    return Outage(members, clock, RaftOptions(election_timeout_ms=750))


def clock_at(now_ms: int) -> LogClock:
    return LogClock(MemberTable(A, VOTERS), now_ms, 0, 0)


def test_with_a_majority_in_reach_only_the_leader_is_missing() -> None:
    clock = clock_at(1000)
    known = outage(clock)
    known.link_up(B)
    clock.advance(3500, 0)
    known.frame_received(B)
    why = known.explain()
    assert (why.code, why.missing, why.since_ms) == (Refusal.NO_LEADER, (), 2500)


def test_without_a_majority_it_says_who_is_missing_why_and_since_when() -> None:
    clock = clock_at(1000)
    known = outage(clock)
    known.link_up(B)
    assert known.leader_changed(B)
    clock.advance(5000, 0)
    known.link_down(B)
    known.link_failed(B, "it refused this member (version-mismatch): protocol 2")
    assert known.leader_changed(MemberId(0))
    assert not known.leader_changed(MemberId(0))
    clock.advance(7000, 0)
    why = known.explain()
    assert (why.code, why.missing, why.since_ms) == (Refusal.NO_QUORUM, ("b:1", "c:1"), 2000)
    assert why.reason.startswith("1 of 3 members reachable, 2 needed; no leader for 2.0 s")
    assert "b:1 (it refused this member (version-mismatch): protocol 2), c:1" in why.reason


def test_a_peer_that_is_linked_and_says_nothing_counts_as_missing() -> None:
    clock = clock_at(0)
    known = outage(clock)
    known.link_up(B)
    known.link_up(C)
    clock.advance(2999, 0)
    assert known.explain().code is Refusal.NO_LEADER
    clock.advance(3000, 0)
    why = known.explain()
    assert why.code is Refusal.NO_QUORUM
    assert "connected, but silent" in why.reason
    known.frame_received(C)
    assert known.explain().code is Refusal.NO_LEADER


def test_every_kind_of_request_hears_it_from_a_member_that_is_cut_off() -> None:
    net = Network()
    leader = net.elect()
    net.cut(leader.member)
    for _ in range(40):
        net.stabilize(100)
    others = tuple(sorted(n.address for n in net.nodes.values() if n is not leader))
    leader.replica.receive_client(7, commands(5, 1, KeyValueStore.append("k", b"a")))
    leader.client(KeepAlive(2, 5, 0))
    query = encode_operation(KeyValueStore.size())
    leader.client(QueryRequest(3, 5, 0, 0, ConsistencyLevel.LINEARIZABLE, query))
    leader.turn()
    answers = [message for _, message in leader.host.replies[-3:]]
    assert [type(answer) for answer in answers] == [CommandsRefused, Failure, Failure]
    for answer in answers:
        assert isinstance(answer, CommandsRefused | Failure)
        assert (answer.code, answer.missing) == (Refusal.NO_QUORUM, others)
        assert answer.since_ms > 1000


def test_a_member_that_was_removed_is_named_nowhere() -> None:
    """What was known of it, a link and a full disk, stops nobody and counts for nothing."""
    members = MemberTable(A, VOTERS)
    known = Outage(members, clock_at(0), RaftOptions(election_timeout_ms=750))
    known.leader_changed(A)
    known.link_up(B)
    known.link_up(C)
    known.disk_reported(B, is_full=True)
    assert known.full_disks(is_full=False) == ("b:1",)
    without_b = [record for record in VOTERS.members if record.member != B]
    members.commit(Configuration.from_members(without_b))
    known.link_up(B)  # it was on its way
    assert known.full_disks(is_full=False) == ()
    assert known.write_stall(is_full=False) == WriteStall()
    known.disk_reported(C, is_full=True)
    stall = known.write_stall(is_full=False)
    assert stall.reason == "the disk of c:1 is full: 1 of 2 members take entries, 2 needed"


def test_who_has_no_vote_does_not_count_for_a_majority() -> None:
    passive = MemberRecord(D, MemberType.PASSIVE, "d:1")
    members = MemberTable(A, Configuration.from_members([*VOTERS.members, passive]))
    clock = clock_at(0)
    known = Outage(members, clock, RaftOptions(election_timeout_ms=750))
    known.link_up(D)
    why = known.explain()
    assert why.reason.startswith("1 of 3 voting members reachable, 2 needed;")
    known.leader_changed(A)
    known.link_up(B)
    known.disk_reported(B, is_full=True)
    reason = known.write_stall(is_full=False).reason
    assert "b:1 is full: 1 of 3 voting members take entries, 2 needed" in reason


def test_a_member_without_a_vote_says_that_it_does_not_campaign() -> None:
    node = Node("127.0.0.1:1", ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"))
    raft = node.replica.raft
    passive = raft.configuration.members[0]._replace(type=MemberType.PASSIVE)
    assert passive.member == node.member
    adopt(raft, Configuration.from_members([passive, *raft.configuration.members[1:]]))
    for peer in raft.peers:
        node.replica.outage.link_up(peer)
    node.turn(100)
    reason = node.replica.outage.explain().reason
    assert f"{node.address} is a member without a vote, so it does not campaign" in reason


def test_a_member_without_a_leader_names_its_full_disk() -> None:
    net = Network()
    net.elect()
    for node in net.nodes.values():
        node.log.set_room(0)
    leader = next(n for n in net.nodes.values() if n.replica.raft.state is ServerState.LEADER)
    net.cut(leader.member)
    for _ in range(30):
        net.stabilize(100)
    for node in net.nodes.values():
        if node is not leader:
            why = node.replica.outage.explain()
            assert why.code is Refusal.NO_LEADER
            assert f"the disk of {node.address} is full, so it does not campaign" in why.reason


def test_a_member_with_an_empty_directory_says_that_it_has_no_vote() -> None:
    node = Node("127.0.0.1:1", ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"), fresh=True)
    node.turn(3000)
    reason = node.replica.outage.explain().reason
    assert f"the directory of {node.address} is empty, and it has no vote" in reason


def test_only_members_with_a_vote_are_missing_for_a_quorum() -> None:
    passive = MemberRecord(D, MemberType.PASSIVE, "d:1")
    members = MemberTable(A, Configuration.from_members([*VOTERS.members, passive]))
    known = Outage(members, clock_at(0), RaftOptions(election_timeout_ms=750))
    why = known.explain()
    assert (why.code, why.missing) == (Refusal.NO_QUORUM, ("b:1", "c:1"))
    assert why.reason.endswith("unreachable: b:1, c:1")
    assert known.unlinked() == ["b:1", "c:1", "d:1"], "an operator is told of all of them"


def test_c44_a_member_names_itself_by_the_address_where_it_listens() -> None:
    """Its record says another one until its move is committed."""
    node = Node("127.0.0.1:1", ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"), fresh=True)
    records = node.replica.raft.configuration.members
    assert records[0].member == node.member
    moved = records[0]._replace(address="127.0.0.1:9")
    configuration = Configuration.from_members([moved, *records[1:]], EntryId(1, 2))
    node.replica.on_member_effect(ConfigurationChanged(configuration))
    node.turn(3000)
    reason = node.replica.outage.explain().reason
    assert "the directory of 127.0.0.1:1 is empty" in reason
    assert node.replica.status().address == "127.0.0.1:1"
    operation = KeyValueStore.put("k", bytes(2 << 20))
    node.replica.receive_client(7, commands(5, 1, operation))
    node.turn()
    _, refused = node.host.replies[-1]
    assert isinstance(refused, CommandsRefused)
    assert refused.code == Refusal.TOO_LARGE
    assert "of the server 127.0.0.1:1 is" in refused.reason
