"""The clock and the network: deterministic, and they do what their names say."""

from __future__ import annotations

import pytest

from copycat.errors import InvariantError
from copycat.seeded_random import SimRandom
from copycat.sim.network import Network, NetworkOptions
from copycat.sim.world import MS, SECOND, SimClock, Trace, World


def test_events_run_in_time_and_then_in_order_of_scheduling() -> None:
    world, seen = World(), list[str]()
    world.after(5, seen.append, "c")
    world.after(1, seen.append, "a")
    world.after(5, seen.append, "d")
    world.after(1, seen.append, "b")
    world.run_until(4)
    assert (seen, world.now_us) == (["a", "b"], 4)
    world.run_until(5)
    assert seen == ["a", "b", "c", "d"]
    assert not world.step()


def test_the_past_is_refused_and_a_spinning_world_is_stopped() -> None:
    world = World()
    world.run_until(10)
    with pytest.raises(InvariantError, match="past"):
        world.at(9, lambda: None)

    def again() -> None:
        world.after(0, again)

    again()
    with pytest.raises(InvariantError, match="spins"):
        world.run_until(11, steps_max=100)


def test_a_clock_drifts_and_its_deadlines_come_in_time() -> None:
    world = World()
    clock = SimClock(world, boot_ms=100, drift_ppm=100_000)
    world.run_until(SECOND)
    assert clock.boot_ms() == 1200
    at = clock.world_us(1310)
    world.run_until(at - 1)
    assert clock.boot_ms() < 1310
    world.run_until(at)
    assert clock.boot_ms() == 1310
    wall_ms = clock.wall_ms()
    clock.jump(-5000)
    assert clock.wall_ms() == wall_ms - 5000


def network(**rates: int) -> tuple[World, Network, list[int], Trace]:
    world, trace = World(), Trace()
    return world, Network(world, SimRandom(3), NetworkOptions(**rates), trace), [], trace


def test_a_calm_network_keeps_the_order_and_loses_nothing() -> None:
    world, net, seen, _ = network()
    for number in range(200):
        net.transmit(0, 1, seen.append, number)
        world.run_until(world.now_us + 10)
    world.run_until(world.now_us + SECOND)
    assert seen == list(range(200))


@pytest.mark.parametrize(
    ("rate", "mark"),
    [
        ("loss", "message lost"),
        ("duplication", "message duplicated"),
        ("reordering", "message reordered"),
        ("straggling", "message held back"),
    ],
)
def test_each_rate_does_what_it_says(rate: str, mark: str) -> None:
    world, net, seen, trace = network(**{rate: 300_000})
    for number in range(200):
        net.transmit(0, 1, seen.append, number)
        world.run_until(world.now_us + 100)
    world.run_until(world.now_us + 10 * SECOND)
    assert trace.marks[mark] > 10
    assert seen != list(range(200))


def test_a_partition_is_one_way_until_it_heals() -> None:
    world, net, seen, _ = network()
    net.block([0], [1])
    net.transmit(0, 1, seen.append, 1)
    net.transmit(1, 0, seen.append, 2)
    world.run_until(SECOND)
    assert seen == [2]
    net.heal()
    net.transmit(0, 1, seen.append, 3)
    world.run_until(2 * SECOND)
    assert seen == [2, 3]


def test_a_slow_link_is_slow_one_way() -> None:
    world, net, seen, _ = network()
    net.slow(0, 1, 500 * MS)
    net.transmit(0, 1, seen.append, 1)
    net.transmit(1, 0, seen.append, 2)
    world.run_until(100 * MS)
    assert seen == [2]
    world.run_until(SECOND)
    assert seen == [2, 1]
