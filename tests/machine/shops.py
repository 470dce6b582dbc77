"""A shop in several versions: what one wrote, another one reads or refuses."""

from __future__ import annotations

import dataclasses
import enum
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec
import pytest

from copycat.errors import MachineMismatchError
from copycat.machine import StateMachine, command
from copycat.machine.session_executor import SessionExecutor
from copycat.types import EntryKind, Run
from tests.machine.runs import Script

__all__ = [
    "Color",
    "Item",
    "Line",
    "Mood",
    "Pair",
    "Shop",
    "aliased",
    "refused",
    "restored",
    "written",
]

M = TypeVar("M", bound=type[StateMachine])


def aliased(table: dict[str, Any]) -> Callable[[M], M]:
    """Sets `snapshot_aliases`."""

    def mark(kind: M) -> M:
        kind.snapshot_aliases = table
        return kind

    return mark


class Color(enum.Enum):
    RED = "r"
    GREEN = "g"


class Mood(enum.Flag):
    GOOD = 1
    BAD = 2


@dataclasses.dataclass(frozen=True)
class Item:
    name: str
    count: int = 0


class Line(msgspec.Struct):
    item: Item
    price: float


class Pair(NamedTuple):
    left: int
    right: str


class Shop(StateMachine):
    item: Item
    line: Line
    pair: Pair
    color: Color
    mood: Mood

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.lines: list[Line] = []
        self.pairs: set[Pair] = set()
        self.seen = frozenset({Item("none")})
        self.colors: defaultdict[Color, list[Mood]] = defaultdict(list)
        self.recent: deque[datetime] = deque(maxlen=3)
        self.total = 0

    @command
    def add(self, name: str, count: int) -> int:
        self.items[name] = Item(name, count)
        self.lines.append(Line(self.items[name], 1.5))
        self.pairs.add(Pair(count, name))
        self.seen |= {self.items[name]}
        self.colors[Color.GREEN].append(Mood.GOOD | Mood.BAD)
        self.recent.append(datetime(2026, 1, 1, tzinfo=UTC))
        self.total += count
        return self.total

    @command
    def later(self, seconds: float) -> None:
        self.executor.schedule(seconds, self.ring)

    @command
    def keep(self) -> None:
        self.newest = self.commit

    def ring(self) -> None:
        self.total += 1000


def written(machine: Callable[[], StateMachine] = Shop) -> Script:
    script = Script(machine())
    session = script.register()
    script.commands(session, [Shop.add("a", 1), Shop.add("b", 2), Shop.add("a", 3)])
    return script


def restored(
    machine: Callable[[], StateMachine], script: Script | None = None
) -> tuple[SessionExecutor, Any]:
    """The new machine with the old one's snapshot: at a start, and over a state that it had."""
    data = (script or written()).executor.snapshot()
    one, two = SessionExecutor(machine()), SessionExecutor(machine())
    one.install(data)
    two.install(data)
    for executor in (one, two):
        executor.apply([Run(executor.last_applied + 1, EntryKind.NOOP, 2000, 0, 0, 0, [b""])])
    two.install(data)
    one.install(data)
    assert one.digest() == two.digest()
    assert one.snapshot() == two.snapshot()
    return one, one.machine


def refused(machine: Callable[[], StateMachine], script: Script | None = None) -> Any:
    """What the new machine says of the old one's snapshot, and changes nothing."""
    data = (script or written()).executor.snapshot()
    executor = SessionExecutor(machine())
    before = executor.digest()
    with pytest.raises(MachineMismatchError) as caught:
        executor.install(data)
    assert executor.digest() == before
    assert caught.value.hint
    assert caught.value.class_name in caught.value.message
    return caught.value
