"""F12 where the leader has room and too many followers have none: the clients hear why."""

from __future__ import annotations

from copycat.machine.kv import KeyValueStore
from copycat.protocol.client import (
    CommandsRefused,
    Failure,
    KeepAlive,
    QueryRequest,
    QueryResult,
    Refusal,
    Register,
    Registered,
    Results,
    ServerMessage,
)
from copycat.protocol.operations import encode_operation
from copycat.replica.proposals import WriteStall
from copycat.types import ConsistencyLevel, ServerState
from tests.replica.harness import CLIENT, Network, Node, commands

ITEM = KeyValueStore.append("k", b"a")


def elected(count: int = 3) -> tuple[Network, Node, list[Node]]:
    """Everybody up to date; the leader and its followers."""
    net = Network(count)
    leader = net.elect()
    for _ in range(4):
        net.stabilize(100)
    return net, leader, [node for node in net.nodes.values() if node is not leader]


def register(net: Network, leader: Node) -> int:
    leader.client(Register(1, "client", 5000))
    net.stabilize()
    reply = leader.last_reply()
    assert isinstance(reply, Registered), reply
    return reply.session


def pass_time(net: Network, seconds: float = 0.5) -> None:
    for _ in range(int(seconds * 10)):
        net.stabilize(100)


def answers(leader: Node) -> list[ServerMessage]:
    """What the leader answered since this was asked last."""
    messages = [message for _, message in leader.host.replies]
    leader.host.replies.clear()
    return messages


def reason(full: list[Node], able: int = 1, members: int = 3) -> str:
    names = " and ".join(sorted(node.address for node in full))
    verb = "disk of {} is" if len(full) == 1 else "disks of {} are"
    needed = members // 2 + 1
    return (
        f"the {verb.format(names)} full: {able} of {members} members take entries, {needed} needed"
    )


def test_f12_a_leader_refuses_what_full_followers_would_not_take_and_names_them() -> None:
    net, leader, followers = elected()
    session = register(net, leader)
    for node in followers:
        node.log.set_room(0)
    pass_time(net)
    last_index = leader.log.last_index
    why = reason(followers)
    answers(leader)
    leader.replica.receive_client(CLIENT, commands(session, 1, ITEM))
    leader.client(Register(5, "another", 0))
    leader.client(KeepAlive(6, session, 0))
    net.stabilize()
    assert answers(leader) == [
        CommandsRefused(session, 1, Refusal.DISK_FULL, leader.address, why),
        Failure(5, Refusal.DISK_FULL, leader.address, why),
        Failure(6, Refusal.DISK_FULL, leader.address, why),
    ]
    assert leader.log.last_index == last_index, "what cannot be committed is not logged"
    assert leader.replica.disk_space.write_stall == WriteStall(why, stops_commits=True)
    status = leader.replica.status()
    assert status.full_disks == tuple(sorted(node.address for node in followers))
    assert not status.storage_full, "its own disk has room"


def test_f12_who_waits_for_a_commit_hears_that_disks_are_full() -> None:
    """Logged before the leader knew: the outcome stays open, the cause is known."""
    net, leader, followers = elected()
    session = register(net, leader)
    for node in followers:
        node.log.set_room(0)
    answers(leader)
    leader.replica.receive_client(CLIENT, commands(session, 1, ITEM, ITEM))
    leader.client(Register(5, "another", 0))
    pass_time(net)
    why = reason(followers)
    refused = CommandsRefused(session, 3, Refusal.DISK_FULL, leader.address, why)
    assert refused in answers(leader)
    leader.replica.receive_client(8, commands(session, 1, ITEM, ITEM))
    net.stabilize()
    assert answers(leader) == [refused], "a new connection of the session hears it, too"
    for node in followers:
        node.log.set_room(None)
    pass_time(net, 3)
    results = [message for message in answers(leader) if isinstance(message, Results)]
    assert [(each.first_sequence, each.count) for each in results] == [(1, 2)]
    assert all(node.machine.lists == {"k": [b"a", b"a"]} for node in net.nodes.values())


def test_f12_a_register_in_the_log_is_answered_too() -> None:
    net, leader, followers = elected()
    for node in followers:
        node.log.set_room(0)
    leader.client(Register(5, "client", 0))
    pass_time(net)
    failure = Failure(5, Refusal.DISK_FULL, leader.address, reason(followers))
    assert failure in answers(leader)


