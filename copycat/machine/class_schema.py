"""The fields of a class, as a snapshot records them; and what changed since.

A snapshot names the fields of each class in it, so that a later version of the class can read
it: a new field gets its default, a field that was removed is left out. What cannot be told apart
from a mistake is a MachineMismatchError that names class and field.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from copycat.errors import MachineMismatchError
from copycat.machine.aliases import Aliases
from copycat.protocol.operations import describe_type
from copycat.protocol.results import text_of

_LOG = logging.getLogger("copycat.machine")

__all__ = [
    "ClassSchema",
    "FieldMapping",
    "fields_of",
    "fits",
    "hints_of",
    "is_record",
    "mismatch",
    "schema_of",
]

Default = Callable[[], Any]


class ClassSchema(msgspec.Struct, array_like=True):
    """A class as it was when a snapshot was written."""

    module: str
    fields: list[str]
    """Names of its fields in order; of an enum its members."""
    types: list[str]
    """What the fields are annotated with; of a flag the values of its members."""


def hints_of(kind: Any) -> dict[str, Any]:
    """Annotations of a class, resolved; none when one of them cannot be."""
    try:
        return typing.get_type_hints(kind)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  (a name that exists for the type checker only, or code)
        return {}


def is_record(kind: type[Any]) -> bool:
    """A dataclass, a Struct or a named tuple: what has fields."""
    return (
        issubclass(kind, msgspec.Struct)
        or dataclasses.is_dataclass(kind)
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )


def fields_of(kind: Any) -> list[str]:
    """Names of the fields of a record's class, in order."""
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    return list(kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else kind._fields)


def schema_of(kind: type[Any]) -> ClassSchema:
    """The class as it is now."""
    if issubclass(kind, enum.Enum):
        members = kind.__members__
        is_flag = issubclass(kind, enum.Flag)
        values = [str(one.value) for one in members.values()] if is_flag else []
        return ClassSchema(kind.__module__, list(members), values)
    names, hints = fields_of(kind), hints_of(kind)
    return ClassSchema(
        kind.__module__, names, [describe_type(hints.get(name, "")) for name in names]
    )


def mismatch(
    kind: str, field: str, problem: str, hint: str, cause: BaseException | None = None
) -> MachineMismatchError:
    """The error with which a member stops that cannot read a snapshot."""
    where = f"{kind}.{field}" if field else kind
    error = MachineMismatchError(
        f"a snapshot does not fit {where}: {problem}; nothing was changed",
        hint=hint,
        class_name=kind,
        field=field,
    )
    error.__cause__ = cause
    return error


