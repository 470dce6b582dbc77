"""I23: from the horizon on, a cleaned log is worth the full one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from copycat.machine.executor import Executor
from copycat.protocol.operations import Operation
from copycat.types import EntryKind
from tests.machine.cleaning import (
    Busy,
    Log,
    clean,
    frames,
    full_digests,
    holes,
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
    st.just(b"\xc1"),
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
    executor = Executor(Busy())
    for run in frames(log.entries, holes(dropped), horizon, longest):
        executor.apply([run])
        if executor.last_applied >= horizon:
            assert executor.digest() == expected[executor.last_applied], executor.last_applied


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_i23_a_cleaned_log_is_worth_the_full_one(data: st.DataObject) -> None:
    steps = data.draw(st.lists(STEPS, min_size=5, max_size=40))
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
            wanted=data.draw(st.sets(st.integers(1, len(log)))),
            upto=data.draw(st.integers(0, len(log))),
        )
    check(log, horizon, dropped, data.draw(st.integers(1, 5)))
