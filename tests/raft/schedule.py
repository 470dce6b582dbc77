"""Random schedules of a small cluster of cores: every fault a network and a disk can offer.

A seed fixes everything. Each schedule ends calm: links whole, everybody up, no more faults;
then the cluster must have one leader, take a command, and agree (I16).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from copycat.config import RaftOptions
from copycat.raft.events import TransferRequested
from copycat.types import MemberId
from tests.raft.cluster import Cluster

__all__ = ["Chaos", "run_schedule"]


class Chaos:
    says_position = False
    """A new link begins with where the log of its member ends."""

    def __init__(self, seed: int, steps: int, kind: type[Cluster] = Cluster) -> None:
        self.rng = random.Random(seed)
        self.steps = steps
        self.cluster = kind(
            self.rng.choice((1, 2, 3, 3, 3, 4, 5, 5)),
            seed=seed,
            options=RaftOptions(
                election_timeout_ms=self.rng.choice((40, 100)),
                heartbeat_interval_ms=self.rng.choice((10, 20)),
                window=self.rng.choice((1, 2, 4)),
            ),
            entries_max=self.rng.choice((1, 2, 5, 100)),
            fresh=self.rng.random() < 0.3,
        )
        self.cluster.says_position = self.says_position
        self.tokens = 0
        self.payloads = 0
        self.calm_links()
        if self.rng.random() < 0.7:  # most storms break over a cluster that works
            self.cluster.age()
            self.cluster.elect(self.rng.choice(list(self.cluster.nodes)))
        # Each schedule has its own weather: some lose much, some crash much, some are slow.
        self.weights = [
            8 + self.rng.randrange(30),  # deliver
            4 + self.rng.randrange(30),  # tick
            2 + self.rng.randrange(10),  # sync
            2 + self.rng.randrange(10),  # save
            1 + self.rng.randrange(6),  # propose
            self.rng.randrange(4),  # read
            self.rng.randrange(6),  # drop
            self.rng.randrange(6),  # duplicate
            self.rng.randrange(4) * 0.5,  # crash or restart
            self.rng.randrange(3) * 0.8,  # break a link
            0.3 + self.rng.randrange(3) * 0.6,  # mend links
            self.rng.randrange(3) * 0.8,  # split off a minority
            self.rng.randrange(3) * 0.7,  # a moment of peace
            self.rng.randrange(2) * 0.2,  # transfer
            self.rng.randrange(3) * 0.6,  # take a snapshot
            self.rng.randrange(3) * 0.6,  # trim a log
            self.rng.randrange(3) * 0.3,  # leave a member behind
        ]

    def calm_links(self) -> None:
        self.cluster.blocked.clear()
        self.cluster.down.clear()
        for number, node in self.cluster.nodes.items():
            if node.is_up:
                for peer in node.raft.peers:
                    self.cluster.reachable(number, peer)

    def any_up(self) -> int | None:
        up = [number for number, node in self.cluster.nodes.items() if node.is_up]
        return self.rng.choice(up) if up else None

    def verbs(self) -> tuple[Callable[[], object], ...]:
        """What happens, in the order of `weights`."""
        return (
            self.deliver,
            self.tick,
            self.sync,
            self.save,
            self.propose,
            self.read,
            self.drop,
            self.duplicate,
            self.crash_or_restart,
            self.break_link,
            self.calm_links,
            self.split,
            self.cluster.stabilize,
            self.transfer,
            self.snapshot,
            self.trim,
            self.leave_behind,
        )

    def storm(self) -> None:
        for verb in self.rng.choices(self.verbs(), self.weights, k=self.steps):
            verb()

    def position(self) -> int | None:
        size = len(self.cluster.network)
        if size == 0:
            return None
        # Mostly in order; sometimes from anywhere.
        return 0 if self.rng.random() < 0.7 else self.rng.randrange(size)

    def deliver(self) -> None:
        position = self.position()
        if position is not None:
            self.cluster.deliver(position)

    def duplicate(self) -> None:
        position = self.position()
        if position is not None:
            self.cluster.deliver(position, keep=True)

    def drop(self) -> None:
        position = self.position()
        if position is not None:
            self.cluster.network.pop(position)

    def tick(self) -> None:
        number = self.any_up()
        if number is not None:
            self.cluster.tick(number, self.rng.choice((1, 5, 10, 20, 50, 100)))

    def sync(self) -> None:
        number = self.any_up()
        if number is not None:
            self.cluster.sync(number)

    def save(self) -> None:
        number = self.any_up()
        if number is not None:
            self.cluster.save(number)

    def propose(self) -> None:
        for number in self.cluster.leaders():
            count = self.rng.randrange(1, 4)
            names = [f"c{self.payloads + ordinal}" for ordinal in range(count)]
            self.payloads += count
            self.cluster.propose(number, *names)

    def read(self) -> None:
        for number in self.cluster.leaders():
            self.tokens += 1
            self.cluster.read(number, self.tokens)

    def crash_or_restart(self) -> None:
        number = self.rng.choice(list(self.cluster.nodes))
        if self.cluster.nodes[number].is_up:
            self.crash_one(number)
        else:
            self.cluster.start(number)

    def crash_one(self, number: int) -> None:
        self.cluster.crash(number, keep=self.rng.randrange(4))
        for other, node in self.cluster.nodes.items():
            if node.is_up and self.rng.random() < 0.7:
                self.cluster.unreachable(other, number)

    def break_link(self) -> None:
        source, target = self.rng.randrange(1, 6), self.rng.randrange(1, 6)
        links = self.cluster.down if self.rng.random() < 0.5 else self.cluster.blocked
        links.add((source, target))
        node = self.cluster.nodes.get(source)
        if node is not None and node.is_up and target != source and self.rng.random() < 0.5:
            self.cluster.unreachable(source, target)

    def split(self) -> None:
        """Cut off a leader with a minority: they continue to append what nobody will keep."""
        nodes = list(self.cluster.nodes)
        self.rng.shuffle(nodes)
        nodes.sort(key=lambda number: number not in self.cluster.leaders())
        inside = set(nodes[: self.rng.randrange(1, max(2, (len(nodes) + 1) // 2))])
        for other in set(nodes) - inside:
            for number in inside:
                self.cluster.blocked |= {(number, other), (other, number)}
            node = self.cluster.nodes[other]
            if node.is_up and node.raft.leader in inside and self.rng.random() < 0.8:
                self.cluster.unreachable(other, node.raft.leader)

    def transfer(self) -> None:
        for number in self.cluster.leaders():
            target = self.rng.choice([0, *self.cluster.nodes])
            self.cluster.step(number, TransferRequested(MemberId(target)))

    def snapshot(self) -> None:
        number = self.any_up()
        if number is not None:
            self.cluster.snapshot(number)

    def trim(self) -> None:
        number = self.any_up()
        if number is not None:
            node = self.cluster.nodes[number]
            self.cluster.trim(number, node.first + 1 + self.rng.randrange(6))

    def leave_behind(self) -> None:
        """The others continue without one of them, take snapshots and trim their logs."""
        alone = self.rng.choice(list(self.cluster.nodes))
        others = [number for number in self.cluster.nodes if number != alone]
        for other in others:
            self.cluster.blocked |= {(alone, other), (other, alone)}
        for _ in range(self.rng.randrange(1, 4)):
            self.propose()
            self.cluster.stabilize()
            for number in others:
                if self.cluster.nodes[number].is_up:
                    self.cluster.tick(number, self.cluster.options.heartbeat_interval_ms)
            self.cluster.stabilize()
            for number in others:
                self.cluster.snapshot(number)
        for number in others:
            self.cluster.trim(number, self.cluster.nodes[number].raft.last.next)
        if self.rng.random() < 0.7:
            self.calm_links()

    def is_calm(self) -> bool:
        """Everybody follows one leader, and it does not hand over (as one with a slow disk)."""
        nodes = self.cluster.nodes
        follows = {node.raft.leader for node in nodes.values() if not node.is_over}
        return len(follows) == 1 and 0 not in follows and nodes[min(follows)].raft.can_propose

    def calm(self) -> None:
        """I16: without faults there is soon one leader, and everybody agrees."""
        cluster = self.cluster
        for number, node in cluster.nodes.items():
            if not node.is_up and not node.is_over:
                cluster.start(number)
        self.calm_links()
        for _ in range(10 * 2 * cluster.options.election_timeout_ms // 5):
            cluster.stabilize()
            if self.is_calm():
                break
            for number in cluster.nodes:
                cluster.tick(number, 5)
        leaders = cluster.leaders()
        assert len(leaders) == 1, f"I16: leaders {leaders} after calm"
        term = cluster.nodes[leaders[0]].raft.current_term
        assert cluster.propose(leaders[0], "last"), "I16: no proposals taken"
        cluster.read(leaders[0], self.tokens + 1)
        for _ in range(20):
            cluster.stabilize()
            for number in cluster.nodes:
                cluster.tick(number, 5)
        reference = cluster.nodes[leaders[0]]
        assert reference.log[-1].payload == "last", reference.log
        for node in cluster.nodes.values():
            if node.is_over:
                continue
            assert node.raft.current_term == term, "I16: the term moved in calm"
            assert node.log == reference.log == node.durable_log, f"I16: logs differ {node.number}"
            assert node.commit_index == len(node.log), f"I16: not all committed {node.number}"
        assert not cluster.history.read_index_min, "I16: a read hangs"


class Speaking(Chaos):
    """The same, and members say where their logs end, as a replica does."""

    says_position = True


def run_schedule(seed: int, steps: int = 400) -> Cluster:
    """Run one schedule; raises when a law does not hold."""
    chaos = (Chaos, Speaking)[seed % 2](seed, steps)
    chaos.storm()
    chaos.calm()
    return chaos.cluster
