"""A machine that was changed reads what the old one wrote, or says class and field."""

from __future__ import annotations

import dataclasses
import enum
import logging
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import pytest

from copycat.machine import StateMachine, command
from copycat.machine.session_executor import SessionExecutor
from copycat.types import EntryKind, Run
from tests.machine.shops import (
    Color,
    Item,
    Line,
    Mood,
    Pair,
    Shop,
    aliased,
    refused,
    restored,
    written,
)


def test_nothing_changed() -> None:
    script = written()
    executor, machine = restored(Shop, script)
    assert executor.digest() == script.executor.digest()
    assert vars(machine).keys() == vars(script.machine).keys()


def new_fields() -> type[StateMachine]:
    @dataclasses.dataclass(frozen=True)
    class Item:
        added: tuple[int, ...] = (1,)
        name: str = ""
        count: int = 0
        tags: list[str] = dataclasses.field(default_factory=list, hash=False)

    class Line(msgspec.Struct):
        item: Item
        marks: dict[str, int] = {}
        price: float = 0.0
        note: str = "none"

    class Pair(NamedTuple):
        left: int
        middle: int = 7
        right: str = ""

    class Color(enum.Enum):
        BLUE = "b"
        GREEN = "g"
        RED = "r"

    class Mood(enum.Flag):
        GOOD = 1
        BAD = 2
        ODD = 4

    @aliased({"Item": Item, "Line": Line, "Pair": Pair, "Color": Color, "Mood": Mood})
    class Fuller(Shop):
        item: Item  # type: ignore[assignment]
        line: Line  # type: ignore[assignment]
        pair: Pair  # type: ignore[assignment]
        color: Color  # type: ignore[assignment]
        mood: Mood  # type: ignore[assignment]

        def __init__(self) -> None:
            super().__init__()
            self.seen = frozenset({Item(name="none")})  # type: ignore[arg-type]

        @command
        def add(self, name: str, count: int) -> int:
            item = Item(name=name, count=count)
            self.items[name] = item  # type: ignore[assignment]
            self.lines.append(Line(item, price=1.5))  # type: ignore[arg-type]
            self.pairs.add(Pair(count, right=name))  # type: ignore[arg-type]
            self.seen |= {item}  # type: ignore[arg-type]
            self.colors[Color.GREEN].append(Mood.GOOD | Mood.BAD)  # type: ignore[index,arg-type]
            self.recent.append(datetime(2026, 1, 1, tzinfo=UTC))
            self.total += count
            return self.total

    return Fuller


def test_new_fields_get_their_defaults_wherever_they_stand() -> None:
    fuller = new_fields()
    executor, machine = restored(fuller)
    assert executor.digest() == written(fuller).executor.digest()  # as one that replayed
    one, two = machine.lines[:2]
    assert one.marks is not two.marks
    assert one.item.tags is not two.item.tags
    assert {pair.middle for pair in machine.pairs} == {7}


def test_a_new_field_without_a_default_is_named() -> None:
    @dataclasses.dataclass(frozen=True)
    class Item:
        name: str
        size: int
        count: int = 0

    @aliased({"Item": Item})
    class Sized(Shop):
        pass

    error = refused(Sized)
    assert (error.class_name, error.field) == (Item.__qualname__, "size")
    assert "default" in error.hint


def test_a_default_that_raises_is_named() -> None:
    def fail() -> int:
        raise RuntimeError("not today")

    @dataclasses.dataclass(frozen=True)
    class Item:
        name: str
        count: int = 0
        size: int = dataclasses.field(default_factory=fail)

    @aliased({"Item": Item})
    class Sized(Shop):
        pass

    error = refused(Sized)
    assert error.field == "size"
    assert "RuntimeError: not today" in error.message


class Other:
    @dataclasses.dataclass(frozen=True)
    class Item:
        name: str
        count: int = 0


class Article(msgspec.Struct):
    item: Any
    price: float


class Moved(StateMachine):
    item: Other.Item
    article: Article
    pair: Pair
    color: Color
    mood: Mood

    def __init__(self) -> None:
        self.items: dict[str, Other.Item] = {}
        self.lines: list[Article] = []

    @command
    def add(self, name: str, count: int) -> int:
        return 0


def test_a_class_that_was_moved_is_found_and_a_renamed_one_has_an_alias() -> None:
    error = refused(Moved)
    assert error.class_name == "Line"
    assert "tests.machine.shops" in error.message
    assert 'snapshot_aliases = {"Line": NewName}' in error.hint

    @aliased({"Line": Article})
    class Named(Moved):
        pass

    _, machine = restored(Named)
    assert type(machine.lines[0]) is Article
    assert type(machine.lines[0].item) is Other.Item


def test_fields_members_and_attributes_may_be_renamed() -> None:
    @dataclasses.dataclass(frozen=True)
    class Item:
        label: str
        count: int = 0

    class Color(enum.Enum):
        RED = "r"
        LIME = "g"

    @aliased(
        {
            "Item": Item,
            "Item.name": "label",
            "Color": Color,
            "Color.GREEN": "LIME",
            "items": "stock",
            "total": None,
            "ring": "chime",
        }
    )
    class Renamed(Shop):
        def __init__(self) -> None:
            super().__init__()
            self.stock: dict[str, Item] = {}
            del self.items

        def chime(self) -> None:
            self.total = -1

    Renamed.ring = None  # type: ignore[assignment]
    script = written()
    script.commands(1, [Shop.later(1.0)])
    executor, machine = restored(Renamed, script)
    assert machine.stock["a"] == Item("a", 3)
    assert not hasattr(machine, "items")
    assert machine.total == 0
    assert list(machine.colors) == [Color.LIME]
    index = executor.last_applied + 1
    executor.apply([Run(index, EntryKind.TICK, 9000, 0, 0, 0, [b""])])
    assert machine.total == -1


