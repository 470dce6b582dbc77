"""A machine's attributes as bytes, exactly: the default snapshot. `state_decoder` reads them.

Every value is a leaf of MessagePack or an array `[tag, ...]`. A class is named, never imported:
names are looked up among the classes that the machine itself shows (its annotations, its
operations, its attributes when it is new). Containers that can change are numbered in the order
they are met, so that two names of one list stay two names of one list.
"""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from itertools import chain
from types import MethodType
from typing import Any
from uuid import UUID

import msgspec

from copycat.errors import SerializationError
from copycat.machine.commit import Commit
from copycat.machine.sessions import ServerSession
from copycat.machine.shapes import Shape, fields_of, hints_of, is_record, shape_of
from copycat.machine.timers import Scheduled

__all__ = ["Known", "Links", "StateEncoder", "known_classes", "seen_classes"]

_LEAVES = frozenset({type(None), bool, float, str, bytes})
FACTORIES: dict[str, Callable[[], Any]] = {
    kind.__name__: kind for kind in (bool, bytes, dict, float, int, list, set, str)
}
_DEPTH_MAX = 200
"""Containers inside of each other. Deeper states have no default snapshot."""

Known = dict[str, type[Any]]


class Links:
    """How a snapshot names what belongs to the executor: sessions, timers, commits."""

    def __init__(
        self,
        session: Callable[[int, str, str], ServerSession],
        scheduled: Callable[[int, int, int], Scheduled],
        commit_row: Callable[[Commit[Any]], list[Any]],
        commit: Callable[[int, int, ServerSession, bytes, int, bool], Commit[Any]],
    ) -> None:
        self.session = session
        self.scheduled = scheduled
        self.commit_row = commit_row
        self.commit = commit


def seen_classes(machine: object) -> list[type[Any]]:
    """Classes of what the attributes of a new machine hold."""
    found: Known = {}
    for value in vars(machine).values():
        _observe(value, found, set(), set(), 0)
    return list(found.values())


def known_classes(
    machine: type[Any], observed: list[type[Any]], operations: Iterable[type[Any]]
) -> Known:
    """Classes by qualified name; a name that two classes have is left out."""
    found: Known = {}
    twice: set[str] = set()
    seen: set[Any] = set()
    for kind in machine.__mro__:
        _collect(hints_of(kind).values(), found, twice, seen)
    for operation in operations:
        fields = [field.type for field in msgspec.structs.fields(operation)]
        _collect([*fields, getattr(operation, "__result_type__", Any)], found, twice, seen)
    _collect(observed, found, twice, seen)
    return {name: kind for name, kind in found.items() if name not in twice}


def _collect(hints: Iterable[Any], found: Known, twice: set[str], seen: set[Any]) -> None:
    for hint in hints:
        _collect(typing.get_args(hint), found, twice, seen)
        hint = typing.get_origin(hint) or hint  # noqa: PLW2901  (Box of Box[int])
        if isinstance(hint, type) and _is_named(hint) and hint not in seen:
            seen.add(hint)
            if found.setdefault(hint.__qualname__, hint) is not hint:
                twice.add(hint.__qualname__)
            _collect(hints_of(hint).values(), found, twice, seen)


def _is_named(kind: type[Any]) -> bool:
    return issubclass(kind, enum.Enum) or is_record(kind)


def _observe(value: Any, found: Known, twice: set[str], seen: set[Any], depth: int) -> None:
    if depth > _DEPTH_MAX:
        return
    _collect([type(value)], found, twice, seen)
    parts: Iterable[Any] = ()
    if isinstance(value, dict):
        parts = [*value, *value.values()]
    elif isinstance(value, list | tuple | set | frozenset | deque):
        parts = value
    elif isinstance(value, msgspec.Struct) or dataclasses.is_dataclass(value):
        parts = [getattr(value, name, None) for name in fields_of(type(value))]
    for part in parts:
        if type(part) not in _LEAVES and type(part) is not int:
            _observe(part, found, twice, seen, depth + 1)


