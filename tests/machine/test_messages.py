"""Messages about an operation: they name it, what is wrong with it, and what helps."""

from __future__ import annotations

import dataclasses
import enum
from collections import defaultdict
from typing import Annotated, Any

import msgspec
import pytest

from copycat import CopycatError, MachineMismatchError, SerializationError, StateMachine
from copycat.machine import SnapshotWriter, command, query
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.obstacles import obstacles_in
from copycat.protocol.operations import encode_operation
from tests.machine.runs import Script

WRONG: Any = "a"
ABOVE, BELOW = 2**64, -(2**63) - 1
RANGE = "an integer must be from -2**63 to 2**64 - 1"


@dataclasses.dataclass
class Part:
    count: int
    parts: list[int] = dataclasses.field(default_factory=list)


class Machine(StateMachine):
    def __init__(self) -> None:
        self.total = 0
        self.values: dict[Any, Any] = {}

    @command
    def add(
        self,
        by: int,
        many: list[int] = [],  # noqa: B006
        part: Part | None = None,
        table: dict[str, Part] = {},  # noqa: B006
        small: Annotated[int, msgspec.Meta(le=9)] = 0,
        anything: Any = None,
    ) -> int:
        self.total += by
        return self.total

    @command
    def big(self, kind: str) -> Any:
        value = {"int": ABOVE, "list": [1, [ABOVE]], "part": {"x": Part(BELOW)}}
        return {**value, "object": object(), "set": {ABOVE, 1}, "text": "\ud800"}[kind]

    @command(key="name")
    def keyed(self, name: str) -> Any:
        return [ABOVE]

    @query
    def ask(self) -> Any:
        return {"total": [ABOVE]}

    def helper(self) -> None: ...


def refused(operation: Any) -> SerializationError:
    with pytest.raises(SerializationError) as caught:
        encode_operation(operation)
    assert caught.value.hint
    assert "nothing was sent" in caught.value.message
    return caught.value


@pytest.mark.parametrize("number", [ABOVE, BELOW, 2**200])
@pytest.mark.parametrize(
    ("place", "parameters"),
    [
        ("by", lambda n: {"by": n}),
        ("many[1]", lambda n: {"by": 1, "many": [1, n]}),
        ("part.count", lambda n: {"by": 1, "part": Part(n)}),
        ("part.parts[0]", lambda n: {"by": 1, "part": Part(1, [n])}),
        ("table['k'].count", lambda n: {"by": 1, "table": {"k": Part(n)}}),
        ("small", lambda n: {"by": 1, "small": n}),
        ("anything", lambda n: {"by": 1, "anything": n}),
        ("anything[0]['a'][2]", lambda n: {"by": 1, "anything": [{"a": (1, 2, n)}]}),
        ("anything (the key of ", lambda n: {"by": 1, "anything": {n: 1}}),
        ("anything (the member of ", lambda n: {"by": 1, "anything": {n}}),
    ],
)
def test_a_parameter_above_64_bits_says_where(number: int, place: str, parameters: Any) -> None:
    error: Any = refused(Machine.add(**parameters(number)))
    side = "below -2**63" if number < 0 else "above 2**64 - 1"
    assert error.message.startswith("Machine.add: expected `")
    assert f"got an integer {side} ({number.bit_length()} bits) at {place}" in error.message
    assert error.hint.startswith(RANGE)
    assert error.operation == "Machine.add"
    assert place.startswith(error.field)


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63)])
def test_64_bits_are_fine(number: int) -> None:
    script = Script(Machine())
    assert script.results(script.register(), Machine.add(number)) == [number]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"by": "1"}, "expected `int`, got `str` at by;"),
        ({"by": 1, "many": ["a"]}, "got `list` at many (Expected `int`, got `str` - at `$[0]`)"),
        ({"by": 1, "part": Part(WRONG)}, "`int`, got `str` - at `$.count`"),
        ({"by": 1, "small": 10}, "got `int` at small (Expected `int` <= 9)"),
        ({"by": 1, "many": [object()]}, "got a value of type `object` at many[0];"),
        ({"by": 1, "many": object()}, "got `object` at many;"),
        ({"by": 1, "anything": "\ud800"}, "got text that is no Unicode"),
    ],
)
def test_a_parameter_of_another_type_says_where(parameters: Any, expected: str) -> None:
    error = refused(Machine.add(**parameters))
    assert error.message.startswith("Machine.add: ")
    assert expected in error.message


