"""F23: what the user's code raises is the request's result; a shortage of memory stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from typing import Any

import msgspec
import pytest

from copycat import (
    ApplicationError,
    MachineMismatchError,
    MemoryShortageError,
    SerializationError,
    StateMachine,
    command,
    query,
)
from copycat.machine.sessions import ServerSession
from copycat.machine.snapshot_io import SnapshotReader, SnapshotWriter
from copycat.protocol.results import RAISED
from copycat.storage import allocation_refusals, watch_allocations
from copycat.types import SessionState
from tests.machine.runs import Script

ABSURD = 10**15


class Silent(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")


class Hungry(Exception):
    def __str__(self) -> str:
        return "x".rjust(ABSURD)


def deep(n: int = 0) -> int:
    return deep(n + 1) + 1


def absurd() -> None:
    "x".rjust(ABSURD)


def broke() -> None:
    raise ApplicationError("no funds", balance=3)


def raiser(error: BaseException) -> Callable[[], None]:
    def do() -> None:
        raise error

    return do


RAISES: dict[str, Callable[[], object]] = {
    "ValueError": raiser(ValueError("no")),
    "SystemExit": raiser(SystemExit(3)),
    "KeyboardInterrupt": raiser(KeyboardInterrupt()),
    "GeneratorExit": raiser(GeneratorExit()),
    "CancelledError": raiser(asyncio.CancelledError("stop")),
    "BaseExceptionGroup": raiser(BaseExceptionGroup("two", [SystemExit(), KeyboardInterrupt()])),
    "RecursionError": deep,
    "MemoryError": absurd,
    "Silent": raiser(Silent()),
    "Hungry": raiser(Hungry()),
    "StopIteration": raiser(StopIteration(1)),
    "ApplicationError": broke,
}


class NoTime(tzinfo):
    """Encoding a datetime with it runs this code."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        raise SystemExit(1)

    def dst(self, when: datetime | None) -> timedelta:
        raise SystemExit(1)

    def tzname(self, when: datetime | None) -> str:
        raise SystemExit(1)


class Field(msgspec.Struct):
    error_name: str

    def __post_init__(self) -> None:
        if self.error_name in RAISES and self.error_name != "fine":
            RAISES[self.error_name]()


class Key(msgspec.Struct, frozen=True):
    error_name: str

    def __hash__(self) -> int:
        if self.error_name in RAISES:
            RAISES[self.error_name]()
        return 7


class Poison(StateMachine):
    def __init__(self) -> None:
        self.count = 0

    @command
    def add(self) -> int:
        self.count += 1
        return self.count

    @command
    def fail(self, error_name: str) -> None:
        RAISES[error_name]()

    @command
    def decode(self, field: Field) -> str:
        return field.error_name

    @command(key="key")
    def keyed(self, key: str, error_name: str) -> None:
        RAISES[error_name]()

    @command(key="key")
    def hashed(self, key: Key) -> int:
        return 5

    @command
    def when(self) -> Any:
        return datetime(2026, 1, 1, tzinfo=NoTime())

    @command
    def nested(self) -> Any:
        value: list[Any] = []
        for _ in range(100_000):
            value = [value]
        return value

    @command
    def later(self, error_name: str) -> None:
        def due() -> None:
            RAISES[error_name]()

        self.executor.schedule(1, due)

    @command
    def listen(self, error_name: str) -> None:
        def ended(state: SessionState) -> None:
            RAISES[error_name]()

        self.commit.session.on_state_change(ended)

    @query
    def ask(self, error_name: str) -> None:
        RAISES[error_name]()

    @query
    def raise_memory_error(self) -> None:
        raise MemoryError

    @query
    def total(self) -> int:
        return self.count


def script_of(machine: Any) -> Script:
    watch_allocations()
    return Script(machine, refusals=allocation_refusals, in_main_thread=False)


@pytest.fixture(params=list(RAISES))
def error_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def named(error_name: str, error: object) -> None:
    assert isinstance(error, ApplicationError), error
    assert error.message.startswith(f"{error_name}:")


def test_whatever_a_command_raises_is_its_result(error_name: str) -> None:
    script = script_of(Poison())
    session = script.register()
    one, error, two = script.results(session, Poison.add(), Poison.fail(error_name), Poison.add())
    assert (one, two) == (1, 2)
    named(error_name, error)
    other = script_of(Poison())  # another member, other cuts
    session = other.register()
    results = [other.results(session, each)[0] for each in (Poison.add(), Poison.fail(error_name))]
    assert str(results[1]) == str(error)


