"""Majorities as a table."""

from __future__ import annotations

import pytest

from copycat.raft.configuration import agreed_index, majority


@pytest.mark.parametrize(
    ("voters", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)]
)
def test_majority(voters: int, needed: int) -> None:
    assert majority(voters) == needed


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
    assert agreed_index(matches) == agreed
    assert sum(match >= agreed for match in matches) >= majority(len(matches))
