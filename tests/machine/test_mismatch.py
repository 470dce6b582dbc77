"""A command in the log that the machine cannot read stops the member, and is never skipped."""

from __future__ import annotations

import dataclasses
from typing import Any, TypedDict

import msgspec
import pytest

from copycat.errors import InvariantError, MachineMismatchError, SerializationError
from copycat.machine import Commit, StateMachine, command, query
from copycat.machine.reading import stand_in_of
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.operations import Command, encode_operation
from copycat.protocol.results import encode_result
from tests.machine.runs import Script

encode = msgspec.msgpack.encode


class Counter(StateMachine):
    def __init__(self) -> None:
        self.total = 0

    @command
    def add(self, by: int) -> int:
        self.total += by
        return self.total

    @query
    def now(self) -> int:
        return self.total


class Renamed(StateMachine):
    def __init__(self) -> None:
        self.total = 0

    @command
    def increase(self, by: int) -> int:
        self.total += by
        return self.total


class Mended(StateMachine):
    def __init__(self) -> None:
        self.total = 0

    @command(name="add")
    def increase(self, by: int, times: int = 1, note: str | None = None) -> int:
        self.total += by * times
        return self.total


class Retyped(StateMachine):
    @command
    def add(self, by: str) -> None: ...


class Removed(StateMachine):
    @command
    def add(self) -> None: ...


class Reordered(StateMachine):
    @command
    def add(self, why: str, by: int) -> None: ...


class Put(Command[int], frozen=True):
    value: int


class Explicit(StateMachine):
    def put(self, commit: Commit[Put]) -> int:
        return commit.operation.value


def test_a_renamed_command_stops_before_anything_of_it_is_applied() -> None:
    script = Script(Renamed())
    session = script.register()
    script.commands(session, [Renamed.increase(1)])
    before = script.executor.digest()
    with pytest.raises(MachineMismatchError) as caught:
        script.commands(session, [Renamed.increase(2), Counter.add(5), Renamed.increase(3)])
    error = caught.value
    assert (error.operation, error.index) == ("Renamed.add", 4)
    assert error.message == (
        "entry 4: Renamed.add: 'add' is no command of Renamed; nothing of it was applied"
    )
    assert error.hint == (
        'add `@command(name="add")` to the method with the new name\n'
        "if newer code wrote the command, start the member with that code"
    )
    assert script.executor.digest() == before  # nor the good one of its run
    with pytest.raises(InvariantError, match="MachineMismatchError"):
        script.noop()


def test_a_command_with_its_old_name_and_new_defaults_goes_on() -> None:
    script = Script(Mended())
    session = script.register()
    assert script.results(session, Counter.add(5), Mended.increase(2, 3)) == [5, 11]


@pytest.mark.parametrize("machine", [Retyped, Removed, Reordered])
def test_parameters_that_do_not_fit_stop_too(machine: type[StateMachine]) -> None:
    script = Script(machine())
    session = script.register()
    with pytest.raises(MachineMismatchError) as caught:
        script.commands(session, [Counter.add(5)])
    name = machine.__name__
    assert caught.value.message.startswith(f"entry 2: {name}.add: its parameters do not fit: ")
    assert (caught.value.operation, caught.value.index) == (f"{name}.add", 2)
    assert caught.value.hint is not None
    assert "with defaults" in caught.value.hint


def test_a_missing_parameter_without_a_default_stops() -> None:
    script = Script(Counter())
    session = script.register()
    with pytest.raises(MachineMismatchError, match=r"Counter\.add: its parameters do not fit"):
        script.commands(session, [encode(["add"])])


def test_a_command_class_gets_a_hint_of_its_own() -> None:
    script = Script(Explicit())
    session = script.register()
    assert script.results(session, Put(3)) == [3]
    with pytest.raises(MachineMismatchError) as caught:
        script.commands(session, [encode(["Set", 3])])
    assert 'class New(Command[...], tag="Set", frozen=True)' in (caught.value.hint or "")


def test_what_is_applied_already_or_has_no_session_needs_no_reading() -> None:
    script = Script(Renamed())
    session = script.register()
    script.commands(session, [Renamed.increase(1)])
    script.commands(session, [Counter.add(9)], first_sequence=1)  # sent again: known
    script.close(session)
    script.commands(session, [Counter.add(9)], first_sequence=2)  # nobody's
    assert script.machine.total == 1


def test_a_query_that_the_machine_does_not_have_is_its_own_error() -> None:
    script = Script(Renamed())
    session = script.register()
    error = script.query(session, Counter.now())
    assert isinstance(error, MachineMismatchError)
    assert "'now' is no query of Renamed" in error.message
    assert script.results(session, Renamed.increase(1)) == [1]


