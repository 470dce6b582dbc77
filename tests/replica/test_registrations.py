"""I19: which REGISTER of a client becomes an entry when several are on their way."""

from __future__ import annotations

import pytest

from copycat.machine.kv import KeyValueStore
from copycat.protocol.client import Failure, Refusal, Register, Registered, Results
from copycat.replica.proposals import REGISTRATIONS_MAX, Registrations
from tests.replica.harness import Node, commands, lone_leader

INSTANCE = 0xC0FFEE


def register(node: Node, request: int, connection: int, instance: int = INSTANCE) -> None:
    node.client(Register(request, "client", 5000, instance=instance), connection)
    node.stabilize()


def sessions(node: Node) -> list[int]:
    return [row.session for row in node.executor.session_rows()]


def test_i19_a_late_register_does_not_end_the_session_opened_after_it() -> None:
    node = lone_leader()
    register(node, 2, connection=8)
    opened = node.last_reply()
    assert isinstance(opened, Registered)
    register(node, 1, connection=7)  # it was sent first
    refused = node.last_reply()
    assert isinstance(refused, Failure)
    assert (refused.request, refused.code) == (1, Refusal.SUPERSEDED)
    assert refused.reason == "the client has sent a later REGISTER"
    assert sessions(node) == [opened.session]
    node.replica.receive_client(8, commands(opened.session, 1, KeyValueStore.append("k", b"a")))
    node.stabilize()
    assert isinstance(node.last_reply(), Results)


def test_a_register_that_is_received_twice_is_one_entry_with_one_answer() -> None:
    node = lone_leader()
    before = node.log.last_index
    node.client(Register(1, "client", 5000, instance=INSTANCE), 7)
    register(node, 1, connection=7)
    assert node.log.last_index == before + 1
    answers = [message for _, message in node.host.replies if isinstance(message, Registered)]
    assert len(answers) == 1
    assert not any(isinstance(message, Failure) for _, message in node.host.replies)


@pytest.mark.parametrize("instance", [0, INSTANCE + 1])
def test_a_client_that_was_started_again_takes_over_at_once(instance: int) -> None:
    node = lone_leader()
    register(node, 9, connection=7)
    (first,) = sessions(node)
    register(node, 1, connection=8, instance=instance)
    (second,) = sessions(node)
    assert second > first
    opened = node.last_reply()
    assert isinstance(opened, Registered)
    assert opened.session == second


def test_the_same_client_may_register_again_and_again() -> None:
    node = lone_leader()
    for request in (1, 2, 3):
        register(node, request, connection=7)
        assert isinstance(node.last_reply(), Registered)
    assert len(sessions(node)) == 1


def test_registrations_are_bounded_and_the_newest_stay() -> None:
    registrations = Registrations()
    for number in range(REGISTRATIONS_MAX + 10):
        assert registrations.newest_before(Register(5, f"c{number}", 0, "", 1)) == -1
        assert registrations.newest_before(Register(4, "steady", 0, "", 1)) in (-1, 4)
    assert registrations.newest_before(Register(3, "steady", 0, "", 1)) == 4
    newest = f"c{REGISTRATIONS_MAX + 9}"
    assert registrations.newest_before(Register(4, newest, 0, "", 1)) == 5
    assert registrations.newest_before(Register(4, "c0", 0, "", 1)) == -1  # no longer known
