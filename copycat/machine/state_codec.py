"""A machine's attributes as bytes, exactly: the default snapshot. `state_decoder` reads them.

Every value is a leaf of MessagePack or an array `[tag, ...]`. A class is named, never imported:
names are looked up among the classes that the machine itself shows (its annotations, its
operations, its attributes when it is new). Containers that can change are numbered in the order
they are met, so that two names of one list stay two names of one list.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from itertools import chain
from types import MemberDescriptorType, MethodType
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from copycat.errors import SerializationError
from copycat.machine.attributes import attributes_of, slots_of
from copycat.machine.class_schema import ClassSchema, fields_of, hints_of, is_record, schema_of
from copycat.machine.commit import Commit, commit_state
from copycat.machine.sessions import ServerSession
from copycat.machine.timers import Scheduled, timer_of
from copycat.protocol.operations import encode_operation

__all__ = [
    "DEPTH_MAX",
    "FACTORIES",
    "LEAVES",
    "SMALL_NBYTES",
    "ClassTable",
    "Links",
    "Opened",
    "StateEncoder",
    "classes_in",
    "is_small",
    "nameable_classes",
]

LEAVES = frozenset({type(None), bool, float, str, bytes})
SMALL_NBYTES = 4096
"""A container of leaves up to so many bytes is encoded as a whole."""
_NUMBERED = frozenset({list, set, dict})
FACTORIES: dict[str, Callable[[], Any]] = {
    kind.__name__: kind for kind in (bool, bytes, dict, float, int, list, set, str)
}
DEPTH_MAX = 200
"""Containers inside of each other. Deeper states have no default snapshot."""

ClassTable = dict[str, type[Any]]


class Links:
    """Finds what a snapshot only names: sessions, timers, commits."""

    def __init__(
        self,
        session: Callable[[int, str, str], ServerSession],
        scheduled: Callable[[int, int, int], Scheduled],
        commit: Callable[[int, int, ServerSession, bytes, int, bool], Commit[Any]],
    ) -> None:
        self.session = session
        self.scheduled = scheduled
        self.commit = commit


def classes_in(machine: object) -> list[type[Any]]:
    """Classes of what the attributes of a new machine hold."""
    classes: ClassTable = {}
    for value in attributes_of(machine).values():
        _observe(value, classes, set(), set(), 0)
    return list(classes.values())


def nameable_classes(
    machine: type[Any], observed: list[type[Any]], operations: Iterable[type[Any]]
) -> ClassTable:
    """Classes by qualified name; a name that two classes have is left out."""
    classes: ClassTable = {}
    twice: set[str] = set()
    seen: set[Any] = set()
    for kind in machine.__mro__:
        _collect(hints_of(kind).values(), classes, twice, seen)
    for operation in operations:
        fields = [field.type for field in msgspec.structs.fields(operation)]
        _collect([*fields, getattr(operation, "__result_type__", Any)], classes, twice, seen)
    _collect(observed, classes, twice, seen)
    return {name: kind for name, kind in classes.items() if name not in twice}


def _collect(hints: Iterable[Any], classes: ClassTable, twice: set[str], seen: set[Any]) -> None:
    for hint in hints:
        _collect(typing.get_args(hint), classes, twice, seen)
        hint = typing.get_origin(hint) or hint  # noqa: PLW2901  (Box of Box[int])
        if isinstance(hint, type) and _is_named(hint) and hint not in seen:
            seen.add(hint)
            if classes.setdefault(hint.__qualname__, hint) is not hint:
                twice.add(hint.__qualname__)
            _collect(hints_of(hint).values(), classes, twice, seen)


def _is_named(kind: type[Any]) -> bool:
    return issubclass(kind, enum.Enum) or is_record(kind)


def _observe(value: Any, classes: ClassTable, twice: set[str], seen: set[Any], depth: int) -> None:
    if depth > DEPTH_MAX:
        return
    _collect([type(value)], classes, twice, seen)
    parts: Iterable[Any] = ()
    if isinstance(value, dict):
        parts = [*value, *value.values()]
    elif isinstance(value, list | tuple | set | frozenset | deque):
        parts = value
    elif isinstance(value, msgspec.Struct) or dataclasses.is_dataclass(value):
        parts = [getattr(value, name, None) for name in fields_of(type(value))]
    for part in parts:
        if type(part) not in LEAVES and type(part) is not int:
            _observe(part, classes, twice, seen, depth + 1)


class Opened(NamedTuple):
    """The array of one value: whole (`row`), or a head that `count` more parts follow."""

    row: list[Any] | None
    head: Sequence[Any] = ()
    parts: Iterable[Any] = ()
    count: int = 0  # type: ignore[assignment]  # shadows tuple.count on purpose
    blob: bytearray | None = None
    """The one part, when it is a long string."""


def is_small(value: int) -> bool:
    """Whether MessagePack has this integer."""
    return -(1 << 63) <= value < 1 << 64


def _pairs(value: dict[Any, Any]) -> Iterable[Any]:
    """Key, value, key, value: they are numbered in the order in which they are read."""
    return chain.from_iterable(value.items())


def _is_computed(kind: type[Any], name: str) -> bool:
    """Whether a field is what some code returns, rather than what the object holds."""
    attribute = inspect.getattr_static(kind, name, None)
    return hasattr(type(attribute), "__get__") and type(attribute) is not MemberDescriptorType


class StateEncoder:
    """Makes trees of plain values. SerializationError says what has no encoding."""

    def __init__(self, machine: object, nameable: ClassTable) -> None:
        self._machine = machine
        self._nameable = nameable
        self._numbers: dict[int, int | None] = {}
        """Of what was met, by id and in order. Most states share nothing: the numbers themselves
        stand here from the first value on that is met again."""
        self._open: set[int] = set()
        """Structs being encoded: they cannot be made before their fields."""
        self._has_numbers = False
        self._alive: list[Any] = []
        """What a record's code made for us: or another object could get its id."""
        self._makes: dict[type[Any], bool] = {}
        self._slots: dict[type[Any], list[str]] = {}
        """Of each class of records, the slots that are no fields."""
        self.classes: dict[str, ClassSchema] = {}
        """The classes that were named so far."""

    def tree(self, value: Any, depth: int = 0) -> Any:
        """One value; SerializationError with its type where it has no encoding."""
        kind = type(value)
        if kind in LEAVES:
            return value
        if kind is int:
            return value if is_small(value) else ["int", hex(value)]
        opened = self.opened(value, kind, depth)
        if opened.row is not None:
            return opened.row
        tree = list(opened.head)
        if opened.blob is not None:
            tree.append(bytes(opened.blob))
        else:
            tree += [self.tree(part, depth + 1) for part in opened.parts]
        self.close(value)
        return tree

    def opened(self, value: Any, kind: type[Any], depth: int) -> Opened:
        """A value that is no leaf: its array as it is, or its head and what follows in it.

        What follows is encoded next, in order, and then `close` is called.
        """
        if depth > DEPTH_MAX:
            raise _refused(value, f"is nested more than {DEPTH_MAX} deep")
        return self._immutable(value, kind, depth + 1) or self._numbered(value, kind)

    def close(self, value: Any) -> None:
        """All of it was encoded."""
        self._open.discard(id(value))

    def _immutable(self, value: Any, kind: type[Any], depth: int) -> Opened | None:
        if kind in {tuple, frozenset}:
            return Opened(None, [kind.__name__], value, len(value))
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            self._check_extra(value, fields_of(kind))
            return Opened(None, ["named", self._name(kind)], value, len(value))
        row = self._row(value, kind, depth)
        return None if row is None else Opened(row)

    def _row(self, value: Any, kind: type[Any], depth: int) -> list[Any] | None:
        if kind in {Decimal, UUID, date}:
            return [kind.__name__, str(value)]
        if kind is timedelta:
            return ["timedelta", value.days, value.seconds, value.microseconds]
        if kind in {datetime, time}:
            return self._time(value, kind)
        if isinstance(value, enum.Flag):
            return ["flag", self._name(kind), value.value]
        if isinstance(value, enum.Enum):
            return ["enum", self._name(kind), value.name]
        if kind is ServerSession:
            return ["session", value.id, value.client_id, value.state.value]
        if kind is Scheduled:
            timer = timer_of(value)
            return [
                "scheduled",
                timer.number,
                timer.due_ms,
                timer.interval_ms,
                timer.is_cancelled,
            ]
        if kind is MethodType or kind is partial:
            return self.callback(value, depth)
        return None

    def _time(self, value: Any, kind: type[Any]) -> list[Any]:
        zone = value.tzinfo
        if zone is not None and type(zone) is not timezone:
            raise _refused(value, f"has a time zone of type {type(zone).__name__}")
        if zone is None:
            return [kind.__name__, value.isoformat(), value.fold, None]
        offset = zone.utcoffset(None)
        text = value.replace(tzinfo=None).isoformat()
        return [kind.__name__, text, value.fold, offset // timedelta(microseconds=1)]

    def _numbered(self, value: Any, kind: type[Any]) -> Opened:
        reference = self._back_reference(value)
        if reference is not None:
            return Opened(reference)
        if kind is list or kind is set:
            return Opened(None, [kind.__name__], value, len(value))
        if kind is bytearray:
            return Opened(None, ["bytearray"], (), 1, value)
        if kind is deque:
            return Opened(None, ["deque", value.maxlen], value, len(value))
        if kind in {dict, OrderedDict, Counter}:
            return Opened(None, [kind.__name__], _pairs(value), 2 * len(value))
        if kind is defaultdict:
            head = ["defaultdict", self._factory(value)]
            return Opened(None, head, _pairs(value), 2 * len(value))
        if kind is Commit:
            return Opened(["commit", *_commit_row(value)])
        if isinstance(value, msgspec.Struct) or dataclasses.is_dataclass(kind):
            return self._record(value, kind)
        raise _refused(value, "has no encoding")

    def _back_reference(self, value: Any) -> list[Any] | None:
        """What stands for a value that was met before; else it gets the next number."""
        numbers = self._numbers
        if id(value) not in numbers:
            numbers[id(value)] = len(numbers) if self._has_numbers else None
            return None
        if id(value) in self._open:
            raise _refused(value, "contains itself")
        if not self._has_numbers:
            self._has_numbers = True
            numbers.update({one: number for number, one in enumerate(numbers)})
        return ["again", numbers[id(value)]]

    def small(self, value: Any, kind: type[Any]) -> tuple[list[Any], int] | None:
        """(the array of a container that holds nothing but leaves, about how many bytes it is);
        None when it may be large."""
        parts = list(_pairs(value)) if kind is dict else list(value)
        nbytes = 16 + 9 * len(parts)
        for part in parts:
            of = type(part)
            if of is str or of is bytes:
                nbytes += len(part)
            elif not (is_small(part) if of is int else of in LEAVES):
                return None
        if nbytes > SMALL_NBYTES:
            return None
        reference = self._back_reference(value) if kind in _NUMBERED else None
        return reference or [kind.__name__, *parts], nbytes

    def _factory(self, value: defaultdict[Any, Any]) -> str:
        name = getattr(value.default_factory, "__name__", "")
        if FACTORIES.get(name) is not value.default_factory:
            raise _refused(value, "has a default factory that is no built-in type")
        return name

    def _record(self, value: Any, kind: type[Any]) -> Opened:
        names = fields_of(kind)
        self._check_extra(value, names)
        if isinstance(value, msgspec.Struct):
            self._open.add(id(value))
        head, parts = ["record", self._name(kind)], [getattr(value, name) for name in names]
        makes = self._makes.get(kind)
        if makes is None:
            makes = self._makes[kind] = any(_is_computed(kind, name) for name in names)
        if makes:
            self._alive += parts
        return Opened(None, head, parts, len(names))

    def _check_extra(self, value: Any, names: list[str]) -> None:
        kind = type(value)
        slots = self._slots.get(kind)
        if slots is None:
            beyond = {} if issubclass(kind, msgspec.Struct) else slots_of(kind)
            slots = self._slots[kind] = sorted(beyond.keys() - set(names))
        extra = sorted(set(getattr(value, "__dict__", ())) - set(names))
        extra += [name for name in slots if hasattr(value, name)]
        if extra:
            raise _refused(value, f"has attributes beyond its fields: {', '.join(extra)}")

    def _name(self, kind: type[Any]) -> str:
        name = kind.__qualname__
        if self._nameable.get(name) is not kind:
            raise SerializationError(
                f"a snapshot cannot name the class {name}: the machine does not mention it",
                hint=f"annotate an attribute of the machine's class with it ({name} in "
                "`things: dict[str, ...]`), or define snapshot() and install()",
            )
        if name not in self.classes:
            self.classes[name] = schema_of(kind)
        return name

    def callback(self, value: Any, depth: int = 0) -> list[Any]:
        """A bound method of the machine or of its class, or a partial of one."""
        if type(value) is partial:
            inner = self.callback(value.func, depth)
            named = [
                self.tree(part, depth + 1) for pair in value.keywords.items() for part in pair
            ]
            return ["partial", inner, [self.tree(part, depth + 1) for part in value.args], named]
        name = getattr(value, "__name__", "")
        if type(value) is MethodType and self._is_owner(value.__self__):
            method = getattr(self._machine, name, None)
            if (
                getattr(method, "__func__", None) is value.__func__
                and getattr(method, "__self__", None) is value.__self__
            ):
                return ["method", name]
        raise _refused(value, "is no method of the machine (nor a partial of one)")

    def _is_owner(self, owner: object) -> bool:
        """Whether its bound methods are found again by name: the machine, or its class."""
        return owner is self._machine or owner is type(self._machine)


def _commit_row(commit: Commit[Any]) -> list[Any]:
    state, session = commit_state(commit), commit.session
    return [
        state.index,
        state.time_ms,
        [session.id, session.client_id, session.state.value],
        encode_operation(state.operation),
        state.references,
        state.is_snapshot_only,
    ]


def _refused(value: object, why: str) -> SerializationError:
    name = getattr(value, "__qualname__", type(value).__name__)
    return SerializationError(
        f"a snapshot cannot keep {name}: it {why}",
        hint="keep plain values, and schedule methods of the machine; or define snapshot() and "
        "install()",
    )
