"""Safety under any order of events, with a change of each kind, as far as a search gets."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from copycat.raft.changes import ConfigurationChange
from copycat.raft.configuration import BOOTSTRAP, Configuration, MemberRecord
from copycat.raft.eligibility import NEVER, Eligibility
from copycat.raft.state import State
from copycat.types import EntryId, MemberId, MemberType
from tests.raft.explore import Bounds, Explorer
from tests.raft.laws import BrokenLaw

A, B, C, D = map(MemberId, (1, 2, 3, 4))
ACTIVE, PASSIVE, RESERVE = MemberType.ACTIVE, MemberType.PASSIVE, MemberType.RESERVE

THREE = Configuration.of(A, B, C)
FOUR = Configuration.of(A, B, C, D)
PROMOTED = Configuration.from_members(
    [
        MemberRecord(A, ACTIVE),
        MemberRecord(B, ACTIVE),
        MemberRecord(C, PASSIVE, is_promotable=True),
    ]
)
WITH_RESERVE = Configuration.from_members(
    [
        MemberRecord(A, ACTIVE),
        MemberRecord(B, ACTIVE),
        MemberRecord(C, ACTIVE),
        MemberRecord(D, RESERVE),
    ]
)


class Case(NamedTuple):
    """What one search is about."""

    first: Configuration
    changes: tuple[ConfigurationChange, ...] = ()
    history: tuple[ConfigurationChange, ...] = ()
    bounds: Bounds = Bounds(heartbeats=2, crashes=1)

    def explorer(self) -> Explorer:
        return Explorer(self.first, self.changes, self.bounds, self.history)


CASES = {
    "demote": Case(THREE, (ConfigurationChange.demote(C, PASSIVE, BOOTSTRAP),)),
    "remove": Case(THREE, (ConfigurationChange.remove(C, BOOTSTRAP),)),
    "promote": Case(PROMOTED),
    "wipe and promote": Case(
        FOUR,
        (
            ConfigurationChange.demote(D, RESERVE, BOOTSTRAP),
            ConfigurationChange.promote(D, ACTIVE, BOOTSTRAP),
        ),
    ),
    "two of four": Case(
        FOUR,
        (
            ConfigurationChange.demote(D, PASSIVE, BOOTSTRAP),
            ConfigurationChange.demote(C, PASSIVE, BOOTSTRAP),
        ),
    ),
    "an order from before the wipe": Case(
        FOUR,
        changes=(ConfigurationChange.demote(D, RESERVE, BOOTSTRAP),),
        history=(ConfigurationChange.demote(D, PASSIVE, BOOTSTRAP),),
        bounds=Bounds(heartbeats=3, crashes=2),
    ),
    "a stale word after a restart": Case(
        WITH_RESERVE,
        history=(
            ConfigurationChange.demote(C, PASSIVE, BOOTSTRAP),
            ConfigurationChange.promote(D, ACTIVE, BOOTSTRAP),
        ),
        bounds=Bounds(terms=2, heartbeats=2, crashes=3),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_no_order_of_events_breaks_a_law(case: str) -> None:
    explorer = CASES[case].explorer()
    assert explorer.run(2000, seed=len(case)) >= 2000
    assert explorer.configurations, "a configuration was appended"


def vote_for_any_log(self: Eligibility, last: EntryId) -> EntryId:
    return EntryId(0, 0) if self.may_vote else NEVER


@pytest.mark.slow
def test_a_vote_for_any_log_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Eligibility, "vote_floor", vote_for_any_log)
    with pytest.raises(BrokenLaw, match="I6"):
        Explorer(THREE).run(2000)


def agreed_by_one(self: Configuration, match_of: dict[MemberId, int]) -> int:
    return max(match_of.get(voter, 0) for voter in self.voters)


@pytest.mark.slow
def test_a_commit_without_a_majority_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Configuration, "agreed_index", agreed_by_one)
    with pytest.raises(BrokenLaw, match="I6"):
        Explorer(THREE).run(2000)


def begin_with_the_log_alone(self: State, stored: Configuration | None) -> None:
    INIT_MEMBERSHIP(self, None)


INIT_MEMBERSHIP = State._init_membership


@pytest.mark.slow
@pytest.mark.parametrize("case", ["an order from before the wipe", "a stale word after a restart"])
def test_a_restart_that_forgets_what_is_committed_is_found(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(State, "_init_membership", begin_with_the_log_alone)
    with pytest.raises(BrokenLaw, match="C28"):
        CASES[case].explorer().run(2000)
