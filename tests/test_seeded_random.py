"""The generator is splitmix64, its state is one number, what is drawn is inside its bounds."""

from __future__ import annotations

import copy

import pytest

from copycat.errors import ConfigurationError
from copycat.seeded_random import SeededRandom, SimRandom, SplitMix64


def test_published_vector() -> None:
    random = SplitMix64(1234567)
    assert [random.next() for _ in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_below_stays_inside_and_reaches_everything() -> None:
    random = SplitMix64(1)
    assert {random.below(4) for _ in range(200)} == {0, 1, 2, 3}
    state = random.state
    assert random.below(0) == 0
    assert random.state == state


def test_a_copy_goes_on_where_it_was() -> None:
    random = SplitMix64(9)
    random.next()
    duplicate = copy.deepcopy(random)
    assert [random.next() for _ in range(5)] == [duplicate.next() for _ in range(5)]


def test_what_a_machine_draws_stays_inside_its_bounds() -> None:
    assert (
        SeededRandom(0).getrandbits(64) == 0xE220A8397B1DCDAF
    )  # SplitMix64's first word for seed 0
    random = SeededRandom(7)
    assert {random.randint(1, 6) for _ in range(200)} == {1, 2, 3, 4, 5, 6}
    assert all(0 <= random.random() < 1 for _ in range(100))
    assert all(5 <= random.uniform(5, 6) < 6 for _ in range(100))
    assert {random.randrange(3) for _ in range(100)} == {0, 1, 2}
    assert random.choice("x") == "x"
    items = list(range(20))
    random.shuffle(items)
    assert sorted(items) == list(range(20)) != items
    assert len(random.randbytes(9)) == 9
    assert random.getrandbits(100) < 1 << 100
    with pytest.raises(ConfigurationError):
        random.randrange(0)


def test_what_the_simulator_draws_stays_inside_its_bounds() -> None:
    random = SimRandom(1)
    assert {random.between(3, 5) for _ in range(100)} == {3, 4, 5}
    assert all(0 <= random.around(10) <= 190 for _ in range(1000))
    assert not any(random.chance(0) for _ in range(100))
    assert all(random.chance(1_000_000) for _ in range(100))
    assert sorted(random.shuffled(range(9))) == list(range(9))
