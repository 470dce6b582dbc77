"""What a leader changes by itself when members are away (C39): the next step, or none.

A step is one change of one member, made as a user's change is, and follows from the committed
configuration, which holds the policy and the marks, and from what this leader has seen itself in
its term. So the next leader continues what this one began.

A dead voter becomes passive, and the best passive member takes its place. Which of the two comes
first C37 decides: with an odd number of voters and as many dead as it bears, the demotion.

When nothing is dead and the voters are as many as they are to be, a live voter gives its place to
a member that is nearer to the end of the log, or of another failure domain. Such a swap begins
with the promotion, whose entry marks the voter that goes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from copycat.protocol.member_record import HealingPolicy, MemberRecord, member_name
from copycat.raft.changes import NOBODY, ConfigurationChange, next_configuration, with_vote
from copycat.raft.configuration import Configuration
from copycat.raft.spread import Spread, Swap, best_rebalancing, by_weight, spread, swapped
from copycat.types import ChangeRefusal, EntryId, MemberId, MemberType

__all__ = ["HealingCause", "HealingPlan", "HealingStep", "MemberSight", "is_healing"]


class MemberSight(NamedTuple):
    """What a leader has seen itself of one member."""

    silent_ms: int
    """For so long it has answered no heartbeat; 0: it answers."""
    is_in_reach: bool
    """It is linked, and has what was committed a moment ago."""
    slow_ms: int = 0
    """It answers, and for so long it was behind while entries were committed."""
    nearer: frozenset[MemberId] = frozenset()
    """Passive members that were much nearer to the end of the log for as long as the policy
    says."""


class HealingCause(enum.StrEnum):
    """What a step is about."""

    SWAP = "the second half of a swap"
    DEAD_VOTER = "a dead voter is replaced"
    FEW_VOTERS = "a voter is added"
    FEW_PASSIVE = "a passive member is added"
    LOST_DIRECTORY = "a lost directory is removed"
    LONG_AWAY = "a passive member is suspended"
    SLOW_VOTER = "a slow voter is replaced"
    UNEVEN = "live voters are spread"


class HealingStep(NamedTuple):
    """One change that a leader asks for by itself, and why, in words."""

    change: ConfigurationChange
    cause: HealingCause
    what: str
    reason: str


def is_healing(policy: HealingPolicy) -> bool:
    """Whether a leader changes anything by itself."""
    return policy.is_on and bool(policy.target_active or policy.target_passive)


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
            or self._remove_lost()
            or self._suspend_passive()
            or self._swap_live()
        )

    # ---- voters ------------------------------------------------------------------------------

    def _complete_swap(self) -> HealingStep | None:
        """The other half of a swap that began with a promotion: the voter that is marked goes,
        unless fewer voters would be heard then than there are to be."""
        for voter in self._of_type(MemberType.ACTIVE):
            if not voter.is_leaving:
                continue
            reason = "another member has taken its place"
            step = self._demote(voter, MemberType.PASSIVE, HealingCause.SWAP, reason)
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
        cause = HealingCause.DEAD_VOTER
        demotion = self._demote(voter, MemberType.PASSIVE, cause, self._silence(voter))
        if self._spread().voters >= self.policy.target_active:
            return demotion if self._can_append(demotion) else None
        candidate = self._best_passive()
        if candidate is None:
            self.obstacles.append(f"no passive member can take the place of {self._name(voter)}")
            return None
        reason = f"it takes the place of {self._name(voter)}: {self._silence(voter)}"
        promotion = self._promote(candidate, MemberType.ACTIVE, cause, reason, voter.member)
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
        step = self._promote(candidate, MemberType.ACTIVE, HealingCause.FEW_VOTERS, reason)
        return step if self._can_append(step) else None

    def _best_passive(self) -> MemberRecord | None:
        """Whose vote spreads the voters best; then by weight, then any."""
        return max(self._able_passive(), key=self._rank, default=None)

    def _able_passive(self) -> list[MemberRecord]:
        return [each for each in self._of_type(MemberType.PASSIVE) if self._is_able(each)]

    def _rank(self, each: MemberRecord) -> tuple[Spread, int, int]:
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
        leaving = [each for each in self._of_type(MemberType.ACTIVE) if each.is_leaving]
        alive = [
            each
            for each in (*self._of_type(MemberType.PASSIVE), *leaving)
            if self._silent_ms(each.member) < policy.heal_after_ms
        ]
        if len(alive) >= policy.target_passive:
            return None
        able = [each for each in self._of_type(MemberType.RESERVE) if self._is_able(each)]
        if not able:
            self.obstacles.append("no reserve member can become passive")
            return None
        reason = f"there are {len(alive)} of {policy.target_passive} passive members"
        best, cause = max(able, key=by_weight), HealingCause.FEW_PASSIVE
        step = self._promote(best, MemberType.PASSIVE, cause, reason)
        return step if self._can_append(step) else None

    def _remove_lost(self) -> HealingStep | None:
        """Who has no vote, is away, and lost its directory, as the member says that has come back
        in its place (C43): nobody will ever come back with that directory."""
        for new in self.now.members:
            old = self.now.record(new.replaces)
            if old is None or old.type is MemberType.ACTIVE or old.is_demoted:
                continue
            if self._silent_ms(old.member) < self.policy.heal_after_ms:
                continue
            name = self._name(old)
            change = ConfigurationChange.remove(old.member, self.now.entry)
            change = change._replace(is_healing=True)
            reason = f"its directory is lost, and {self._name(new)} has come in its place"
            cause = HealingCause.LOST_DIRECTORY
            step = HealingStep(change, cause, f"{name} is removed", reason)
            if self._can_append(step):
                return step
        return None

    def _suspend_passive(self) -> HealingStep | None:
        if not self.policy.suspend_after_ms:
            return None
        for each in self._dead(MemberType.PASSIVE, self.policy.suspend_after_ms):
            cause = HealingCause.LONG_AWAY
            step = self._demote(each, MemberType.RESERVE, cause, self._silence(each))
            if self._can_append(step):
                return step
        return None

    # ---- voters that are alive ---------------------------------------------------------------

    def _swap_live(self) -> HealingStep | None:
        """Only while there are as many voters as there are to be: a swap begins with one more, and
        who has given the vote to more of them has decided that."""
        if len(self.now.voters) != self.policy.target_active:
            return None
        if any(each.is_leaving for each in self.now.members):
            return None
        return self._replace_slow() or self._rebalance()

    def _replace_slow(self) -> HealingStep | None:
        """Where that is switched on, a slow voter is as good as none: so, as with a dead one, the
        demotion comes first if C37 does not allow the promotion."""
        voters = self._of_type(MemberType.ACTIVE)
        slow = [voter for voter in voters if self._is_slow(voter)]
        if not self.now.has_quorum([each.member for each in voters if each not in slow]):
            return None
        for voter in sorted(slow, key=self._slowness, reverse=True):
            candidate = self._nearer_passive(voter)
            if candidate is None:
                self.obstacles.append(
                    f"{self._name(voter)} is slow, and no passive member is much quicker and"
                    " spreads the voters as well"
                )
                continue
            cause, lag = HealingCause.SLOW_VOTER, self._lag(voter)
            reason = f"it takes the place of {self._name(voter)}: {lag}"
            promotion = self._promote(candidate, MemberType.ACTIVE, cause, reason, voter.member)
            for step in (promotion, self._demote(voter, MemberType.PASSIVE, cause, lag)):
                if self._can_append(step):
                    return step
        return None

    def _nearer_passive(self, voter: MemberRecord) -> MemberRecord | None:
        """The best of those that were nearer than `voter` and spread the voters no worse."""
        nearer = self._sights[voter.member].nearer
        able = [
            each
            for each in self._able_passive()
            if each.member in nearer
            and self._spread(swapped(self.now, Swap(voter, each))) >= self._spread()
        ]
        return max(able, key=self._rank, default=None)

    def _rebalance(self) -> HealingStep | None:
        """A domain came back, or got its first passive member."""
        if not self.policy.rebalance:
            return None
        able = self._able_passive()
        swap = best_rebalancing(self.now, self._leader, self.heard, able)
        if swap is None:
            return None
        voter, candidate = swap
        reason = (
            f"it takes the place of {self._name(voter)}: {self._voters_in(voter)}, and"
            f" {self._voters_in(candidate)}"
        )
        cause = HealingCause.UNEVEN
        step = self._promote(candidate, MemberType.ACTIVE, cause, reason, voter.member)
        return step if self._can_append(step) else None

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

    def _is_slow(self, each: MemberRecord) -> bool:
        sight = self._sights.get(each.member)
        return sight is not None and sight.slow_ms >= self.policy.replace_slow_after_ms > 0

    def _slowness(self, each: MemberRecord) -> tuple[int, int]:
        return self._sights[each.member].slow_ms, each.member

    def _spread(self, configuration: Configuration | None = None) -> Spread:
        now = self.now if configuration is None else configuration
        return spread(now, self.heard, self.policy.target_active)

    def _spread_after(self, step: HealingStep) -> Spread:
        after = next_configuration(step.change, self.now, self._next_entry)
        return Spread(-1, 0, 0, 0) if isinstance(after, ChangeRefusal) else self._spread(after)

    def _silence(self, each: MemberRecord) -> str:
        silent_s = self._silent_ms(each.member) / 1000
        return f"{self._name(each)} was not heard for {silent_s:.1f} s"

    def _lag(self, each: MemberRecord) -> str:
        slow_s = self._sights[each.member].slow_ms / 1000
        return f"{self._name(each)} was behind for {slow_s:.1f} s"

    def _voters_in(self, each: MemberRecord) -> str:
        domain = each.failure_domain
        n_voters = sum(
            voter.failure_domain == domain for voter in self._of_type(MemberType.ACTIVE)
        )
        return f"{n_voters} of the voters in {domain}"

    def _name(self, each: MemberRecord) -> str:
        return member_name(each.member, each.address, self._addresses)

    # ---- steps -------------------------------------------------------------------------------

    def _promote(
        self,
        each: MemberRecord,
        to: MemberType,
        cause: HealingCause,
        reason: str,
        replaces: MemberId = NOBODY,
    ) -> HealingStep:
        change = ConfigurationChange.promote(each.member, to, self.now.entry)
        change = change._replace(is_healing=True, replaces=replaces)
        return HealingStep(change, cause, f"{self._name(each)} becomes {to}", reason)

    def _demote(
        self, each: MemberRecord, to: MemberType, cause: HealingCause, reason: str
    ) -> HealingStep:
        change = ConfigurationChange.demote(each.member, to, self.now.entry)
        change = change._replace(is_healing=True)
        return HealingStep(change, cause, f"{self._name(each)} becomes {to}", reason)

    def _can_append(self, step: HealingStep) -> bool:
        """C37, also of the vote that a flag is to lead to."""
        change = step.change
        after = next_configuration(change, self.now, self._next_entry)
        if isinstance(after, ChangeRefusal) or not self._may_append(after):
            return False
        if change.type is not MemberType.ACTIVE:
            return True
        return self._may_append(with_vote(change.member, after, self._next_entry))
