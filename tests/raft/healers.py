"""The part of each leader that heals (C39), over pure cores: the shipped one, and the core's clock
is the time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from copycat.protocol.member_record import HealingPolicy
from copycat.raft.configuration import Configuration
from copycat.raft.core import Raft
from copycat.replica.healing import Healing
from tests.raft.cluster import Cluster

__all__ = ["Healers", "policy_of"]

_LONG_ID = re.compile("0{28,}([0-9a-f]+)")
"""The members of transcripts have no addresses, and are named by their ids."""


class _Members:
    """What `Healing` asks of the table of the members."""

    def __init__(self, number: int, committed: Configuration) -> None:
        self._number = number
        self._committed = committed

    @property
    def own_address(self) -> str:
        return str(self._number)

    @property
    def committed(self) -> Configuration:
        return self._committed


def policy_of(words: Sequence[str]) -> HealingPolicy:
    """Of `active=3 every=100` and the like; durations in ms."""
    values = {"active": 0, "passive": 0, "after": 200, "every": 100, "suspend": 0, "slow": 0}
    values |= {name: int(number) for name, number in (word.split("=") for word in words)}
    active, passive, after, every, suspend, slow = values.values()
    return HealingPolicy(active, passive, after, every, suspend, slow, is_on=True)


class Healers:
    """Of all members of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._healing: dict[int, tuple[Raft, Healing]] = {}

    def _of(self, number: int) -> Healing:
        raft = self._cluster.nodes[number].raft
        known = self._healing.get(number)
        if known is None or known[0] is not raft:  # a new process remembers nothing
            members = _Members(number, raft.committed_configuration)
            ask = partial(self._cluster.change_by_itself, number)
            known = self._healing[number] = (raft, Healing(raft, members, ask))
        return known[1]

    def committed(self, number: int, configuration: Configuration) -> None:
        """This member knows that it is committed."""
        self._of(number).configuration_committed(configuration)

    def advance(self, number: int) -> str:
        """Let a member that leads take its next step; what it says about it."""
        healing = self._of(number)
        steps = healing.steps
        healing.advance(self._cluster.nodes[number].raft.now_ms)
        if healing.steps == steps or healing.last_step is None:
            return ""
        text = f"{number} heals: {healing.last_step.what}, since {healing.last_step.reason}"
        return _LONG_ID.sub(r"\1", text)

    def advance_all(self) -> list[str]:
        """The same for all that run."""
        numbers = [number for number, node in self._cluster.nodes.items() if node.is_up]
        return [line for number in numbers if (line := self.advance(number))]
