"""The laws of healing (C39), held against each step that a leader asks for."""

from __future__ import annotations

from copycat.raft.changes import next_configuration
from copycat.raft.configuration import Configuration
from copycat.raft.core import Raft
from copycat.raft.healing import HealingStep, spread
from copycat.sim.checkers.log_history import violated
from copycat.types import ChangeKind, ChangeRefusal, EntryId, MemberType

__all__ = ["HealingChecker"]


class HealingChecker:
    """One for a world. A member is named by its number."""

    def __init__(self) -> None:
        self._last_ms: dict[tuple[int, int], int] = {}
        """By member and term: when the leader took its last step."""

    def stepped(self, number: int, raft: Raft, step: HealingStep, before: Configuration) -> None:
        """A leader asked for this step; `before` is the configuration that it is based on."""
        if raft.leader_state is None:
            return  # it leads no more: what it saw is gone
        self._check_time(number, raft, step, before)
        change = step.change
        record = before.record(change.member)
        if record is None or change.base != before.entry:
            raise violated("C39", "a step about nobody", leader=number, step=step)
        leader_state = raft.leader_state
        progress = leader_state.progress.get(change.member)
        silent_ms = 0 if progress is None else raft.now_ms - progress.last_contact_ms
        if change.kind is ChangeKind.PROMOTE:
            is_wrong = record.is_demoted or silent_ms > before.policy.heal_after_ms
        else:
            is_wrong = not record.is_leaving and silent_ms < before.policy.heal_after_ms
        if change.kind not in (ChangeKind.PROMOTE, ChangeKind.DEMOTE) or is_wrong:
            raise violated(
                "C39",
                "a step against a user, or about a member that is not what it should be",
                leader=number,
                step=step,
                record=record,
                silent_ms=silent_ms,
            )
        self._check_spread(number, raft, step, before)

    def _check_time(
        self, number: int, raft: Raft, step: HealingStep, before: Configuration
    ) -> None:
        key = number, raft.current_term
        last_ms = self._last_ms.get(key)
        if last_ms is not None and raft.now_ms < last_ms + before.policy.heal_interval_ms:
            raise violated("C39", "two steps too soon", leader=number, step=step, last_ms=last_ms)
        self._last_ms[key] = raft.now_ms

    @staticmethod
    def _check_spread(number: int, raft: Raft, step: HealingStep, before: Configuration) -> None:
        leader_state = raft.leader_state
        after = next_configuration(step.change, before, EntryId(before.entry.term, 1 << 40))
        if isinstance(after, ChangeRefusal) or leader_state is None:
            raise violated("C39", "a step that cannot be made", leader=number, step=step)
        heard = {each for each in before.ids if not leader_state.heard.silent_rounds(each)}
        target = before.policy.target_active
        is_voter_change = MemberType.ACTIVE in (step.change.type, before.type(step.change.member))
        if is_voter_change and spread(after, heard, target) < spread(before, heard, target):
            raise violated(
                "C39",
                "a step leaves fewer voters that are heard, or spreads them worse",
                leader=number,
                step=step,
                before=before,
            )
