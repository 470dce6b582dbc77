"""The leader's part that heals (C39): now and then it asks the core for the next step, as a user
would ask for a change, and says why in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from copycat.raft.change_requests import is_caught_up, may_append, missing_voters
from copycat.raft.changes import ConfigurationChange
from copycat.raft.configuration import Configuration
from copycat.raft.core import Raft
from copycat.raft.healing import HealingPlan, HealingStep, MemberSight, is_healing
from copycat.raft.leader_state import LeaderState
from copycat.types import MemberId, MemberStatus

__all__ = ["Healing"]

_LOG = logging.getLogger("copycat.replica")

REST_MS_MAX = 3_600_000
"""The same member is promoted again after this time at the latest."""


class _Promotion:
    """When a member was promoted last, and for how long it is not promoted again."""

    def __init__(self, now_ms: int, rest_ms: int) -> None:
        self.at_ms = now_ms
        self.rest_ms = rest_ms

    def repeat(self, now_ms: int) -> None:
        self.at_ms = now_ms
        self.rest_ms = min(2 * self.rest_ms, REST_MS_MAX)


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
        self._promotions: dict[MemberId, _Promotion] = {}
        self._known = members.committed
        self._look_ms = 0
        """Before this time it is not looked whether there is a step to take."""
        self._stepped_ms: int | None = None
        """When this member took its last step."""
        self._term = 0
        """Of the leadership in which `_obstacles` was logged."""
        self._obstacles: list[str] = []
        self.steps = 0
        """How many steps this member has asked for."""
        self.last_step: HealingStep | None = None

    # ---- what every member remembers -----------------------------------------------------

    def configuration_committed(self, configuration: Configuration) -> None:
        """See `ClusterListener`."""
        before, self._known = self._known, configuration
        now_ms, rest_ms = self._raft.now_ms, configuration.policy.heal_interval_ms
        for each in configuration.members:
            record = before.record(each.member)
            if record is None or record.type.rank + record.is_promotable >= (
                each.type.rank + each.is_promotable
            ):
                continue
            if each.member in self._promotions:
                self._promotions[each.member].repeat(now_ms)
            else:
                self._promotions[each.member] = _Promotion(now_ms, rest_ms)
        for member in [each for each in self._promotions if each not in configuration.ids]:
            del self._promotions[member]

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
        self._look_ms = now_ms + raft.options.election_timeout_ms
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
        resting = {
            member
            for member, each in self._promotions.items()
            if raft.now_ms < each.at_ms + each.rest_ms
        }
        return HealingPlan(
            now,
            raft.member,
            {peer: self._sight(leader_state, peer) for peer in now.others(raft.member)},
            self._may_append,
            resting,
        )

    def _sight(self, leader_state: LeaderState, peer: MemberId) -> MemberSight:
        raft, progress = self._raft, leader_state.progress.get(peer)
        heard = leader_state.heard
        silent_ms = heard.silent_rounds(peer) * raft.options.heartbeat_interval_ms
        if progress is None:
            return MemberSight(silent_ms, is_in_reach=False)
        if progress.last_contact_ms >= heard.round_at_ms:
            silent_ms = 0
        return MemberSight(silent_ms, is_caught_up(raft, leader_state, peer, progress))

    def _may_append(self, configuration: Configuration) -> bool:
        leader_state = self._raft.leader_state
        return leader_state is not None and not missing_voters(
            self._raft, leader_state, configuration
        )

    def _log_obstacles(self, obstacles: list[str]) -> None:
        """Once, until they are others."""
        term = self._raft.current_term
        if (self._term, self._obstacles) != (term, obstacles):
            self._term, self._obstacles = term, obstacles
            for each in obstacles:
                _LOG.warning("%s cannot heal: %s", self._members.own_address, each)
