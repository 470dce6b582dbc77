"""Checks the arguments of `CopycatServer`; each message names the argument and its value."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any, TypeVar

from copycat.config import (
    Address,
    AddressLike,
    Duration,
    ServerOptions,
    Storage,
    seconds,
)
from copycat.errors import ConfigurationError
from copycat.machine.machine import StateMachine
from copycat.protocol.results import text_of

__all__ = ["ArgumentChecker", "make_machine", "parse_founders"]

T = TypeVar("T")


class ArgumentChecker:
    """Checks arguments one by one, and collects their problems; `finish` raises all of them."""

    def __init__(self) -> None:
        self._problems: list[str] = []
        self._hints: list[str] = []

    def problem(self, text: str, hint: str = "") -> None:
        """Add a problem; the same hint is listed once."""
        self._problems.append(text)
        if hint and hint not in self._hints:
            self._hints.append(hint)

    def finish(self) -> None:
        """Raise a ConfigurationError with all problems, if there are any."""
        if self._problems:
            hint = "\n".join(self._hints) or None
            raise ConfigurationError("; ".join(self._problems), hint=hint)

    def _value_or(self, name: str, make: Callable[[], T], instead: T) -> T:
        try:
            return make()
        except ConfigurationError as error:
            named = error.message if name in error.message else f"{name}: {error.message}"
            self.problem(named, error.hint or "")
            return instead

    def address(self, name: str, value: AddressLike) -> Address:
        """The address; 127.0.0.1:0 when `value` is none, which is a problem then."""
        return self._value_or(name, lambda: Address.parse(value), Address("127.0.0.1", 0))

    def seconds(self, name: str, value: Duration, default: float) -> float:
        """The duration in seconds; `default` when `value` is none, which is a problem then."""
        return self._value_or(name, lambda: seconds(value, name), default)

    def storage(self, value: Storage | str | os.PathLike[str] | None) -> Storage:
        """The `Storage` itself, or the default one with this directory."""
        if value is None:
            return Storage()
        if isinstance(value, Storage):
            return value
        if isinstance(value, str | os.PathLike):
            path = os.fspath(value)
            if isinstance(path, str):
                return self._value_or("storage", lambda: Storage(directory=path), Storage())
        hint = 'give storage= a directory, as "./data", or a Storage(directory=...)'
        self.problem(f"storage ({value!r}) must be a directory or a Storage", hint)
        return Storage()

    def machine(self, value: Any) -> None:
        """Check that `value` makes state machines: a subclass of StateMachine, or a function."""
        if isinstance(value, StateMachine):
            name = type(value).__name__
            self.problem(
                f"state_machine ({name} object) must make a StateMachine, and is one itself",
                f"pass the class: {name}, not {name}(); each start makes a new one",
            )
        elif not callable(value):
            self.problem(
                f"state_machine ({value!r}) must make a StateMachine",
                "pass the class of your machine, or a function that returns a new one",
            )
        elif isinstance(value, type) and not issubclass(value, StateMachine):
            self.problem(
                f"state_machine ({value.__name__}) is no StateMachine",
                "derive your class from copycat.StateMachine",
            )

    def loop(self, value: object) -> None:
        """Check in which event loop the member is to run."""
        if value not in ("application", "thread"):
            self.problem(f'loop ({value!r}) must be "application" or "thread"')

    def options(self, **values: Any) -> ServerOptions:
        """The options, checked together. ConfigurationError with the problems of all arguments."""
        try:
            options = ServerOptions(**values)
        except ConfigurationError as error:
            self.problem(error.message, error.hint or "")
            options = None
        self.finish()
        if options is None:  # `finish` has raised
            raise ConfigurationError("the settings do not fit together")
        return options


def make_machine(factory: Callable[[], Any]) -> StateMachine:
    """Call `factory`. ConfigurationError when it raises, or returns no StateMachine."""
    name = getattr(factory, "__name__", repr(factory))
    try:
        machine = factory()
    except (ConfigurationError, KeyboardInterrupt):
        raise
    except BaseException as error:
        hint = f"state_machine= is called without arguments: pass lambda: {name}(...)"
        raise ConfigurationError(
            f"state_machine {name} made no machine: {text_of(error)}",
            hint=hint if isinstance(error, TypeError) else "see the error that it raised",
        ) from error
    if not isinstance(machine, StateMachine):
        if inspect.iscoroutine(machine):
            machine.close()
        raise ConfigurationError(
            f"state_machine made a {machine.__class__.__name__}, which is no StateMachine",
            hint="derive your class from copycat.StateMachine",
        )
    return machine


def parse_founders(members: tuple[Any, ...], own: Address) -> tuple[str, ...]:
    """The addresses of the members that `bootstrap` was given, as text. ConfigurationError names
    the members that cannot be used."""
    problems, hint = [], None
    founders: list[str] = []
    for member in members:
        if isinstance(member, list | set | frozenset) or (
            isinstance(member, tuple) and not _is_pair(member)
        ):
            raise ConfigurationError(
                f"{member!r} is no address", hint="give members one by one: bootstrap(*members)"
            )
        address = Address.parse(member)
        if str(address) in founders:
            problems.append(f"member {address} is given twice")
            hint = "each member has an address of its own; leave out the second"
        elif address.port == 0 or address.is_wildcard:
            problems.append(f"member {address} cannot be dialled")
            hint = "give the address and port that the other members use"
        elif _is_same_place(address, own):
            problems.append(f"member {address} is this member, whose address is given as {own}")
            hint = "write the address as in address=, since members know each other by that text"
        founders.append(str(address))
    if problems:
        raise ConfigurationError("; ".join(problems), hint=hint)
    return tuple(founders)


def _is_pair(member: tuple[Any, ...]) -> bool:
    return len(member) == 2 and isinstance(member[1], int)


def _is_same_place(address: Address, own: Address) -> bool:
    """True for the same port of `localhost` and of 127.0.0.1 or ::1."""
    hosts = {address.host, own.host}
    return address.port == own.port and (
        hosts in ({"localhost", "127.0.0.1"}, {"localhost", "::1"})
    )
