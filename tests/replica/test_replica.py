"""One replica, then three, under a fake host: order of effects, doors, resends, step-down."""

from __future__ import annotations

import pytest

from copycat.errors import DiskError, ProtocolError
from copycat.machine.kv import KeyValueStore
from copycat.protocol.client import (
    CloseSession,
    Commands,
    CommandsRefused,
    Failure,
    KeepAlive,
    KeptAlive,
    QueryRequest,
    QueryResult,
    Refusal,
    Register,
    Registered,
    Results,
    SessionClosed,
)
from copycat.protocol.codec_hello import decode_hello_refused
from copycat.protocol.codec_peer import decode_peer
from copycat.protocol.framing import Frame, split_frame
from copycat.protocol.operations import encode_operation
from copycat.protocol.peer import AppendReply
from copycat.protocol.results import decode_result, decode_results
from copycat.replica.members import PeerRefused
from copycat.types import ConsistencyLevel, ServerState
from tests.replica.harness import CLIENT, Network, Node, commands, lone_leader, open_session


def results(reply: object) -> list[object]:
    assert isinstance(reply, Results), reply
    return decode_results(reply.body, reply.count, [int] * reply.count)


def send(node: Node, frame: Frame, connection: int = CLIENT) -> None:
    node.replica.receive_client(connection, frame)
    node.turn()


def test_a_command_goes_through_log_and_machine_to_its_answer() -> None:
    node = lone_leader()
    session = open_session(node)
    send(node, commands(session, 1, KeyValueStore.append("k", b"a"), KeyValueStore.size()))
    node.stabilize()
    reply = node.last_reply()
    assert isinstance(reply, Results)
    assert (reply.first_sequence, reply.count) == (1, 2)
    assert node.machine.lists == {"k": [b"a"]}


def test_nothing_is_applied_before_it_is_durable_on_a_majority() -> None:
    node = lone_leader()
    session = open_session(node)
    send(node, commands(session, 1, KeyValueStore.append("k", b"a")))
    for _ in range(5):
        node.finish_work()
        node.turn(10)
    assert node.machine.lists == {}
    node.stabilize()
    assert node.machine.lists == {"k": [b"a"]}


def test_leader_sends_before_it_syncs_and_flushes_between() -> None:
    net = Network()
    leader = net.elect()
    session = open_session_in(net, leader)
    leader.host.calls.clear()
    send(leader, commands(session, 1, KeyValueStore.append("k", b"a")))
    calls = leader.host.calls
    assert calls.count("send APPEND_ENTRIES") == 2
    assert calls.index("send APPEND_ENTRIES") < calls.index("write_queued") < calls.index("sync")


def matches(follower: Node, leader: Node) -> list[int]:
    """match_index of every AppendReply that waits to go to the leader."""
    replies = [decode_peer(f) for peer, f in follower.host.sent if peer == leader.member]
    return [reply.match_index for reply in replies if isinstance(reply, AppendReply)]


def open_session_in(net: Network, leader: Node, connection: int = CLIENT) -> int:
    leader.client(Register(1, f"client-{connection}", 5000), connection)
    net.stabilize()
    reply = leader.last_reply()
    assert isinstance(reply, Registered), reply
    return reply.session


def test_c1_a_follower_answers_at_once_and_again_when_durable() -> None:
    net = Network()
    leader = net.elect()
    session = open_session_in(net, leader)
    send(leader, commands(session, 1, KeyValueStore.append("k", b"a")))
    follower = next(node for node in net.nodes.values() if node is not leader)
    net.deliver()
    follower.turn()
    assert matches(follower, leader) == [leader.log.last_index - 1]
    follower.finish_syncs()
    follower.turn()
    assert matches(follower, leader) == [leader.log.last_index - 1, leader.log.last_index]


def test_an_inline_sync_makes_one_answer_of_both() -> None:
    net = Network()
    leader = net.elect()
    session = open_session_in(net, leader)
    follower = next(node for node in net.nodes.values() if node is not leader)
    follower.host.inline = True
    send(leader, commands(session, 1, KeyValueStore.append("k", b"a")))
    net.deliver()
    follower.turn()
    assert matches(follower, leader) == [leader.log.last_index]


