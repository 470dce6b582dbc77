"""Majorities as a table."""

from __future__ import annotations

import pytest

from copycat.raft.configuration import Configuration
from copycat.types import MemberId


def of(voters: int) -> Configuration:
    return Configuration.of(*(MemberId(number) for number in range(1, voters + 1)))


@pytest.mark.parametrize(
    ("voters", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)]
)
def test_majority(voters: int, needed: int) -> None:
    configuration = of(voters)
    assert configuration.quorum_size == needed
    for count in range(voters + 1):
        assert configuration.has_quorum(configuration.voters[:count]) == (count >= needed)
        assert configuration.has_quorum(configuration.voters[voters - count :]) == (
            count >= needed
        )


@pytest.mark.parametrize(
    ("matches", "agreed"),
    [
        ([7], 7),
        ([7, 0], 0),
        ([7, 5], 5),
        ([9, 4, 2], 4),
        ([2, 9, 4], 4),
        ([3, 3, 3], 3),
        ([9, 0, 0], 0),
        ([9, 8, 7, 6], 7),
        ([5, 4, 3, 2, 1], 3),
        ([0, 9, 0, 9, 9], 9),
        ([0, 9, 0, 9, 0], 0),
    ],
)
def test_agreed_index(matches: list[int], agreed: int) -> None:
    configuration = of(len(matches))
    match_of = dict(zip(configuration.voters, matches, strict=True))
    assert configuration.agreed_index(match_of) == agreed
    holders = [voter for voter, match in match_of.items() if match >= agreed]
    assert configuration.has_quorum(holders)
    assert configuration.agreed_index({voter: m for voter, m in match_of.items() if m}) == agreed


def test_who_does_not_vote_is_not_counted() -> None:
    a, b, c, d, e = map(MemberId, range(1, 6))
    configuration = Configuration.of(a, b, c, non_voters=(e, d))
    assert not configuration.has_quorum({a, d, e})
    assert configuration.has_quorum({a, c})
    assert configuration.agreed_index({a: 9, b: 4, c: 2, d: 9, e: 9}) == 4