def test_a_call_that_was_forgotten() -> None:
    error: Any = refused(Machine.add)
    assert error.message.startswith("Machine.add was not called")
    assert error.hint == "call it: submit(Machine.add(by, many, part, table, small, anything))"
    assert error.operation == "Machine.add"
    assert refused(Machine.ask).hint == "call it: submit(Machine.ask())"
    machine = Machine()
    for other in (machine.add, machine.helper, Machine.helper, Machine):
        error = refused(other)
        assert error.message.startswith(f"{other.__qualname__} is not an operation")
        assert "submit(Machine.method(...))" in error.hint
    assert "gives its result" in (refused(machine.add(1)).hint or "")


@pytest.mark.parametrize("kind", ["int", "list", "part", "set"])
def test_a_result_above_64_bits_names_its_command(kind: str) -> None:
    script = Script(Machine())
    session = script.register()
    error, after = script.results(session, Machine.big(kind), Machine.add(1))
    assert isinstance(error, SerializationError)
    assert (
        "the result of Machine.big has no encoding: it is or contains an integer" in error.message
    )
    assert RANGE in error.message
    assert after == 1


def test_every_result_without_an_encoding_names_its_operation() -> None:
    script = Script(Machine())
    session = script.register()
    for operation, name in (
        (Machine.big("object"), "Machine.big"),
        (Machine.big("text"), "Machine.big"),
        (Machine.keyed("k"), "Machine.keyed"),
    ):
        (error,) = script.results(session, operation)
        assert isinstance(error, SerializationError)
        assert f"the result of {name} " in error.message
    error = script.query(session, Machine.ask())
    assert isinstance(error, SerializationError)
    assert "the result of Machine.ask " in error.message


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["add", "1"], "expected `int`, got `str` at by"),
        (["add"], "by is missing and has no default"),
        (["add", 1, [], None, {}, 0, None, 7], "there are 7, and it takes 6"),
        (["add", 1, ["x"]], "expected `list[int]`, got `list` at many (Expected"),
    ],
)
def test_a_command_that_does_not_fit_says_which_parameter(
    values: list[Any], expected: str
) -> None:
    script = Script(Machine())
    session = script.register()
    with pytest.raises(MachineMismatchError) as caught:
        script.commands(session, [msgspec.msgpack.encode(values)])
    assert f"Machine.add: its parameters do not fit: {expected}" in caught.value.message


def test_no_message_counts_bytes_where_it_can_name() -> None:
    script = Script(Machine())
    session = script.register()
    for refusal in (
        script.executor.commands.refusals([msgspec.msgpack.encode(["sub", 1])])[0],
        script.executor.commands.refusals([msgspec.msgpack.encode(["add", "x"])])[0],
    ):
        (error,) = script.results(session, refusal)
        assert isinstance(error, CopycatError)
        assert "Machine." in error.message
        assert "bytes" not in error.message


class Level(enum.IntEnum):
    LOW = 1


@pytest.mark.parametrize(
    "value",
    [ABOVE, BELOW, [ABOVE], {ABOVE: BELOW}, {ABOVE, 3}, Part(ABOVE), defaultdict(int, a=ABOVE)],
)
def test_a_snapshot_keeps_integers_of_every_size(value: Any) -> None:
    one, two = SessionExecutor(Machine()), SessionExecutor(Machine())
    machines: list[Any] = [one.machine, two.machine]
    machines[0].values["v"] = value
    machines[0].total = ABOVE**3
    two.install(one.snapshot())
    assert machines[1].values == {"v": value}
    assert machines[1].total == ABOVE**3


@pytest.mark.parametrize(
    "value", [ABOVE, [BELOW, 1], {"a": ABOVE}, {ABOVE: 1}, {ABOVE, 1}, (1, ABOVE), [Part(ABOVE)]]
)
def test_states_with_larger_integers_are_compared_too(value: Any) -> None:
    one, two, other = (
        SessionExecutor(Machine()),
        SessionExecutor(Machine()),
        SessionExecutor(Machine()),
    )
    for executor, state in ((one, value), (two, value), (other, [value])):
        machine: Any = executor.machine
        machine.values["v"] = state
    assert one.encode_state() is not None
    assert one.digest() == two.digest() != other.digest()


def test_an_own_snapshot_says_what_it_cannot_hold() -> None:
    writer = SnapshotWriter()
    writer.write_object([1, Level.LOW])
    with pytest.raises(
        SerializationError, match=r"an integer above .* at object\['a'\]\[0\]"
    ) as no:
        writer.write_object({"a": [ABOVE]})
    assert (no.value.hint or "").startswith(RANGE)


def test_what_contains_itself_is_searched_once() -> None:
    ring: list[Any] = []
    ring += [ring, ring, ring]
    assert obstacles_in(ring) == []
    ring.append({"x": ABOVE})
    assert [obstacle.path for obstacle in obstacles_in(ring)] == ["[3]['x']"]
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]
    assert obstacles_in(deep)[0].problem == "something more than 200 deep"
