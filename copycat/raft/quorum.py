"""Pure arithmetic of majorities: how many are needed, and how far a majority got."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["agreed_index", "majority"]


def majority(voters: int) -> int:
    """How many of `voters` are more than half."""
    return voters // 2 + 1


def agreed_index(matches: Collection[int]) -> int:
    """The highest index that a majority of the voters holds; one number for each voter.

    Whether the leader may commit there is another question (own term, paper section 5.4.2).
    """
    descending = sorted(matches, reverse=True)
    return descending[len(descending) // 2]
