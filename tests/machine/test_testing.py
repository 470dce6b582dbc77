"""`check_blind_writes` says which command is none, and is silent about good ones."""

from __future__ import annotations

from typing import Any

import pytest

from copycat.errors import ConfigurationError, StateDivergedError
from copycat.machine import StateMachine, command, query
from copycat.machine.kv import KeyValueStore
from copycat.testing import check_blind_writes
from tests.machine.cleaning import Busy


class Careless(StateMachine):
    """Keys what reads, and writes beyond its key."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.writes = 0
        self.opaque: Any = None

    @command(key="name")
    def add(self, name: str, step: int) -> None:
        self.values[name] = self.values.get(name, 0) + step

    @command(key="name")
    def put(self, name: str, value: int) -> None:
        self.values[name] = value

    @command(key="name")
    def counted(self, name: str) -> None:
        self.writes += 1

    @command(key="name", tombstone=True)
    def half(self, name: str) -> None:
        """Deletes nothing."""

    @command
    def hide(self) -> None:
        self.opaque = object()


def test_good_machines_pass() -> None:
    kv = KeyValueStore
    operations = [
        kv.put("a", b"1"),
        kv.swap("a", b"2"),
        kv.compare_and_set("a", b"2", b"3"),
        kv.delete("a"),
        kv.compare_and_set("a", None, b"4"),
        kv.put("b", b"5"),
        kv.delete("a"),
        kv.append("l", b"x"),
        kv.delete("b"),
    ]
    check_blind_writes(KeyValueStore, operations)
    check_blind_writes(
        Busy,
        [
            Busy.put("a", 1),
            Busy.lend("a", 2, 1.5),
            Busy.hold("n"),
            Busy.hold("n"),
            Busy.let_go("n"),
            Busy.pick("a", 3),
            Busy.drop("a"),
        ],
    )


@pytest.mark.parametrize(
    ("operations", "name"),
    [
        ([Careless.put("a", 1), Careless.add("a", 1)], "Careless.add"),
        ([Careless.counted("a"), Careless.counted("a")], "Careless.counted"),
        ([Careless.put("a", 1), Careless.half("a")], "Careless.half"),
    ],
)
def test_a_command_that_is_no_blind_write_is_named(operations: list[Any], name: str) -> None:
    with pytest.raises(StateDivergedError, match=name) as caught:
        check_blind_writes(Careless, operations)
    assert caught.value.hint is not None
    assert "reads=True" in caught.value.hint


def the_name(operation: Any) -> Any:
    """A field that Broken.aside does not have."""
    return operation.name


def the_list(operation: Any) -> Any:
    return [operation.name]


def no_arguments() -> Any:
    return ""


class Broken(StateMachine):
    """Its keys cannot be made; and it refuses what is below 0."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}

    @command(key=the_list)
    def unhashable(self, name: str) -> None: ...

    @command(key=the_name)
    def aside(self, other: str) -> None: ...

    @command(key=no_arguments)  # type: ignore[arg-type]
    def arity(self, name: str) -> None: ...

    @command(key="name", expires=the_name)
    def lend(self, name: str) -> None: ...

    @command(key="name")
    def put(self, name: str, value: int) -> None:
        if value < 0:
            raise ValueError(f"{value} is below 0")
        self.values[name] = value

    @query
    def get(self, name: str) -> int:
        return self.values[name]


@pytest.mark.parametrize(
    ("operation", "match"),
    [
        (Broken.unhashable("a"), "Broken.unhashable: its key is a list, which cannot be hashed"),
        (Broken.aside("a"), r"AttributeError: .* has no attribute 'name'"),
        (Broken.arity("a"), r"TypeError: no_arguments\(\) takes 0 positional arguments"),
        (Broken.lend("soon"), "Broken.lend.*ValueError: could not convert string to float"),
        (Careless.counted("a"), "Careless.counted.*.counted. is no command of Broken"),
        (Broken.get("a"), "Broken.get.*is no command of Broken"),
    ],
)
@pytest.mark.parametrize("more", [[], [Broken.put("a", 1), Broken.put("a", 2)]])
def test_an_operation_that_no_handler_was_called_for_is_an_error(
    operation: Any, match: str, more: list[Any]
) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        check_blind_writes(Broken, [*more, operation])
    assert f"operation {len(more) + 1} of {len(more) + 1}" in caught.value.message
    assert caught.value.hint is not None


def test_a_machine_may_refuse_some_commands_and_not_all() -> None:
    refused = Broken.put("a", -1)
    check_blind_writes(Broken, [refused, Broken.put("a", 1), refused, Broken.put("a", 2)])
    with pytest.raises(ConfigurationError, match="ValueError: -1 is below 0") as caught:
        check_blind_writes(Broken, [refused, refused])
    assert "none of 2 commands took effect" in caught.value.message


def test_no_operations_prove_nothing() -> None:
    with pytest.raises(ConfigurationError, match="none of 0 commands took effect"):
        check_blind_writes(Broken, [])


def test_a_state_that_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Careless has an attribute"):
        check_blind_writes(Careless, [Careless.hide()])
