"""`@command` and `@query`: a method whose signature is an operation.

On the class it builds the operation (`Inventory.receive("chair", 12)`), on an instance it is the
plain method. Parameters are positional on the wire: append new ones with defaults, never reorder
or remove. What cannot be encoded fails when the class is defined.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Hashable
from datetime import timedelta
from pathlib import PurePath
from types import FunctionType
from typing import (
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
    overload,
)

import msgspec
import msgspec.inspect

from copycat.config import choice
from copycat.errors import ConfigurationError, SerializationError
from copycat.machine.keyed import check_keyed
from copycat.protocol.operations import Command, CompactionMode, Operation, Query, describe_type
from copycat.types import ConsistencyLevel, ConsistencyLike

__all__ = [
    "OperationMethod",
    "command",
    "first_custom",
    "query",
    "where_defined",
]

P = ParamSpec("P")
R = TypeVar("R")

_RESERVED = frozenset({"compaction", "consistency", "type"})
_UNHASHABLE = (list, dict, set, bytearray)
_NOT_PLAIN = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class OperationMethod(Generic[P, R]):
    """What the decorators make of a method."""

    def __init__(
        self,
        function: Callable[Concatenate[Any, P], R],
        base: type[Operation[Any]],
        name: str,
        metadata: dict[str, Any],
    ) -> None:
        if not isinstance(function, FunctionType):
            kind = type(function).__name__
            raise ConfigurationError(
                f"@command and @query are for methods, not for a {kind}",
                hint="write @command, or @command(name=...), directly above `def name(self, ...)`",
            )
        if not isinstance(name, str) or not name.isprintable():
            raise ConfigurationError(
                f"name ({name!r}) of {function.__qualname__} must be printable text",
                hint='as in @command(name="add")',
            )
        self.function = function
        self.name = name or function.__name__
        self.operation: type[Operation[R]] | None = None
        """Derived from the signature when the machine's class is defined."""
        self._base = base
        self._metadata = metadata
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    @overload
    def __get__(self, obj: None, owner: type[Any]) -> Callable[P, Operation[R]]: ...
    @overload
    def __get__(self, obj: object, owner: type[Any]) -> Callable[P, R]: ...
    def __get__(self, obj: object | None, owner: type[Any]) -> Callable[P, Any]:
        if obj is not None:
            return cast("Callable[P, R]", self.function.__get__(obj, owner))
        if self.operation is None:
            raise ConfigurationError(
                f"{owner.__name__}.{self.__name__} is a @command or @query, but "
                f"{owner.__name__} does not derive from StateMachine"
            )
        return cast("Callable[P, Operation[R]]", self.operation)

    def derive(self, owner: type[Any]) -> None:
        """Make the operation's class from the signature. SerializationError with file:line."""
        label = f"{owner.__name__}.{self.__name__}"
        function = self.function
        if any(is_other(function) for is_other in _NOT_PLAIN):
            problem = "must be a plain function that returns its result"
            hint = "write `def` without `async` and without `yield`: nothing awaits an operation"
            raise self._error(label, problem, hint)
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except Exception as error:
            raise self._error(label, f"an annotation cannot be resolved: {error}") from error
        if not inspect.signature(function).parameters:
            raise self._error(label, "takes no self", "write `def name(self, ...)`")
        fields = [
            self._field(label, parameter, hints)
            for parameter in list(inspect.signature(function).parameters.values())[1:]
        ]
        if "return" not in hints:
            hint = (
                "write `-> None` if it returns nothing; Any allows all values that can be encoded"
            )
            raise self._error(label, "its result has no annotation", hint)
        self._check_type(label, "its result", hints["return"])
        try:
            derived = msgspec.defstruct(
                label,
                fields,
                bases=(self._base,),
                module=function.__module__,
                namespace={"__doc__": function.__doc__},
                tag=self.name,
                frozen=True,
            )
        except (TypeError, ValueError) as error:
            raise self._error(label, f"{error}") from error
        operation = cast("Any", derived)
        operation.__result_type__ = hints["return"]
        operation.__operation_name__ = label
        for attribute, value in self._metadata.items():
            setattr(operation, attribute, value)
        if issubclass(self._base, Command):
            names = [field[0] for field in fields]
            check_keyed(label, names, operation, where_defined(function))
            key = operation.__key__
            kind = hints.get(key) if isinstance(key, str) else None
            if (typing.get_origin(kind) or kind) in _UNHASHABLE:
                raise self._error(label, f"parameter {key!r} is a key and cannot be hashed")
        self.operation = operation

    def _field(
        self, label: str, parameter: inspect.Parameter, hints: dict[str, Any]
    ) -> tuple[str, Any] | tuple[str, Any, Any]:
        name = parameter.name
        if parameter.kind not in _POSITIONAL:
            problem = f"parameter {name!r} is {parameter.kind.description}, not positional"
            hint = "the log stores parameters by position: write (self, a, b=1), "
            hint += "without *, *args and **kwargs; a list or a dict holds any number of values"
            raise self._error(label, problem, hint)
        if name in _RESERVED or name.startswith("__"):
            hint = "give the parameter another name"
            raise self._error(label, f"parameter {name!r} has a reserved name", hint)
        if name not in hints:
            hint = f"annotate it, as in `{name}: int`; Any allows all values that can be encoded"
            raise self._error(label, f"parameter {name!r} has no annotation", hint)
        self._check_type(label, f"parameter {name!r}", hints[name])
        if parameter.default is inspect.Parameter.empty:
            return name, hints[name]
        self._check_default(label, parameter, hints[name])
        return name, hints[name], parameter.default

    def _check_default(self, label: str, parameter: inspect.Parameter, hint: Any) -> None:
        """Whoever leaves the parameter out sends the default, so it must be read back."""
        try:
            msgspec.msgpack.decode(msgspec.msgpack.encode(parameter.default), type=hint)
        except Exception as error:
            word = describe_type(hint)
            problem = f"parameter {parameter.name!r} has the default {parameter.default!r}"
            advice = "give it a default of its type"
            if parameter.default is None:
                advice = f"write `{parameter.name}: {word} | None = None`"
            raise self._error(label, f"{problem}, which is no `{word}`", advice) from error

    def _check_type(self, label: str, what: str, annotation: Any) -> None:
        try:
            custom = first_custom(msgspec.inspect.type_info(annotation), set())
        except TypeError as error:
            custom = f"{describe_type(annotation)} ({error})"
        if custom:
            raise self._error(label, f"{what} has type {custom}, which copycat cannot encode")

    def _error(self, label: str, problem: str, hint: str | None = None) -> SerializationError:
        place = where_defined(self.function)
        return SerializationError(
            f"{label}: {problem} ({place})", hint=hint, operation=label, place=place
        )


