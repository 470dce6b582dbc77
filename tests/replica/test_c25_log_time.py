"""C25 with whole members: leases and sessions end by log time, whatever a wall clock shows."""

from __future__ import annotations

import pytest

from copycat.member.time_note import TIME_FILE, TimeFile
from copycat.protocol.client import Register, Registered
from copycat.types import MemberId, ServerState
from tests.replica.disks import Disks
from tests.replica.harness import Node

HOUR = 3_600_000
YEAR = 8766 * HOUR
FILE = f"/member/{TIME_FILE}"
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

    def restart_all(self, away_ms: int, *absent: int) -> None:
        """All were down for so long; those whose numbers are given stay away."""
        for member in list(self.nodes):
            now_ms = self.nodes[member].now_ms
            self.restart(member)
            self.nodes[member].now_ms = now_ms + away_ms
        self.set_clocks()
        for number in absent:
            self.cut(list(self.nodes)[number])

    def set_clock(self, number: int, wrong_by: int) -> None:
        """A wall clock is set to be wrong by so much, at once if its member runs."""
        wrong = list(self.wrong_by)
        wrong[number] = wrong_by
        self.wrong_by = tuple(wrong)
        self.set_clocks()

    def run(self, seconds: int) -> None:
        """Everything runs for so long."""
        for _ in range(10 * seconds):
            self.stabilize(100)

    def elect_of(self, *numbers: int) -> Node:
        """The leader among these members; nobody else hears or says anything."""
        members = list(self.nodes)
        for number, member in enumerate(members):
            if number not in numbers:
                self.cut(member)
        for _ in range(100):
            self.stabilize(100)
            for number in numbers:
                node = self.nodes[members[number]]
                if node.replica.raft.state is ServerState.LEADER:
                    self.run(1)
                    return node
        raise AssertionError("nobody leads")


def log_time(node: Node) -> int:
    """Of the last entry that is applied."""
    return node.executor.time_ms


def lead(net: Clocks, member: MemberId) -> Node:
    """This member leads."""
    node = net.nodes[member]
    for _ in range(60):
        net.stabilize(100)
        leaders = [
            one for one in net.nodes.values() if one.replica.raft.state is ServerState.LEADER
        ]
        if leaders == [node]:
            net.stabilize(300)
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
    net.stabilize(50)
    assert isinstance(leader.last_reply(), Registered)
    before_ms = log_time(leader)
    again = lead(net, first)
    net.stabilize(2000)
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
    net.stabilize(50)
    assert isinstance(leader.last_reply(), Registered)
    for node in net.nodes.values():
        node.wall_ms += jump_ms
    for _ in range(40):
        net.stabilize(200)
    assert leader.replica.status().sessions == 1
    for _ in range(40):
        net.stabilize(200)
    assert leader.replica.status().sessions == 0, "16 s of silence are more than 10 s"


# ---- what was lost does not come back: leases that began since would end early -----------------


def lease(net: Clocks, leader: Node) -> int:
    """A lease of an hour begins: log time then."""
    leader.client(Register(1, "client", HOUR))
    net.stabilize(50)
    assert isinstance(leader.last_reply(), Registered)
    return log_time(leader)


