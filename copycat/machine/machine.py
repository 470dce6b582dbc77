"""StateMachine: the class that users derive from. One copy runs in every member.

Handlers run one at a time, in log order, in one thread. They must be deterministic: time,
randomness and sessions come from `self.context`, never from the world (I20).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from copycat.errors import ConfigurationError
from copycat.machine.attributes import BINDING
from copycat.machine.commit import Commit
from copycat.machine.context import ApplyContext, StateMachineContext, StateMachineExecutor
from copycat.machine.operation_methods import OperationMethod
from copycat.machine.sessions import ServerSession

__all__ = ["Binding", "StateMachine", "bind", "is_snapshottable"]


class Binding:
    """What ties a machine to the executor that runs it."""

    __slots__ = ("apply_context", "context", "executor")

    def __init__(
        self,
        apply_context: ApplyContext,
        context: StateMachineContext,
        executor: StateMachineExecutor,
    ) -> None:
        self.apply_context = apply_context
        self.context = context
        self.executor = executor


def is_snapshottable(machine: object) -> bool:
    """Whether a machine writes and reads snapshots of its own."""
    methods = [inspect.getattr_static(machine, name, None) for name in ("snapshot", "install")]
    return all(callable(one) and not isinstance(one, OperationMethod) for one in methods)


class StateMachine:
    """Derive from it, mark methods with @command and @query.

    A method with one parameter annotated `Commit[Put]` (Put a class derived from Command or
    Query) handles that operation; `configure` may register more. An exception that a handler
    raises is the operation's result; its state is not rolled back.
    """

    version: int = 1
    """Raise it when what `snapshot` writes changes its form: `install` is told."""
    snapshot_aliases: ClassVar[Mapping[str, type[Any] | str | None]] = {}
    """What older snapshots call otherwise: {"OldClass": NewClass, "Class.old_field": "new",
    "old_attribute": "new"}; None in place of a name leaves out what they have there."""
    _binding: Binding | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for attribute in vars(cls).values():
            if isinstance(attribute, OperationMethod) and attribute.operation is None:
                attribute.derive(cls)

    def _bound(self) -> Binding:
        if self._binding is None:
            raise ConfigurationError(
                f"this {type(self).__name__} runs in no server: there is no context",
                hint="context, executor and commit exist while a server applies an operation",
            )
        return self._binding

    @property
    def commit(self) -> Commit[Any]:
        """The operation being applied, with its index, time and session."""
        return self._bound().apply_context.commit()

    @property
    def context(self) -> StateMachineContext:
        """Index, log time, random numbers, sessions."""
        return self._bound().context

    @property
    def executor(self) -> StateMachineExecutor:
        """Schedules callbacks by log time."""
        return self._bound().executor

    def configure(self, executor: StateMachineExecutor) -> None:
        """Register handlers by hand. Called once, before anything is applied."""

    def on_register(self, session: ServerSession) -> None:
        """A session was opened."""

    def on_unregister(self, session: ServerSession) -> None:
        """A session was closed by its client; `on_close` follows."""

    def on_expire(self, session: ServerSession) -> None:
        """A session expired, or its client opened another one; `on_close` follows."""

    def on_key_expired(self, key: Any) -> None:
        """The time of a key is over (`@command(key=..., expires=...)`): forget it.

        As blind as a keyed command: do nothing but what a deletion of the key does. Called
        before the first entry after that time, with the key's last moment on the clock.
        """

    def on_close(self, session: ServerSession) -> None:
        """A session ended, either way."""

    def close(self) -> None:
        """The member stops."""


def bind(machine: StateMachine, binding: Binding) -> None:
    """Tie a machine to the runtime that calls it: once, before `configure`."""
    attributes = vars(machine)
    if attributes.get(BINDING) is not None:
        raise ConfigurationError(
            f"this {type(machine).__name__} runs in another server already",
            hint="give each server a machine of its own: pass the class, not an instance",
        )
    attributes[BINDING] = binding
