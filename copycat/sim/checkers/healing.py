"""The laws of healing (C39), held against each step that a leader asks for."""

from __future__ import annotations

from collections.abc import Mapping

from copycat.protocol.member_record import MemberRecord
from copycat.raft.changes import next_configuration, with_vote
from copycat.raft.configuration import Configuration
from copycat.raft.core import Raft
from copycat.raft.healing import HealingStep
from copycat.raft.leader_state import LeaderState
from copycat.raft.progress import Progress
from copycat.raft.spread import Swap, spread, swapped
from copycat.sim.checkers.log_history import violated
from copycat.types import ChangeKind, ChangeRefusal, EntryId, MemberId, MemberType

__all__ = ["HealingChecker"]


class HealingChecker:
    """One for a world. A member is named by its number."""

    def __init__(self) -> None:
        self._last_ms: dict[tuple[int, int], int] = {}
        """By member and term: when the leader took its last step."""
        self._progress: dict[int, dict[MemberId, Progress]] = {}
        """By leader: what it knew of its peers after the turn before. A step that is committed in
        its own turn puts a new `Progress` in the place of the one that it went by."""

    def looked(self, number: int, raft: Raft) -> None:
        """A turn of this member is over, and any step of it was checked."""
        if raft.leader_state is not None:
            self._progress[number] = dict(raft.leader_state.progress)
        else:
            self._progress.pop(number, None)

    def stepped(self, number: int, raft: Raft, step: HealingStep, before: Configuration) -> None:
        """A leader asked for this step; `before` is the configuration that it is based on."""
        leader_state = raft.leader_state
        if leader_state is None:
            return  # it leads no more: what it saw is gone
        self._check_time(number, raft, step, before)
        record = before.record(step.change.member)
        if record is None or step.change.base != before.entry:
            raise violated("C39", "a step about nobody", leader=number, step=step)
        progress = {**leader_state.progress, **self._progress.get(number, {})}
        sight = _Sight(raft, leader_state, before, progress)
        if not sight.may_be(step, record):
            raise violated(
                "C39",
                "a step against a user, or about a member that is not what it should be",
                leader=number,
                step=step,
                record=record,
                silent_ms=sight.silent_ms(record),
            )
        self._check_spread(number, step, sight)

    def _check_time(
        self, number: int, raft: Raft, step: HealingStep, before: Configuration
    ) -> None:
        key = number, raft.current_term
        last_ms = self._last_ms.get(key)
        if last_ms is not None and raft.now_ms < last_ms + before.policy.heal_interval_ms:
            raise violated("C39", "two steps too soon", leader=number, step=step, last_ms=last_ms)
        self._last_ms[key] = raft.now_ms

    @staticmethod
    def _check_spread(number: int, step: HealingStep, sight: _Sight) -> None:
        change, before = step.change, sight.before
        entry = EntryId(before.entry.term, 1 << 40)
        after = next_configuration(change, before, entry)
        if isinstance(after, ChangeRefusal):
            raise violated("C39", "a step that cannot be made", leader=number, step=step)
        if change.type is MemberType.ACTIVE:
            after = with_vote(change.member, after, entry)
        # A slow voter that is replaced is as good as none, where the policy says so.
        heard = sight.heard - {each for each in before.ids if sight.is_slow(each, step)}
        target = before.policy.target_active
        is_voter_change = MemberType.ACTIVE in (change.type, before.type(change.member))
        if is_voter_change and spread(after, heard, target) < spread(before, heard, target):
            raise violated(
                "C39",
                "a step leaves fewer voters that are heard, or spreads them worse",
                leader=number,
                step=step,
                before=before,
            )
        n_heard = sum(voter in heard for voter in after.voters)
        if change.type is MemberType.ACTIVE and n_heard > target + 1:
            raise violated("C39", "too many voters", leader=number, step=step, before=before)
        sight.check_swap(number, step)


class _Sight:
    """What a leader has seen itself, as its core has it.

    progress: of its peers, as it was before the step.
    """

    def __init__(
        self,
        raft: Raft,
        leader_state: LeaderState,
        before: Configuration,
        progress: Mapping[MemberId, Progress],
    ) -> None:
        self._raft = raft
        self._leader_state = leader_state
        self._progress = progress
        self.before = before
        self.heard = frozenset(
            each for each in before.ids if not leader_state.heard.silent_rounds(each)
        )

    def silent_ms(self, record: MemberRecord) -> int:
        progress = self._progress.get(record.member)
        return 0 if progress is None else self._raft.now_ms - progress.last_contact_ms

    def is_slow(self, member: MemberId, step: HealingStep) -> bool:
        """Whether the step is about a voter that answers, and that it may replace since it was
        behind for long."""
        change, slow_ms = step.change, self.before.policy.replace_slow_after_ms
        if not slow_ms or member not in (change.replaces, change.member):
            return False
        rounds = self._leader_state.lags.rounds_behind(member)
        is_voter = self.before.has_vote(member) and self._leader_state.heard.is_heard(member)
        return is_voter and rounds * self._raft.options.heartbeat_interval_ms >= slow_ms

    def may_be(self, step: HealingStep, record: MemberRecord) -> bool:
        """Whether healing may ask for this of this member."""
        policy, silent_ms = self.before.policy, self.silent_ms(record)
        is_dead = silent_ms >= policy.heal_after_ms
        match step.change.kind:
            case ChangeKind.PROMOTE:
                return not record.is_demoted and silent_ms <= policy.heal_after_ms
            case ChangeKind.DEMOTE:
                return record.is_leaving or is_dead or self.is_slow(record.member, step)
            case ChangeKind.REMOVE:
                is_replaced = any(each.replaces == record.member for each in self.before.members)
                is_voter = record.type is MemberType.ACTIVE
                return is_dead and is_replaced and not (is_voter or record.is_demoted)
            case _:
                return False

    def check_swap(self, number: int, step: HealingStep) -> None:
        """A live voter gives its place to another member only if that is better in the end, and
        never the leader, nor a voter beside another one that goes."""
        before, change = self.before, step.change
        voter, candidate = before.record(change.replaces), before.record(change.member)
        if voter is None or candidate is None or voter.member not in self.heard:
            return
        target = before.policy.target_active
        heard = self.heard | {candidate.member}
        after = spread(swapped(before, Swap(voter, candidate)), heard, target)
        now = spread(before, self.heard, target)
        is_better = after >= now if self.is_slow(voter.member, step) else after > now
        is_second = any(each.is_leaving for each in before.members)
        if is_second or voter.member == self._raft.member or not is_better:
            raise violated("C39", "a live voter is moved", leader=number, step=step, before=before)
