"""Both linearizability checkers: what they must let pass, and what they must catch."""

from __future__ import annotations

import pytest

from copycat.errors import InvariantError
from copycat.seeded_random import SimRandom
from copycat.sim.checkers.linearizability import (
    NEVER,
    UNKNOWN,
    Operation,
    check_linearizable,
    check_witness,
)
from copycat.sim.model import ReferenceModel


def op(
    chain: str,
    number: int,
    kind: str,
    *arguments: int,
    time: tuple[float, float],
    result: object = UNKNOWN,
    index: int = 0,
) -> Operation:
    return Operation(
        chain=chain,
        number=number,
        kind=kind,
        key=1,
        arguments=arguments,
        invoked_us=int(time[0]),
        returned_us=time[1],
        result=result,
        index=index,
    )


def test_an_empty_history_is_linear() -> None:
    assert check_linearizable([])
    check_witness([])


def test_a_read_may_see_either_side_of_an_overlapping_write() -> None:
    for seen in (None, 7):
        history = [
            op("a", 1, "put", 7, time=(0, 10), result=None),
            op("b", 1, "get", time=(5, 6), result=seen),
        ]
        assert check_linearizable(history)


def test_a_stale_read_is_caught() -> None:
    history = [
        op("a", 1, "put", 7, time=(0, 10), result=None, index=5),
        op("b", 1, "get", time=(11, 12), result=None, index=4),
    ]
    with pytest.raises(InvariantError, match="linear"):
        check_linearizable(history)
    with pytest.raises(InvariantError, match="had returned"):
        check_witness(history)


def test_a_read_that_goes_back_is_caught() -> None:
    history = [
        op("a", 1, "put", 7, time=(0, NEVER)),
        op("b", 1, "get", time=(1, 2), result=7),
        op("c", 1, "get", time=(3, 4), result=None),
    ]
    with pytest.raises(InvariantError):
        check_linearizable(history)


def test_an_unanswered_write_may_be_seen_late_or_never() -> None:
    write = op("a", 1, "put", 7, time=(0, NEVER))
    for seen in ([None, None], [None, 7], [7, 7]):
        reads = [
            op("b", at + 1, "get", time=(10 + at, 10 + at), result=value)
            for at, value in enumerate(seen)
        ]
        assert check_linearizable([write, *reads])


def test_a_command_applied_twice_is_caught() -> None:
    history = [
        op("a", 1, "append", 1, time=(0, 5), result=1),
        op("b", 1, "items", time=(6, 7), result=[1, 1]),
    ]
    with pytest.raises(InvariantError):
        check_linearizable(history)


def test_a_lost_acknowledged_command_is_caught() -> None:
    history = [
        op("a", 1, "append", 1, time=(0, 5), result=1),
        op("a", 2, "append", 2, time=(6, 9), result=2),
        op("b", 1, "items", time=(10, 11), result=[1]),
    ]
    with pytest.raises(InvariantError):
        check_linearizable(history)


def test_commands_of_a_session_keep_their_order() -> None:
    history = [
        op("a", 1, "append", 1, time=(0, 20)),
        op("a", 2, "append", 2, time=(0, 20)),
        op("b", 1, "items", time=(30, 31), result=[2, 1]),
    ]
    with pytest.raises(InvariantError):
        check_linearizable(history)


def test_a_cas_that_lies_is_caught() -> None:
    history = [
        op("a", 1, "put", 1, time=(0, 1), result=None),
        op("b", 1, "cas", 1, 2, time=(2, 3), result=False),
    ]
    with pytest.raises(InvariantError):
        check_linearizable(history)


def test_the_witness_wants_commands_strictly_later() -> None:
    first = op("a", 1, "put", 1, time=(0, 1), result=None, index=5)
    check_witness([first, op("b", 1, "get", time=(2, 3), result=1, index=5)])
    with pytest.raises(InvariantError):
        check_witness([first, op("b", 1, "put", 2, time=(2, 3), result=1, index=5)])


def test_the_search_says_when_it_gave_up() -> None:
    history = [op(f"c{n}", 1, "put", n, time=(0, NEVER)) for n in range(9)]
    history.append(op("r", 1, "get", time=(5, 6), result=99))
    assert not check_linearizable(history, states_max=100)


