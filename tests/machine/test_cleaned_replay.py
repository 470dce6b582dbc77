"""I23: from the horizon on, a cleaned log is worth the full one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.operations import Operation
from copycat.types import EntryKind
from tests.machine.cleaning import (
    Busy,
    Log,
    clean,
    frames,
    full_digests,
    gaps_of,
    legal,
)

_KEYS = st.sampled_from("ab")
OPERATIONS: st.SearchStrategy[Operation[Any] | bytes] = st.one_of(
    st.builds(Busy.put, _KEYS, st.integers(0, 99)),
    st.builds(Busy.put, _KEYS, st.integers(0, 99)),
    st.builds(Busy.drop, _KEYS),
    st.builds(Busy.pick, _KEYS, st.integers(0, 7)),
    st.builds(Busy.lend, _KEYS, st.integers(0, 99), st.sampled_from([None, 0.0, 0.05, 0.4])),
    st.builds(Busy.bump, _KEYS),
    st.builds(Busy.alarm, _KEYS, st.integers(0, 99), st.sampled_from([0.0, 0.1, 0.5])),
    st.builds(Busy.hush, _KEYS),
    st.builds(Busy.hold, _KEYS),
    st.builds(Busy.let_go, _KEYS),
    st.builds(Busy.count, st.integers(1, 3)),
    st.just(b""),
)
STEPS = st.one_of(
    st.tuples(st.just("command"), st.integers(0, 2), OPERATIONS, st.integers(0, 3)),
    st.tuples(st.just("command"), st.integers(0, 2), OPERATIONS, st.integers(0, 3)),
    st.tuples(st.just("command"), st.integers(0, 2), OPERATIONS, st.integers(0, 3)),
    st.tuples(st.just("keep_alive"), st.integers(0, 2), st.integers(0, 3)),
    st.tuples(st.just("again"), st.integers(0, 2), st.integers(0, 3)),
    st.tuples(st.just("time"), st.sampled_from([1, 60, 150, 500])),
    st.tuples(st.just("tick")),
    st.tuples(st.just("noop")),
    st.tuples(st.just("close"), st.integers(0, 2)),
    st.tuples(st.just("expire"), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("register"), st.integers(0, 2)),
    st.tuples(st.just("ack_all")),
)
SHELVES = st.tuples(
    st.just("command"), st.integers(0, 2), st.builds(Busy.shelve, _KEYS), st.integers(0, 3)
)
"""After the first of these all deletions by hand are strict, so only some logs have them."""


def write(steps: list[Any]) -> Log:
    """Three clients; whoever has no session opens one before it speaks."""
    log = Log()
    log.noop()
    sessions = [log.register(str(number)) for number in range(3)]
    for what, *arguments in steps:
        match what, arguments:
            case "command", [number, operation, ack]:
                log.command(sessions[number], operation, ack=ack, behind=ack // 2)
            case "keep_alive", [number, ack]:
                log.keep_alive(sessions[number], ack=ack)
            case "again", [number, back]:
                log.again(sessions[number], back)
            case "time", [step]:
                log.time_ms += step
            case "tick", []:
                log.add(EntryKind.TICK)
            case "noop", []:
                log.noop()
            case "close", [number]:
                log.close(sessions[number])
            case "expire", [number, late]:
                log.expire(sessions[number], late=late)
            case "register", [number]:
                sessions[number] = log.register(str(number))
            case "ack_all", []:
                for session in sessions:
                    log.keep_alive(session, ack=1 << 20)
    return log


def check(log: Log, horizon: int, dropped: set[int], longest: int) -> None:
    """The cleaned log, cut in other runs, against the full one, from the horizon on."""
    expected = full_digests(Busy(), log.entries, 1)
    executor = SessionExecutor(Busy())
    for run in frames(log.entries, gaps_of(dropped), horizon, longest):
        executor.apply([run])
        if executor.last_applied >= horizon:
            assert executor.digest() == expected[executor.last_applied], executor.last_applied


def test_i23_a_deletion_by_hand_stays_with_what_only_a_snapshot_may_take() -> None:
    steps = [("command", 0, operation, 0) for operation in (Busy.shelve("a"), Busy.let_go("a"))]
    log = write([*steps, ("command", 0, Busy.hold("b"), 0), ("ack_all",)])
    end = len(log)
    dropped = legal(clean(Busy(), log.entries), end, end, major=True, released=set(), upto=end)
    check(log, end, dropped, 1)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_i23_a_cleaned_log_is_worth_the_full_one(data: st.DataObject) -> None:
    step = data.draw(st.sampled_from([STEPS, STEPS | SHELVES]))
    steps = data.draw(st.lists(step, min_size=5, max_size=40))
    log = write(steps)
    cleaned = clean(Busy(), log.entries, data.draw(st.integers(1, 4)))
    horizon = data.draw(st.integers(len(log) // 2, len(log)))
    dropped: set[int] = set()
    for _ in range(data.draw(st.integers(1, 3))):  # compactions, one after the other
        horizon = data.draw(st.integers(horizon, len(log)))
        dropped |= legal(
            cleaned,
            horizon,
            data.draw(st.integers(0, horizon)),
            major=data.draw(st.booleans()),
            released=data.draw(st.sets(st.integers(1, len(log)))),
            upto=data.draw(st.integers(0, len(log))),
        )
    check(log, horizon, dropped, data.draw(st.integers(1, 5)))


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEPS, min_size=10, max_size=40), data=st.data())
def test_c23_a_snapshot_at_or_above_the_floor_and_a_cleaned_log_are_worth_the_full_one(
    steps: list[Any], data: st.DataObject
) -> None:
    entries = write(steps).entries
    horizon = data.draw(st.integers(1, len(entries)))
    deletion_floor = data.draw(st.integers(0, horizon))
    at = data.draw(st.integers(max(1, deletion_floor), len(entries)))
    dropped = legal(
        clean(Busy(), entries),
        horizon,
        deletion_floor,
        major=True,
        released=set(),
        upto=len(entries),
    )
    expected = full_digests(Busy(), entries, 1)
    whole, executor = SessionExecutor(Busy()), SessionExecutor(Busy())
    whole.apply(frames(entries, [], 0)[:at])
    executor.install(whole.snapshot())
    for run in frames(entries, gaps_of({index for index in dropped if index > at}), horizon):
        if run.first_index > at:
            executor.apply([run])
            if executor.last_applied >= horizon:
                assert executor.digest() == expected[executor.last_applied]
