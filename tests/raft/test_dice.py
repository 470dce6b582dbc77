"""The generator is splitmix64, and all of its state is one number."""

from __future__ import annotations

import copy

from copycat.raft.dice import SeededRandom


def test_published_vector() -> None:
    dice = SeededRandom(1234567)
    assert [dice.next() for _ in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_between_stays_inside_and_reaches_everything() -> None:
    dice = SeededRandom(1)
    assert {dice.between(5, 9) for _ in range(200)} == {5, 6, 7, 8}
    assert dice.between(3, 3) == 3


def test_a_copy_goes_on_where_it_was() -> None:
    dice = SeededRandom(9)
    dice.next()
    twin = copy.deepcopy(dice)
    assert [dice.next() for _ in range(5)] == [twin.next() for _ in range(5)]
