"""Logs who leads, when the quorum is lost or back, and which members a start waits for.

The replica is looked at after each turn, and once an election timeout.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from copycat.config import ServerOptions
from copycat.protocol.client import Refusal
from copycat.raft.configuration import Configuration
from copycat.replica.connections import RefusalReason
from copycat.replica.proposals import WriteStall
from copycat.replica.replica import Replica
from copycat.types import ServerState

__all__ = ["StatusLog", "waiting_text"]

log = logging.getLogger("copycat.server")

STALLED_ELECTIONS = 10
"""So many election timeouts without a leader, while a majority is reachable, are logged."""

REFUSED_SHOWN = 8
"""How many of the newest refusals a line about a start repeats."""


class StatusLog:
    """Logs changes of one replica from `start` to `close`.

    refused: returns one text for each refusal of the listener.
    """

    def __init__(
        self, options: ServerOptions, replica: Replica, refused: Callable[[], list[str]]
    ) -> None:
        self._name = options.name
        self._interval_s = options.election_timeout
        self._replica = replica
        self._refused = refused
        self._leader, self._term = 0, 0
        self._since_s = time.monotonic()
        self._missing: tuple[str, ...] = ()
        self._lost_s: float | None = None
        """When the quorum was lost; None while there is one, and before the first leader."""
        self._had_leader = False
        self._is_stall_told = False
        """It was logged that no leader is elected although a majority is reachable."""
        self._raft = replica.raft
        self._disk_space = replica.disk_space
        self._write_stall = replica.disk_space.write_stall
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to check."""
        self._schedule_check()

    def close(self) -> None:
        """Stop checking."""
        if self._timer is not None:
            self._timer.cancel()

    def _schedule_check(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._interval_s, self._check)

    def turned(self) -> None:
        """Called after each turn: log a change of the leader, or of what full disks stop."""
        raft = self._raft
        if raft.leader != self._leader or raft.current_term != self._term:
            self._leader_changed()
        write_stall = self._disk_space.write_stall
        if write_stall is not self._write_stall:
            self._room_changed(write_stall)

    def _room_changed(self, write_stall: WriteStall) -> None:
        """Of the members that the leader knows of; `node.py` logs a full disk of this member."""
        if write_stall.stops_commits:
            log.error("%s: nothing can be committed: %s", self._name, write_stall.reason)
        elif self._write_stall.stops_commits and self._leader == self._replica.member:
            log.warning(
                "%s: enough members have room on their disks again; commits continue", self._name
            )
        self._write_stall = write_stall

    def _leader_changed(self) -> None:
        if not self._raft.leader and not self._leader:
            return  # another term, still without a leader
        now = time.monotonic()
        status = self._replica.status()
        if not status.leader:
            log.info(
                "%s: no leader is known; the leader of term %d led for %.1f s",
                self._name,
                self._term,
                now - self._since_s,
            )
        else:
            is_own = status.state is ServerState.LEADER
            log.info(
                "%s: %s leads since %s, in term %d%s",
                self._name,
                status.leader,
                time.strftime("%Y-%m-%d %H:%M:%S %z"),
                status.term,
                " (this member)" if is_own else "",
            )
            self._had_leader = True
            self._is_stall_told = False
            self._log_quorum_regained(now)
        raft = self._replica.raft
        self._leader, self._term, self._since_s = raft.leader, raft.current_term, now

    def _log_quorum_regained(self, now: float) -> None:
        if self._lost_s is not None:
            log.warning("%s: the quorum is back after %.1f s", self._name, now - self._lost_s)
            self._lost_s, self._missing = None, ()

    def _check(self) -> None:
        self._schedule_check()
        if self._leader or not self._had_leader:
            return
        why = self._replica.outage.explain()
        if why.code is Refusal.NO_LEADER:
            self._log_stall(why)
            return
        if why.code is not Refusal.NO_QUORUM or why.missing == self._missing:
            return
        self._missing = why.missing
        if self._lost_s is None:
            self._lost_s = self._since_s
        log.warning("%s: the quorum is lost: %s", self._name, why.reason)

    def _log_stall(self, why: RefusalReason) -> None:
        """Log once that elections do not end, although a majority is reachable."""
        if self._is_stall_told or why.since_ms < STALLED_ELECTIONS * self._interval_s * 1000:
            return
        self._is_stall_told = True
        log.warning(
            "%s: no leader is elected although a majority is reachable: %s; copycat cluster status"
            " %s says which of the others does not vote for it, and why",
            self._name,
            why.reason,
            self._replica.members.own_address,
        )

    def log_missing_members(self, unlinked: dict[str, str], seconds: float) -> None:
        """Log for which members a start waits.

        unlinked: the address of each peer without a link, with the reason. seconds: how long the
        start has waited.
        """
        status = self._replica.status()
        text = waiting_text(self._replica.raft.configuration, unlinked)
        if not text:
            missing = (
                f"; {status.missing_entries} must be fetched first"
                if status.missing_entries
                else ""
            )
            away = "".join(f"; {address}: {why}" for address, why in sorted(unlinked.items()))
            text = f"waiting for an election in term {status.term}{missing}{away}"
        refused = "".join(f"; {each}" for each in self._refused()[-REFUSED_SHOWN:])
        log.warning("%s: %s (for %.0f s by now)%s", self._name, text, seconds, refused)


def waiting_text(configuration: Configuration, unlinked: dict[str, str]) -> str:
    """How many of which voters a start waits for, each with the reason; "" when enough are linked.

    unlinked: the address of each member without a link, with the reason.
    """
    voters = {
        each.address: each.member
        for each in configuration.members
        if configuration.has_vote(each.member)
    }
    reached = [member for address, member in voters.items() if address not in unlinked]
    if configuration.has_quorum(reached):
        return ""
    missing = sorted(voters.keys() & unlinked.keys())
    needed = configuration.quorum_size
    why = "; ".join(f"{address}: {unlinked[address]}" for address in missing)
    return (
        f"waiting for {needed - len(reached)} of {', '.join(missing)}"
        f" (need {needed} of {len(voters)}): {why}"
    )
