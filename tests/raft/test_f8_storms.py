"""F8 with all members: what a copy that was noticed votes for, and storms of copies."""

from __future__ import annotations

import pytest

from copycat.raft.effects import RecordLoss
from copycat.types import NO_ENTRY, ServerState
from tests.raft.cluster import Cluster
from tests.raft.laws import BrokenLaw
from tests.raft.node import Node
from tests.raft.schedule import Chaos


def with_a_lagging_member(*, tells: bool) -> Cluster:
    """1 and 2 commit x; 2 comes back without it, 1 loses its power, and 3 campaigns."""
    cluster = Cluster(3)
    cluster.age()
    cluster.elect(1)
    cluster.nodes[2].take_image()
    cluster.blocked |= {(1, 3), (3, 1), (2, 3), (3, 2)}
    cluster.propose(1, "x")
    cluster.stabilize()
    cluster.regress(2)
    if tells:
        cluster.tick(1, 20)
        cluster.stabilize()
    cluster.crash(1)
    cluster.blocked.clear()
    cluster.age()
    for _ in range(5):
        cluster.tick(2, 100)
        cluster.tick(3, 300)
        cluster.stabilize()
    return cluster


def test_only_being_told_keeps_an_acknowledged_entry() -> None:
    """The same trace twice. What nobody alive remembers, nobody can notice."""
    safe = with_a_lagging_member(tells=True)
    assert safe.nodes[3].raft.state is not ServerState.LEADER
    with pytest.raises(BrokenLaw, match="I6"):
        with_a_lagging_member(tells=False)


class Restoring(Chaos):
    """A storm in which members come back with older copies of their disks.

    Of one member at a time, and only where what it forgets is on a majority of the others: what
    a member does before it is told can then cost nothing. Its term and vote are as they were.
    """

    says_position = True

    def __init__(self, seed: int) -> None:
        super().__init__(seed, 400)
        self.weights[8] = 5  # crash or restart
        self.restored = 0
        self.losses_recorded = 0
        self.stopped = 0

    def crash_or_restart(self) -> None:
        nodes = self.cluster.nodes
        node = nodes[self.rng.choice(list(nodes))]
        if node.is_over:
            return
        if node.is_up or len(nodes) < 3:
            super().crash_or_restart()
        elif self.may_restore(node.number) and self.rng.random() < 0.8:
            self.restored += 1
            self.take_older_image(node)
            self.cluster.regress(node.number)
        else:
            super().crash_or_restart()

    def take_older_image(self, node: Node) -> None:
        """As it was in this term, before some of its entries came."""
        node.take_image()
        assert node.image is not None
        first, last = node.image.durable_first, len(node.image.durable_log)
        left = self.rng.randrange(first - 1, last)
        del node.image.durable_log[left:]
        snapshots = node.image.snapshots
        snapshots[:] = [one for one in snapshots if len(one) <= left]

    def may_restore(self, number: int) -> bool:
        nodes = self.cluster.nodes
        node = nodes[number]
        durable = node.durable
        others = [
            each.durable[: len(durable)] == durable for each in nodes.values() if each is not node
        ]
        return (
            len(node.durable_log) >= node.durable_first
            and not any(each.is_over for each in nodes.values())
            and not any(
                each.has_regressed or each.lost_upto != NO_ENTRY for each in nodes.values()
            )
            and sum(others) >= len(nodes) // 2 + 1
        )

    def calm(self) -> None:
        super().calm()
        self.stopped = sum(node.is_over for node in self.cluster.nodes.values())
        self.losses_recorded = sum(
            isinstance(effect, RecordLoss) for _, effect in self.cluster.effects
        )


@pytest.mark.slow
@pytest.mark.parametrize("block", range(2))
def test_laws_hold_while_older_copies_come_back(block: int) -> None:
    restored = losses_recorded = stopped = 0
    for seed in range(100 * block, 100 * block + 100):
        storm = Restoring(seed)
        storm.storm()
        storm.calm()
        restored += storm.restored
        losses_recorded += storm.losses_recorded
        stopped += storm.stopped
    assert restored > 20
    assert losses_recorded > 0, "a leader needs it: it gets again what it lacks"
    assert stopped > 0, "a leader does without it: it stops for good (C42)"