def test_generated_linear_histories_pass() -> None:
    """Operations that take effect one by one inside their intervals are always linear."""
    for seed in range(20):
        random = SimRandom(seed)
        value: int | None = None
        history, now, free = [], 0, dict.fromkeys("abcd", 0)
        for number in range(200):
            now += random.between(1, 5)
            chain = random.pick("abcd")
            start = max(free[chain], now - random.between(0, 8))
            end = now + random.between(0, 8)
            if start > now:
                continue
            free[chain] = end + 1
            if random.chance(500_000):
                history.append(op(chain, number, "put", now, time=(start, end), result=value))
                value = now
            else:
                history.append(op(chain, number, "get", time=(start, end), result=value))
        assert check_linearizable(history)


# ---- registers that are deleted or expire --------------------------------------------------


def test_what_was_lent_may_be_gone_at_any_time() -> None:
    lent = op("a", 1, "lend", 7, 20, time=(0, 1), result=None)
    assert check_linearizable([lent, op("b", 1, "get", time=(2, 3), result=7)])
    assert check_linearizable([lent, op("b", 1, "get", time=(2, 3), result=None)])
    swapped = op("a", 2, "cas", 7, 8, time=(2, 3), result=True)
    assert check_linearizable([lent, swapped, op("b", 1, "get", time=(4, 5), result=None)])


def test_a_lend_of_what_is_there_is_no_read() -> None:
    """Seed 159: taken at once, in front of a put of the same value, it let nothing expire."""
    history = [
        op("a", 1, "lend", 3, time=(0, 1), result=None),
        op("b", 1, "put", 3, time=(2, 9), result=3),
        op("c", 1, "lend", 3, time=(2, 9), result=3),
        op("d", 1, "get", time=(10, 11), result=3),
        op("d", 2, "get", time=(12, 13), result=None),
    ]
    assert check_linearizable(history)


def test_i14_what_expired_or_was_deleted_does_not_come_back() -> None:
    lent = op("a", 1, "lend", 7, 20, time=(0, 1), result=None)
    missed = op("b", 1, "get", time=(2, 3), result=None)
    with pytest.raises(InvariantError, match=r"^I14:"):
        check_linearizable([lent, missed, op("b", 2, "get", time=(4, 5), result=7)])
    put = op("a", 1, "put", 7, time=(0, 1), result=None)
    with pytest.raises(InvariantError, match=r"^I14:"):
        check_linearizable([put, missed])
    deleted = op("a", 2, "delete", time=(2, 3), result=7)
    assert check_linearizable([put, deleted, op("b", 1, "get", time=(4, 5), result=None)])
    with pytest.raises(InvariantError, match=r"^I14:"):
        check_linearizable([put, deleted, op("b", 1, "get", time=(4, 5), result=7)])


def test_the_reference_lets_a_register_expire_before_the_entry_that_brings_the_time() -> None:
    model = ReferenceModel()
    model.apply(1, "lend", 0, (7, 20), 100)
    model.expire(2, 120)
    assert model.read(2, "get", 0) == 7
    model.apply(2, "cas", 0, (7, 8), 120)
    model.expire(3, 121)
    assert model.read(2, "get", 0) == 8
    assert model.read(3, "get", 0) is None
    assert model.apply(3, "delete", 0, (), 121) is None
    assert [one[:2] for one in model.writes[0]] == [(1, False), (2, False), (1, True), (3, True)]


def crowd(count: int, *, is_lent: bool) -> list[Operation]:
    """Commands of five sessions, all of them under way at once, as a log applied them.

    is_lent: every fourth is a lend whose value expires before the next command.
    """
    random, value, numbers = SimRandom(31), None, [0] * 5
    history = []
    for index in range(1, count + 1):
        session, written = random.below(5), random.below(3)
        numbers[session] += 1
        kind = "lend" if is_lent and index % 4 == 0 else "put"
        one = op("abcde"[session], numbers[session], kind, written, time=(0, 9), index=index)
        one.result = value
        history.append(one)
        value = None if kind == "lend" else written
    return history


@pytest.mark.parametrize("is_lent", [False, True])
def test_an_order_that_the_log_names_is_found_without_a_detour(is_lent: bool) -> None:
    history = crowd(200, is_lent=is_lent)
    assert check_linearizable(history, states_max=3 * len(history))


def test_an_index_alone_lets_nothing_pass() -> None:
    history = crowd(30, is_lent=True)
    history[20].result = 99
    with pytest.raises(InvariantError, match="linear"):
        check_linearizable(history, states_max=1 << 62)
