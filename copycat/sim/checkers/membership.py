"""The laws of changing members, held against what members do: I11, I13, and same name, same
members.

The checker learns each configuration from the first member that shows it, and holds all others
against that. Which of them are committed the history of committed entries says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from copycat.raft.configuration import BOOTSTRAP, Configuration
from copycat.sim.checkers.log_history import violated
from copycat.types import EntryId, MemberId, MemberType, ServerState

__all__ = ["MembershipChecker", "MembershipView"]


class LogView(Protocol):
    """What is asked of the model of a member's disk (`DiskModel`)."""

    @property
    def last_index(self) -> int: ...
    def term_at(self, index: int) -> int: ...


class MembershipView(Protocol):
    """What is asked of a member that runs."""

    @property
    def number(self) -> int: ...
    @property
    def state(self) -> ServerState: ...
    @property
    def term(self) -> int: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def configuration(self) -> Configuration:
        """The newest one that it knows, committed or not."""
        ...

    @property
    def committed_configuration(self) -> Configuration:
        """The newest one of which it knows that it is committed."""
        ...


class MembershipChecker:
    """One for a world. `ids` has the MemberId of each member number.

    committed: (term, crc) of every committed entry, as the checker of consensus keeps it.
    """

    def __init__(
        self,
        founders: Configuration,
        ids: Sequence[MemberId],
        committed: Sequence[tuple[int, int]],
        logs: Sequence[LogView],
    ) -> None:
        self.ids = ids
        self._numbers = {member: number for number, member in enumerate(ids)}
        self._committed_entries = committed
        self._logs = logs
        self._by_name: dict[EntryId, Configuration] = {BOOTSTRAP: founders}
        self.committed = [founders]
        """Those that are committed, in order of their entries."""
        self.removed: set[MemberId] = set()
        """Those that were members by a committed configuration, and are none by a later one."""
        self._newest: dict[int, Configuration] = {}
        """By member number: the newest configuration that it showed in this process."""
        self._heard: dict[int, EntryId] = {}
        """By member number: the name of the configuration that its listeners heard of last."""
        self._checked: dict[int, tuple[object, object, ServerState]] = {}
        """By member number: what was found good last."""
        self.changes = 0
        """How many configurations were appended by leaders."""

    @property
    def newest_committed(self) -> Configuration:
        """The last of the history."""
        return self.committed[-1]

    @property
    def possible(self) -> list[Configuration]:
        """The newest committed one, and those that leaders have appended since: whoever is elected
        next goes by one of them."""
        newest = self.newest_committed
        later = [each for name, each in self._by_name.items() if name > newest.entry]
        return [newest, *later]

    def by_name(self, entry: EntryId) -> Configuration:
        """The configuration of this name, which some member has shown."""
        return self._by_name[entry]

    def started(self, number: int) -> None:
        """A new process of this member: it may know less than the one before."""
        self._newest.pop(number, None)
        self._heard.pop(number, None)
        self._checked.pop(number, None)

    def heard(self, number: int, configuration: Configuration) -> None:
        """The listeners of this member are called: `configuration` is committed (C35)."""
        before = self._heard.get(number)
        if before is not None and configuration.entry <= before:
            raise violated(
                "C35",
                "listeners hear of an older configuration",
                member=number,
                now=configuration.entry,
                before=before,
            )
        self._heard[number] = configuration.entry

    def check(self, view: MembershipView) -> None:
        """Hold the laws against what a member does by what it knows, after a step."""
        facts = (view.configuration, view.committed_configuration, view.state)
        before = self._checked.get(view.number)
        if before is None or any(one is not two for one, two in zip(before, facts, strict=True)):
            self._checked[view.number] = facts
            self._check_heard(view)
            self._check_committed(view)
            self._check_role(view)

    def learn(self, view: MembershipView) -> None:
        """A member may know another configuration since this step, committed or not."""
        known, before = view.configuration, self._newest.get(view.number)
        if known is before:
            return
        self._newest[view.number] = known
        first_shown = self._by_name.get(known.entry)
        if first_shown is None:
            self._by_name[known.entry] = known
            if known.entry.term == view.term and view.state is ServerState.LEADER:
                self._check_append(view, known, before)
        elif first_shown.members != known.members:
            raise violated(
                "I11",
                "two configurations of one name",
                member=view.number,
                here=known,
                before=first_shown,
            )

    def _check_append(
        self, view: MembershipView, known: Configuration, before: Configuration | None
    ) -> None:
        """A leader appended it: one change at a time, after an entry of its own term."""
        self.changes += 1
        log = self._logs[view.number]
        if before is not None and before.entry.index > view.commit_index:
            raise violated(
                "I11",
                "a second change while the first is not committed",
                leader=view.number,
                appended=known,
                before=before.entry,
                commit_index=view.commit_index,
            )
        if log.term_at(view.commit_index) != view.term:
            raise violated(
                "I11",
                "a change before an entry of the leader's term was committed",
                leader=view.number,
                appended=known.entry,
                commit_index=view.commit_index,
            )
        if before is not None and len(set(before.voters) ^ set(known.voters)) > 1:
            raise violated(
                "I11",
                "two configurations in a row whose majorities need not meet",
                leader=view.number,
                appended=known,
                before=before,
            )
        reused = self.removed & set(known.ids)
        if reused:
            raise violated("I11", "a member id is used again", appended=known, reused=reused)

    def committed_entry(self, configuration: Configuration) -> None:
        """A committed entry holds this one; called once for each, in order."""
        shown = self._by_name.setdefault(configuration.entry, configuration)
        if shown.members != configuration.members:
            raise violated(
                "I11",
                "a member knows a configuration that its entry does not hold",
                shown=shown,
                entry=configuration,
            )
        self.removed |= set(self.newest_committed.ids) - set(configuration.ids)
        self.committed.append(configuration)

    def _check_heard(self, view: MembershipView) -> None:
        """Listeners hear of each configuration that their member takes for committed."""
        known = view.committed_configuration.entry
        if self._heard.setdefault(view.number, known) != known:
            raise violated(
                "C35",
                "a member knows what its listeners have not heard",
                member=view.number,
                known=known,
                heard=self._heard[view.number],
            )

    def _check_committed(self, view: MembershipView) -> None:
        """What a member takes for committed is committed."""
        known = view.committed_configuration
        if known.entry == BOOTSTRAP:
            return
        entries, index = self._committed_entries, known.entry.index
        if index > len(entries) or entries[index - 1][0] != known.entry.term:
            raise violated(
                "I11",
                "a configuration is taken for committed that is not",
                member=view.number,
                here=known.entry,
                committed=len(entries),
            )

    def _check_role(self, view: MembershipView) -> None:
        """I13: who has no vote does not campaign, and a reserve has no log."""
        member = self.ids[view.number]
        if view.state in (ServerState.CANDIDATE, ServerState.LEADER):
            may = (view.configuration, view.committed_configuration)
            if not any(each.has_vote(member) for each in may):
                raise violated(
                    "I13",
                    "a member without a vote campaigns or leads",
                    member=view.number,
                    state=view.state,
                    here=view.configuration,
                )

    def had_by_all(self, had: Sequence[int]) -> int:
        """Up to here every member of the newest committed configuration that has a log has, or
        once had, all on its index_after_power_loss (I22). had: by member number, how far that is.

        What was deleted below the `since` of a member was deleted without it: it joins above that.
        """
        return min(
            max(had[self._numbers[record.member]], record.since - 1)
            for record in self.newest_committed.members
            if record.is_stateful
        )

    def type_of(self, number: int) -> MemberType:
        """What this member is by the newest committed configuration."""
        return self.newest_committed.type(self.ids[number])