def test_c18_a_resent_run_is_answered_from_the_cache_and_never_logged_twice() -> None:
    node = lone_leader()
    session = open_session(node)
    run = commands(session, 1, KeyValueStore.append("k", b"a"), KeyValueStore.append("k", b"b"))
    send(node, run)
    node.stabilize()
    first, last_index = node.last_reply(), node.log.last_index
    send(node, run, connection=8)
    node.stabilize()
    assert isinstance(first, Results)
    again = node.last_reply()
    assert isinstance(again, Results)
    assert (bytes(again.body), node.host.replies[-1][0]) == (bytes(first.body), 8)
    assert node.log.last_index == last_index
    assert node.machine.lists == {"k": [b"a", b"b"]}


def test_a_run_that_overlaps_what_is_logged_adds_only_its_end() -> None:
    node = lone_leader()
    session = open_session(node)
    items = [KeyValueStore.append("k", bytes([n])) for n in range(5)]
    send(node, commands(session, 1, *items[:3]))
    send(node, commands(session, 2, *items[1:]))
    node.stabilize()
    assert node.machine.lists["k"] == [bytes([n]) for n in range(5)]
    sequences = sorted(
        n
        for _, reply in node.host.replies
        if isinstance(reply, Results)
        for n in range(reply.first_sequence, reply.first_sequence + reply.count)
    )
    assert sequences == [1, 2, 3, 4, 5]


def test_a_gap_is_refused_with_the_sequence_to_go_on_from() -> None:
    node = lone_leader()
    session = open_session(node)
    send(node, commands(session, 4, KeyValueStore.append("k", b"a")))
    refusal = node.last_reply()
    assert refusal == CommandsRefused(session, 1, Refusal.COMMAND, node.address)


def test_unknown_session_is_refused_at_the_door() -> None:
    node = lone_leader()
    session = open_session(node)
    node.client(CloseSession(3, session))
    node.turn()
    node.stabilize()
    send(node, commands(session, 1, KeyValueStore.append("k", b"a")))
    assert node.last_reply() == CommandsRefused(session, 1, Refusal.UNKNOWN_SESSION, node.address)
    node.client(KeepAlive(5, session, 0))
    node.turn()
    refusal = node.last_reply()
    assert isinstance(refusal, Failure)
    assert (refusal.request, refusal.code) == (5, Refusal.UNKNOWN_SESSION)


def test_keep_alive_and_close_are_answered() -> None:
    node = lone_leader()
    session = open_session(node)
    node.client(KeepAlive(2, session, 0))
    node.turn()
    node.stabilize()
    assert isinstance(node.last_reply(), KeptAlive)
    node.client(CloseSession(3, session))
    node.turn()
    node.stabilize()
    assert node.last_reply() == SessionClosed(3)
    assert node.replica.status().sessions == 0


def test_a_silent_session_expires_without_any_traffic() -> None:
    node = lone_leader()
    open_session(node)
    assert node.replica.status().sessions == 1
    for _ in range(60):
        node.turn(100)
        node.stabilize()
    assert node.replica.status().sessions == 0


def test_overload_is_refused_with_where_to_go_on_and_recovers() -> None:
    node = lone_leader()
    session = open_session(node)
    limits = node.replica._proposal_queue._limits
    limits.inflight_commands_max = 2
    items = [KeyValueStore.append("k", bytes([n])) for n in range(4)]
    send(node, commands(session, 1, *items[:2]))
    send(node, commands(session, 3, *items[2:]))
    assert node.last_reply() == CommandsRefused(session, 3, Refusal.OVERLOADED, node.address)
    node.stabilize()
    send(node, commands(session, 3, *items[2:]))
    node.stabilize()
    assert len(node.machine.lists["k"]) == 4


