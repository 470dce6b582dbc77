"""Callbacks by log time, fired before an entry is applied."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

from copycat.errors import ApplicationError, ConfigurationError
from copycat.machine import Scheduled, StateMachine, command, query
from copycat.machine.timers import Timers, duration_ms
from tests.machine.runs import Script


class Alarm(StateMachine):
    """Notes (what, index, clock) of everything that happens."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int, float]] = []
        self.pending: list[Scheduled] = []

    def note(self, what: str) -> None:
        self.heard.append((what, self.context.index, self.context.clock.time()))

    @command
    def set(self, name: str, delay: float, interval: float | None = None) -> None:
        self.pending.append(
            self.executor.schedule(delay, lambda: self.note(name), interval=interval)
        )

    @command
    def cancel(self, number: int) -> None:
        self.pending[number].cancel()

    @command
    def mark(self, name: str) -> None:
        self.note(name)

    @command
    def chain(self, name: str) -> None:
        """A callback that schedules another one and cancels one that is due with it."""

        def first() -> None:
            self.note(name)
            self.executor.schedule(0, lambda: self.note(f"{name}-child"))
            for scheduled in self.pending:
                scheduled.cancel()

        self.executor.schedule(1, first)
        self.pending.append(self.executor.schedule(1, lambda: self.note("never")))

    @command
    def crash(self) -> None:
        def callback() -> None:
            raise ValueError("late")

        self.executor.schedule(1, callback)

    @query
    def cheat(self) -> None:
        self.executor.schedule(1, lambda: None)


def started() -> tuple[Script, int]:
    script = Script(Alarm())
    return script, script.register()


def test_a_callback_fires_strictly_after_its_time_at_the_entry_that_shows_it() -> None:
    script, session = started()
    script.commands(session, [Alarm.set("ring", 0.5)])  # at 1.0
    script.tick(1500)
    assert script.machine.heard == []
    script.tick(2000)  # index 4
    assert script.machine.heard == [("ring", 4, 1.5)]  # its own time on the clock


def test_the_next_due_time_is_reported_so_that_the_leader_can_tick() -> None:
    script, session = started()
    assert script.noop().next_due_ms == 0
    assert script.commands(session, [Alarm.set("ring", 0.5)]).next_due_ms == 1501
    assert script.tick(1500).next_due_ms == 1501
    assert script.tick(1501).next_due_ms == 0
    assert script.machine.heard == [("ring", 5, 1.5)]


def test_fires_before_the_entry_is_applied() -> None:
    script, session = started()
    script.commands(session, [Alarm.set("ring", 0.5)])
    script.time_ms = 3000
    script.commands(session, [Alarm.mark("command")])
    assert [what for what, _, _ in script.machine.heard] == ["ring", "command"]


def test_callbacks_fire_in_order_of_time_then_of_scheduling() -> None:
    script, session = started()
    operations = [Alarm.set("c", 2), Alarm.set("a", 1), Alarm.set("b", 1)]
    script.commands(session, operations)
    script.tick(9000)
    assert [what for what, _, _ in script.machine.heard] == ["a", "b", "c"]


def test_a_callback_repeats_an_interval_after_the_tick_and_never_bursts() -> None:
    script, session = started()
    script.commands(session, [Alarm.set("beat", 1, 1)])
    outcome = script.tick(10_000)
    assert len(script.machine.heard) == 1
    assert outcome.next_due_ms == 11_001
    script.tick(11_001)
    assert len(script.machine.heard) == 2


def test_cancelled_callbacks_do_not_fire() -> None:
    script, session = started()
    script.commands(session, [Alarm.set("a", 1), Alarm.set("b", 1, 1)])
    outcome = script.commands(session, [Alarm.cancel(0), Alarm.cancel(1), Alarm.cancel(0)])
    assert outcome.next_due_ms == 0
    script.tick(9000)
    assert script.machine.heard == []


def test_callbacks_may_schedule_and_cancel() -> None:
    script, session = started()
    script.commands(session, [Alarm.chain("a")])
    script.tick(3000)
    assert script.machine.heard == [("a", 3, 2.0)]
    script.tick(3001)  # the child was scheduled at 3.0, the entry's time
    assert script.machine.heard[1:] == [("a-child", 4, 3.0)]


def test_a_repeating_callback_can_cancel_itself() -> None:
    class Once(Alarm):
        @command
        def once(self) -> None:
            def callback() -> None:
                self.note("once")
                self.pending[0].cancel()

            self.pending.append(self.executor.schedule(1, callback, interval=1))

    script = Script(Once())
    session = script.register()
    script.commands(session, [Once.once()])
    assert script.tick(5000).next_due_ms == 0
    script.tick(9000)
    assert len(script.machine.heard) == 1


def test_a_callback_that_raises_is_logged_and_not_in_the_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script, session = started()
    script.commands(session, [Alarm.crash(), Alarm.set("ring", 1)])
    with caplog.at_level(logging.ERROR):
        script.tick(9000)
    assert "late" in caplog.text
    assert len(script.machine.heard) == 1


def test_nothing_is_scheduled_from_a_query_or_configure() -> None:
    script, session = started()
    error = script.query(session, Alarm.cheat())
    assert isinstance(error, ApplicationError)
    assert "no entry is applied" in error.message

    class Eager(StateMachine):
        def configure(self, executor: Any) -> None:
            executor.schedule(1, lambda: None)

    with pytest.raises(ApplicationError):
        Script(Eager())


@pytest.mark.parametrize("delay", [-0.001, float("nan"), float("inf"), 1e11])
def test_delays_are_checked(delay: float) -> None:
    with pytest.raises(ConfigurationError, match="delay"):
        duration_ms("delay", delay, 0)


def test_intervals_are_at_least_a_millisecond_and_delays_round_up() -> None:
    with pytest.raises(ConfigurationError, match="interval"):
        duration_ms("interval", 0, 1)
    assert duration_ms("delay", 0.0001, 0) == 1
    assert duration_ms("delay", timedelta(seconds=2), 0) == 2000


def test_rows_show_what_is_alive_in_order() -> None:
    timers = Timers()
    timers.schedule(30, lambda: None)
    timers.schedule(10, lambda: None, 5)
    timers.schedule(20, lambda: None).cancel()
    assert timers.rows() == [(10, 5), (30, 0)]