class FieldMapping:
    """How a class takes what a snapshot has for its fields.

    schema: as it was written; None for snapshots of the first format, which have no names: then
    `count` values are those of the first fields.
    """

    def __init__(
        self, kind: Any, name: str, schema: ClassSchema | None, count: int, aliases: Aliases
    ) -> None:
        self.kind = kind
        self._label = kind.__qualname__
        names, defaults = fields_of(kind), dict(_defaults(kind))
        if schema is None and count > len(names):
            problem = f"it has {count} values, and the class has {len(names)} fields"
            raise mismatch(self._label, "", problem, "keep the fields that were there")
        old_names = names[:count] if schema is None else schema.fields
        self._targets = [aliases.field(name, self._label, old) for old in old_names]
        self._old_names = old_names
        missing = [one for one in names if one not in self._targets]
        for one in missing:
            if one not in defaults:
                hint = (
                    f"give {one} a default; or, where a field was renamed, "
                    f'snapshot_aliases = {{"{name}.old": "{one}"}} in the machine\'s class'
                )
                raise mismatch(self._label, one, "it has no value for this field", hint)
        self._defaults = {one: defaults[one] for one in missing}
        known = set(names)
        self._removed_fields = [
            (at, old)
            for at, (old, new) in enumerate(zip(old_names, self._targets, strict=True))
            if new is not None and new not in known
        ]
        self._warned_fields: set[str] = set()
        self._retyped_fields = [] if schema is None else self._find_retyped(schema, known)
        self._shared_fields = [
            (at, new) for at, new in enumerate(self._targets) if new is not None and new in known
        ]
        self.is_plain = self._targets == names and not self._retyped_fields
        """The class has the same fields as when the snapshot was written."""
        self.names = names

    def _find_retyped(self, schema: ClassSchema, known: set[str]) -> list[tuple[int, str, Any]]:
        hints = hints_of(self.kind)
        return [
            (at, new, hints[new])
            for at, (new, text) in enumerate(zip(self._targets, schema.types, strict=False))
            if new in known and new in hints and text and describe_type(hints[new]) != text
        ]

    def fields(self, values: Sequence[Any]) -> dict[str, Any]:
        """The fields of one record, in the order of the class now. MachineMismatchError."""
        if len(values) != len(self._old_names):
            raise ValueError(f"{len(values)} values for {len(self._old_names)} fields")
        if self.is_plain:
            return dict(zip(self.names, values, strict=True))
        try:
            return self._mapped(values)
        except (MachineMismatchError, MemoryError):
            raise
        except Exception as error:  # the code of a value: its __bool__, its __eq__
            problem = f"what it has cannot be compared with the class: {text_of(error)}"
            raise mismatch(
                self._label, "", problem, "keep its fields as they were", error
            ) from error

    def _mapped(self, values: Sequence[Any]) -> dict[str, Any]:
        """The same for a class whose fields are others now."""
        result = {new: values[at] for at, new in self._shared_fields}
        for at, new, hint in self._retyped_fields:
            if not fits(values[at], hint):
                problem = f"it has a {type(values[at]).__name__}, now `{describe_type(hint)}`"
                raise mismatch(self._label, new, problem, "keep the type, or use another name")
            if hint is float:
                result[new] = float(values[at])
        new_values = {name: self._default(name, make) for name, make in self._defaults.items()}
        for at, old in self._removed_fields:
            self._check_removed_field(old, values[at], new_values)
            if old not in self._warned_fields:
                self._warned_fields.add(old)
                _LOG.warning(
                    "%s has no field %s any more: a snapshot's is left out", self._label, old
                )
        result.update(new_values)
        return {name: result[name] for name in self.names}

    def _default(self, name: str, make: Default) -> Any:
        try:
            return make()
        except Exception as error:
            problem = f"its default raised {text_of(error)}"
            raise mismatch(self._label, name, problem, "mend the default", error) from error

    def _check_removed_field(self, old: str, value: Any, new_values: dict[str, Any]) -> None:
        check_removed_field(self._label, f"{self._label}.{old}", old, value, new_values)


def check_removed_field(
    label: str, alias: str, old: str, value: Any, new_values: dict[str, Any]
) -> None:
    """A field that was removed may have been renamed: then its value must not be lost."""
    if not value:
        return
    like = [name for name, default in new_values.items() if type(default) is type(value)]
    if like:
        problem = (
            f"the class has it no more, and {like[0]} of the same type is new: was it renamed?"
        )
        hint = (
            f'snapshot_aliases = {{"{alias}": "{like[0]}"}} in the machine\'s class when it was '
            f'renamed, {{"{alias}": None}} when it is to be left out'
        )
        raise mismatch(label, old, problem, hint)


def _defaults(kind: Any) -> Iterator[tuple[str, Default]]:
    if dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(kind):
            if field.default is not dataclasses.MISSING:
                yield field.name, _Constant(field.default)
            elif field.default_factory is not dataclasses.MISSING:
                yield field.name, field.default_factory
    elif issubclass(kind, msgspec.Struct):
        for info in msgspec.structs.fields(kind):
            if info.default is not msgspec.NODEFAULT:
                yield info.name, _Constant(info.default)
            elif info.default_factory is not msgspec.NODEFAULT:
                yield info.name, info.default_factory
    else:
        for name, value in kind._field_defaults.items():
            yield name, _Constant(value)


class _Constant:
    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __call__(self) -> Any:
        return self._value


def fits(value: Any, hint: Any) -> bool:
    """Whether a value can be what an annotation says; True where that cannot be known."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is None or hint is types.NoneType:
        return value is None
    if origin in {typing.Union, types.UnionType}:
        return any(fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is typing.Annotated:
        return fits(value, arguments[0])
    kind = hint if origin is None else origin
    if kind is Any or not isinstance(kind, type):
        return True
    try:
        if not isinstance(value, (float, int) if kind is float else kind):
            return False
    except TypeError:
        return True  # a protocol, or something else that no value can be asked for
    if isinstance(value, dict) and len(arguments) == 2:
        key, item = arguments
        return all(fits(k, key) and fits(v, item) for k, v in value.items())
    if isinstance(value, list | set | frozenset) and len(arguments) == 1:
        return all(fits(one, arguments[0]) for one in value)
    return True
