"""Transfers of leadership that were asked for: reports whether each happened, or why not."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from copycat.raft.core import Raft
from copycat.raft.effects import TransferFailure, TransferFinished
from copycat.raft.events import TransferRequested
from copycat.replica.driver import Driver
from copycat.replica.members import MemberTable
from copycat.types import MemberId, ServerState

__all__ = ["LeadershipTransfer", "TransferOutcome"]

LEADS_ON = frozenset({TransferFailure.LAGS, TransferFailure.UNREACHABLE, TransferFailure.SILENT})
"""These say what is wrong with the member that was tried."""


class TransferOutcome(msgspec.Struct, frozen=True):
    """The result of a transfer of leadership.

    ok: the member that was asked for leads now. why: why not, a whole sentence without its end.
    leader: address of who leads now, as far as known.
    """

    ok: bool
    failure: TransferFailure | None = None
    why: str = ""
    leader: str = ""


class LeadershipTransfer:
    """One answer of the core ends all that were asked meanwhile, each by its own target.

    members: with their addresses.
    """

    def __init__(self, raft: Raft, driver: Driver, members: MemberTable) -> None:
        self._raft = raft
        self._driver = driver
        self._members = members
        self._waiters: list[tuple[MemberId, Callable[[TransferOutcome], None]]] = []

    def ask(self, to: MemberId, done: Callable[[TransferOutcome], None]) -> None:
        """In a turn: to `to`, or to the best follower when 0."""
        if self._raft.state is not ServerState.LEADER:
            done(self._outcome(to, TransferFinished(ok=False, failure=TransferFailure.NO_TARGET)))
            return
        if to == self._raft.member:  # asked for again, since an answer was lost
            done(TransferOutcome(ok=True, leader=self._members.own_address))
            return
        self._waiters.append((to, done))
        self._driver.step(TransferRequested(to))

    def finished(self, effect: TransferFinished) -> None:
        """The core said how the transfer ended."""
        waiters, self._waiters = self._waiters, []
        for to, done in waiters:
            done(self._outcome(to, effect))

    def _outcome(self, to: MemberId, effect: TransferFinished) -> TransferOutcome:
        raft, failure = self._raft, effect.failure
        leader = self._members.get(raft.leader, "")
        if effect.ok and to in (0, raft.leader):
            return TransferOutcome(ok=True, leader=leader)
        if effect.ok or failure is None:
            # A transfer that this member had begun by itself, to another member.
            is_another = raft.leader not in (0, raft.member)
            failure = TransferFailure.ANOTHER_LEADS if is_another else TransferFailure.SILENT
        target = effect.to or to
        tried = self._members.get(target, "the follower")
        name = self._members.get(to, tried)
        if failure in LEADS_ON and name != tried:
            failure = TransferFailure.BUSY
        if failure is TransferFailure.NO_TARGET and raft.state is ServerState.LEADER:
            why = self._why_no_target(target)
        else:
            why = self._why(name, tried, failure, effect.lacks)
        return TransferOutcome(ok=False, failure=failure, why=why, leader=leader)

    def _why(self, name: str, tried: str, failure: TransferFailure, lacks: int) -> str:
        """name: whom it was asked for.  tried: to whom it was, of several that were asked for."""
        raft = self._raft
        me, leader = self._members.own_address, self._members.get(raft.leader, "")
        match failure:
            case TransferFailure.LAGS:
                return (
                    f"{name} lacked {lacks} entries for an election timeout;"
                    f" {me} remains the leader"
                )
            case TransferFailure.UNREACHABLE:
                return f"{me} has no link to {name}, and remains the leader"
            case TransferFailure.SILENT:
                return (
                    f"{name} did not take over within an election timeout; {me} remains the leader"
                )
            case TransferFailure.BUSY:
                return (
                    f"{me} was handing leadership to {tried} when {name} was asked for; that"
                    f" failed, and {me} remains the leader"
                )
            case TransferFailure.ANOTHER_LEADS:
                term = raft.current_term
                return f"{name} did not win the election: {leader} leads term {term}"
            case TransferFailure.NOBODY_LEADS:
                return f"{me} gave up leadership for {tried}, and no leader was heard in time"
            case TransferFailure.QUORUM_LOST:
                return f"{me} heard no majority meanwhile and stopped leading"
            case TransferFailure.NO_TARGET:
                return f"{me} does not lead"

    def _why_no_target(self, target: MemberId) -> str:
        """target: to whom leadership was to be handed; 0 for whoever is best."""
        members, me = self._members, self._members.own_address
        if target and target not in members:
            return f"{target:032x} is not a member any more; {me} remains the leader"
        if target in members and not members.configuration.has_vote(target):
            return f"{members[target]} has no vote, so it cannot lead; {me} remains the leader"
        return f"{me} has no follower to hand leadership to"