def test_queries_see_the_commands_before_them() -> None:
    node = lone_leader()
    session = open_session(node)
    query = encode_operation(KeyValueStore.items("k"))
    send(node, commands(session, 1, KeyValueStore.append("k", b"a")))
    for number, level in ((2, ConsistencyLevel.LINEARIZABLE), (3, ConsistencyLevel.SEQUENTIAL)):
        node.client(QueryRequest(number, session, 1, 0, level, query))
    node.stabilize()
    answers = [m for _, m in node.host.replies if isinstance(m, QueryResult)]
    assert [decode_result(m.body, list[bytes]) for m in answers] == [[b"a"], [b"a"]]


def test_a_follower_passes_requests_on_and_the_answer_comes_back() -> None:
    net = Network()
    leader = net.elect()
    follower = next(node for node in net.nodes.values() if node is not leader)
    session = open_session_in(net, follower)
    follower.replica.receive_client(CLIENT, commands(session, 1, KeyValueStore.append("k", b"a")))
    net.stabilize()
    assert results(follower.last_reply()) == [1]
    assert leader.host.replies == []


def test_step_down_answers_everybody_who_waits() -> None:
    net = Network()
    leader = net.elect()
    session = open_session_in(net, leader)
    net.cut(leader.member)
    send(leader, commands(session, 1, KeyValueStore.append("k", b"a")))
    leader.client(Register(9, "late", 0), 8)
    leader.client(
        QueryRequest(
            10,
            session,
            1,
            0,
            ConsistencyLevel.LINEARIZABLE,
            encode_operation(KeyValueStore.size()),
        ),
        8,
    )
    leader.turn()
    for _ in range(20):
        leader.turn(100)
    assert leader.replica.raft.state is not ServerState.LEADER
    codes = {type(m).__name__: getattr(m, "code", 0) for _, m in leader.host.replies[-3:]}
    assert codes == {"CommandsRefused": Refusal.NO_LEADER, "Failure": Refusal.NO_LEADER}
    assert {m.request for _, m in leader.host.replies if isinstance(m, Failure)} == {9, 10}


def test_followers_tell_those_they_relayed_for_when_the_leader_is_gone() -> None:
    net = Network()
    leader = net.elect()
    follower = next(node for node in net.nodes.values() if node is not leader)
    session = open_session_in(net, follower)
    net.cut(leader.member)
    follower.replica.outage.leader_changed(leader.member)
    follower.replica._requests.forwarded_requests.add(CLIENT, Commands(session, 1, 0, 1, b""))
    for _ in range(30):
        net.stabilize(100)
    refusals = [m for _, m in follower.host.replies if isinstance(m, CommandsRefused)]
    assert refusals
    assert refusals[0].code == Refusal.NO_LEADER


def test_committed_entries_are_equal_on_all_three() -> None:
    net = Network()
    leader = net.elect()
    session = open_session_in(net, leader)
    for n in range(1, 6):
        send(leader, commands(session, n, KeyValueStore.append("k", bytes([n]))))
        net.stabilize()
    for _ in range(6):
        net.stabilize(100)
    digests = {node.executor.digest() for node in net.nodes.values()}
    assert len(digests) == 1
    assert all(
        node.machine.lists["k"] == [bytes([n]) for n in range(1, 6)] for node in net.nodes.values()
    )