BAD = {
    "unknown": encode(["sub", 1]),
    "misfit": encode(["add", "1"]),
    "too many": encode(["add", 1, 2]),
    "a query": encode_operation(Counter.now()),
    "no array": encode("add"),
    "no MessagePack": b"\xc1",
    "cut": encode_operation(Counter.add(1))[:-1],
    "more behind it": encode_operation(Counter.add(1)) + b"\x00",
    "a stand-in of the client's": encode(msgspec.msgpack.Ext(1, b"mine")),
    "too deep": b"\x91" * 5000 + b"\x90",
    "a long name": encode(["x" * 10_000]),
    "a strange name": encode(["\x00\"'\\"]),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_leader_logs_a_stand_in_whose_result_is_the_error(bad: bytes) -> None:
    script = Script(Counter())
    session = script.register()
    good = encode_operation(Counter.add(1))
    refused = script.executor.commands.refusals([good, bad, good, bad])
    assert sorted(refused) == [1, 3]
    assert len(refused[1]) < 1000
    first, error, second = script.results(session, good, refused[1], good)
    assert (first, second) == (1, 2)
    assert isinstance(error, MachineMismatchError)
    assert "Counter" in error.message
    # A stand-in stands for itself on every member, whatever its code.
    other = Script(Renamed())
    assert script.executor.commands.refusals([refused[1]]).keys() == {0}  # from a client: not
    (again,) = other.results(other.register(), refused[1])
    assert again.message == error.message


def test_a_run_of_thousands_is_not_explained_one_by_one() -> None:
    commands = SessionExecutor(Counter()).commands
    good, bad = encode_operation(Counter.add(1)), encode(["sub", 1])
    refused = commands.refusals([good, *[bad] * 1000, good])
    assert list(refused) == list(range(1, 1001))
    assert refused[1] != refused[1000]
    script = Script(Counter())
    for stand_in in (refused[1], refused[1000]):
        (error,) = script.results(script.register(), stand_in)
        assert isinstance(error, MachineMismatchError)
        assert "Counter" in error.message


def test_what_a_client_withdrew_is_no_refusal_of_the_leader() -> None:
    assert (
        SessionExecutor(Counter()).commands.refusals([b"", encode_operation(Counter.add(1))]) == {}
    )
    script = Script(Counter())
    (error,) = script.results(script.register(), b"")
    assert isinstance(error, SerializationError)
    assert stand_in_of(encode_operation(Counter.add(1))) is None


class Loud(msgspec.Struct):
    kind: str

    def __post_init__(self) -> None:
        raise {"exit": SystemExit, "memory": MemoryError, "key": KeyError}[self.kind]("loud")


class Listening(StateMachine):
    @command
    def hear(self, loud: Loud | None) -> None: ...


@pytest.mark.parametrize("kind", ["exit", "memory", "key"])
def test_whatever_a_field_of_it_raises_refuses_it(kind: str) -> None:
    bad: Any = encode(["hear", {"kind": kind}])
    good = encode(["hear", None])
    refused = SessionExecutor(Listening()).commands.refusals([good, bad, good])
    assert refused.keys() == {1}
    stand_in = stand_in_of(refused[1])
    assert stand_in is not None
    assert b"Listening.hear" in encode_result(stand_in.result)


@dataclasses.dataclass
class Item:
    name: str
    count: int = 0


class Line(msgspec.Struct, rename="camel", tag="line"):
    the_item: Item
    marks: dict[str, Item] = {}


@dataclasses.dataclass
class Odd:
    """Makes of its field what has no encoding."""

    name: str

    def __post_init__(self) -> None:
        self.name = object()  # type: ignore[assignment]


class Row(TypedDict, total=False):
    left: int
    right: int


class Store(StateMachine):
    def __init__(self) -> None:
        self.calls = 0

    @command
    def put(
        self,
        item: Item | None = None,
        lines: list[Line] | None = None,
        row: Row | None = None,
        free: Any = None,
        names: set[str] | None = None,
        odd: Odd | None = None,
    ) -> int:
        self.calls += 1
        return self.calls


ITEM = {"name": "a"}
LINE = {"type": "line", "theItem": ITEM}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ([{"name": "a", "amount": 2}], "a field 'amount' at item, which Item"),
        ([None, [LINE, {**LINE, "theItem": {**ITEM, "more": 1}}]], "'more' at lines[1].the_item"),
        ([None, [{**LINE, "marks": {"m": {**ITEM, "x": 1}}}]], "'x' at lines[0].marks['m']"),
        ([None, [{**LINE, "the_item": ITEM}]], "'the_item' at lines[0], which Line"),
        ([None, None, {"left": 1, "middle": 2}], "'middle' at row"),
    ],
)
def test_a_field_inside_a_parameter_that_is_gone_stops_too(parameters: Any, expected: str) -> None:
    payload = encode(["put", *parameters])
    script = Script(Store())
    session = script.register()
    (stand_in,) = script.executor.commands.refusals([payload]).values()
    assert isinstance(script.results(session, stand_in)[0], MachineMismatchError)
    with pytest.raises(MachineMismatchError) as caught:
        script.commands(session, [payload])
    assert "Store.put: its parameters do not fit: there is a field " in caught.value.message
    assert expected in caught.value.message
    assert script.machine.calls == 0


@pytest.mark.parametrize(
    "parameters",
    [
        [],
        [ITEM],
        [{"count": 3, "name": "a"}],
        [None, [LINE, {"theItem": ITEM, "type": "line"}]],
        [None, [{**LINE, "marks": {"m": ITEM}}]],
        [None, None, {"right": 1}],
        [None, None, None, {"anything": {"goes": [1, {"here": 2}]}}],
        [None, None, None, None, ["b", "a", "c"]],
        [None, None, None, None, None, {"name": "odd"}],
    ],
)
def test_what_fits_is_applied_whatever_its_bytes(parameters: Any) -> None:
    script = Script(Store())
    assert script.results(script.register(), encode(["put", *parameters])) == [1]
