"""The default snapshot: values come back equal, of the same types, and shared as they were."""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copycat.errors import CorruptLogError, MachineMismatchError, SerializationError
from copycat.machine import StateMachine, command
from copycat.machine.machine_section import MachineSections, _SnapshotLinks
from copycat.machine.session_executor import SessionExecutor
from copycat.machine.state_codec import StateEncoder
from copycat.machine.state_decoder import StateDecoder


class Color(enum.Enum):
    RED = "r"
    BLUE = ("b", 1)


class Flags(enum.IntFlag):
    A = 1
    B = 2


class Pair(NamedTuple):
    left: int
    right: str


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: int
    colors: tuple[Color, ...] = ()


class Item(msgspec.Struct, kw_only=True, frozen=True):
    name: str
    flags: Flags = Flags.A

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a name")


@dataclasses.dataclass
class Node:
    next: Node | None = None


T = TypeVar("T")


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


class Holder(StateMachine):
    """Shows its classes in every way there is."""

    boxes: dict[str, Box[int]]
    points: dict[str, Point]
    node: Node

    def __init__(self) -> None:
        self.pair = Pair(1, "a")
        self.value: Any = None

    @command
    def take(self, item: Item) -> Flags:
        return Flags.A


SECTIONS: MachineSections = SessionExecutor(Holder())._runtime._sections


def codec() -> tuple[StateEncoder, StateDecoder]:
    sections = SECTIONS
    links = _SnapshotLinks(sections.timers, sections.release_tracker, sections._decode, {})
    return (
        StateEncoder(sections.machine, sections.nameable),
        StateDecoder(sections.machine, sections.nameable, links.links()),
    )


def through(value: Any) -> Any:
    encoder, decoder = codec()
    data = msgspec.msgpack.encode(encoder.tree(value))
    return decoder.value(msgspec.msgpack.decode(data))


def same(one: Any, two: Any) -> bool:
    """Equal, and of equal types, all the way down."""
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return len(one) == len(two) and all(
            same(a, b) and same(one[a], two[b]) for a, b in zip(one, two, strict=True)
        )
    if isinstance(one, list | tuple | deque):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two) or (one != one and two != two)  # noqa: PLR0124  (not a number)


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(codec="utf-8")),
    st.binary(),
    st.datetimes(timezones=st.none() | st.just(UTC)),
    st.timedeltas(),
    st.sampled_from([Color.RED, Color.BLUE, Flags.A | Flags.B, Pair(1, "x"), Point(3)]),
)
KEYS = st.one_of(st.integers(), st.text(st.characters(codec="utf-8")), st.binary())
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(st.one_of(KEYS, st.tuples(KEYS, KEYS)), inner),
        st.sets(KEYS),
        st.frozensets(KEYS),
    ),
)


@pytest.mark.slow
@settings(deadline=None)
@given(VALUES)
def test_values_come_back_with_their_types(value: Any) -> None:
    assert same(through(value), value)


@pytest.mark.parametrize(
    "value",
    [
        Decimal("1.10"),
        UUID(int=7),
        date(2026, 1, 2),
        time(1, 2, 3, 4, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
        datetime(2026, 1, 2, fold=1, tzinfo=timezone(timedelta(seconds=5))),
        deque([1, [2]], maxlen=4),
        OrderedDict(a=1),
        Counter("aab"),
        defaultdict(list, a=[1]),
        bytearray(b"x"),
        Item(name="n", flags=Flags.B),
        {"p": Point(1, (Color.BLUE,))},
        Box(1),
        {None: 1, True: 2, 1.5: 3, Pair(1, "a"): 4, Color.RED: 5},
        2**100,
        -(2**64),
    ],
)
def test_types_of_every_kind(value: Any) -> None:
    result = through(value)
    assert same(result, value)
    if isinstance(value, deque):
        assert result.maxlen == 4
    if isinstance(value, defaultdict):
        assert result["new"] == []


def test_what_is_shared_stays_shared_and_may_be_a_ring() -> None:
    shared: list[Any] = [1]
    result = through({"a": shared, "b": [shared], "c": Node(None)})
    assert result["a"] is result["b"][0]
    ring = Node()
    ring.next = Node(ring)
    back = through(ring)
    assert back.next.next is back
    shared.append(shared)
    looped = through(shared)
    assert looped[1] is looped


class Stranger:
    pass


class Hidden(enum.Enum):
    ONE = 1


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (Stranger(), "cannot keep Stranger: it has no encoding"),
        (Hidden.ONE, "cannot name the class Hidden"),
        (defaultdict(lambda: 1), "default factory"),
        (print, "cannot keep print"),
        (lambda: 1, "lambda"),
    ],
)
def test_what_has_no_encoding_is_named(value: Any, match: str) -> None:
    with pytest.raises(SerializationError, match=match):
        through([value])


def test_a_state_that_is_too_deep_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    with pytest.raises(SerializationError, match="more than 200 deep"):
        through(deep)


@pytest.mark.parametrize(
    "tree",
    [
        ["nonsense"],
        ["again", 3],
        ["again", -1],
        ["dict", 1],
        ["dict", ["list"], 1],
        ["deque", "x"],
        ["defaultdict", "eval"],
        [],
        ["datetime", "yesterday", 0, None],
        ["UUID", "x"],
    ],
)
def test_f28_trees_that_nobody_makes_are_refused(tree: Any) -> None:
    _, decoder = codec()
    with pytest.raises(CorruptLogError):
        decoder.value(tree)


@pytest.mark.parametrize(
    "tree",
    [
        ["record", "Stranger"],
        ["record", "os.system", "x"],
        ["record", "Color", "x"],
        ["record", "Point", 1, [], 2],
        ["record", "Point"],
        ["record", "Item", "", 1],
        ["enum", "Color", "GREEN"],
        ["enum", "Point", "GREEN"],
        ["flag", "Stranger", 1],
        ["set", ["record", "Node", None], ["dict"]],
        ["method", "__class__"],
        ["method", "missing"],
    ],
)
def test_trees_of_other_code_are_a_mismatch_and_no_damage(tree: Any) -> None:
    _, decoder = codec()
    with pytest.raises(MachineMismatchError) as caught:
        decoder.value(tree)
    assert caught.value.class_name
    assert caught.value.hint
