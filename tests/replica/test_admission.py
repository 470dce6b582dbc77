"""No client can put into the log what a member's machine cannot read."""

from __future__ import annotations

from typing import Any

import pytest

from copycat.errors import MachineMismatchError
from copycat.machine import StateMachine, command
from copycat.machine.kv import KeyValueStore
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.client import Commands, Results
from copycat.protocol.codec_client import encode_commands
from copycat.protocol.framing import Frame, split_frame
from copycat.protocol.operations import encode_operation
from copycat.protocol.results import decode_results
from copycat.replica.proposals import Admission, split, take_new
from copycat.types import ServerState
from tests.replica.harness import CLIENT, Network, Node, lone_leader, open_session


class Newer(KeyValueStore):
    """What the next version of the machine can do."""

    @command
    def double(self, key: str) -> int:
        self.values[key] = value = self.values[key] * 2
        return len(value)


class Stranger(StateMachine):
    @command
    def poke(self) -> None: ...


PUT = encode_operation(KeyValueStore.put("k", b"v"))
DOUBLE = encode_operation(Newer.double("k"))
POKE = encode_operation(Stranger.poke())
HOSTILE = [POKE, b"\xc1", b"\x91" * 3000, PUT + PUT, b"\xc7\x00\x01", b"\x00"]


def frame_of(session: int, first: int, *operations: bytes) -> Frame:
    return split_frame(encode_commands(session, first, 0, list(operations)))


def send(node: Node, session: int, first: int, *operations: bytes) -> None:
    node.replica.receive_client(CLIENT, frame_of(session, first, *operations))


def answers(node: Node) -> list[Any]:
    """Decoded results of the newest reply."""
    reply = node.last_reply()
    assert isinstance(reply, Results), reply
    return decode_results(reply.body, reply.count, [Any] * reply.count)


@pytest.mark.parametrize("bad", HOSTILE, ids=range(len(HOSTILE)))
def test_a_bad_command_in_a_run_is_refused_alone(bad: bytes) -> None:
    node = lone_leader()
    session = open_session(node)
    before = node.replica.status().last_index
    send(node, session, 1, PUT, bad, PUT)
    node.turn()
    node.stabilize()
    first, refused, second = answers(node)
    assert (first, second) == (None, None)
    assert isinstance(refused, MachineMismatchError)
    assert not refused.outcome_unknown
    assert "KeyValueStore" in refused.message
    assert node.replica.status().last_index == before + 3
    assert node.host.stopped is None
    known = node.last_reply()
    send(node, session, 2, bad, PUT)  # sent again, cut elsewhere
    node.turn()
    node.stabilize()
    (again, _) = answers(node)
    assert again.message == refused.message
    assert node.replica.status().last_index == before + 3
    assert isinstance(known, Results)
    send(node, session, 3, PUT, bad, bad, PUT)  # a part of it is known, a part is new
    node.turn()
    node.stabilize()
    assert [type(one) for one in answers(node)][-3:] == [
        MachineMismatchError,
        MachineMismatchError,
        type(None),
    ]
    assert node.replica.status().last_index == before + 6


def test_a_limit_below_the_stand_in_logs_an_empty_one() -> None:
    admission = Admission(SessionExecutor(KeyValueStore()).commands, 20)
    message = Commands(5, 1, 0, 3, frame_body(PUT, POKE, PUT))
    count, logged = admission.take(message, 1)
    assert split(count, logged) == [PUT, b"", PUT]
    count, logged = admission.take(message, 3)
    assert split(count, logged) == [PUT]
    assert (count, bytes(logged)) == take_new(message, 3)


def frame_body(*operations: bytes) -> bytes:
    lengths = b"".join(len(one).to_bytes(4, "little") for one in operations)
    return lengths + b"".join(operations)


def test_good_runs_are_logged_as_they_came() -> None:
    admission = Admission(SessionExecutor(KeyValueStore()).commands, 1 << 20)
    message = Commands(5, 1, 0, 2, memoryview(frame_body(PUT, PUT)))
    assert admission.take(message, 1)[1] is message.body


def test_a_follower_passes_it_on_and_the_leader_refuses_it() -> None:
    network = Network()
    leader = network.elect()
    follower = next(node for node in network.nodes.values() if node is not leader)
    session = session_at(network, follower)
    send(follower, session, 1, PUT, POKE, PUT)
    network.stabilize()
    first, refused, second = answers(follower)
    assert (first, second) == (None, None)
    assert isinstance(refused, MachineMismatchError)
    for _ in range(3):  # followers hear what is committed, and apply what they heard
        network.stabilize(300)
    digests = {node.executor.digest() for node in network.nodes.values()}
    assert len(digests) == 1


def test_the_next_leader_gives_the_same_answer() -> None:
    network = Network()
    leader = network.elect()
    session = session_at(network, leader)
    send(leader, session, 1, PUT, POKE, PUT)
    network.stabilize()
    _, refused, _ = answers(leader)
    network.stabilize(300)
    network.cut(leader.member)
    others = [node for node in network.nodes.values() if node is not leader]
    for _ in range(40):
        network.stabilize(100)
        if any(node.replica.raft.state is ServerState.LEADER for node in others):
            break
    (other,) = [node for node in others if node.replica.raft.state is ServerState.LEADER]
    send(other, session, 1, PUT, POKE, PUT, POKE)
    network.stabilize()
    network.stabilize()
    batches = [
        decode_results(reply.body, reply.count, [Any] * reply.count)
        for _, reply in other.host.replies
        if isinstance(reply, Results)
    ]
    (first, again, second), (new,) = batches
    assert (first, second) == (None, None)
    assert again.message == refused.message == new.message


def session_at(network: Network, node: Node) -> int:
    from copycat.protocol.client import Register, Registered

    node.client(Register(1, "client", 5000))
    for _ in range(3):
        network.stabilize()
    reply = node.last_reply()
    assert isinstance(reply, Registered), reply
    return reply.session


def stabilize_often(network: Network) -> None:
    for _ in range(10):
        network.stabilize(20)


def newer_first(address: str, members: tuple[str, ...]) -> Node:
    """A member with the new code; the third one has the old code still."""
    machine = KeyValueStore() if address == members[2] else Newer()
    return Node(address, members, machine=machine)


def test_a_member_with_old_code_stops_by_name_while_the_others_go_on() -> None:
    network = Network(make=newer_first)
    *newer, older = network.nodes.values()
    leader = network.elect()
    assert leader in newer, "the seeds of this network elect one of the first two"
    session = session_at(network, leader)
    send(leader, session, 1, PUT, DOUBLE)
    with pytest.raises(MachineMismatchError) as caught:
        stabilize_often(network)
    assert caught.value.operation == "KeyValueStore.double"
    assert caught.value.index == older.replica.status().last_index
    assert older.replica.status().last_applied == session  # nothing of the slice with it
    network.cut(older.member)
    network.stabilize(300)
    assert answers(leader) == [None, 2]


def test_a_leader_with_old_code_refuses_what_only_the_others_know() -> None:
    node = lone_leader()
    session = open_session(node)
    send(node, session, 1, PUT, DOUBLE)
    node.turn()
    node.stabilize()
    _, refused = answers(node)
    assert isinstance(refused, MachineMismatchError)
    newer = SessionExecutor(Newer())
    runs = node.log.read(1, node.log.last_index + 1, 1 << 20).runs(1, node.log.last_index + 1)
    newer.apply(runs)
    assert newer.machine.values == {"k": b"v"}  # type: ignore[attr-defined]