class StateEncoder:
    """Makes trees of plain values. SerializationError says what has no encoding."""

    def __init__(self, machine: object, known: Known, links: Links) -> None:
        self._machine = machine
        self._known = known
        self._links = links
        self._numbers: dict[int, int] = {}
        self._open: set[int] = set()
        """Structs being encoded: they cannot be made before their fields."""
        self._alive: list[Any] = []
        self.classes: dict[str, Shape] = {}
        """The classes that were named so far."""

    def tree(self, value: Any, depth: int = 0) -> Any:
        """One value; SerializationError with its type where it has no encoding."""
        kind = type(value)
        if kind in _LEAVES:
            return value
        if kind is int:
            return value if -(1 << 63) <= value < 1 << 64 else ["int", hex(value)]
        if depth > _DEPTH_MAX:
            raise _refused(value, f"is nested more than {_DEPTH_MAX} deep")
        return self._immutable(value, kind, depth + 1) or self._numbered(value, kind, depth + 1)

    def _many(self, values: Collection[Any], depth: int) -> Iterable[Any]:
        if _LEAVES.issuperset(map(type, values)):
            return values
        return [self.tree(value, depth) for value in values]

    def _immutable(self, value: Any, kind: type[Any], depth: int) -> list[Any] | None:
        if kind in {tuple, frozenset}:
            return [kind.__name__, *self._many(value, depth)]
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
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return ["named", self._name(kind), *self._many(value, depth)]
        if kind is ServerSession:
            return ["session", value.id, value.client_id, value.state.value]
        if kind is Scheduled:
            over = value.cancelled
            return ["scheduled", value.number, value.due_ms, value.interval_ms, over]
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

    def _numbered(self, value: Any, kind: type[Any], depth: int) -> list[Any]:
        number = self._numbers.get(id(value))
        if number is not None:
            if id(value) in self._open:
                raise _refused(value, "contains itself")
            return ["again", number]
        self._numbers[id(value)] = len(self._numbers)
        self._alive.append(value)  # or another object could get its id
        if kind is list:
            return ["list", *self._many(value, depth)]
        if kind is set:
            return ["set", *self._many(value, depth)]
        if kind is bytearray:
            return ["bytearray", bytes(value)]
        if kind is deque:
            return ["deque", value.maxlen, *self._many(value, depth)]
        if kind in {dict, OrderedDict, Counter}:
            return [kind.__name__, *self._items(value, depth)]
        if kind is defaultdict:
            return ["defaultdict", self._factory(value), *self._items(value, depth)]
        if kind is Commit:
            return ["commit", *self._links.commit_row(value)]
        if isinstance(value, msgspec.Struct) or dataclasses.is_dataclass(kind):
            return self._record(value, kind, depth)
        raise _refused(value, "has no encoding")

    def _items(self, value: dict[Any, Any], depth: int) -> Iterable[Any]:
        keys, items = self._many(value, depth), self._many(value.values(), depth)
        return chain.from_iterable(zip(keys, items, strict=True))

    def _factory(self, value: defaultdict[Any, Any]) -> str:
        name = getattr(value.default_factory, "__name__", "")
        if FACTORIES.get(name) is not value.default_factory:
            raise _refused(value, "has a default factory that is no built-in type")
        return name

    def _record(self, value: Any, kind: type[Any], depth: int) -> list[Any]:
        names = fields_of(kind)
        extra = sorted(set(getattr(value, "__dict__", ())) - set(names))
        if extra:
            raise _refused(value, f"has attributes beyond its fields: {', '.join(extra)}")
        if isinstance(value, msgspec.Struct):
            self._open.add(id(value))
        parts = [self.tree(getattr(value, name), depth) for name in names]
        self._open.discard(id(value))
        return ["record", self._name(kind), *parts]

    def _name(self, kind: type[Any]) -> str:
        name = kind.__qualname__
        if self._known.get(name) is not kind:
            raise SerializationError(
                f"a snapshot cannot name the class {name}: the machine does not show it",
                hint=f"annotate an attribute of the machine's class with it ({name} in "
                "`things: dict[str, ...]`), or define snapshot() and install()",
            )
        if name not in self.classes:
            self.classes[name] = shape_of(kind)
        return name

    def callback(self, value: Any, depth: int = 0) -> list[Any]:
        """A bound method of the machine, or a partial of one."""
        if type(value) is partial:
            inner = self.callback(value.func, depth)
            named = [
                self.tree(part, depth + 1) for pair in value.keywords.items() for part in pair
            ]
            return ["partial", inner, list(self._many(value.args, depth + 1)), named]
        name = getattr(value, "__name__", "")
        if type(value) is MethodType and value.__self__ is self._machine:
            found = getattr(self._machine, name, None)
            if getattr(found, "__func__", None) is value.__func__:
                return ["method", name]
        raise _refused(value, "is no method of the machine (nor a partial of one)")


def _refused(value: object, why: str) -> SerializationError:
    name = getattr(value, "__qualname__", type(value).__name__)
    return SerializationError(
        f"a snapshot cannot keep {name}: it {why}",
        hint="keep plain values, and schedule methods of the machine; or define snapshot() and "
        "install()",
    )
