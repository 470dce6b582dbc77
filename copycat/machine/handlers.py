"""Which code answers which operation: derived methods, `Commit[T]` methods, registered ones."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, Union

import msgspec
from msgspec.structs import astuple

from copycat.errors import ConfigurationError, SerializationError
from copycat.machine.commit import Commit
from copycat.machine.context import Moment
from copycat.machine.keyed import Keyed, keyed_of
from copycat.machine.machine import StateMachine
from copycat.machine.operation_methods import OperationMethod, where_defined
from copycat.protocol.operations import Command, Operation, Query

__all__ = [
    "Handlers",
    "Unreadable",
    "decode_or_stand_in",
]

Handler = tuple[Callable[..., Any], Callable[[Any], tuple[Any, ...]], Keyed | None]
"""(function, operation -> its arguments, how it is keyed): called as
`function(*arguments(operation))`, so that no dictionary of keywords is built on the hot path."""


class Unreadable:
    """Stands in a run for a payload that is no command of this machine."""

    __slots__ = ("nbytes",)

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


def _unreadable(nbytes: int) -> None:
    raise SerializationError(
        f"an operation of {nbytes} bytes is none that the state machine knows, or its fields "
        "do not fit",
    )


class _Nothing(msgspec.Struct, array_like=True, tag="\0"):
    """What a machine without commands (or queries) can decode."""


class Handlers:
    """The dispatch table of one machine, by exact class (A2)."""

    def __init__(self, machine: StateMachine, moment: Moment) -> None:
        self._machine = machine
        self._moment = moment
        self._sealed = False
        self._names: dict[str, type[Operation[Any]]] = {}
        self.table: dict[type[Any], Handler] = {
            Unreadable: (_unreadable, lambda unreadable: (unreadable.nbytes,), None)
        }
        for name in _attributes(type(machine)):
            attribute = inspect.getattr_static(type(machine), name)
            if isinstance(attribute, OperationMethod):
                if attribute.operation is None:
                    attribute.derive(type(machine))  # came in by a plain mixin
                self._add(attribute.operation, getattr(machine, name), astuple)
            elif inspect.isfunction(attribute) and not name.startswith("_"):
                operation = _handled_by(type(machine), attribute)
                if operation is not None:
                    self.register(operation, getattr(machine, name))

    def register(
        self, operation: type[Operation[Any]], handler: Callable[[Commit[Any]], Any]
    ) -> None:
        """Let `handler` answer `operation`, with a Commit."""
        moment = self._moment
        self._add(operation, handler, lambda _: (moment.commit(),))

    def _add(
        self,
        operation: type[Operation[Any]] | None,
        function: Callable[..., Any],
        arguments: Callable[[Any], tuple[Any, ...]],
    ) -> None:
        machine = type(self._machine).__name__
        if self._sealed:
            raise ConfigurationError(f"{machine}: register() works inside configure() only")
        if not (isinstance(operation, type) and issubclass(operation, Command | Query)):
            raise ConfigurationError(f"{machine}: {operation!r} is neither a Command nor a Query")
        tag = str(operation.__struct_config__.tag)
        other = self._names.get(tag)
        if other is not None:
            raise ConfigurationError(
                f"{machine} has two operations named {tag!r} on the wire: "
                f"{other.__operation_name__} and {operation.__operation_name__}",
                hint='give one of them another name: @command(name="...")',
            )
        self._names[tag] = operation
        keyed = None
        if issubclass(operation, Command):
            keyed = keyed_of(operation, snapshottable=self._moment.ledger.snapshottable)
        self.table[operation] = (function, arguments, keyed)

    def seal(self) -> None:
        """No more registering: from here on entries are applied."""
        self._sealed = True

    def decoder(self, base: type[Operation[Any]]) -> Callable[[bytes], Any]:
        """Decodes any operation of this machine that derives from `base`."""
        kinds = tuple(kind for kind in self._names.values() if issubclass(kind, base))
        union: Any = Union[kinds or (_Nothing,)]  # noqa: UP007  (built at run time)
        return msgspec.msgpack.Decoder(union).decode


def decode_or_stand_in(decode: Callable[[bytes], Any], payload: bytes) -> Any:
    """Whatever these bytes do to the decoder, or to the user's `__post_init__`: a result."""
    try:
        return decode(payload)
    except (MemoryError, KeyboardInterrupt):
        raise  # whether it is a result is for who called
    except BaseException:  # noqa: BLE001
        return Unreadable(len(payload))


def _attributes(machine: type[Any]) -> list[str]:
    """Names of all attributes, base classes first, in the order of their definition (X28)."""
    names: dict[str, None] = {}
    for kind in reversed(machine.__mro__):
        names.update(dict.fromkeys(vars(kind)))
    return list(names)


def _handled_by(machine: type[Any], function: Callable[..., Any]) -> type[Operation[Any]] | None:
    """The T of a method whose one parameter is annotated `Commit[T]` (A1)."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    if len(parameters) != 1 or "Commit[" not in str(parameters[0].annotation):
        return None
    try:
        hint = typing.get_type_hints(function)[parameters[0].name]
    except Exception as error:
        raise SerializationError(
            f"{machine.__name__}.{function.__name__}: its annotation cannot be resolved: {error} "
            f"({where_defined(function)})"
        ) from error
    if typing.get_origin(hint) is not Commit:
        return None
    (operation,) = typing.get_args(hint)
    if isinstance(operation, type):
        return operation
    origin = typing.get_origin(operation)
    return origin if isinstance(origin, type) else None
