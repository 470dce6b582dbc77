"""A function of its events: run twice, run on from a copy half-way, the effects are equal.

`copy.deepcopy` takes an object apart and puts it together by the protocol that a pickle uses,
so a core that survives it is plain data and `pickle.dumps(raft)` is a checkpoint.
"""

from __future__ import annotations

import copy

import pytest

from copycat.raft.core import Raft
from copycat.raft.effects import Effect
from copycat.raft.events import Event
from tests.raft.cluster import Cluster
from tests.raft.schedule import Chaos


class Recorder(Cluster):
    """Keeps what each incarnation of member 1 received and what it answered."""

    recordings: list[tuple[Raft, list[tuple[Event, list[Effect]]]]]

    def start(self, number: int, *, fresh: bool = False, lost: bool = False) -> None:
        super().start(number, fresh=fresh, lost=lost)
        if number == 1:
            raft = self.nodes[1].raft
            if not hasattr(self, "recordings"):
                self.recordings = []
            self.recordings.append((copy.deepcopy(raft), []))

    def step(self, number: int, event: Event) -> None:
        if number == 1:
            duplicate = copy.deepcopy(self.nodes[1].raft)
            self.recordings[-1][1].append((event, duplicate.step(event)))
        super().step(number, event)


@pytest.mark.parametrize("seed", range(4))
def test_same_events_same_effects_also_from_a_copy(seed: int) -> None:
    chaos = Chaos(seed, 300, Recorder)
    chaos.storm()
    cluster = chaos.cluster
    assert isinstance(cluster, Recorder)
    for checkpoint, steps in cluster.recordings:
        raft = checkpoint
        for at, (event, effects) in enumerate(steps):
            if at == len(steps) // 2:
                raft = copy.deepcopy(raft)
            assert raft.step(event) == effects
    answered = [effect for number, effect in cluster.effects if number == 1]
    assert answered == [
        effect for _, steps in cluster.recordings for _, effects in steps for effect in effects
    ]
