"""Which code answers which operation: derived methods, `Commit[T]` methods, registered ones."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

from msgspec.structs import astuple

from copycat.callbacks import needs_more_than_a_call
from copycat.errors import ConfigurationError, CopycatError, SerializationError
from copycat.machine.commit import Commit
from copycat.machine.context import ApplyContext, StateMachineExecutor
from copycat.machine.definition import check_definition, names_in
from copycat.machine.keyed import Keyed, keyed_of
from copycat.machine.machine import StateMachine
from copycat.machine.operation_methods import OperationMethod, where_defined
from copycat.machine.reading import OperationReader, StandIn
from copycat.protocol.operations import Command, Operation, Query
from copycat.protocol.results import text_of

__all__ = [
    "Handlers",
]

Handler = tuple[Callable[..., Any], Callable[[Any], tuple[Any, ...]], Keyed | None]
"""(function, operation -> its arguments, how it is keyed): called as
`function(*arguments(operation))`, so that no dictionary of keywords is built on the hot path."""


_CALLED = (
    *("close", "configure", "install", "snapshot"),
    *("on_close", "on_expire", "on_key_expired", "on_register", "on_unregister"),
)
"""Methods that a machine may define beside its handlers."""


def _result_of(stand_in: StandIn) -> tuple[Any, ...]:
    return (stand_in.result,)


def _same(result: Any) -> Any:
    return result


class Handlers:
    """The dispatch table of one machine, by exact class."""

    def __init__(
        self, machine: StateMachine, apply_context: ApplyContext, machine_id: int = 0
    ) -> None:
        self._machine_id = machine_id
        self._machine = machine
        self._apply_context = apply_context
        self._sealed = False
        self._names: dict[str, type[Operation[Any]]] = {}
        self.table: dict[type[Any], Handler] = {StandIn: (_same, _result_of, None)}
        for name in _CALLED:
            _check_plain(type(machine).__name__, name, getattr(machine, name, None))
        handlers: set[str] = set()
        for name in names_in(type(machine)):
            attribute = inspect.getattr_static(type(machine), name)
            if isinstance(attribute, OperationMethod):
                if attribute.operation is None:
                    attribute.derive(type(machine))  # came in by a plain mixin
                self._add(attribute.operation, getattr(machine, name), astuple)
            elif inspect.isfunction(attribute) and not name.startswith("_"):
                operation = _handled_by(type(machine), attribute)
                if operation is not None:
                    self.register(operation, getattr(machine, name))
                    handlers.add(name)
        check_definition(machine, handlers)

    def register(
        self, operation: type[Operation[Any]], handler: Callable[[Commit[Any]], Any]
    ) -> None:
        """Let `handler` answer `operation`, with a Commit."""
        apply_context = self._apply_context
        name = getattr(handler, "__name__", repr(handler))
        _check_plain(type(self._machine).__name__, name, handler)
        self._add(operation, handler, lambda _: (apply_context.commit(),))

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
            keyed = keyed_of(
                operation, snapshottable=self._apply_context.release_tracker.snapshottable
            )
        self.table[operation] = (function, arguments, keyed)

    def configure(self, executor: StateMachineExecutor) -> None:
        """Let the machine register more; after that no more: entries are applied.

        ConfigurationError with what its configure() raises.
        """
        try:
            self._machine.configure(executor)
        except (CopycatError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise ConfigurationError(
                f"{type(self._machine).__name__}.configure() raised {text_of(error)}",
                hint="see the error that it raised; it is called as configure(executor)",
            ) from error
        self._sealed = True

    def reader(self, base: type[Operation[Any]]) -> OperationReader:
        """Reads any operation of this machine that derives from `base`."""
        return OperationReader(type(self._machine), self._names, base, self._machine_id)


def _check_plain(machine: str, name: str, function: Any) -> None:
    """ConfigurationError for `async def` and for a generator: nothing of it would ever run."""
    if kind := needs_more_than_a_call(function):
        raise ConfigurationError(
            f"{machine}.{name} is {kind}; nothing awaits the methods of a state machine",
            hint=f"make {name} a plain function; wait elsewhere, then submit a command",
        )


def _handled_by(machine: type[Any], function: Callable[..., Any]) -> type[Operation[Any]] | None:
    """The T of a method whose one parameter is annotated `Commit[T]`."""
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
