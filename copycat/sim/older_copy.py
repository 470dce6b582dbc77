"""A fault: a member comes back with an older copy of its disk, a backup or a snapshot (F8).

The copy is what a power cut at that moment would have left. It is put back only where nothing can
be lost before the member learns of it: so many others have every entry that the copy lacks that
each majority includes one of them, and no candidate could ask again for a vote that the copy
lacks. A cluster cannot survive a loss that no running member can notice, so that is not drawn.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

from copycat.seeded_random import SimRandom
from copycat.sim.checkers.compaction import Gaps
from copycat.sim.checkers.disk_model import DiskModel
from copycat.sim.host import SimHost
from copycat.sim.world import Trace
from copycat.storage import FaultEnv
from copycat.types import EntryId, ServerState

__all__ = ["OlderCopies", "OlderCopy"]


class OlderCopy(NamedTuple):
    """One disk at one moment, and what the observer knew of it."""

    env: FaultEnv
    entries: list[tuple[int, int]]
    durable: int
    hard_state: tuple[int, int]
    snapshot: EntryId
    snapshot_indexes: set[int]
    least: int
    most: int
    gaps: Gaps

    @classmethod
    def of(cls, host: SimHost, seed: int) -> OlderCopy:
        """Copy the disk of a member, whether the member runs or not."""
        disk_model, env = host.disk_model, host.disk.env.clone()
        env.crash(seed)
        return cls(
            env,
            list(disk_model.entries),
            disk_model.durable,
            disk_model.hard_state,
            disk_model.snapshot,
            set(disk_model.snapshot_indexes),
            disk_model.least,
            disk_model.most,
            copy.deepcopy(disk_model.gaps),
        )

    def put_back(self, host: SimHost) -> None:
        """Give the copy to a member that is down: its next process runs on it."""
        disk_model = host.disk_model
        disk_model.loss.regress()
        host.disk.put_back(self.env.clone())
        disk_model.entries, disk_model.durable = list(self.entries), self.durable
        disk_model.promised = min(disk_model.promised, self.durable)
        if self.hard_state != disk_model.hard_state:
            disk_model.forgotten_term = disk_model.hard_state[0]
            disk_model.hard_state = self.hard_state
        disk_model.snapshot, disk_model.snapshot_indexes = (
            self.snapshot,
            set(self.snapshot_indexes),
        )
        disk_model.least, disk_model.most = self.least, self.most
        disk_model.gaps = copy.deepcopy(self.gaps)


class OlderCopies:
    """Takes copies, at most one for each member, and puts them back."""

    def __init__(
        self,
        hosts: Sequence[SimHost],
        random: SimRandom,
        trace: Trace,
        restart: Callable[[SimHost], None],
    ) -> None:
        self._hosts = hosts
        self._random = random
        self._trace = trace
        self._restart = restart
        self._copies: dict[int, OlderCopy] = {}

    def put_back_or_take(self) -> None:
        """Put a copy back if that is allowed now; else take one."""
        for host in self._random.shuffled(self._hosts):
            older = self._copies.get(host.number)
            if older is not None and self._may_put_back(host, older):
                self._trace.mark("older copy put back")
                host.lose_power()
                older.put_back(host)
                del self._copies[host.number]
                self._restart(host)
                return
        host = self._random.pick(self._hosts)
        if host.is_up and self._is_quiet(host):
            self._trace.mark("older copy taken")
            self._copies[host.number] = OlderCopy.of(host, self._random.next())

    @staticmethod
    def _is_quiet(host: SimHost) -> bool:
        """Nothing is under way on its disk that would leave two possible copies."""
        disk, disk_model = host.disk, host.disk_model
        is_sound = not (
            disk_model.older
            or disk_model.saving
            or disk_model.has_unseen_damage
            or disk_model.loss.entries_before
        )
        return is_sound and disk_model.gaps.unread is None and not (disk.is_cut or disk.has_fault)

    def _may_put_back(self, host: SimHost, older: OlderCopy) -> bool:
        disk_model, hosts = host.disk_model, self._hosts
        return (
            host.is_up
            and self._is_quiet(host)
            and (older.hard_state == disk_model.hard_state or self._is_vote_past(host, older))
            and older.durable < disk_model.durable
            and all(one.may_vote and not one.disk_model.loss.entries_before for one in hosts)
            and not any(one.is_over for one in hosts)
            and not any(one.disk_model.has_unseen_damage for one in hosts)
            and sum(_holds(one.disk_model, disk_model) for one in hosts if one is not host)
            >= len(hosts) - len(hosts) // 2
        )

    def _is_vote_past(self, host: SimHost, older: OlderCopy) -> bool:
        """Whether nobody is, or can become, a candidate of a term whose vote would be forgotten.

        False for a copy without a term: it counts as a new directory until a leader tells it
        (C16).
        """
        term = host.disk_model.hard_state[0]
        if older.hard_state[0] == 0:
            return False
        for one in self._hosts:
            if one.disk_model.hard_state[0] < term:
                return False
            if one.is_up and one.state is ServerState.CANDIDATE:
                return False
        return True


def _holds(one: DiskModel, other: DiskModel) -> bool:
    """Whether `one` has all durable entries of `other`, durably."""
    end = other.durable
    return one.index_after_power_loss >= end and one.entries[:end] == other.entries[:end]
