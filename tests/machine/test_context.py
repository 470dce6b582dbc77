"""What a machine may know: index, log time, random numbers, sessions; the same on every member."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from copycat.errors import (
    ApplicationError,
    ConfigurationError,
    UnknownSessionError,
)
from copycat.machine import StateMachine, command, query
from copycat.machine.session_executor import SessionExecutor
from copycat.types import SessionState
from tests.machine.runs import Script


class Curious(StateMachine):
    def __init__(self) -> None:
        self.states: list[str] = []

    @command
    def look(self) -> tuple[int, float, int, str]:
        commit = self.commit
        assert commit.index == self.context.index
        assert commit.time == self.context.clock.now()
        return commit.index, self.context.clock.time(), commit.session.id, repr(commit.operation)

    @command
    def roll(self, times: int) -> list[int]:
        return [self.context.random.randrange(1 << 30) for _ in range(times)]

    @query
    def peek(self) -> int:
        return self.context.random.randrange(1 << 30)

    @command
    def who(self) -> list[int]:
        assert len(self.context.sessions) == len(list(self.context.sessions))
        return [session.id for session in self.context.sessions]

    @command
    def watch(self) -> None:
        session = self.commit.session
        session.on_state_change(lambda state: self.states.append(f"{session.id} {state}"))

    @command
    def find(self, session: int) -> str:
        return self.context.sessions[session].client_id

    @command
    def unfair(self) -> None:
        self.context.random.choice([])


def test_index_time_and_session_of_each_command() -> None:
    script = Script(Curious())
    session = script.register()
    script.time_ms = 1234
    one, two = script.results(session, Curious.look(), Curious.look())
    assert one == [2, 1.234, session, "Curious.look()"]
    assert two[0] == 3


def test_log_time_is_utc_and_exact() -> None:
    script = Script(Curious())
    script.tick(1_700_000_000_123)
    now = script.machine.context.clock.now()
    assert now == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)


def test_random_numbers_are_alike_for_each_entry_and_queries_change_nothing() -> None:
    left, right = Script(Curious()), Script(Curious())
    for script in (left, right):
        script.register()
    assert left.query(1, Curious.peek()) == left.query(1, Curious.peek())
    rolls = left.results(1, Curious.roll(3), Curious.roll(3))
    assert rolls == right.results(1, Curious.roll(3), Curious.roll(3))
    assert rolls[0] != rolls[1]
    assert len(set(rolls[0])) == 3


def test_sessions_are_seen_in_order() -> None:
    script = Script(Curious())
    ids = [script.register(name) for name in "zam"]
    assert script.results(ids[0], Curious.who()) == [ids]
    assert script.results(ids[0], Curious.find(ids[1])) == ["a"]
    (missing,) = script.results(ids[0], Curious.find(99))
    assert isinstance(missing, ApplicationError)
    assert missing.type_name == "UnknownSessionError"
    with pytest.raises(UnknownSessionError):
        script.machine.context.sessions[99]


def test_state_changes_of_sessions_are_heard() -> None:
    script = Script(Curious())
    one, two = script.register("a"), script.register("b")
    script.results(one, Curious.watch())
    script.results(two, Curious.watch())
    script.close(one)
    script.expire(two, 99)
    assert script.machine.states == [f"{one} closed", f"{two} expired"]
    assert not SessionState.CLOSED.active
    assert SessionState.OPEN.active


def test_there_is_no_commit_outside_an_operation() -> None:
    script = Script(Curious())
    with pytest.raises(ApplicationError, match="there is no commit"):
        _ = script.machine.commit


@pytest.mark.parametrize("name", ["context", "executor", "commit"])
def test_a_machine_on_its_own_has_no_context(name: str) -> None:
    with pytest.raises(ConfigurationError, match="runs in no server"):
        getattr(Curious(), name)


def test_a_machine_runs_in_one_server() -> None:
    machine: Any = Curious()
    SessionExecutor(machine)
    with pytest.raises(ConfigurationError, match="in another server already"):
        SessionExecutor(machine)


class Hopeful(StateMachine):
    """Gives functions of which a call runs nothing."""

    async def later(self, *_: object) -> None:
        raise AssertionError("it was called")

    def one_by_one(self, *_: object) -> Iterator[int]:
        yield 1

    async def asynchronously(self, *_: object) -> AsyncIterator[int]:
        yield 1

    @command
    def schedule(self, name: str) -> None:
        self.executor.schedule(1, getattr(self, name))

    @command
    def schedule_hidden(self, name: str) -> None:
        self.executor.schedule(1, lambda: getattr(self, name)())

    @command
    def watch(self, name: str) -> None:
        self.commit.session.on_state_change(getattr(self, name))

    @command
    def schedule_nothing(self) -> None:
        self.executor.schedule(1, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("operation", [Hopeful.schedule, Hopeful.schedule_hidden, Hopeful.watch])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("later", "a coroutine"),
        ("one_by_one", "a generator"),
        ("asynchronously", "an async generator"),
    ],
)
def test_a_callback_that_did_nothing_is_named_in_the_log_when_it_is_called(
    operation: Any, name: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script(Hopeful())
    session = script.register()
    assert script.results(session, operation(name)) == [None], "the same on every version"
    assert caplog.text == ""
    script.tick(5000)
    script.close(session)
    assert f"Hopeful.{name} did nothing: it returned {kind}" in caplog.text


def test_what_cannot_be_called_is_not_scheduled() -> None:
    script = Script(Hopeful())
    (refused,) = script.results(script.register(), Hopeful.schedule_nothing())
    assert isinstance(refused, ApplicationError)
    assert "needs a callable" in str(refused)
