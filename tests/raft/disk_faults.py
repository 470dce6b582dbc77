"""What disks lose while a member is down: all, from a damaged entry on, or what came later."""

from __future__ import annotations

from abc import ABC, abstractmethod

from copycat.raft.configuration import Configuration
from copycat.types import NO_ENTRY
from tests.raft.laws import History
from tests.raft.node import Envelope, Node, name_of

__all__ = ["DiskFaults"]


class DiskFaults(ABC):
    """The part of `Cluster` that restarts members with less than they had."""

    nodes: dict[int, Node]
    network: list[Envelope]
    history: History
    configuration_before_loss: Configuration | None

    @property
    @abstractmethod
    def committed_configuration(self) -> Configuration: ...

    @abstractmethod
    def start(self, number: int, *, fresh: bool = False, lost: bool = False) -> None: ...

    @abstractmethod
    def crash(self, number: int, *, keep: int = 0) -> int: ...

    def forget(self, number: int, *, lost: bool = True) -> None:
        """A member with its log in memory is restarted: only its term is left, raised by one.

        With `lost` False it does not know: the bug that decision 0016 is about.
        """
        node = self.nodes[number]
        self.crash(number)
        node.durable_log = []
        node.has_lost = True
        if not lost:
            node.hard_state = (node.hard_state[0] + 1, 0)
        self.start(number, lost=lost)

    def forget_all(self) -> None:
        """All members keep logs and snapshots in memory, and are restarted at the same time: no
        entry is left, and the directories still know who the members are."""
        self.configuration_before_loss = self.committed_configuration
        for number, node in self.nodes.items():
            if node.is_up:
                self.crash(number)
            node.durable_log, node.durable_first, node.snapshots = [], 1, []
            node.gaps, node.has_lost = (0, 0), True
        self.network.clear()
        self.history.begin_anew(self.configuration_before_loss)
        for number in self.nodes:
            self.start(number, lost=True)

    def rot(self, number: int, index: int, *, is_recovering: bool = True) -> None:
        """Entry `index` and what follows cannot be read any more: cut, and restarted (0017).

        With `is_recovering` False the member takes what is left for all that it ever had: the bug.
        """
        node = self.nodes[number]
        self.crash(number)
        before = list(node.durable)
        del node.durable_log[index - 1 :]
        node.durable_first = min(node.durable_first, len(node.durable_log) + 1)
        node.has_lost = True
        if is_recovering:
            node.lost_upto, node.log_before_loss, node.is_older_copy = (
                name_of(before),
                before,
                False,
            )
            node.hard_state = (max(node.hard_state[0], node.lost_upto.term) + 1, 0)
        self.start(number)

    def regress(self, number: int) -> None:
        """Member `number` comes back with an older copy of its own disk (F8)."""
        node = self.nodes[number]
        if node.is_up:
            self.crash(number)
        node.restore_image()
        self.start(number, fresh=not node.durable and node.hard_state == (0, 0))

    def accept_loss(self, number: int) -> None:
        """An operator accepts the loss of its entries; the member is restarted (0017)."""
        node = self.nodes[number]
        self.crash(number)
        node.accepted_loss, node.lost_upto = node.lost_upto, NO_ENTRY
        self.start(number)
