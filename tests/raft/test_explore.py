"""Safety under any order of events, with a change of each kind, as far as a search gets."""

from __future__ import annotations

import pytest

from copycat.raft.changes import ConfigurationChange
from copycat.raft.configuration import BOOTSTRAP, Configuration, MemberRecord
from copycat.raft.eligibility import NEVER, Eligibility
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
CASES = {
    "demote": (THREE, (ConfigurationChange.demote(C, PASSIVE, BOOTSTRAP),)),
    "remove": (THREE, (ConfigurationChange.remove(C, BOOTSTRAP),)),
    "promote": (PROMOTED, ()),
    "wipe and promote": (
        FOUR,
        (
            ConfigurationChange.demote(D, RESERVE, BOOTSTRAP),
            ConfigurationChange.promote(D, ACTIVE, BOOTSTRAP),
        ),
    ),
    "two of four": (
        FOUR,
        (
            ConfigurationChange.demote(D, PASSIVE, BOOTSTRAP),
            ConfigurationChange.demote(C, PASSIVE, BOOTSTRAP),
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_no_order_of_events_breaks_a_law(case: str) -> None:
    first, changes = CASES[case]
    explorer = Explorer(first, changes, Bounds(heartbeats=2, crashes=1))
    assert explorer.run(2000, seed=len(case)) >= 2000
    assert explorer.by_name, "a configuration was appended"


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