def test_f12_nobody_expires_while_full_followers_stop_commits() -> None:
    net, leader, followers = elected()
    session = register(net, leader)
    for node in followers:
        node.log.set_room(0)
    pass_time(net)
    last_index = leader.log.last_index
    pass_time(net, 20)
    assert leader.log.last_index == last_index, "leader-written entries wait too"
    for node in followers:
        node.log.set_room(None)
    pass_time(net, 2)
    leader.replica.receive_client(CLIENT, commands(session, 1, ITEM))
    net.stabilize(100)
    assert leader.machine.lists == {"k": [b"a"]}
    assert leader.replica.status().full_disks == ()
    assert leader.replica.disk_space.write_stall == WriteStall()


def test_f12_queries_go_on_while_full_followers_stop_commits() -> None:
    net, leader, followers = elected()
    session = register(net, leader)
    for node in followers:
        node.log.set_room(0)
    pass_time(net)
    query = encode_operation(KeyValueStore.size())
    leader.client(QueryRequest(9, session, 0, 0, ConsistencyLevel.LINEARIZABLE, query))
    net.stabilize()
    assert isinstance(leader.last_reply(), QueryResult)


def test_f12_a_leader_elected_among_full_disks_refuses_what_waits_for_its_first_entry() -> None:
    net, leader, followers = elected()
    session = register(net, leader)
    net.cut(leader.member)
    heir, other = followers
    answers(heir)
    other.log.set_room(0)
    for _ in range(60):
        net.stabilize(100)
        if heir.replica.raft.state is ServerState.LEADER:
            break
    query = encode_operation(KeyValueStore.size())
    heir.client(QueryRequest(9, session, 0, 0, ConsistencyLevel.LINEARIZABLE, query))
    heir.client(KeepAlive(10, session, 0))
    pass_time(net)
    why = reason([other]) + f"; unreachable: {leader.address}"
    assert not heir.replica.status().last_applied >= heir.replica.raft.last.index
    known = {m.request: m for m in answers(heir) if isinstance(m, Failure)}
    assert known == {
        number: Failure(number, Refusal.DISK_FULL, heir.address, why) for number in (9, 10)
    }
    heir.client(QueryRequest(11, session, 0, 0, ConsistencyLevel.LINEARIZABLE, query))
    net.stabilize()
    assert answers(heir) == [Failure(11, Refusal.DISK_FULL, heir.address, why)]
    other.log.set_room(None)
    pass_time(net, 3)
    heir.client(QueryRequest(12, session, 0, 0, ConsistencyLevel.LINEARIZABLE, query))
    net.stabilize()
    assert isinstance(heir.last_reply(), QueryResult)


def test_f12_one_full_follower_of_three_is_named_in_status_and_stops_nothing() -> None:
    net, leader, (full, _) = elected()
    session = register(net, leader)
    full.log.set_room(0)
    pass_time(net)
    leader.replica.receive_client(CLIENT, commands(session, 1, ITEM))
    net.stabilize(100)
    assert leader.machine.lists == {"k": [b"a"]}
    assert leader.replica.status().full_disks == (full.address,)
    assert full.replica.status().full_disks == (full.address,)
    assert leader.replica.disk_space.write_stall == WriteStall()


def test_f12_a_full_disk_and_an_unreachable_member_are_both_named() -> None:
    net, leader, (full, away) = elected()
    register(net, leader)
    full.log.set_room(0)
    net.cut(away.member)
    pass_time(net)
    leader.client(Register(5, "another", 0))
    net.stabilize()
    why = reason([full]) + f"; unreachable: {away.address}"
    assert leader.last_reply() == Failure(5, Refusal.DISK_FULL, leader.address, why)


def test_f12_of_five_members_three_full_disks_stop_commits_and_two_do_not() -> None:
    net, leader, followers = elected(5)
    register(net, leader)
    for node in followers[:2]:
        node.log.set_room(0)
    pass_time(net)
    assert leader.replica.disk_space.write_stall == WriteStall()
    followers[2].log.set_room(0)
    pass_time(net)
    assert leader.replica.disk_space.write_stall.reason == reason(followers[:3], able=2, members=5)