def test_a_field_or_attribute_that_is_gone_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    @dataclasses.dataclass(frozen=True)
    class Item:
        name: str

    @aliased({"Item": Item})
    class Smaller(Shop):
        pass

    class Full(Shop):
        def __init__(self) -> None:
            super().__init__()
            self.notes = {"a": 1}
            self.rest = [1]

    class Lazy(Shop):
        """Sets one of them later."""

        @command
        def note(self) -> None:
            self.rest = [2]

    _, machine = restored(Smaller)
    assert machine.items["a"] == Item("a")
    with caplog.at_level(logging.WARNING):
        executor, machine = restored(Lazy, written(Full))
    assert "Lazy has no attribute notes any more" in caplog.text
    assert "notes" not in vars(machine)
    assert machine.rest == [1]
    assert executor.snapshot_obstacle() == ""


def test_what_may_have_been_renamed_is_never_dropped() -> None:
    class Before(Shop):
        def __init__(self) -> None:
            super().__init__()
            self.notes = {"a": 1}

    class Unsaid(Shop):
        def __init__(self) -> None:
            super().__init__()
            self.remarks: dict[str, int] = {}

    error = refused(Unsaid, written(Before))
    assert (error.class_name, error.field) == ("Unsaid", "notes")
    assert '{"notes": "remarks"}' in error.hint
    assert '{"notes": None}' in error.hint

    @dataclasses.dataclass(frozen=True)
    class Item2:
        name: str
        number: int = 0

    @aliased({"Item": Item2})
    class Field(Shop):
        pass

    error = refused(Field)
    assert error.field == "count"

    @aliased({"notes": None})
    class Left(Unsaid):
        pass

    @aliased({"notes": "remarks"})
    class Spoken(Unsaid):
        pass

    assert restored(Left, written(Before))[1].remarks == {}
    assert restored(Spoken, written(Before))[1].remarks == {"a": 1}


def test_attributes_that_the_snapshot_lacks_keep_what_init_gave() -> None:
    class Fuller(Shop):
        level = 3

        def __init__(self) -> None:
            super().__init__()
            self.index: dict[str, list[int]] = {"a": []}
            self.same = self.index["a"]
            self.lock = object()

        @command
        def add(self, name: str, count: int) -> int:
            self.index["a"].append(count)
            return 0

    executor = SessionExecutor(Fuller())
    machine: Any = executor.machine
    lock, data = machine.lock, written().executor.snapshot()
    machine.index["a"].append(9)
    for _ in range(2):  # the second time over a state that it had
        executor.install(data)
        assert machine.index == {"a": []}
        assert machine.same is machine.index["a"]
        assert machine.lock is lock
        assert machine.total == 6
        assert list(vars(Fuller())) == [name for name in vars(machine) if name != "_binding"]
        machine.index["a"].append(1)


def test_an_attribute_that_a_command_made_comes_back() -> None:
    script = written()
    script.commands(1, [Shop.keep()])
    _, machine = restored(Shop, script)
    assert machine.newest.operation == Shop.keep()


def test_an_attribute_or_field_of_another_type_is_named() -> None:
    class Retyped(Shop):
        def __init__(self) -> None:
            super().__init__()
            self.lines = {}  # type: ignore[assignment]

    error = refused(Retyped)
    assert (error.class_name, error.field) == ("Retyped", "lines")
    assert "has a list, and a new machine has a dict" in error.message

    class Counted(Shop):
        def __init__(self) -> None:
            super().__init__()
            self.colors = defaultdict(set)  # type: ignore[arg-type]

    assert "defaultdict(list)" in refused(Counted).message

    @dataclasses.dataclass(frozen=True)
    class Item:
        name: str
        count: str = "0"

    @aliased({"Item": Item})
    class Field(Shop):
        pass

    error = refused(Field)
    assert (error.class_name, error.field) == (Item.__qualname__, "count")
    assert "it has a int, now `str`" in error.message


def test_a_wider_type_is_fine() -> None:
    @dataclasses.dataclass(frozen=True)
    class Item:
        name: str | None
        count: float = 0.0

    @aliased({"Item": Item})
    class Wider(Shop):
        def __init__(self) -> None:
            super().__init__()
            self.total = 0.0  # type: ignore[assignment]

    _, machine = restored(Wider)
    assert type(machine.items["a"].count) is float
    assert type(machine.total) is float


def test_a_class_that_takes_less_now_is_named() -> None:
    class Line(msgspec.Struct):
        item: Item
        price: float

        def __post_init__(self) -> None:
            raise ValueError("too cheap")

    @aliased({"Line": Line})
    class Strict(Shop):
        pass

    error = refused(Strict)
    assert error.class_name == Line.__qualname__
    assert "ValueError: too cheap" in error.message


def test_a_class_that_cannot_be_hashed_any_more_is_named() -> None:
    @dataclasses.dataclass
    class Item:
        name: str
        count: int = 0

    @aliased({"Item": Item})
    class Soft(Shop):
        pass

    error = refused(Soft)
    assert error.class_name == Item.__qualname__
    assert "cannot be hashed" in error.message


def test_a_record_may_become_another_kind_of_record() -> None:
    class Item(NamedTuple):
        name: str
        count: int = 0  # type: ignore[assignment]

    @dataclasses.dataclass(frozen=True)
    class Pair:
        left: int
        right: str

    @aliased({"Item": Item, "Pair": Pair})
    class Kinds(Shop):
        pass

    _, machine = restored(Kinds)
    assert machine.items["b"] == Item("b", 2)
    assert machine.lines[1].item is machine.items["b"]
    assert Pair(1, "a") in machine.pairs