def first_custom(info: Any, seen: set[int]) -> str:
    """The name of the first type in a type tree that msgspec has no encoding for, or ""."""
    if isinstance(info, msgspec.inspect.CustomType):
        return describe_type(info.cls)
    if isinstance(info, list | tuple):
        return next(filter(None, (first_custom(part, seen) for part in info)), "")
    if not isinstance(info, msgspec.Struct) or id(info) in seen:
        return ""
    seen.add(id(info))  # type trees may be circular
    parts = (getattr(info, name) for name in info.__struct_fields__)
    return next(filter(None, (first_custom(part, seen) for part in parts)), "")


def where_defined(function: Callable[..., Any]) -> str:
    """file:line of a function, for messages."""
    code = inspect.unwrap(function).__code__
    return f"{PurePath(code.co_filename).name}:{code.co_firstlineno}"


_Key: TypeAlias = str | Callable[[Any], Hashable]
_Expires: TypeAlias = str | Callable[[Any], float | timedelta | None]


class _OperationDecorator(Protocol):
    def __call__(self, fn: Callable[Concatenate[Any, P], R], /) -> OperationMethod[P, R]: ...


@overload
def command(fn: Callable[Concatenate[Any, P], R], /) -> OperationMethod[P, R]: ...
@overload
def command(
    *,
    compaction: CompactionMode = ...,
    name: str = ...,
    since: int = ...,
    key: _Key | None = ...,
    tombstone: bool = ...,
    reads: bool = ...,
    expires: _Expires | None = ...,
) -> _OperationDecorator: ...
def command(
    fn: Callable[Concatenate[Any, P], R] | None = None,
    /,
    *,
    compaction: CompactionMode = CompactionMode.DEFAULT,
    name: str = "",
    since: int = 1,
    key: _Key | None = None,
    tombstone: bool = False,
    reads: bool = False,
    expires: _Expires | None = None,
) -> Any:
    """A method that changes state: a call becomes an entry of the log, and takes effect once.

    name: on the wire, when it should differ from the method's. since: kept as metadata.
    compaction: when its entry may leave the log once it was released.
    key: a parameter's name, or a function of the operation: the next command of an equal key
    releases this one. Promises that the state it leaves depends on it alone (C21).
    tombstone: it deletes the key. reads: it may look at the key first; then it stays in the log
    until another command overwrites the key. expires: a parameter's name, or a function of the
    operation: after so many seconds of log time the key is deleted (`on_key_expired`).
    """
    metadata = {
        "__compaction__": choice(CompactionMode, compaction, "compaction"),
        "__since__": since,
        "__key__": key,
        "__tombstone__": tombstone,
        "__reads__": reads,
        "__expires__": expires,
    }
    return _decorate(fn, Command, name, metadata)


@overload
def query(fn: Callable[Concatenate[Any, P], R], /) -> OperationMethod[P, R]: ...
@overload
def query(
    *, consistency: ConsistencyLike = ..., name: str = ..., since: int = ...
) -> _OperationDecorator: ...
def query(
    fn: Callable[Concatenate[Any, P], R] | None = None,
    /,
    *,
    consistency: ConsistencyLike = ConsistencyLevel.LINEARIZABLE,
    name: str = "",
    since: int = 1,
) -> Any:
    """A method that reads state and changes nothing; never logged."""
    level = choice(ConsistencyLevel, consistency, "consistency")
    metadata = {"__consistency__": level, "__since__": since}
    return _decorate(fn, Query, name, metadata)


def _decorate(
    fn: Callable[..., Any] | None, base: type[Operation[Any]], name: str, metadata: dict[str, Any]
) -> Any:
    if fn is not None:
        return OperationMethod(fn, base, name, metadata)
    return lambda fn: OperationMethod(fn, base, name, metadata)
