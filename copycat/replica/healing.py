"""The leader's part that heals (C39): now and then it asks the core for the next step, as a user
would ask for a change, and says why in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from copycat.raft.change_requests import is_caught_up, may_append, missing_voters
from copycat.raft.changes import ConfigurationChange
from copycat.raft.configuration import Configuration, MemberRecord
from copycat.raft.core import Raft
from copycat.raft.healing import HealingPlan, HealingStep, MemberSight, is_healing
from copycat.raft.leader_state import LeaderState
from copycat.types import MemberId, MemberStatus, MemberType

__all__ = ["Healing"]

_LOG = logging.getLogger("copycat.replica")

REST_MS_MAX = 3_600_000
"""The same member is promoted again after this time at the latest; and for so long it has to stay
what it is for its rests to be short again."""

OBSTACLE_MS = 60_000
"""What was no obstacle for so long is logged again."""


class _Rest:
    """Since when a member is not promoted again, and for how long."""

    def __init__(self, now_ms: int, rest_ms: int) -> None:
        self.since_ms = now_ms
        self.rest_ms = rest_ms

    def repeat(self, now_ms: int) -> None:
        """It was promoted once more."""
        self.since_ms = now_ms
        self.rest_ms = min(2 * self.rest_ms, REST_MS_MAX)

    def is_over(self, now_ms: int) -> bool:
        """Whether it may be promoted again."""
        return now_ms >= self.since_ms + self.rest_ms

    def is_forgotten(self, now_ms: int) -> bool:
        """Whether the last promotion is so long ago that the next one counts as the first."""
        return now_ms >= self.since_ms + self.rest_ms + REST_MS_MAX


class HealedMembers(Protocol):
    """What is asked of the table of the members (`MemberTable`)."""

    @property
    def own_address(self) -> str: ...
    @property
    def committed(self) -> Configuration: ...


class Healing:
    """Called in turns. Implements `ClusterListener`, to remember who was promoted when, whoever
    led then.

    ask: gives a change to the core.
    """

    def __init__(
        self, raft: Raft, members: HealedMembers, ask: Callable[[ConfigurationChange], None]
    ) -> None:
        self._raft = raft
        self._members = members
        self._ask = ask
        self._rests: dict[MemberId, _Rest] = {}
        self._known = members.committed
        self._look_ms = 0
        """Before this time it is not looked whether there is a step to take."""
        self._stepped_ms: int | None = None
        """When this member took its last step."""
        self._term = 0
        """Of the leadership in which `_obstacles` was logged."""
        self._obstacles: dict[str, int] = {}
        """When each was seen last."""
        self.steps = 0
        """How many steps this member has asked for."""
        self.last_step: HealingStep | None = None

    # ---- what every member remembers -----------------------------------------------------

    def configuration_committed(self, configuration: Configuration) -> None:
        """See `ClusterListener`: a rest begins with a promotion, and again with the end of a
        vote, so who could not keep its vote does not get it back at once."""
        before, self._known = self._known, configuration
        now_ms, rest_ms = self._raft.now_ms, configuration.policy.heal_interval_ms
        for each in configuration.members:
            record = before.record(each.member)
            if record is None:
                continue
            rest = self._rests.get(each.member)
            is_raised = _is_raised(record, each)
            if not is_raised and not (record.type is MemberType.ACTIVE is not each.type):
                continue
            if rest is None or rest.is_forgotten(now_ms):
                self._rests[each.member] = _Rest(now_ms, rest_ms)
            elif is_raised:
                rest.repeat(now_ms)
            else:
                rest.since_ms = now_ms
        for member in [each for each in self._rests if each not in configuration.ids]:
            del self._rests[member]

    @property
    def resting(self) -> frozenset[MemberId]:
        """Who is not promoted now."""
        now_ms = self._raft.now_ms
        return frozenset(each for each, rest in self._rests.items() if not rest.is_over(now_ms))

    def leader_changed(self, leader: MemberId, term: int) -> None:
        """See `ClusterListener`: a new leader begins by what it sees itself."""

    def status_changed(self, member: MemberId, status: MemberStatus) -> None:
        """See `ClusterListener`: a leader heals by what it sees itself."""

    # ---- the leader ------------------------------------------------------------------------

    def advance(self, now_ms: int) -> None:
        """Now and then: ask for the next step, if it is time for one."""
        raft, leader_state = self._raft, self._raft.leader_state
        policy = raft.committed_configuration.policy
        if leader_state is None or now_ms < self._look_ms or not is_healing(policy):
            return
        self._look_ms = now_ms + raft.options.heartbeat_interval_ms  # each round shows more
        stepped_ms = self._stepped_ms
        if stepped_ms is not None and now_ms < stepped_ms + policy.heal_interval_ms:
            return
        if not may_append(raft, leader_state) or not self._is_ready(leader_state):
            return
        plan = self._plan(leader_state)
        step = plan.next_step()
        self._log_obstacles(plan.obstacles)
        if step is None:
            return
        self._stepped_ms = now_ms
        self.steps += 1
        self.last_step = step
        own_address = self._members.own_address
        _LOG.warning("%s heals: %s, since %s", own_address, step.what, step.reason)
        self._ask(step.change)

    def _is_ready(self, leader_state: LeaderState) -> bool:
        """It has led for long enough to know who is away, and hears a majority."""
        raft, heard = self._raft, leader_state.heard
        now = raft.committed_configuration
        voters = [raft.member, *(each for each in now.voters if heard.is_heard(each))]
        has_led_ms = heard.rounds * raft.options.heartbeat_interval_ms
        return has_led_ms >= now.policy.heal_after_ms and now.has_quorum(set(voters))

    def _plan(self, leader_state: LeaderState) -> HealingPlan:
        raft, now = self._raft, self._raft.committed_configuration
        return HealingPlan(
            now,
            raft.member,
            {peer: self._sight(leader_state, peer) for peer in now.others(raft.member)},
            self._may_append,
            self.resting,
        )

    def _sight(self, leader_state: LeaderState, peer: MemberId) -> MemberSight:
        raft, progress = self._raft, leader_state.progress.get(peer)
        heard = leader_state.heard
        silent_ms = heard.silent_rounds(peer) * raft.options.heartbeat_interval_ms
        if progress is None:
            return MemberSight(silent_ms, is_in_reach=False)
        if progress.last_contact_ms >= heard.round_at_ms:
            silent_ms = 0
        is_in_reach = is_caught_up(raft, leader_state, peer, progress)
        sight = MemberSight(silent_ms, is_in_reach)
        slow_after_ms, lags = (
            raft.committed_configuration.policy.replace_slow_after_ms,
            leader_state.lags,
        )
        if not (slow_after_ms and lags.is_moving and heard.is_heard(peer)):
            return sight
        heartbeat_ms = raft.options.heartbeat_interval_ms
        nearer = lags.nearer(peer, -(-slow_after_ms // heartbeat_ms))
        return sight._replace(slow_ms=lags.rounds_behind(peer) * heartbeat_ms, nearer=nearer)

    def _may_append(self, configuration: Configuration) -> bool:
        leader_state = self._raft.leader_state
        return leader_state is not None and not missing_voters(
            self._raft, leader_state, configuration
        )

    def _log_obstacles(self, obstacles: list[str]) -> None:
        """Each once, until it was none for a while: a voter may be slow in bursts."""
        term, now_ms = self._raft.current_term, self._raft.now_ms
        if self._term != term:
            self._term = term
            self._obstacles.clear()
        for each in obstacles:
            seen_ms = self._obstacles.get(each)
            self._obstacles[each] = now_ms
            if seen_ms is None or now_ms >= seen_ms + OBSTACLE_MS:
                _LOG.warning("%s cannot heal: %s", self._members.own_address, each)


def _is_raised(before: MemberRecord, after: MemberRecord) -> bool:
    return before.type.rank + before.is_promotable < after.type.rank + after.is_promotable
