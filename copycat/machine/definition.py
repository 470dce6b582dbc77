"""What is wrong with the definition of a machine although Python accepts it."""

from __future__ import annotations

import inspect
import typing
from collections import deque
from collections.abc import Collection, Iterator
from typing import Any

from copycat.errors import ConfigurationError
from copycat.machine.attributes import attributes_of
from copycat.machine.machine import StateMachine, is_snapshottable
from copycat.machine.operation_methods import OperationMethod

__all__ = ["check_definition", "names_in"]

_CHANGEABLE = (bytearray, deque, dict, list, set)
_CONSTANT: tuple[Any, ...] = (typing.ClassVar, typing.Final)


def check_definition(machine: StateMachine, handlers: Collection[str]) -> None:
    """ConfigurationError when some of the state would be in no snapshot.

    handlers: names of the methods that answer operations.
    """
    _check_pair(machine, handlers)
    if not is_snapshottable(machine):
        _check_class_attributes(machine)


def names_in(machine: type[Any]) -> list[str]:
    """Names of all attributes, base classes first, in the order of their definition."""
    names: dict[str, None] = {}
    for kind in reversed(machine.__mro__):
        names.update(dict.fromkeys(vars(kind)))
    return list(names)


def _check_pair(machine: StateMachine, handlers: Collection[str]) -> None:
    """One of the two alone is never called: the attributes would be written instead."""
    is_defined = {
        name: name not in handlers and _is_method(inspect.getattr_static(machine, name, None))
        for name in ("snapshot", "install")
    }
    if is_defined["snapshot"] == is_defined["install"]:
        return
    has, lacks = ("snapshot", "install") if is_defined["snapshot"] else ("install", "snapshot")
    name = type(machine).__name__
    takes = "writer" if lacks == "snapshot" else "reader"
    raise ConfigurationError(
        f"{name} defines {has}() and no {lacks}(), so neither would be called",
        hint=f"define `def {lacks}(self, {takes})` too, or neither of them: then a snapshot holds "
        f"the attributes\nif {has}() has nothing to do with snapshots, give it another name",
    )


def _is_method(value: object) -> bool:
    return callable(value) and not isinstance(value, OperationMethod)


def _check_class_attributes(machine: StateMachine) -> None:
    own, constants = attributes_of(machine), set(_constants(type(machine)))
    for name in names_in(type(machine)):
        if name in own or name in constants or name.startswith("__") or name.isupper():
            continue
        value = inspect.getattr_static(type(machine), name)
        if isinstance(value, _CHANGEABLE):
            label, kind = f"{type(machine).__name__}.{name}", type(value).__name__
            raise ConfigurationError(
                f"{label} is a {kind} in the body of the class: all machines of this process "
                "share it, and no snapshot holds it",
                hint=f"set it in __init__, as in `self.{name} = ...`\nif no command changes it, "
                f"annotate it: `{name}: ClassVar[{kind}]`",
            )


def _constants(machine: type[Any]) -> Iterator[str]:
    """Names that are annotated with ClassVar or Final."""
    for kind in machine.__mro__:
        for name, annotation in inspect.get_annotations(kind).items():
            if _is_constant(annotation):
                yield name


def _is_constant(annotation: Any) -> bool:
    """Also as text, which is what `from __future__ import annotations` makes of it."""
    if isinstance(annotation, str):
        return "ClassVar" in annotation or "Final" in annotation
    return annotation in _CONSTANT or typing.get_origin(annotation) in _CONSTANT
