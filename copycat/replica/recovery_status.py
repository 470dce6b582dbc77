"""A member that owes entries: it says so, and forgets the debt once its log holds them again.

The core decides when that is (C12); what is here only talks, and writes and removes a file. The
same for a member whose directory is an older copy of itself, and for those that notice it (F8).
"""

from __future__ import annotations

import logging
from functools import partial

from copycat.errors import require
from copycat.raft.core import Raft
from copycat.raft.effects import PeerRegressed, RecordLoss
from copycat.raft.events import GapsKnown, LossAccepted, LossRecorded
from copycat.replica.driver import Driver
from copycat.replica.host import Inbox, Lane
from copycat.replica.members import MemberTable
from copycat.replica.options import MemberStores
from copycat.storage.interface import ReplicaLog
from copycat.types import EntryId, MemberId

__all__ = ["RecoveryStatus"]

_LOG = logging.getLogger("copycat.replica")

AGAIN_MS = 5_000
"""So often it is said what is missing."""


class RecoveryStatus:
    """lost_entries: as the directory was opened with; None for none.  new_record: makes the record
    of a loss that a peer noticed."""

    def __init__(
        self,
        members: MemberTable,
        raft: Raft,
        log: ReplicaLog,
        inbox: Inbox,
        driver: Driver,
        stores: MemberStores,
    ) -> None:
        self._address = members.own_address
        self._addresses = members
        self._raft = raft
        self._log = log
        self._inbox = inbox
        self._driver = driver
        lost_entries = self._lost_entries = stores.lost_entries
        self._new_record = stores.regressed
        self._again_ms = 0
        self._is_removing = False
        self._waiting: RecordLoss | None = None
        """It is written as soon as the file of an older debt is gone."""
        self._regressed: dict[MemberId, EntryId] = {}
        if lost_entries is not None and lost_entries.is_accepted:
            effects = raft.step(LossAccepted(lost_entries.lost_upto))
            require(not effects, "nothing follows from an accepted loss", effects=effects)

    @property
    def missing_entries(self) -> str:
        """The entries that are missing, in words; empty when none is."""
        return (
            str(self._lost_entries)
            if self._lost_entries is not None and self._raft.eligibility.is_recovering
            else ""
        )

    @property
    def regressed(self) -> tuple[str, ...]:
        """Addresses of members that run on an older copy of their directory; perhaps this one."""
        mine = (
            {self._address}
            if self.missing_entries and self._lost_entries and self._lost_entries.is_regressed
            else set()
        )
        return tuple(sorted({*mine, *(self._addresses[peer] for peer in self._regressed)}))

    def execute(self, effect: PeerRegressed | RecordLoss) -> None:
        """What the core found out about a directory that is an older copy of itself."""
        if isinstance(effect, RecordLoss):
            self._record(effect)
        else:
            self._peer_regressed(effect)

    def _peer_regressed(self, effect: PeerRegressed) -> None:
        """A voter lost what it had acknowledged to this member: name it, once."""
        if self._regressed.get(effect.peer) == effect.acknowledged:
            return
        self._regressed[effect.peer] = effect.acknowledged
        _LOG.error(
            "%s: %s came back with an older copy of its directory: it had acknowledged entries up"
            " to %d, and has them up to %d now; it does not count until it has them again",
            self._address,
            self._addresses[effect.peer],
            effect.acknowledged.index,
            effect.last.index,
        )

    def _record(self, effect: RecordLoss) -> None:
        """This directory is an older copy of itself: make that durable, then tell the core."""
        if self._is_removing:
            self._waiting = effect
            return
        require(self._new_record is not None, "no directory to record a loss in", effect=effect)
        assert self._new_record is not None  # noqa: S101  # for the type checker
        first_index, earlier = self._raft.last.index + 1, self._lost_entries
        if earlier is not None:
            first_index = min(first_index, earlier.first_index)
        lost_entries = self._lost_entries = self._new_record(
            effect.lost_upto, first_index, effect.term
        )
        _LOG.error(
            "%s: this directory is an older copy of what it was (a restored backup, or a snapshot"
            " of the machine): %s had been acknowledged and are not here; it votes only for a"
            " member that has them, and waits for a leader to give them back",
            self._address,
            lost_entries,
        )
        self._inbox.run(Lane.ASIDE, lost_entries.write, partial(self._written, effect.term))

    def _written(self, term: int, _: None) -> None:
        self._driver.step(LossRecorded(term))

    def gaps_known(self) -> GapsKnown:
        """How far the gaps of this log prove what was committed (C22).

        Not where it was given up: the entries that are there now are others.
        """
        valid_from, lost_entries = self._log.valid_from, self._lost_entries
        if (
            lost_entries is not None
            and lost_entries.is_accepted
            and valid_from >= lost_entries.first_index
        ):
            valid_from = 0
        return GapsKnown(valid_from)

    def keep(self, now_ms: int) -> None:
        """Now and then, in a turn: end the recovery, or log what is missing and why it waits."""
        self._look_at_peers()
        lost_entries, raft = self._lost_entries, self._raft
        if lost_entries is None:
            return
        if not (raft.eligibility.is_recovering or raft.eligibility.has_accepted_loss):
            self._lost_entries = None
            self._is_removing = True
            self._inbox.run(Lane.ASIDE, lost_entries.clear, self._removed)
            outcome = "were given up" if lost_entries.is_accepted else "are here again"
            _LOG.warning("%s: %s %s: it votes as ever", self._address, lost_entries, outcome)
        elif raft.eligibility.is_recovering and now_ms >= self._again_ms:
            self._again_ms = now_ms + AGAIN_MS
            _LOG.warning(
                "%s: %s %s (%d are here): it votes only for a member that has them, and waits"
                " for a leader to give them back",
                self._address,
                lost_entries,
                "are missing in this older copy"
                if lost_entries.is_regressed
                else "were damaged on this disk",
                self._log.last_index,
            )

    def _removed(self, _: None) -> None:
        self._is_removing = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._record(waiting)

    def _look_at_peers(self) -> None:
        """Those that have everything again are not named any more, nor those of another leader."""
        raft = self._raft
        for peer, acknowledged in list(self._regressed.items()):
            if raft.match_index(peer) >= acknowledged.index:
                _LOG.warning("%s: %s has its entries again", self._address, self._addresses[peer])
                del self._regressed[peer]
        if raft.leader not in (0, raft.member):
            self._regressed.clear()
