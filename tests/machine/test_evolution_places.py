"""Attributes that Python keeps in slots or behind properties are state, too, and never lost."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, NamedTuple

import pytest

from copycat.errors import SerializationError
from copycat.machine import StateMachine, command
from copycat.machine.session_executor import SessionExecutor
from tests.machine.runs import Script
from tests.machine.shops import aliased, refused, restored


def one_command(machine: type[Any]) -> Script:
    """A machine that did `go()`."""
    script = Script(machine())
    script.commands(script.register(), [machine.go()])
    return script


class Slotted(StateMachine):
    """Its attributes are in slots: of its own, of a base, with a private name, and unset."""

    __slots__ = ("__hidden", "notes", "total", "unset")

    def __init__(self) -> None:
        self.total = 0
        self.notes: list[str] = []
        self.__hidden = 0
        self.plain = self.notes

    @command
    def go(self) -> int:
        self.total += 5
        self.__hidden += 7
        self.notes.append("gone")
        return self.total

    def hidden(self) -> int:
        return self.__hidden


class Derived(Slotted):
    __slots__ = ("more",)

    def __init__(self) -> None:
        super().__init__()
        self.more = {1: 2}


class Unslotted(StateMachine):
    """The same without slots."""

    def __init__(self) -> None:
        self.total = 0
        self.notes: list[str] = []
        self.plain = self.notes

    @command
    def go(self) -> int:
        self.total += 5
        self.notes.append("gone")
        return self.total


@pytest.mark.parametrize("kind", [Slotted, Derived])
def test_what_is_in_slots_is_in_the_snapshot_and_in_the_digest(kind: type[Any]) -> None:
    script = one_command(kind)
    assert script.executor.encode_state() != SessionExecutor(kind()).encode_state()
    executor, machine = restored(kind, script)
    assert executor.digest() == script.executor.digest()
    assert (machine.total, machine.hidden(), machine.notes) == (5, 7, ["gone"])
    assert machine.plain is machine.notes
    assert not hasattr(machine, "unset")
    if kind is Derived:
        assert machine.more == {1: 2}


def test_an_attribute_may_move_into_a_slot_and_out_of_one() -> None:
    _, machine = restored(Slotted, one_command(Unslotted))
    assert (machine.total, machine.notes) == (5, ["gone"])
    assert "total" not in vars(machine)
    _, machine = restored(aliased({"_Slotted__hidden": None})(Unslotted), one_command(Slotted))
    assert (machine.total, machine.notes) == (5, ["gone"])


def test_a_slot_that_was_set_since_is_unset_by_a_snapshot_without_it() -> None:
    script = Script(Slotted())
    data = script.executor.snapshot()
    other: Any = Slotted()
    executor = SessionExecutor(other)
    other.unset = "set"
    executor.install(data)
    assert not hasattr(other, "unset")


class Plain(StateMachine):
    def __init__(self) -> None:
        self.total = 0

    @command
    def go(self) -> int:
        self.total += 5
        return self.total


class Behind(StateMachine):
    """`total` is a property now."""

    def __init__(self) -> None:
        self._total = 0

    @property
    def total(self) -> int:
        return self._total

    @total.setter
    def total(self, value: int) -> None:
        self._total = value

    @command
    def go(self) -> int:
        self.total += 5
        return self.total


def test_an_attribute_that_became_a_property_is_named_or_has_an_alias() -> None:
    error = refused(Behind, one_command(Plain))
    assert (error.class_name, error.field) == ("Behind", "total")
    assert "alias" in error.hint
    _, machine = restored(aliased({"total": "_total"})(Behind), one_command(Plain))
    assert machine.total == 5


class Slots:
    __slots__ = ("cache",)


@dataclasses.dataclass
class Cached(Slots):
    """Has a slot that is no field."""

    x: int = 0


class Point(NamedTuple):
    x: int


class Marked(Point):
    """Has a dictionary beside its fields."""


@pytest.mark.parametrize("kind", [Cached, Marked])
def test_a_record_with_more_than_its_fields_is_refused_and_not_cut(kind: type[Any]) -> None:
    class Holder(StateMachine):
        __annotations__ = {"one": kind}

        def __init__(self) -> None:
            self.one = kind(1)

    executor = SessionExecutor(Holder())
    assert executor.snapshot()
    setattr(executor.machine.one, "cache", 5)  # type: ignore[attr-defined]  # noqa: B010
    with pytest.raises(SerializationError, match=r"Holder\.one.*beyond its fields: cache"):
        executor.snapshot()


def flags(**members: int) -> type[StateMachine]:
    """A machine with flags of these values; its command sets FAST and LOUD."""
    make: Any = enum.Flag
    mode = make("Mode", members)
    mode.__qualname__ = "Mode"

    class Player(StateMachine):
        __annotations__ = {"mode": mode}

        def __init__(self) -> None:
            self.mode = mode(0)

        @command
        def go(self) -> None:
            self.mode = mode.FAST | mode.LOUD

    return Player


def test_a_flag_that_has_another_value_now_is_named() -> None:
    script = one_command(flags(FAST=1, LOUD=2, DARK=4, ALL=7, MOST=6))
    _, machine = restored(flags(NEW=8, LOUD=2, FAST=1, ALL=15), script)
    assert machine.mode.value == 3
    _, machine = restored(flags(FAST=1, LOUD=2, DARK=16), script)  # it was not set
    assert machine.mode.value == 3
    error = refused(flags(FAST=2, LOUD=1), script)
    assert (error.class_name, error.field) == ("Mode", "FAST")
    assert "it was 0x1 and is 0x2 now" in error.message
    error = refused(flags(FAST=1, NOISY=2), script)
    assert (error.class_name, error.field) == ("Mode", "LOUD")
    _, machine = restored(aliased({"Mode.LOUD": "NOISY"})(flags(FAST=1, NOISY=2)), script)
    assert machine.mode.value == 3
