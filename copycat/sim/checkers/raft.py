"""The laws of consensus, held against what members do: I1, I2, I3, I4, I6 to I9, I12.

The checker keeps the history itself (leaders, votes, committed entries), and looks at a member
through `MemberView`, never into the core. `after_step` runs after every event on the member it
touched; a step that changed nothing costs one comparison of five numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from copycat.protocol.feeding import (
    FedEntries,
    FedSnapshot,
    FeedAnswer,
    FeedAnswerKind,
    FeedingMessage,
)
from copycat.protocol.peer import (
    AppendEntries,
    AppendReply,
    InstallReply,
    InstallSnapshot,
    PeerMessage,
    PreVote,
    PreVoteReply,
    RequestVote,
    VoteReply,
)
from copycat.raft.configuration import Configuration
from copycat.sim.checkers.disk_model import DiskModel
from copycat.sim.checkers.log_history import violated
from copycat.sim.checkers.membership import MembershipChecker, MembershipView
from copycat.types import MemberId, ServerState

__all__ = ["MemberView", "RaftChecker"]


class MemberView(MembershipView, Protocol):
    """What an observer may see of a member that runs."""

    @property
    def last_applied(self) -> int: ...
    @property
    def durable_index(self) -> int: ...
    @property
    def disk_model(self) -> DiskModel: ...
    def matches(self) -> Mapping[int, int]:
        """match_index by member number; only asked of a leader."""
        ...


_Facts = tuple[ServerState, int, int, int]
"""State, term, commit_index, last_applied."""

_NEWBORN: _Facts = (ServerState.FOLLOWER, 0, 0, 0)


class _Heard:
    """How far leaders verified the log of one incarnation of a member (I8)."""

    __slots__ = ("fed", "last", "term", "verified")

    def __init__(self) -> None:
        self.term = 0
        self.verified = 0
        self.fed = 0
        """The highest index that a feeder said is committed."""
        self.last: dict[int, int] = {}
        """By term: the highest index that any request of it spoke of (C1)."""


class RaftChecker:
    """One for a world. Members are numbers; `ids` has the MemberId of each.

    founders: the first configuration; members that are not in it may join later.
    """

    def __init__(
        self,
        disk_models: Sequence[DiskModel],
        ids: Sequence[int],
        on_committed: Callable[[MemberView, int, int], None],
        on_elected: Callable[[int, int], None],
        founders: Configuration,
    ) -> None:
        self.disk_models = disk_models
        self.ids = ids
        self.leaders: dict[int, int] = {}
        self.votes: dict[tuple[int, int], int] = {}
        self.committed = disk_models[0].history.committed
        members = [MemberId(one) for one in ids]
        self.membership = MembershipChecker(founders, members, self.committed, disk_models)
        """What members know of the members is what the history holds: a majority is counted with
        the configuration of the leader that counts it."""
        self._on_committed = on_committed
        self._on_elected = on_elected
        self._last: dict[int, _Facts] = {}
        self._configurations: dict[int, Configuration] = {}
        """By member: the newest configuration of its log after its last step."""
        self._heard: dict[int, _Heard] = {}
        self._terms = [0] * len(disk_models)

    # --- processes ----------------------------------------------------------------------

    def started(self, member: int) -> None:
        """A new process of `member`, its disk model already recovered (I24)."""
        self._last[member] = _NEWBORN
        self._heard[member] = _Heard()
        self.membership.started(member)
        self._terms[member] = self.disk_models[member].hard_state[0]
        for disk_model in self.disk_models:
            disk_model.loss.forgotten(member)

    # --- the wire -----------------------------------------------------------------------

    def sent(self, member: int, to: int, message: PeerMessage) -> None:
        """`message` leaves `member`: every promise in it must already be durable."""
        disk_model = self.disk_models[member]
        if (
            not isinstance(message, (PreVote, PreVoteReply))
            and disk_model.term_floor < message.term
        ):
            raise violated(
                "I2",
                "a message of a term that is not durable",
                member=member,
                sent=message,
                hard_state=disk_model.hard_state,
            )
        if isinstance(message, AppendReply):
            self._acknowledged(disk_model, message)
        elif isinstance(message, VoteReply) and message.granted:
            self._voted(disk_model, message.term, to)
        elif isinstance(message, RequestVote):
            self._voted(disk_model, message.term, member)
        elif isinstance(message, InstallReply) and message.done:
            self._has_snapshot(disk_model, message)
        elif isinstance(message, (AppendEntries, InstallSnapshot)):
            self._led(member, message.term)

    def received(self, member: int, message: PeerMessage) -> None:
        """`message` is handed to `member`."""
        if isinstance(message, AppendEntries):
            heard = self._heard[member]
            last = message.span.end - 1
            heard.last[message.term] = max(heard.last.get(message.term, 0), last)
            heard.term = max(heard.term, message.term)
            if message.term == heard.term:
                heard.verified = max(heard.verified, min(message.leader_commit, last))

    def fed(self, member: int, message: FeedingMessage) -> None:
        """A question or an answer of a member that is fed is handed to `member`: what is fed is
        committed (C26)."""
        last = 0
        if isinstance(message, FedEntries):
            last = message.span.last
        elif isinstance(message, FedSnapshot) or (
            isinstance(message, FeedAnswer) and message.kind is FeedAnswerKind.NOTHING_NEWER
        ):
            last = message.entry.index
        if last > len(self.committed):
            raise violated(
                "C26",
                "a feeder serves what is not committed",
                member=member,
                fed=message,
                committed=len(self.committed),
            )
        heard = self._heard[member]
        heard.fed = max(heard.fed, last)

    def _acknowledged(self, disk_model: DiskModel, message: AppendReply) -> None:
        if not message.accepted:
            return
        if message.match_index > disk_model.index_after_power_loss:
            raise violated(
                "I3",
                "an acknowledgement of what is not on the disk",
                member=disk_model.member,
                match_index=message.match_index,
                index_after_power_loss=disk_model.index_after_power_loss,
            )
        heard = self._heard[disk_model.member].last.get(message.term, -1)
        if message.match_index > max(heard, disk_model.snapshot.index):
            raise violated(
                "I9",
                "an acknowledgement of what no request of this term spoke of",
                member=disk_model.member,
                sent=message,
                heard=heard,
            )
        disk_model.promised = max(disk_model.promised, message.match_index)

    @staticmethod
    def _has_snapshot(disk_model: DiskModel, message: InstallReply) -> None:
        """A member says that it has what a snapshot covers: in its log, or as the snapshot."""
        entry = message.entry
        if (
            entry.index > disk_model.index_after_power_loss
            or disk_model.term_at(entry.index) != entry.term
        ):
            raise violated(
                "I12",
                "a snapshot is confirmed that is not on the disk",
                member=disk_model.member,
                entry=entry,
                index_after_power_loss=disk_model.index_after_power_loss,
            )
        disk_model.promised = max(disk_model.promised, entry.index)

    def _voted(self, disk_model: DiskModel, term: int, candidate: int) -> None:
        # After a vote was forgotten, a late request may get a second one; if that elects a second
        # leader, I1 fails.
        is_first = self.votes.setdefault((disk_model.member, term), candidate) == candidate
        if not is_first and term > disk_model.forgotten_term:
            raise violated(
                "I2",
                "two votes in one term",
                member=disk_model.member,
                term=term,
                candidates=(self.votes[(disk_model.member, term)], candidate),
            )
        durable_term, durable_vote = disk_model.hard_state
        if (durable_term, durable_vote) == (term, self.ids[candidate]) or durable_term > term:
            return
        raise violated(
            "I2",
            "a vote that is not durable",
            member=disk_model.member,
            term=term,
            candidate=candidate,
            hard_state=disk_model.hard_state,
        )

    def _led(self, member: int, term: int) -> None:
        known = self.leaders.get(term)
        if known is None:
            self.leaders[term] = member
            self._on_elected(member, term)
            self._check_complete(self.disk_models[member], term)
        elif known != member:
            raise violated("I1", "two leaders of one term", term=term, leaders=(known, member))

    def _check_complete(self, disk_model: DiskModel, term: int) -> None:
        """Leader completeness (I6): a leader's log begins with all that was committed."""
        if term < max(self.leaders):
            return  # elected late: it need not have what a later leader committed
        end = len(self.committed)
        if disk_model.entries[:end] != self.committed:
            raise violated(
                "I6",
                "a leader without a committed entry",
                member=disk_model.member,
                term=term,
                committed=end,
                last_index=disk_model.last_index,
            )

    # --- the state ----------------------------------------------------------------------

    def after_step(self, view: MemberView) -> None:
        """Hold the laws against what changed in this step."""
        self.membership.learn(view)
        self._after_step(view)
        self._configurations[view.number] = view.configuration
        self.membership.check(view)

    def _after_step(self, view: MemberView) -> None:
        number = view.number
        before = self._last[number]
        now = (view.state, view.term, view.commit_index, view.last_applied)
        if now == before:
            return
        self._last[number] = now
        state, term, commit, applied = now
        disk_model = view.disk_model
        if term < before[1] or term < self._terms[number]:
            raise violated("I4", "the term decreases", member=number, now=now, before=before)
        if commit < before[2] or applied < before[3]:
            raise violated("I4", "the commit or applied index decreases", member=number, now=now)
        # Between the install and the turn that hears of it, a snapshot is ahead of the commit.
        if not (
            applied <= max(commit, disk_model.snapshot.index) and commit <= disk_model.last_index
        ):
            raise violated(
                "I4",
                "not applied <= commit <= last",
                member=number,
                now=now,
                last_index=disk_model.last_index,
            )
        if state is ServerState.LEADER and (before[0] is not state or before[1] != term):
            self._led(number, term)
        if commit > before[2]:
            self._check_commit_rule(view, before, now)
            self._commit(view, before[2], commit)

    def _check_commit_rule(self, view: MemberView, before: _Facts, now: _Facts) -> None:
        disk_model, commit = view.disk_model, now[2]
        entry_term = disk_model.term_at(commit)
        was_leader = before[0] is ServerState.LEADER
        if was_leader and entry_term == before[1]:
            return
        if now[0] is ServerState.LEADER and entry_term == now[1]:
            return
        if was_leader and commit <= min(len(self.committed), disk_model.valid_from()):
            return  # not by counting: gaps of its log say that it was committed before (C22)
        known = view.committed_configuration.entry.index
        if now[0] is ServerState.LEADER and commit <= min(len(self.committed), known):
            return  # not by counting: its directory says that this entry is committed (C30)
        if was_leader and now[:2] == before[:2]:
            raise violated(
                "I7",
                "a leader commits an entry of another term",
                member=view.number,
                now=now,
                entry_term=entry_term,
            )
        heard = self._heard[view.number]
        if commit > disk_model.index_after_power_loss:
            raise violated(
                "I4",
                "a follower commits above what is on its disk",
                member=view.number,
                now=now,
                index_after_power_loss=disk_model.index_after_power_loss,
            )
        if commit > max(heard.verified, heard.fed, disk_model.snapshot.index):
            raise violated(
                "I8",
                "commit above what any request verified",
                member=view.number,
                now=now,
                verified=heard.verified,
                fed=heard.fed,
                of_term=heard.term,
            )

    def _commit(self, view: MemberView, first: int, commit: int) -> None:
        disk_model, committed = view.disk_model, self.committed
        known = min(commit, len(committed))
        if disk_model.entries[first:known] != committed[first:known]:
            at = next(at for at in range(first, known) if disk_model.entries[at] != committed[at])
            raise violated(
                "I6",
                "two committed entries at one index",
                member=view.number,
                index=at + 1,
                here=disk_model.entries[at],
                before=committed[at],
            )
        if commit <= len(committed):
            return
        newest = disk_model.entries[commit - 1]
        holders = [
            MemberId(self.ids[one.member])
            for one in self.disk_models
            if (
                one.index_after_power_loss >= commit
                and one.entries[commit - 1 : commit] == [newest]
            )
            # It votes as if it had it (C12).
            or one.loss.entries_before[commit - 1 : commit] == [newest]
        ]
        counts = [view.configuration]
        before = self._configurations.get(view.number)
        if before is not None and commit < view.configuration.entry.index:
            counts.append(before)  # it counted first, and appended the newer one in the same step
        if not any(each.has_quorum(holders) for each in counts):
            raise violated(
                "I6",
                "committed, but not durable on a majority",
                member=view.number,
                index=commit,
                holders=holders,
            )
        end = len(committed)
        committed.extend(disk_model.entries[end:commit])
        self._on_committed(view, end + 1, commit + 1)

    def note_matches(self, view: MemberView) -> None:
        """Remember what this leader counts of others: an older copy must have it again (F8).

        What the leader counts of itself no other member knows (decision 0024).
        """
        for member, match in view.matches().items():
            if match and member != view.number:
                loss = self.disk_models[member].loss
                loss.counted(view.number, match, view.disk_model.entries)

    def check_matches(self, view: MemberView) -> None:
        """I9: the entries that a leader counts of a follower are on that follower's disk."""
        for member, match in view.matches().items():
            disk_model = self.disk_models[member]
            if disk_model.loss.entries_before and (
                disk_model.loss.is_unaware or disk_model.hard_state[0] > view.term
            ):
                continue  # the entries are lost, and this leader will learn it soon
            if disk_model.wiped_by is not None and disk_model.hard_state[0] > view.term:
                continue  # a later leader had it delete its log
            if disk_model.term_at(disk_model.last_index) > view.term:
                continue  # a later leader changed that log, and this one does not know it
            if match and (
                match > min(disk_model.index_after_power_loss, disk_model.last_index)
                or match > view.disk_model.last_index
                or disk_model.entries[match - 1] != view.disk_model.entries[match - 1]
            ):
                raise violated(
                    "I9",
                    "the leader believes more than the follower holds",
                    leader=view.number,
                    member=member,
                    match_index=match,
                    index_after_power_loss=disk_model.index_after_power_loss,
                )