def test_c16_hellos_that_do_not_fit_are_refused_with_both_lists() -> None:
    mine = Node("127.0.0.1:1", ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"))
    other = Node("127.0.0.1:2", ("127.0.0.1:1", "127.0.0.1:2"))
    with pytest.raises(PeerRefused, match=r"127.0.0.1:1, 127.0.0.1:2; .*127.0.0.1:3") as caught:
        mine.replica.accept_peer(split_frame(other.replica.hello()))
    refused = decode_hello_refused(split_frame(caught.value.frame))
    assert refused.code == "bad-config"


def test_c16_another_directory_under_a_committed_incarnation_is_refused() -> None:
    net = Network()
    leader = net.elect()
    nodes = list(net.nodes.values())
    for node in nodes:
        for other in nodes:
            if other is not node:
                node.replica.accept_peer(split_frame(other.replica.hello()))
    for _ in range(4):
        net.stabilize(200)
    lost = next(node for node in nodes if node is not leader)
    assert leader.replica.members.committed_incarnations.keys() == net.nodes.keys()
    fresh = Node(lost.address, lost.replica._options.members)
    fresh.replica._handshake._incarnation += 1
    with pytest.raises(PeerRefused, match="another directory"):
        leader.replica.accept_peer(split_frame(fresh.replica.hello()))


def test_c16_a_lost_disk_is_refused_by_one_that_has_just_started_too() -> None:
    net = Network()
    leader = net.elect()
    nodes = list(net.nodes.values())
    for node in nodes:
        for other in nodes:
            if other is not node:
                node.replica.accept_peer(split_frame(other.replica.hello()))
    for _ in range(4):
        net.stabilize(200)
    lost = next(node for node in nodes if node is not leader)
    leader.log.close()
    leader.log.reopen()
    again = Node(leader.address, leader.replica._options.members, log=leader.log)
    assert (again.replica.members.committed_incarnations, again.replica.status().commit_index) == (
        {},
        0,
    )
    fresh = Node(lost.address, lost.replica._options.members)
    again.replica.accept_peer(split_frame(fresh.replica.hello()))
    fresh.replica._handshake._incarnation += 1
    with pytest.raises(PeerRefused, match="another directory"):
        again.replica.accept_peer(split_frame(fresh.replica.hello()))


def test_frames_that_do_not_add_up_are_protocol_errors_and_hurt_nobody() -> None:
    node = lone_leader()
    session = open_session(node)
    good = commands(session, 1, KeyValueStore.append("k", b"a"))
    for bad in (Frame(35, 0, good.body[:-1]), Frame(200, 0, good.body), Frame(36, 0, good.body)):
        with pytest.raises(ProtocolError):
            node.replica.receive_client(CLIENT, bad)
    send(node, good)
    node.stabilize()
    assert results(node.last_reply()) == [1]


def test_f9_a_failed_sync_stops_the_member_and_no_promise_leaves() -> None:
    node = lone_leader()
    session = open_session(node)
    send(node, commands(session, 1, KeyValueStore.append("k", b"a")))
    answers = len(node.host.replies)
    node.replica.failed(DiskError("fdatasync: EIO"))
    node.replica.turn(node.now_ms + 100, 0)
    assert isinstance(node.host.stopped, DiskError)
    assert len(node.host.replies) == answers


def test_i19_a_leader_that_was_left_behind_does_not_call_a_newer_session_unknown() -> None:
    """Leader 1 is cut off and does not know it yet; 2 leads and opens a session (seed
    1035366040809: its client reached 1, was told "unknown session", and gave the session up)."""
    net = Network()
    old = net.elect()
    rest = [node for node in net.nodes.values() if node is not old]
    for node in rest:  # 1 still thinks that it has its links
        for one, other in ((old, node), (node, old)):
            one.host.links.discard(other.member)
        node.replica.peer_down(old.member)
    for _ in range(60):
        for node in rest:
            node.turn(50)
        for _ in range(6):
            net.deliver()
            for node in rest:
                node.stabilize(rounds=2)
    new = next(node for node in rest if node.replica.raft.state is ServerState.LEADER)
    new.client(Register(1, "somebody", 5000))
    for _ in range(6):
        for node in rest:
            node.stabilize(rounds=2)
        net.deliver()
    opened = new.last_reply()
    assert isinstance(opened, Registered), opened

    assert old.replica.raft.state is ServerState.LEADER
    old.client(KeepAlive(7, opened.session, 0))
    old.turn()
    send(old, commands(opened.session, 1, KeyValueStore.append("k", b"a")))
    codes = {getattr(reply, "code", None) for _, reply in old.host.replies}
    assert Refusal.UNKNOWN_SESSION not in codes
    assert Refusal.NO_LEADER in codes, "commands are sent elsewhere"


def test_a_session_that_never_was_is_called_unknown_by_the_log_itself() -> None:
    node = lone_leader()
    node.client(KeepAlive(5, 999_999, 0))
    node.turn()
    node.stabilize()
    refusal = node.last_reply()
    assert isinstance(refusal, Failure)
    assert (refusal.request, refusal.code) == (5, Refusal.UNKNOWN_SESSION)