def test_the_text_of_what_is_no_exception_is_ours() -> None:
    script = script_of(Poison())
    session = script.register()
    (error,) = script.results(session, Poison.fail("SystemExit"))
    assert isinstance(error, ApplicationError)
    assert error.message == f"SystemExit: {RAISED}"


def test_an_application_error_takes_fields_of_the_users_own() -> None:
    error = ApplicationError("no funds", balance=3, hint="pay first")
    assert vars(error)["balance"] == 3
    assert (error.message, error.hint) == ("no funds", "pay first")
    with pytest.raises(TypeError, match="SerializationError has no field 'balance'"):
        SerializationError("no text", balance=3)


def test_whatever_a_query_raises_is_its_answer(error_name: str) -> None:
    script = script_of(Poison())
    session = script.register()
    named(error_name, script.query(session, Poison.ask(error_name)))
    assert script.query(session, Poison.total()) == 0


def test_a_query_that_finds_no_memory_fails_alone() -> None:
    script = Script(Poison())
    session = script.register()
    named("MemoryError", script.query(session, Poison.raise_memory_error()))
    named("MemoryError", script.query(session, Poison.ask("MemoryError")))
    assert script.results(session, Poison.add()) == [1]


def test_a_fields_own_code_may_raise_anything(error_name: str) -> None:
    script = script_of(Poison())
    session = script.register()
    tag = msgspec.msgpack.decode(script_tag())[0]
    field = msgspec.msgpack.encode([tag, {"error_name": error_name}])
    refused = script.executor.commands.refusals([field])
    assert refused.keys() == {0}  # no leader logs it
    one, error, two = script.results(session, Poison.add(), refused[0], Poison.add())
    assert (one, two) == (1, 2)
    assert isinstance(error, MachineMismatchError)
    with pytest.raises(MachineMismatchError, match=r"entry 5: Poison\.decode: its parameters"):
        script.results(session, field)  # so other code wrote this one


def script_tag() -> bytes:
    return msgspec.msgpack.encode(Poison.decode(Field("fine")))


def test_a_keyed_command_that_raises_stays_until_its_key_is_written(error_name: str) -> None:
    script = script_of(Poison())
    session = script.register()
    named(error_name, script.results(session, Poison.keyed("a", error_name))[0])
    assert script.results(session, Poison.add()) == [1]


def test_the_hash_of_a_key_may_raise_anything(error_name: str) -> None:
    script = script_of(Poison())
    session = script.register()
    error, five = script.results(session, Poison.hashed(Key(error_name)), Poison.hashed(Key("")))
    assert five == 5
    named(error_name, error)


@pytest.mark.parametrize("operation", [Poison.when(), Poison.nested()])
def test_the_encoding_of_a_result_may_raise_anything(operation: Any) -> None:
    script = script_of(Poison())
    session = script.register()
    error, one = script.results(session, operation, Poison.add())
    assert isinstance(error, ApplicationError | SerializationError)
    assert one == 1


def test_a_timer_may_raise_anything(error_name: str, caplog: pytest.LogCaptureFixture) -> None:
    script = script_of(Poison())
    session = script.register()
    script.results(session, Poison.later(error_name))
    with caplog.at_level(logging.ERROR):
        script.tick(10_000)
    assert "raised" in caplog.text
    assert script.results(session, Poison.add()) == [1]


def test_a_listener_may_raise_anything(error_name: str) -> None:
    script = script_of(Poison())
    session = script.register()
    script.results(session, Poison.listen(error_name))
    script.close(session)
    session = script.register("another")
    assert script.results(session, Poison.add()) == [1]


def test_the_callbacks_of_a_session_may_raise_anything(error_name: str) -> None:
    class Rude(Poison):
        def on_register(self, session: ServerSession) -> None:
            RAISES[error_name]()

        def on_expire(self, session: ServerSession) -> None:
            RAISES[error_name]()

        on_close = on_unregister = on_register

        def __repr__(self) -> str:
            raise SystemExit("no name")

        def close(self) -> None:
            RAISES[error_name]()

    script = script_of(Rude())
    session = script.register()
    script.register()  # expires the other one
    session = script.register("another")
    script.close(session)
    session = script.register("a third")
    assert script.results(session, Rude.add()) == [1]
    if error_name == "KeyboardInterrupt":  # a stop runs in the main thread: it may be a signal
        with pytest.raises(KeyboardInterrupt):
            script.executor.close()
    else:
        script.executor.close()


