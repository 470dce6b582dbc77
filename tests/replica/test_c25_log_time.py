"""C25 with whole members: leases and sessions end by log time, whatever a wall clock shows."""

from __future__ import annotations

import pytest

from copycat.protocol.client import Register, Registered
from copycat.types import MemberId, ServerState
from tests.replica.disks import Disks
from tests.replica.harness import Node

HOUR = 3_600_000
TRUE_MS = 1_700_000_000_000


class Clocks(Disks):
    """Each member has a wall clock of its own, wrong by so many milliseconds."""

    def __init__(self, *wrong_by: int) -> None:
        self.wrong_by = wrong_by
        super().__init__(3)
        self.set_clocks()

    def set_clocks(self) -> None:
        for node, wrong_by in zip(self.nodes.values(), self.wrong_by, strict=True):
            node.wall_ms = TRUE_MS + wrong_by

    def restart_all(self, away_ms: int) -> None:
        for member in list(self.nodes):
            now_ms = self.nodes[member].now_ms
            self.restart(member)
            self.nodes[member].now_ms = now_ms + away_ms
        self.set_clocks()


def log_time(node: Node) -> int:
    """Of the last entry that is applied."""
    return node.executor.time_ms


def lead(net: Clocks, member: MemberId) -> Node:
    """This member leads."""
    node = net.nodes[member]
    for _ in range(60):
        net.settle(100)
        leaders = [
            one for one in net.nodes.values() if one.replica.raft.state is ServerState.LEADER
        ]
        if leaders == [node]:
            net.settle(300)
            return node
        for leader in leaders:
            leader.replica.transfer_leadership(member, lambda _: None)
    raise AssertionError("it never leads")


@pytest.mark.parametrize("wrong_by", [2 * HOUR, -2 * HOUR])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_one_wrong_clock_moves_nothing_at_the_first_election(wrong_by: int, number: int) -> None:
    wrong = [0, 0, 0]
    wrong[number] = wrong_by
    leader = Clocks(*wrong).elect()
    assert abs(log_time(leader) - TRUE_MS) < 60_000


def test_a_leader_whose_clock_is_two_hours_ahead_ends_no_session() -> None:
    net = Clocks(2 * HOUR, 0, 0)
    first, *_ = net.nodes
    others = [member for member in net.nodes if member != first]
    leader = lead(net, others[0])
    leader.client(Register(1, "client", HOUR))
    net.settle(50)
    assert isinstance(leader.last_reply(), Registered)
    before_ms = log_time(leader)
    again = lead(net, first)
    net.settle(2000)
    assert log_time(again) - before_ms < 120_000
    assert again.replica.status().sessions == 1


@pytest.mark.parametrize("wrong_by", [0, 2 * HOUR])
def test_an_hour_in_which_all_were_down_has_passed(wrong_by: int) -> None:
    net = Clocks(wrong_by, 0, 0)
    leader = net.elect()
    before_ms = log_time(leader)
    net.restart_all(HOUR)
    again = net.elect()
    assert abs(log_time(again) - before_ms - HOUR) < 120_000


@pytest.mark.parametrize("jump_ms", [2 * HOUR, -2 * HOUR, 48 * HOUR])
def test_sessions_end_by_log_time_and_not_by_a_wall_clock_that_jumps(jump_ms: int) -> None:
    """While it leads, all clocks are set: nobody was silent for longer because of that."""
    net = Clocks(0, 0, 0)
    leader = net.elect()
    leader.client(Register(1, "client", 10_000))
    net.settle(50)
    assert isinstance(leader.last_reply(), Registered)
    for node in net.nodes.values():
        node.wall_ms += jump_ms
    for _ in range(40):
        net.settle(200)
    assert leader.replica.status().sessions == 1
    for _ in range(40):
        net.settle(200)
    assert leader.replica.status().sessions == 0, "16 s of silence are more than 10 s"
