"""Which server next: rounds, hints and waits."""

from __future__ import annotations

import pytest

from copycat.client.options import Backoff, ClientOptions, RecoveryStrategy, ServerSelection
from copycat.client.server_selector import ServerSelector
from copycat.config import Address
from copycat.errors import ConfigurationError

SEEDS = ("a:1", "b:1", "c:1")


def selector(selection: ServerSelection = ServerSelection.ANY, seed: int = 1) -> ServerSelector:
    return ServerSelector(SEEDS, selection, Backoff.exponential(0.1, 0.4), seed=seed)


def test_a_round_asks_every_server_once_and_only_rounds_wait() -> None:
    it = selector()
    first = [it.next() for _ in range(3)]
    assert {address for address, _ in first} == set(SEEDS)
    assert [delay for _, delay in first] == [0.0, 0.0, 0.0]
    assert it.is_round_over
    second = [it.next() for _ in range(3)]
    assert {address for address, _ in second} == set(SEEDS)
    assert 0.075 <= second[0][1] <= 0.1
    assert [delay for _, delay in second[1:]] == [0.0, 0.0]


def test_different_seeds_spread_the_clients() -> None:
    assert len({selector(seed=n).next()[0] for n in range(30)}) == 3


def test_success_forgets_the_waits() -> None:
    it = selector()
    for _ in range(7):
        it.next()
    it.succeeded()
    assert it.next()[1] == 0.0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("selection", "place"), [(ServerSelection.LEADER, 0), (ServerSelection.FOLLOWERS, 2)]
)
def test_the_leader_comes_where_the_selection_says(
    selection: ServerSelection, place: int, seed: int
) -> None:
    it = selector(selection, seed)
    it.follow("b:1", SEEDS)
    assert [it.next()[0] for _ in range(3)].index("b:1") == place


def test_servers_that_cannot_serve_do_not_keep_a_client_from_the_leader() -> None:
    """Two servers are no members any more; who prefers followers comes to the leader all the
    same, and begins anew when each server had its turn."""
    for seed in range(20):
        it = selector(ServerSelection.FOLLOWERS, seed)
        it.follow("b:1", SEEDS)
        order = []
        for _ in range(5):
            address, _ = it.next()
            order.append(address)
            it.avoid(address)
        assert set(order[:3]) == set(order[2:]) == set(SEEDS)


def test_who_served_is_no_longer_avoided() -> None:
    it = selector(ServerSelection.FOLLOWERS)
    it.follow("b:1", SEEDS)
    it.avoid("a:1")
    it.served()
    it.avoid("c:1")
    assert [it.next()[0] for _ in range(2)] == ["a:1", "b:1"]


def test_a_hint_in_the_middle_of_a_round_counts() -> None:
    it = selector(ServerSelection.LEADER)
    it.next()
    leader = next(address for address in SEEDS if address in it._untried[1:])
    it.follow(leader, SEEDS)
    assert it.next()[0] == leader


def test_members_that_the_cluster_names_are_tried_beside_the_seeds() -> None:
    it = selector()
    it.follow("", ("d:1", "a:1"))
    assert {it.next()[0] for _ in range(4)} == {"a:1", "b:1", "c:1", "d:1"}


def test_a_server_that_could_not_serve_is_not_the_next_one() -> None:
    for seed in range(10):
        it = selector(seed=seed)
        it.avoid("a:1")
        assert {it.next()[0], it.next()[0]} == {"b:1", "c:1"}


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        (Backoff.exponential(0.05, 1.0), [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]),
        (Backoff.fibonacci(1, 13), [0.0, 1, 1, 2, 3, 5, 8, 13, 13]),
        (Backoff.once(), [0.0, 0.0]),
    ],
    ids=["exponential", "fibonacci", "once"],
)
def test_a_client_waits_between_rounds(backoff: Backoff, waits: list[float]) -> None:
    assert [backoff.delay(n) for n in range(len(waits))] == pytest.approx(waits)


def test_bad_settings_are_named_all_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        ClientOptions(
            members=(Address("10.0.0.1", 1),),
            client_id="",
            session_timeout=0.0,
            backoff=Backoff.once(),
            selection=ServerSelection.ANY,
            recovery=RecoveryStrategy.CLOSE,
            max_entry_size=0,
            insecure=False,
        )
    for word in ("client_id", "session_timeout", "max_entry_size", "insecure=True"):
        assert word in str(caught.value)