def test_a_signal_in_the_main_thread_is_none_of_the_users(error_name: str) -> None:
    script = Script(Poison(), refusals=allocation_refusals)
    session = script.register()
    if error_name == "KeyboardInterrupt":
        with pytest.raises(KeyboardInterrupt):
            script.results(session, Poison.fail(error_name))
        with pytest.raises(KeyboardInterrupt):
            script_in_main().query(2, Poison.ask(error_name))
    else:
        named(error_name, script.results(session, Poison.fail(error_name))[0])


def script_in_main() -> Script:
    script = Script(Poison())
    script.noop()
    script.register()
    return script


# ---- memory ------------------------------------------------------------------------------


class Short(Poison):
    """`eat` is refused what some machine may have."""

    refused = 0

    @command
    def eat(self) -> int:
        type(self).refused += 1
        raise MemoryError

    @command
    def swallow(self) -> int:
        type(self).refused += 1
        return 1

    def on_register(self, session: ServerSession) -> None:
        if session.client_id == "hungry":
            type(self).refused += 1
            raise MemoryError


@pytest.fixture
def short() -> Script:
    Short.refused = 0
    return Script(Short(), refusals=lambda: (Short.refused, 0), in_main_thread=False)


@pytest.mark.parametrize("operation", [Short.eat(), Short.swallow()])
def test_a_shortage_stops_before_the_result_counts(short: Script, operation: Any) -> None:
    """Also when the handler caught it: it may have gone another way than elsewhere."""
    session = short.register()
    with pytest.raises(MemoryShortageError, match=r"while entry \d+ was applied") as caught:
        short.commands(session, [Short.add(), operation])
    assert caught.value.index in {2, 3}
    assert "copycat recover --skip-entry" in (caught.value.hint or "")
    with pytest.raises(Exception, match="nothing is applied after it"):
        short.noop()


def test_a_shortage_in_a_callback_stops_too(short: Script) -> None:
    with pytest.raises(MemoryShortageError) as caught:
        short.register("hungry")
    assert caught.value.index == 1


def test_without_a_watch_no_memory_error_is_known_to_be_alike() -> None:
    script = Script(Poison())
    session = script.register()
    with pytest.raises(MemoryShortageError):
        script.results(session, Poison.fail("MemoryError"))


def test_the_watch_tells_absurd_sizes_from_possible_ones() -> None:
    watch_allocations()
    possible, impossible = allocation_refusals()
    for make in (absurd, lambda: bytes(10**15), lambda: [0] * 10**15, lambda: b"x" * 10**16):
        with pytest.raises(MemoryError):
            make()
    assert allocation_refusals() == (possible, impossible + 4)
    with pytest.raises(MemoryError):
        bytes(1 << 47)
    assert allocation_refusals() == (possible + 1, impossible + 4)


# ---- snapshots -----------------------------------------------------------------------------


class Own(StateMachine):
    """Its own snapshot() and install() raise what they are asked to."""

    error_name = ""

    @command
    def add(self) -> int:
        return 1

    def snapshot(self, writer: SnapshotWriter) -> None:
        if self.error_name:
            RAISES[self.error_name]()
        writer.write_object(1)

    def install(self, reader: SnapshotReader) -> None:
        if self.error_name:
            RAISES[self.error_name]()
        reader.read_object(int)


def test_a_snapshot_that_raises_is_none_and_the_member_goes_on(
    error_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = script_of(Own())
    session = script.register()
    monkeypatch.setattr(Own, "error_name", error_name)
    with pytest.raises(SerializationError, match="Own"):
        script.executor.snapshot()
    assert script.results(session, Own.add()) == [1]


def test_an_install_that_raises_leaves_by_an_exception(
    error_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = script_of(Own()).executor.snapshot()
    other = script_of(Own())
    monkeypatch.setattr(Own, "error_name", error_name)
    with pytest.raises(Exception):  # noqa: B017  (no SystemExit, which would end the process)
        other.executor.install(data)
