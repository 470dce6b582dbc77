"""Trees of the default snapshot made values again; see `state_codec`.

The store has vouched for the bytes (F28), so what cannot be read here was written by other code:
a class that was renamed, a field that was removed. That is a MachineMismatchError which names it.
Only a tree that no encoder makes is a CorruptLogError.
"""

from __future__ import annotations

import enum
import inspect
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from types import MethodType
from typing import Any, cast
from uuid import UUID

import msgspec

from copycat.errors import CorruptLogError
from copycat.machine.aliases import Aliases
from copycat.machine.class_schema import ClassSchema, FieldMapping, is_record, mismatch
from copycat.machine.commit import Commit
from copycat.machine.sessions import ServerSession
from copycat.machine.state_codec import FACTORIES, ClassTable, Links
from copycat.machine.timers import Scheduled, timer_of
from copycat.protocol.results import text_of

__all__ = ["StateDecoder"]

_TEXTS: dict[str, Callable[[str], Any]] = {
    "Decimal": Decimal,
    "UUID": UUID,
    "date": date.fromisoformat,
}
_LISTS: dict[str, type[Any]] = {"list": list, "set": set, "frozenset": frozenset, "tuple": tuple}
_MAPS: dict[str, type[Any]] = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}


class StateDecoder:
    """Makes values of trees again.

    classes: as they were when the snapshot was written; none for one of the first format.
    """

    def __init__(
        self,
        machine: object,
        nameable: ClassTable,
        links: Links,
        classes: Mapping[str, ClassSchema] | None = None,
    ) -> None:
        self._machine = machine
        self._label = type(machine).__name__
        self._nameable = nameable
        self._links = links
        self._classes = classes or {}
        self._aliases = Aliases(type(machine))
        self._plans: dict[tuple[str, int], FieldMapping] = {}
        self._numbered: list[Any] = []

    def value(self, tree: Any) -> Any:
        """One value. MachineMismatchError, CorruptLogError."""
        try:
            return self._value(tree)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise CorruptLogError(
                f"a snapshot of the machine's state cannot be read: {type(error).__name__}: "
                f"{error}"
            ) from error

    def table(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        """A dict of values that were decoded. MachineMismatchError where the code of a key
        raises."""
        return cast("dict[Any, Any]", _hashed([key for key, _ in pairs], lambda: dict(pairs)))

    def _value(self, tree: Any) -> Any:
        if type(tree) is not list:
            return tree
        tag, *parts = tree
        if tag == "tuple":
            return tuple(map(self._value, parts))
        if tag == "frozenset":
            members = list(map(self._value, parts))
            return _hashed(members, lambda: frozenset(members))
        if tag in {"list", "set", "deque", "dict", "OrderedDict", "Counter", "defaultdict"}:
            return self._container(tag, parts)
        if tag in _TEXTS:
            (text,) = parts
            return _TEXTS[tag](text)
        make = getattr(self, f"_make_{tag}", None)
        if make is None:
            raise ValueError(f"an unknown tag {tag!r}")
        return make(*parts)

    def _container(self, tag: str, parts: list[Any]) -> Any:
        value: Any
        if tag == "deque":
            value = deque(maxlen=parts.pop(0))
        elif tag == "defaultdict":
            value = defaultdict(FACTORIES[parts.pop(0)])
        else:
            value = {**_LISTS, **_MAPS}[tag]()
        self._numbered.append(value)  # before its parts: they may name it
        if tag in {"list", "deque"}:
            value.extend(map(self._value, parts))
        elif tag == "set":
            members = list(map(self._value, parts))
            _hashed(members, lambda: value.update(members))
        else:
            if len(parts) % 2:
                raise ValueError(f"{len(parts)} keys and values")
            if list in set(map(type, parts)):
                parts = [self._value(part) for part in parts]
            keys = parts[::2]
            value.update(_hashed(keys, lambda: dict(zip(keys, parts[1::2], strict=True))))
        return value

    def _make_int(self, text: str) -> int:
        return int(text, 16)

    def _make_again(self, number: int) -> Any:
        return self._numbered[number] if number >= 0 else self._value(["?"])

    def _make_bytearray(self, data: bytes) -> bytearray:
        value = bytearray(data)
        self._numbered.append(value)
        return value

    def _make_timedelta(self, days: int, seconds: int, microseconds: int) -> timedelta:
        return timedelta(days, seconds, microseconds)

    def _make_datetime(self, text: str, fold: int, offset: int | None) -> datetime:
        return datetime.fromisoformat(text).replace(fold=fold, tzinfo=_zone(offset))

    def _make_time(self, text: str, fold: int, offset: int | None) -> time:
        return time.fromisoformat(text).replace(fold=fold, tzinfo=_zone(offset))

    def _make_flag(self, name: str, value: int) -> Any:
        kind = self._class(name, enum.Flag)
        schema = self._classes.get(name)
        if schema is not None and schema.types:  # else it was written before values were recorded
            for member, text in zip(schema.fields, schema.types, strict=True):
                if int(text) & value == int(text):
                    self._check_flag(kind, name, member, int(text))
        try:
            return kind(value)
        except Exception as error:
            hint = f"keep the flags that were there, also {value:#x}"
            raise mismatch(kind.__qualname__, "", text_of(error), hint, error) from error

    def _check_flag(self, kind: Any, name: str, member: str, bits: int) -> None:
        """A flag is its bits: one that has other bits now would be taken for another one."""
        if bits.bit_count() != 1:
            return  # none, or made of others, which are looked at themselves
        now = self._member(kind, name, member).value
        if now != bits:
            problem = f"it was {bits:#x} and is {now:#x} now"
            hint = "keep the values of flags, and give new ones values of their own"
            raise mismatch(kind.__qualname__, member, problem, hint)

    def _make_enum(self, name: str, member: str) -> Any:
        return self._member(self._class(name, enum.Enum), name, member)

    def _member(self, kind: Any, name: str, member: str) -> Any:
        current = self._aliases.field(name, kind.__qualname__, member)
        if current not in kind.__members__:
            hint = (
                f"keep {member}, as another name of a member if it was renamed; or "
                f'snapshot_aliases = {{"{name}.{member}": "NEW_NAME"}} in the machine\'s class'
            )
            raise mismatch(kind.__qualname__, member, "it has no such member", hint)
        return kind[current]

    def _make_named(self, name: str, *parts: Any) -> Any:
        plan = self._plan(name, len(parts))
        return self._record(plan, plan.fields(list(map(self._value, parts))))

    def _make_record(self, name: str, *parts: Any) -> Any:
        plan = self._plan(name, len(parts))
        number = len(self._numbered)
        self._numbered.append(None)
        kind = plan.kind
        if issubclass(kind, msgspec.Struct | tuple):  # made with its fields, never before them
            fields = plan.fields(list(map(self._value, parts)))
            value = self._numbered[number] = self._record(plan, fields)
            return value
        value = self._numbered[number] = _new(kind)  # a ring may name it
        return _fill(value, plan.fields(list(map(self._value, parts))))

    def _record(self, plan: FieldMapping, fields: dict[str, Any]) -> Any:
        kind = plan.kind
        if issubclass(kind, tuple):
            return tuple.__new__(kind, fields.values())
        if not issubclass(kind, msgspec.Struct):
            return _fill(_new(kind), fields)
        try:
            value = kind(**fields)
        except Exception as error:
            problem = f"it refuses what it has: {text_of(error)}"
            hint = "let the class accept the values that it accepted when the snapshot was written"
            raise mismatch(kind.__qualname__, "", problem, hint, error) from error
        for field, part in fields.items():  # whatever its __post_init__ made of them
            msgspec.structs.force_setattr(value, field, part)
        return value

    def _plan(self, name: str, count: int) -> FieldMapping:
        plan = self._plans.get((name, count))
        if plan is None:
            kind, schema = self._class(name, object), self._classes.get(name)
            if not is_record(kind):
                problem = "it had fields, and is neither a dataclass, a Struct nor a NamedTuple"
                raise mismatch(kind.__qualname__, "", problem, "keep it what it was")
            plan = FieldMapping(kind, name, schema, count, self._aliases)
            self._plans[name, count] = plan
        return plan

    def _class(self, name: str, base: type[Any]) -> Any:
        """The class that a snapshot calls so: by an alias, its name, or the name's last part
        where one class alone has that (it was moved)."""
        kind = self._aliases.classes.get(name) or self._nameable.get(name)
        if kind is None:
            last = name.rpartition(".")[2]
            like = [one for one in self._nameable.values() if one.__name__ == last]
            if len(like) != 1:
                raise self._unknown(name)
            (kind,) = like
        if not issubclass(kind, base):
            problem = f"it was a kind of {base.__name__}"
            raise mismatch(kind.__qualname__, "", problem, "keep it what it was")
        return kind

    def _unknown(self, name: str) -> Exception:
        schema = self._classes.get(name)
        known = "" if schema is None else f" (of {schema.module})"
        problem = f"{self._label} shows no class of this name{known}"
        hint = (
            f'if it was renamed, set snapshot_aliases = {{"{name}": NewName}} in the class '
            f"{self._label}\nif the class no longer mentions it, annotate an attribute with it"
        )
        return mismatch(name, "", problem, hint)

    def _make_session(self, session: int, client_id: str, state: str) -> ServerSession:
        return self._links.session(session, client_id, state)

    def _make_scheduled(
        self, number: int, due_ms: int, interval_ms: int, cancelled: bool
    ) -> Scheduled:
        scheduled = self._links.scheduled(number, due_ms, interval_ms)
        timer_of(scheduled).is_cancelled = cancelled
        return scheduled

    def _make_commit(self, index: int, time_ms: int, *rest: Any) -> Commit[Any]:
        number = len(self._numbered)
        self._numbered.append(None)
        session, operation, references, is_snapshot_only = rest
        owner = self._links.session(*session)
        value = self._links.commit(index, time_ms, owner, operation, references, is_snapshot_only)
        self._numbered[number] = value
        return value

    def _make_method(self, name: str) -> Any:
        cause: Exception | None = None
        try:
            method = getattr(self._machine, self._aliases.attribute(name) or "", None)
        except Exception as error:  # noqa: BLE001  (a property may raise anything)
            method, cause = None, error
        if type(method) is not MethodType:
            hint = (
                f"keep a method {name}; or, where it was renamed, "
                f'snapshot_aliases = {{"{name}": "new_name"}} in the class {self._label}'
            )
            raise mismatch(
                self._label, name, "a callback names it, and it is no method", hint, cause
            )
        return method

    def _make_partial(self, inner: Any, arguments: list[Any], named: list[Any]) -> Any:
        values = list(map(self._value, named))
        keywords = dict(zip(values[::2], values[1::2], strict=True))
        function, places = self._value(inner), list(map(self._value, arguments))
        try:
            inspect.signature(function).bind_partial(*places, **keywords)
        except (TypeError, ValueError) as error:
            name = getattr(function, "__name__", "")
            hint = f"let {name} accept the arguments that the callback was scheduled with"
            raise mismatch(self._label, name, f"a callback: {error}", hint, error) from error
        return partial(function, *places, **keywords)


def _new(kind: type[Any]) -> Any:
    """An object without its fields; the class's own code is not called."""
    try:
        return object.__new__(kind)
    except TypeError as error:
        problem = f"it cannot be made: {error}"
        raise mismatch(kind.__qualname__, "", problem, "keep it what it was", error) from error


def _fill(value: Any, fields: dict[str, Any]) -> Any:
    field = ""
    try:
        for field, part in fields.items():
            object.__setattr__(value, field, part)
    except MemoryError:
        raise
    except Exception as error:  # a property, or another descriptor, stands in its place
        kind, hint = type(value).__qualname__, "let it be a plain field, as it was"
        problem = f"it cannot be set: {text_of(error)}"
        raise mismatch(kind, field, problem, hint, error) from error
    return value


def _hashed(members: Iterable[Any], make: Callable[[], Any]) -> Any:
    """What `make` makes of members that are hashed; who is in the way is named."""
    try:
        return make()
    except MemoryError:
        raise
    except Exception as error:
        members = list(members)
        _check_hashable(members)
        kind = _own_class_in(members)
        if kind is None:
            raise
        problem = f"it cannot be compared: {text_of(error)}"
        hint = "make objects of the class comparable without an error, as they were"
        raise mismatch(kind.__qualname__, "", problem, hint, error) from error


def _own_class_in(members: Iterable[Any]) -> type[Any] | None:
    """The first class of these, and of what they contain, that has code of its own."""
    for one in members:
        kind: type[Any] | None = type(one)
        if kind in {tuple, frozenset}:
            kind = _own_class_in(one)
        if kind is not None and kind.__module__ != "builtins":
            return kind
    return None


def _check_hashable(members: Iterable[Any]) -> None:
    for one in members:
        try:
            hash(one)
        except Exception as error:
            if type(one) in {tuple, frozenset}:
                _check_hashable(one)
            if type(one).__module__ == "builtins":
                raise
            kind = type(one).__qualname__
            hint = "make the class hashable, as it was: for example @dataclass(frozen=True)"
            raise mismatch(
                kind, "", f"it cannot be hashed: {text_of(error)}", hint, error
            ) from error


def _zone(offset: int | None) -> timezone | None:
    return None if offset is None else timezone(timedelta(microseconds=offset))