@pytest.mark.parametrize("behind_ms", [HOUR, 50 * YEAR])
@pytest.mark.parametrize("second", [(0, 1), (1, 2), (0, 2), (0, 1, 2)])
def test_a_first_election_that_is_late_ends_no_lease_after_all_were_down(
    behind_ms: int, second: tuple[int, ...]
) -> None:
    """A bare majority elected the first leader, and one of its clocks was behind: right clocks
    later do not make good for that at once."""
    net = Clocks(-behind_ms, 0, 0)
    leader = net.elect_of(0, 1)
    assert abs(log_time(leader) - TRUE_MS + behind_ms) < 60_000
    if 2 in second:
        net.mend(list(net.nodes)[2])
        net.run(1)
    net.set_clock(0, 0)
    net.run(1)
    began_ms = lease(net, leader)
    net.restart_all(HOUR // 2)
    again = net.elect_of(*second)
    assert again.replica.status().sessions == 1
    assert abs(log_time(again) - began_ms - HOUR // 2) < 60_000


@pytest.mark.parametrize("to_ms", [-50 * YEAR, 2 * HOUR, 50 * YEAR])
def test_clocks_that_are_set_while_members_run_move_nothing_after_all_were_down(
    to_ms: int,
) -> None:
    """Whatever they show, they ran on meanwhile; so all of them may be set."""
    net = Clocks(0, 0, 0)
    leader = net.elect()
    began_ms = lease(net, leader)
    for number in range(3):
        net.set_clock(number, to_ms)
        net.run(1)
    net.restart_all(HOUR // 2)
    again = net.elect()
    assert again.replica.status().sessions == 1
    assert abs(log_time(again) - began_ms - HOUR // 2) < 60_000


@pytest.mark.parametrize("when", ["first", "running", "down", "again"])
@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("absent", [(), (0,), (2,)])
def test_one_clock_that_is_ahead_at_any_moment_moves_nothing(
    when: str, number: int, absent: tuple[int, ...]
) -> None:
    net = Clocks(0, 0, 0)
    if when == "first":
        net.set_clock(number, 2 * HOUR)
    leader = net.elect()
    began_ms = lease(net, leader)
    if when == "running":
        net.set_clock(number, 2 * HOUR)
    net.run(1)
    if when == "down":
        net.set_clock(number, 2 * HOUR)
    net.restart_all(HOUR // 2, *absent)
    again = net.elect_of(*({0, 1, 2} - set(absent)))
    if when == "again":
        net.set_clock(number, 2 * HOUR)
        net.run(1)
    assert again.replica.status().sessions == 1
    assert abs(log_time(again) - began_ms - HOUR // 2) < 60_000


@pytest.mark.parametrize("fault", ["lost", "damaged", "never there", "cannot be written"])
@pytest.mark.parametrize("number", [0, 1])
def test_what_a_member_cannot_remember_makes_log_time_late_and_not_early(
    fault: str, number: int
) -> None:
    """Its directory is from before there was such a file, or its disk is full."""
    net = Clocks(0, 0, 0)
    member = list(net.nodes)[number]
    env = net.disks[member].env
    leader = net.elect()
    net.run(1)
    began_ms = lease(net, leader)
    if fault == "damaged":
        env.corrupt(FILE, 12, 1)
    elif fault == "never there":
        for disk in net.disks.values():
            disk.env.remove(FILE)
    else:
        env.remove(FILE)
    if fault == "cannot be written":
        env.fail("create", 1, "ENOSPC")
        net.set_clock(number, HOUR)
        net.stabilize(200)
        assert net.nodes[member].host.stopped is None
        assert not env.exists(FILE)
    net.restart_all(HOUR // 2)
    again = net.elect_of(0, 1)
    assert again.replica.status().sessions == 1
    assert log_time(again) - began_ms < 60_000
    began_ms = log_time(again)
    net.run(1)
    net.restart_all(HOUR // 4)
    again = net.elect_of(0, 1)
    assert abs(log_time(again) - began_ms - HOUR // 4) < 60_000, "it remembers from then on"


def test_who_was_away_while_log_time_became_late_gives_nothing_back() -> None:
    """One clock is behind at one election and ahead at the next, and the third member knows log
    time as it was before both."""
    net = Clocks(0, 0, 0)
    leader = net.elect()
    net.run(1)
    net.set_clock(0, -50 * YEAR)
    net.restart_all(2 * HOUR, 2)
    leader = net.elect_of(0, 1)
    began_ms = lease(net, leader)
    net.run(1)
    net.set_clock(0, 0)
    net.restart_all(0, 1)
    again = net.elect_of(0, 2)
    assert again.replica.status().sessions == 1
    assert log_time(again) - began_ms < 60_000


def test_a_full_disk_takes_the_file_later() -> None:
    net = Clocks(0, 0, 0)
    first, *_ = net.nodes
    env = net.disks[first].env
    env.fail("create", 1, "ENOSPC")
    net.elect()
    net.run(3)
    assert net.nodes[first].host.stopped is None
    assert TimeFile(env, "/member").read() is not None
