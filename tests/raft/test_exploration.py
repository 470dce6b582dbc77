"""The searches of `make explore`, a few events shorter, and that their floors are noticed."""

from __future__ import annotations

import pytest

from copycat.types import MemberType
from tests.raft import exploration
from tests.raft.exploration import SEARCHES, Search
from tests.raft.explore import Explorer, World

SHORTER = {"three": (1, 20_000), "four": (2, 1_500), "disks": (1, 28_000)}
"""By how many events, and how many states that leaves at the least."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHES)
def test_no_law_is_broken_near_the_straight_way(name: str) -> None:
    search = SEARCHES[name]
    steps_less, states_min = SHORTER[name]
    *_, states = search.explorer().search(search.depth - steps_less, search.way)
    assert states >= states_min


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_meets_the_same_states_each_time(name: str) -> None:
    search = SEARCHES[name]
    first, second = (list(search.explorer().search(1, search.way)) for _ in range(2))
    assert first == second


def end_of(search: Search) -> tuple[Explorer, list[World]]:
    explorer = search.explorer()
    return explorer, list(explorer.straight(explorer.prepared(), search.way))


@pytest.mark.slow
def test_the_way_of_four_leads_through_a_wipe_to_a_vote() -> None:
    explorer, worlds = end_of(SEARCHES["four"])
    last = [explorer.members[world.members[3]] for world in worlds]
    assert any(member.core.is_wiping for member in last)
    assert any(member.core.is_reserve and not member.log for member in last)
    record = last[-1].core.own_record
    assert record.member_type is MemberType.ACTIVE
    assert not last[-1].core.eligibility.restrictions
    assert last[-1].log == last[-1].log[: last[-1].commit_index] != ()


def test_the_way_of_three_reaches_all_bounds() -> None:
    search = SEARCHES["three"]
    _, worlds = end_of(search)
    end = worlds[-1]
    assert [term for term, _ in end.leaders] == [1, 2, 3]
    assert end.changes == 1
    assert len(end.committed) >= search.bounds.entries


def test_a_search_that_shrank_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = exploration.Report("three", 10, 5, 5, 0.1, 20)
    monkeypatch.setattr(exploration, "reports", lambda *_: iter([report]))
    assert exploration.main(["three", "--steps-less", "3"]) == 0
    assert exploration.main(["three"]) == 1
    assert "less than there must be" in capsys.readouterr().out
