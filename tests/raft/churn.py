"""Random schedules in which members join, change and leave: the storms of `schedule.py`, and
changes."""

from __future__ import annotations

from collections.abc import Callable

from copycat.raft.core import Raft
from copycat.types import ChangeKind, EntryId, MemberType
from tests.raft.cluster import Cluster
from tests.raft.schedule import Chaos

__all__ = ["Churn", "run_churn", "run_memory_churn"]

NODES_MAX = 9


class Churn(Chaos):
    """A schedule with changes of every kind, by leaders that know or do not know the present."""

    says_position = True

    def __init__(self, seed: int, steps: int, kind: type[Cluster] = Cluster) -> None:
        super().__init__(seed, steps, kind)
        self.weights += [
            4 + self.rng.randrange(8),  # a change
            1 + self.rng.randrange(3),  # delete a log that shall be deleted
            1 + self.rng.randrange(4),  # a while without faults
            self.rng.randrange(3),  # delete deletions
            self.rng.randrange(2) * 0.4,  # everybody is restarted
        ]

    def verbs(self) -> tuple[Callable[[], object], ...]:
        return (*super().verbs(), self.change, self.wipe, self.breathe, self.clean, self.power_cut)

    def wipe(self) -> None:
        number = self.any_up()
        if number is not None:
            self.cluster.wipe(number)

    def power_cut(self) -> None:
        """All are restarted, and know of no commit but what is in their directories."""
        for number, node in self.cluster.nodes.items():
            if node.is_up:
                self.crash(number)
        for number in self.cluster.nodes:
            self.cluster.start(number)
        self.calm_links()

    def breathe(self) -> None:
        """Some heartbeats arrive everywhere, so that changes and promotions come to an end."""
        self.calm_links()
        for _ in range(self.rng.randrange(1, 6)):
            self.cluster.stabilize()
            for number, node in self.cluster.nodes.items():
                if node.is_up:
                    self.cluster.tick(number, self.cluster.options.heartbeat_interval_ms)

    def clean(self) -> None:
        """What every member has may be deleted from a log: gaps stand for it (C22, C23)."""
        number = self.any_up()
        if number is not None:
            node = self.cluster.nodes[number]
            upto = node.raft.deletion_floor
            if upto >= max(node.first, node.gaps[0]):
                node.gaps = (upto, node.commit_index)

    def change(self) -> None:
        """Ask somebody who leads, or whoever is up, for a change that may make no sense."""
        cluster, rng = self.cluster, self.rng
        leaders = cluster.leaders()
        number = rng.choice(leaders) if leaders else None
        if number is None:
            return
        raft = cluster.nodes[number].raft
        base = raft.committed_configuration.entry
        if rng.random() < 0.1:
            base = rng.choice([EntryId(0, 0), *cluster.by_name])
        kinds = (ChangeKind.ADD, ChangeKind.PROMOTE, ChangeKind.DEMOTE, ChangeKind.REMOVE)
        kind = rng.choices(kinds, (5, 8, 4, 1))[0]
        known = raft.configuration.ids
        member = int(rng.choice(known)) if rng.random() < 0.95 else rng.choice(list(cluster.nodes))
        if kind is ChangeKind.ADD and len(cluster.nodes) < NODES_MAX and len(known) < 7:
            member = max(cluster.nodes) + 1
            cluster.add_node(member)
            self.calm_links()
        types = {
            ChangeKind.ADD: (MemberType.RESERVE, MemberType.PASSIVE, MemberType.ACTIVE),
            ChangeKind.PROMOTE: (MemberType.PASSIVE, MemberType.ACTIVE, MemberType.ACTIVE),
            ChangeKind.DEMOTE: (MemberType.PASSIVE, MemberType.RESERVE),
            ChangeKind.REMOVE: (MemberType.INACTIVE,),
        }
        cluster.change(number, kind, member, rng.choice(types[kind]), base)

    def has_no_open_change(self, leader: int) -> bool:
        """Whether nothing is in flight, and all that is asked for is answered."""
        raft = self.cluster.nodes[leader].raft
        leader_state = raft.leader_state
        return (
            leader_state is not None
            and raft.configuration == raft.committed_configuration
            and not leader_state.changes.promotions
            and not leader_state.departing
        )

    def followers(self) -> list[int]:
        """The members of the newest committed configuration."""
        return [int(member) for member in self.cluster.committed_configuration.ids]

    def is_calm(self) -> bool:
        nodes = self.cluster.nodes
        follows = {nodes[number].raft.leader for number in self.followers()}
        if len(follows) != 1 or 0 in follows or not nodes[min(follows)].raft.can_propose:
            return False
        return self.has_no_open_change(min(follows))

    def calm(self) -> None:
        """I16: without faults there is soon one leader, every change is answered, members with a
        log agree, and reserves have none."""
        cluster = self.cluster
        for number, node in cluster.nodes.items():
            if not node.is_up:
                cluster.start(number)
        self.calm_links()
        limit_ms = 60 * 2 * cluster.options.election_timeout_ms
        for _ in range(limit_ms // 5):
            cluster.stabilize()
            if self.is_calm():
                break
            for number in cluster.nodes:
                cluster.tick(number, 5)
        configuration = cluster.committed_configuration
        leaders = [number for number in cluster.leaders() if number in configuration.ids]
        assert len(leaders) == 1, f"I16: leaders {leaders} after calm"
        leader = leaders[0]
        assert self.is_calm(), "I16: a change is never finished"
        term = cluster.nodes[leader].raft.current_term
        assert cluster.propose(leader, "last"), "I16: no proposals taken"
        cluster.read(leader, self.tokens + 1)
        for _ in range(20):
            cluster.stabilize()
            for number in cluster.nodes:
                cluster.tick(number, 5)
        reference = cluster.nodes[leader]
        assert reference.log[-1].payload == "last", reference.log
        assert len(cluster.answers) == cluster.tokens - self.unanswered, "a change is not answered"
        for record in configuration.members:
            node = cluster.nodes[record.member]
            assert node.raft.current_term == term, "I16: the term moved in calm"
            assert node.raft.known_configuration == configuration, "C28: an order never arrived"
            if record.is_stateful:
                assert node.log == reference.log == node.durable_log, f"I16: logs {node.number}"
                assert node.commit_index == len(node.log), f"I16: not committed {node.number}"
                assert not node.raft.is_joining
                assert not node.raft.is_reserve
            else:
                assert node.log == [], f"C33: a reserve has a log {node.number}"
        assert not cluster.history.read_index_min, "I16: a read hangs"

    def crash_or_restart(self) -> None:
        number = self.rng.choice(list(self.cluster.nodes))
        if self.cluster.nodes[number].is_up:
            self.crash(number)
        else:
            self.cluster.start(number)

    def crash(self, number: int) -> None:
        self.unanswered += _open_changes(self.cluster.nodes[number].raft)
        self.crash_one(number)

    unanswered = 0
    """Changes whose leader crashed before it answered."""


class MemoryChurn(Churn):
    """The same with logs in memory: now and then all members are restarted at the same time."""

    def __init__(self, seed: int, steps: int) -> None:
        super().__init__(seed, steps)
        self.weights.append(1 + self.rng.randrange(2))

    def verbs(self) -> tuple[Callable[[], object], ...]:
        return (*super().verbs(), self.forget_all)

    def forget_all(self) -> None:
        for number, node in self.cluster.nodes.items():
            if node.is_up:
                self.crash(number)
        self.cluster.forget_all()
        self.calm_links()


def _open_changes(raft: Raft) -> int:
    """How many changes this core was asked for, and has not answered."""
    if raft.leader_state is None:
        return 0
    changes = raft.leader_state.changes
    promoting = sum(len(each.tokens) for each in changes.promotions.values())
    return len(changes.waiting) + len(changes.handing_over) + promoting


def run_churn(seed: int, steps: int = 400) -> Cluster:
    """Run one schedule; raises when a law does not hold."""
    return _run(Churn(seed, steps))


def run_memory_churn(seed: int, steps: int = 400) -> Cluster:
    """The same with logs in memory."""
    return _run(MemoryChurn(seed, steps))


def _run(churn: Churn) -> Cluster:
    churn.storm()
    churn.calm()
    return churn.cluster
