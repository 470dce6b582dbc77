"""What a leader changes by itself when members are away (C39): the next step, or none.

A step is one change of one member, made as a user's change is, and follows from the committed
configuration, which holds the policy and the marks, and from what this leader has seen itself in
its term. So the next leader continues what this one began.

A dead voter becomes passive, and the best passive member takes its place. Which of the two comes
first C37 decides: with an odd number of voters and as many dead as it bears, the demotion.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from copycat.protocol.member_record import HealingPolicy, MemberRecord, member_name
from copycat.raft.changes import NOBODY, ConfigurationChange, next_configuration, with_vote
from copycat.raft.configuration import Configuration
from copycat.types import ChangeRefusal, EntryId, MemberId, MemberType

__all__ = ["HealingPlan", "HealingStep", "MemberSight", "is_healing", "spread"]


class MemberSight(NamedTuple):
    """What a leader has seen itself of one member."""

    silent_ms: int
    """For so long it has answered no heartbeat; 0: it answers."""
    is_in_reach: bool
    """It is linked, and has what was committed a moment ago."""


class HealingStep(NamedTuple):
    """One change that a leader asks for by itself, and why, in words."""

    change: ConfigurationChange
    what: str
    reason: str


def is_healing(policy: HealingPolicy) -> bool:
    """Whether a leader changes anything by itself."""
    return policy.is_on and bool(policy.target_active or policy.target_passive)


def spread(now: Configuration, heard: Collection[MemberId], target: int) -> tuple[int, int, int]:
    """What no step makes less: the voters that are heard, up to the target; over how many domains
    they are spread; and how evenly."""
    counts: dict[str, int] = {}
    for each in now.members:
        if each.type is MemberType.ACTIVE and each.member in heard:
            counts[each.failure_domain] = counts.get(each.failure_domain, 0) + 1
    voters = sum(counts.values())
    return min(voters, target), len(counts), -max(counts.values(), default=0)


class HealingPlan:
    """Of one leader at one moment.

    now: the committed configuration, with nothing in flight. sights: of each other member.
    may_append: whether a configuration could be committed without the member that it brings
    (C37). resting: members that were promoted a short while ago, and are not promoted again.
    obstacles: filled with why a member that is away is not replaced.
    """

    def __init__(
        self,
        now: Configuration,
        leader: MemberId,
        sights: Mapping[MemberId, MemberSight],
        may_append: Callable[[Configuration], bool],
        resting: Collection[MemberId] = (),
    ) -> None:
        self.now = now
        self.policy = now.policy
        self._leader = leader
        self._sights = sights
        self._may_append = may_append
        self._resting = resting
        self._next_entry = EntryId(now.entry.term, now.entry.index + 1)
        self._addresses = [each.address for each in now.members]
        self.obstacles: list[str] = []
        self.heard = frozenset(
            each.member for each in now.members if self._silent_ms(each.member) == 0
        )

    def next_step(self) -> HealingStep | None:
        """What to change now; None: nothing."""
        if not is_healing(self.policy) or any(each.is_promotable for each in self.now.members):
            return None
        return (
            self._complete_swap()
            or self._replace_voter()
            or self._add_voter()
            or self._add_passive()
            or self._suspend_passive()
        )

    # ---- voters ------------------------------------------------------------------------------

    def _complete_swap(self) -> HealingStep | None:
        """The other half of a swap that began with a promotion: the voter that is marked goes,
        unless fewer voters would be heard then than there are to be."""
        for voter in self._of_type(MemberType.ACTIVE):
            if not voter.is_leaving:
                continue
            step = self._demote(voter, MemberType.PASSIVE, "another member has taken its place")
            if self._spread_after(step) >= self._spread() and self._can_append(step):
                return step
        return None

    def _replace_voter(self) -> HealingStep | None:
        if not self.policy.target_active:
            return None
        for voter in self._dead(MemberType.ACTIVE, self.policy.heal_after_ms):
            step = self._replace(voter)
            if step is not None:
                return step
        return None

    def _replace(self, voter: MemberRecord) -> HealingStep | None:
        demotion = self._demote(voter, MemberType.PASSIVE, self._silence(voter))
        if self._spread()[0] >= self.policy.target_active:
            return demotion if self._can_append(demotion) else None
        candidate = self._best_passive()
        if candidate is None:
            self.obstacles.append(f"no passive member can take the place of {self._name(voter)}")
            return None
        reason = f"it takes the place of {self._name(voter)}: {self._silence(voter)}"
        promotion = self._promote(candidate, MemberType.ACTIVE, reason, voter.member)
        for step in (promotion, demotion):
            if self._can_append(step):
                return step
        self.obstacles.append(f"too few voters are in reach for a change of {self._name(voter)}")
        return None

    def _add_voter(self) -> HealingStep | None:
        voters = self.now.voters
        if len(voters) >= self.policy.target_active:
            return None
        candidate = self._best_passive()
        if candidate is None:
            self.obstacles.append("no passive member can become a voter")
            return None
        reason = f"there are {len(voters)} of {self.policy.target_active} voters"
        step = self._promote(candidate, MemberType.ACTIVE, reason)
        return step if self._can_append(step) else None

    def _best_passive(self) -> MemberRecord | None:
        """Whose vote spreads the voters best; then by weight, then any."""
        able = [each for each in self._of_type(MemberType.PASSIVE) if self._is_able(each)]
        return max(able, key=self._rank, default=None)

    def _rank(self, each: MemberRecord) -> tuple[tuple[int, int, int], int, int]:
        as_voter = each._replace(type=MemberType.ACTIVE)
        after = self.now.with_record(as_voter, self._next_entry)
        return self._spread(after), each.weight, -each.member

    def _is_able(self, each: MemberRecord) -> bool:
        """Whether a member may be promoted: never against a user, and never who is away."""
        sight = self._sights.get(each.member)
        is_near = sight is not None and sight.silent_ms == 0 and sight.is_in_reach
        return is_near and not each.is_demoted and each.member not in self._resting

    # ---- others ------------------------------------------------------------------------------

    def _add_passive(self) -> HealingStep | None:
        policy = self.policy
        alive = [
            each
            for each in self._of_type(MemberType.PASSIVE)
            if self._silent_ms(each.member) < policy.heal_after_ms
        ]
        if len(alive) >= policy.target_passive:
            return None
        able = [each for each in self._of_type(MemberType.RESERVE) if self._is_able(each)]
        if not able:
            self.obstacles.append("no reserve member can become passive")
            return None
        reason = f"there are {len(alive)} of {policy.target_passive} passive members"
        step = self._promote(max(able, key=_weight_of), MemberType.PASSIVE, reason)
        return step if self._can_append(step) else None

    def _suspend_passive(self) -> HealingStep | None:
        if not self.policy.suspend_after_ms:
            return None
        for each in self._dead(MemberType.PASSIVE, self.policy.suspend_after_ms):
            step = self._demote(each, MemberType.RESERVE, self._silence(each))
            if self._can_append(step):
                return step
        return None

    # ---- what is seen ------------------------------------------------------------------------

    def _of_type(self, type: MemberType) -> list[MemberRecord]:
        return [each for each in self.now.members if each.type is type]

    def _silent_ms(self, member: MemberId) -> int:
        sight = self._sights.get(member)
        return 0 if sight is None else sight.silent_ms

    def _dead(self, type: MemberType, after_ms: int) -> list[MemberRecord]:
        """Those that were silent for so long, the longest first."""
        dead = [each for each in self._of_type(type) if self._silent_ms(each.member) >= after_ms]
        return sorted(dead, key=self._silence_of, reverse=True)

    def _silence_of(self, each: MemberRecord) -> tuple[int, int]:
        return self._silent_ms(each.member), each.member

    def _spread(self, configuration: Configuration | None = None) -> tuple[int, int, int]:
        now = self.now if configuration is None else configuration
        return spread(now, self.heard, self.policy.target_active)

    def _spread_after(self, step: HealingStep) -> tuple[int, int, int]:
        after = next_configuration(step.change, self.now, self._next_entry)
        return (-1, 0, 0) if isinstance(after, ChangeRefusal) else self._spread(after)

    def _silence(self, each: MemberRecord) -> str:
        silent_s = self._silent_ms(each.member) / 1000
        return f"{self._name(each)} was not heard for {silent_s:.1f} s"

    def _name(self, each: MemberRecord) -> str:
        return member_name(each.member, each.address, self._addresses)

    # ---- steps -------------------------------------------------------------------------------

    def _promote(
        self, each: MemberRecord, to: MemberType, reason: str, replaces: MemberId = NOBODY
    ) -> HealingStep:
        change = ConfigurationChange.promote(each.member, to, self.now.entry)
        change = change._replace(is_healing=True, replaces=replaces)
        return HealingStep(change, f"{self._name(each)} becomes {to}", reason)

    def _demote(self, each: MemberRecord, to: MemberType, reason: str) -> HealingStep:
        change = ConfigurationChange.demote(each.member, to, self.now.entry)
        change = change._replace(is_healing=True)
        return HealingStep(change, f"{self._name(each)} becomes {to}", reason)

    def _can_append(self, step: HealingStep) -> bool:
        """C37, also of the vote that a flag is to lead to."""
        change = step.change
        after = next_configuration(change, self.now, self._next_entry)
        if isinstance(after, ChangeRefusal) or not self._may_append(after):
            return False
        if change.type is not MemberType.ACTIVE:
            return True
        return self._may_append(with_vote(change.member, after, self._next_entry))


def _weight_of(each: MemberRecord) -> tuple[int, int]:
    return each.weight, -each.member
