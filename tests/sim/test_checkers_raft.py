"""Every checker has a test in which it fires."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import pytest

from copycat.errors import InvariantError
from copycat.protocol.peer import AppendEntries, AppendReply, RequestVote, VoteReply
from copycat.raft.configuration import Configuration
from copycat.sim.checkers.disk_model import DiskModel
from copycat.sim.checkers.log_history import LogHistory
from copycat.sim.checkers.raft import RaftChecker
from copycat.sim.instrumented import InstrumentedHardState, InstrumentedLog
from copycat.types import NO_ENTRY, EntryId, MemberId, ServerState, Span

VOTERS = Configuration.of(*map(MemberId, (101, 102, 103)))
Frames = list[tuple[int, int, int]]


def fires(rule: str) -> AbstractContextManager[object]:
    return pytest.raises(InvariantError, match=f"^{rule}:")


# --- a cluster of three, as the checkers see it ---------------------------------------------


class View:
    def __init__(self, number: int, disk_model: DiskModel) -> None:
        self.number = number
        self.disk_model = disk_model
        self.state = ServerState.FOLLOWER
        self.term = 1
        self.commit_index = 0
        self.last_applied = 0
        self.durable_index = 0
        self.configuration = VOTERS
        self.believed: dict[int, int] = {}

    def matches(self) -> Mapping[int, int]:
        return self.believed


class Three:
    def __init__(self) -> None:
        self.history = LogHistory()
        self.disk_models = [DiskModel(number, self.history) for number in range(3)]
        self.committed: list[tuple[int, int]] = []
        self.checker = RaftChecker(
            self.disk_models,
            [101, 102, 103],
            lambda _view, first, end: self.committed.append((first, end)),
            lambda _member, _term: None,
        )
        for disk_model in self.disk_models:
            disk_model.hard_state = (1, 101)
            self.checker.started(disk_model.member)
        self.views = [View(number, self.disk_models[number]) for number in range(3)]

    def configure(self, configuration: Configuration) -> None:
        """All know that an entry of the committed history holds this configuration."""
        self.checker.adopt(configuration)
        for view in self.views:
            view.configuration = configuration

    def write(self, member: int, frames: Frames, *, durable: bool = True) -> None:
        disk_model = self.disk_models[member]
        self.history.appended(member, disk_model.term_at(disk_model.last_index), frames)
        disk_model.append(frames)
        if durable:
            disk_model.durable = disk_model.last_index

    def lead(self, member: int = 0, term: int = 1) -> View:
        view = self.views[member]
        view.state, view.term = ServerState.LEADER, term
        self.checker.after_step(view)
        return view

    def hear(self, member: int, term: int, end: int, commit: int) -> None:
        message = AppendEntries(term, MemberId(1), 1, NO_ENTRY, Span(term, end, end), commit)
        self.checker.received(member, message)


def frames(first: int, end: int, term: int = 1, salt: int = 0) -> Frames:
    return [(index, term, index * 1000 + term + salt) for index in range(first, end)]


@pytest.fixture
def three() -> Three:
    return Three()


def test_i1_two_leaders_of_one_term(three: Three) -> None:
    three.lead(0)
    with fires("I1"):
        three.lead(1)


def test_i1_a_leader_that_is_no_voter(three: Three) -> None:
    passive = MemberId(102)
    active = (voter for voter in VOTERS.voters if voter != passive)
    three.configure(Configuration.of(*active, non_voters=(passive,)))
    with fires("I1"):
        three.lead(1)


def test_i2_two_votes_in_one_term(three: Three) -> None:
    three.checker.sent(2, 0, VoteReply(1, True))
    three.disk_models[2].hard_state = (1, 102)
    with fires("I2"):
        three.checker.sent(2, 1, VoteReply(1, True))


def test_i2_a_vote_that_is_not_durable(three: Three) -> None:
    three.disk_models[2].hard_state = (1, 0)
    with fires("I2"):
        three.checker.sent(2, 0, VoteReply(1, True))


def test_i2_a_campaign_before_its_own_vote_is_durable(three: Three) -> None:
    with fires("I2"):
        three.checker.sent(1, 0, RequestVote(1, NO_ENTRY, False))


def test_i2_a_message_of_a_term_that_is_not_durable(three: Three) -> None:
    with fires("I2"):
        three.checker.sent(2, 0, AppendReply(2, 1, True, 0, NO_ENTRY))


def test_i2_a_hard_state_that_changes_its_vote() -> None:
    class Store:
        current_term, voted_for = 3, MemberId(7)

        def begin_save(self, term: int, voted_for: MemberId) -> object:
            raise AssertionError("the checker comes first")

    disk_model = DiskModel(0, LogHistory())
    disk_model.hard_state = (3, 7)
    store = InstrumentedHardState(Store(), disk_model)  # type: ignore[arg-type]
    with fires("I2"):
        store.begin_save(3, MemberId(8))
    with fires("I2"):
        store.begin_save(2, MemberId(0))


def test_i3_an_acknowledgement_of_what_is_not_on_the_disk(three: Three) -> None:
    three.write(1, frames(1, 4), durable=False)
    three.hear(1, 1, end=4, commit=0)
    three.checker.sent(1, 0, AppendReply(1, 1, True, 0, NO_ENTRY))
    with fires("I3"):
        three.checker.sent(1, 0, AppendReply(1, 1, True, 3, NO_ENTRY))


def test_i3_a_promised_entry_is_gone_after_a_crash(three: Three) -> None:
    three.write(1, frames(1, 4))
    three.hear(1, 1, end=4, commit=0)
    three.checker.sent(1, 0, AppendReply(1, 1, True, 3, NO_ENTRY))
    three.disk_models[1].crashed()
    with fires("I3"):
        three.disk_models[1].recovered(frames(1, 3), (1, 101))


def test_i3_a_log_that_claims_more_than_was_synced() -> None:
    class Log:
        def end_sync(self, ticket: object) -> int:
            return 5

    store = InstrumentedLog(Log(), DiskModel(0, LogHistory()))  # type: ignore[arg-type]
    with fires("I3"):
        store.end_sync(None)  # type: ignore[arg-type]


def test_i4_indexes_out_of_order_or_going_back(three: Three) -> None:
    view = three.views[1]
    view.commit_index = 1
    with fires("I4"):  # commit above last
        three.checker.after_step(view)
    view.commit_index, view.last_applied = 0, 1
    with fires("I4"):  # applied above commit
        three.checker.after_step(view)


def test_i4_the_term_goes_back(three: Three) -> None:
    view = three.views[1]
    view.term = 3
    three.checker.after_step(view)
    view.term = 2
    with fires("I4"):
        three.checker.after_step(view)


def test_i4_a_member_wakes_below_its_durable_term(three: Three) -> None:
    three.disk_models[1].hard_state = (4, 0)
    three.checker.started(1)
    with fires("I4"):
        three.checker.after_step(three.views[1])


def test_i4_a_follower_commits_above_what_is_on_its_disk(three: Three) -> None:
    three.write(0, frames(1, 3))
    three.write(1, frames(1, 3), durable=False)
    three.hear(1, 1, end=3, commit=2)
    three.views[1].commit_index = 2
    with fires("I4"):
        three.checker.after_step(three.views[1])


def test_i5_one_name_two_contents(three: Three) -> None:
    three.write(0, frames(1, 3))
    with fires("I5"):
        three.write(1, frames(1, 3, salt=1))


def test_i5_one_entry_two_predecessors(three: Three) -> None:
    three.write(0, [*frames(1, 2, term=1), *frames(2, 3, term=3)])
    with fires("I5"):
        three.write(1, [*frames(1, 2, term=2), *frames(2, 3, term=3)])


def test_i6_committed_twice_at_one_index(three: Three) -> None:
    three.write(0, frames(1, 3))
    three.write(1, frames(1, 3))
    leader = three.lead()
    leader.commit_index = 2
    three.checker.after_step(leader)
    assert three.committed == [(1, 3)]
    three.write(2, frames(1, 3, term=2))
    three.hear(2, 2, end=3, commit=2)
    view = three.views[2]
    view.term, view.commit_index = 2, 2
    with fires("I6"):
        three.checker.after_step(view)


def test_i6_committed_without_a_durable_majority(three: Three) -> None:
    three.write(0, frames(1, 3))
    three.write(1, frames(1, 3), durable=False)
    leader = three.lead()
    leader.commit_index = 2
    with fires("I6"):
        three.checker.after_step(leader)


def test_i6_who_has_no_vote_does_not_count_for_a_commit(three: Three) -> None:
    """The checker counts by the configuration that the history holds."""
    view = three.lead(0)
    three.write(0, frames(1, 3))
    three.write(2, frames(1, 3))
    three.configure(Configuration.of(*VOTERS.voters[:2], non_voters=(VOTERS.voters[2],)))
    view.commit_index = 2
    with fires("I6"):
        three.checker.after_step(view)
    three.write(1, frames(1, 3))
    view.commit_index = 1
    three.checker.started(0)
    three.checker.after_step(view)
    assert three.committed == [(1, 2)]


@pytest.mark.parametrize(
    "configuration",
    [
        Configuration.of(VOTERS.voters[0]),
        Configuration.of(*VOTERS.voters, MemberId(104)),
        Configuration.of(*VOTERS.voters[:2], non_voters=(VOTERS.voters[2],)),
        VOTERS._replace(entry=EntryId(1, 1)),
    ],
)
def test_i6_a_member_does_not_judge_itself_by_a_configuration_of_its_own(
    three: Three, configuration: Configuration
) -> None:
    view = three.lead(0)
    view.configuration = configuration
    three.write(0, frames(1, 3))
    view.commit_index = 2
    with fires("I6"):
        three.checker.after_step(view)
    assert three.committed == []


def test_i6_a_leader_without_a_committed_entry(three: Three) -> None:
    three.write(0, frames(1, 3))
    three.write(1, frames(1, 3))
    leader = three.lead()
    leader.commit_index = 2
    three.checker.after_step(leader)
    with fires("I6"):
        three.lead(2, term=2)


def test_i7_a_leader_commits_an_entry_of_another_term(three: Three) -> None:
    for member in (0, 1):
        three.write(member, frames(1, 3))
    leader = three.lead(0, term=2)
    leader.commit_index = 2
    with fires("I7"):
        three.checker.after_step(leader)


def test_i8_commit_above_what_any_request_verified(three: Three) -> None:
    three.write(0, frames(1, 6))
    three.write(1, frames(1, 6))
    three.hear(1, 1, end=4, commit=5)  # verified up to 3 only
    view = three.views[1]
    view.commit_index = 5
    with fires("I8"):
        three.checker.after_step(view)


def test_i9_a_leader_believes_too_much(three: Three) -> None:
    three.write(0, frames(1, 6))
    three.write(1, frames(1, 6), durable=False)
    leader = three.lead()
    leader.believed = {1: 5}
    with fires("I9"):
        three.checker.check_matches(leader)


def test_i9_an_acknowledgement_of_what_no_request_spoke_of(three: Three) -> None:
    three.write(1, frames(1, 6))
    three.hear(1, 1, end=4, commit=0)
    with fires("I9"):
        three.checker.sent(1, 0, AppendReply(1, 1, True, 5, NO_ENTRY))


def test_i10_truncation_below_commit_or_by_a_leader(three: Three) -> None:
    disk_model = three.disk_models[0]
    three.write(0, frames(1, 6))
    disk_model.role = lambda: (False, 3)
    with fires("I10"):
        disk_model.truncate(2)
    disk_model.role = lambda: (True, 3)
    with fires("I10"):
        disk_model.truncate(4)


def test_i24_recovery_loses_or_invents(three: Three) -> None:
    three.write(1, frames(1, 4))
    three.disk_models[1].crashed()
    with fires("I24"):
        three.disk_models[1].recovered(frames(1, 3), (1, 101))
    with fires("I24"):
        three.disk_models[1].recovered([*frames(1, 4), (4, 1, 77)], (1, 101))
    with fires("I24"):
        three.disk_models[1].recovered(frames(1, 4), (0, 0))


def test_i24_an_unsynced_tail_may_be_kept_or_lost(three: Three) -> None:
    three.write(1, frames(1, 4), durable=False)
    three.disk_models[1].saving.append((2, 0))
    three.disk_models[1].crashed()
    three.disk_models[1].recovered(frames(1, 3), (2, 0))
    assert three.disk_models[1].durable == 2
