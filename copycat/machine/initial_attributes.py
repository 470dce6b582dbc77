"""The attributes of a new machine: what a snapshot that lacks some of them leaves in place."""

from __future__ import annotations

import copy
import enum
import inspect
import logging
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from types import CodeType
from typing import Any
from uuid import UUID

from copycat.machine.aliases import Aliases
from copycat.machine.attributes import attributes_of
from copycat.machine.class_schema import (
    check_removed_field,
    fields_of,
    fits,
    hints_of,
    is_record,
    mismatch,
)

__all__ = ["InitialAttributes"]

_LOG = logging.getLogger("copycat.machine")

_CONSTANT = (
    *(type(None), bool, int, float, complex, str, bytes, enum.Enum),
    *(date, datetime, time, timedelta, Decimal, UUID),
)
_WIDER: dict[str, tuple[type[Any], ...]] = {"int": (bool,), "float": (bool, int)}
"""Numbers that a wider type holds: as a machine that replays has them."""


class InitialAttributes:
    """What `__init__` and `configure` gave a machine. Made before anything is applied.

    Values that cannot be part of a snapshot (a lock, a socket) are kept as they are.
    """

    def __init__(self, machine: Any, aliases: Aliases) -> None:
        self._machine = machine
        self._aliases = aliases
        self._values = _copies(attributes_of(machine))
        self.kinds = {name: _kind_of(value) for name, value in self._values.items()}
        """What each attribute was: recorded in snapshots."""

    @cached_property
    def _mentioned(self) -> set[str]:
        return _mentioned_in(type(self._machine))

    def merged(self, state: dict[str, Any], kinds: dict[str, str]) -> dict[str, Any]:
        """All attributes, where a snapshot has `state`. MachineMismatchError names the one that
        does not fit.

        kinds: what a new machine had when the snapshot was written; empty when that is not known.
        """
        label, fresh = type(self._machine).__name__, _copies(self._values)
        renamed = {old: self._aliases.attribute(old) for old in state}
        result = {new: state[old] for old, new in renamed.items() if new is not None}
        added = {name: value for name, value in fresh.items() if name not in result}
        hints = hints_of(type(self._machine))
        for old, new in renamed.items():
            if new is None:
                continue
            if new in fresh:
                result[new] = self._fitted(label, new, kinds.get(old, ""), result[new], hints)
            elif old in kinds and not self._may_have(new, hints):
                check_removed_field(label, old, old, result[new], added)
                _LOG.warning(
                    "%s has no attribute %s any more: a snapshot's is left out", label, new
                )
                del result[new]
        ordered = {name: result.get(name, value) for name, value in fresh.items()}
        return ordered | result

    def _may_have(self, name: str, hints: dict[str, Any]) -> bool:
        """Whether the code may set or read this attribute, which a new machine does not have.

        What a property answers now is not in the place where the old value would be put.
        """
        if isinstance(inspect.getattr_static(type(self._machine), name, None), property):
            return False
        return name in hints or name in self._mentioned

    def _fitted(
        self, label: str, name: str, written: str, value: Any, hints: dict[str, Any]
    ) -> Any:
        """Where its type in a new machine is another one now, the code expects another one."""
        now = self.kinds[name]
        if not written or now in {written, "NoneType", _kind_of(value)}:
            return value
        if type(value) in _WIDER.get(now, ()):
            return type(self._values[name])(value)
        if self._aliases.classes.get(written) is type(self._values[name]):
            return value
        if name in hints and fits(value, hints[name]) and "(" not in written + now:
            return value
        problem = f"it has a {written}, and a new machine has a {now}"
        hint = (
            "keep the type, use another name, or define snapshot() and install(), where "
            f'reader.attributes["{name}"] is what the snapshot has'
        )
        raise mismatch(label, name, problem, hint)


def _mentioned_in(machine: type[Any]) -> set[str]:
    """Names in the code of a class: of all that a command may set later."""
    names: set[str] = set()
    for kind in machine.__mro__:
        for attribute in vars(kind).values():
            for function in _functions_of(attribute):
                _collect_names(inspect.unwrap(function).__code__, names)
    return names


def _functions_of(attribute: Any) -> Iterator[Any]:
    parts = ("function", "func", "__func__", "fget", "fset", "fdel")
    for one in (attribute, *(getattr(attribute, part, None) for part in parts)):
        if inspect.isfunction(one):
            yield one


def _collect_names(code: CodeType, names: set[str]) -> None:
    names.update(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _collect_names(constant, names)
        elif isinstance(constant, str):
            names.add(constant)  # getattr(self, "name")


def _copies(values: dict[str, Any]) -> dict[str, Any]:
    """Copies that share among them what the values share."""
    memo: dict[int, Any] = {}
    return {name: _copy(value, memo) for name, value in values.items()}


def _copy(value: Any, memo: dict[int, Any]) -> Any:
    if not _is_plain(value, set()):
        return value
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # noqa: BLE001  (a subclass of a container may have ideas of its own)
        return value


def _is_plain(value: Any, seen: set[int]) -> bool:
    if isinstance(value, _CONSTANT) or id(value) in seen:
        return True
    seen.add(id(value))
    parts: Iterable[Any]
    if isinstance(value, dict):
        parts = [*value, *value.values()]
    elif isinstance(value, bytearray):
        parts = ()
    elif isinstance(value, list | set | frozenset | deque) or type(value) is tuple:
        parts = value
    elif is_record(type(value)):
        parts = [getattr(value, name, None) for name in fields_of(type(value))]
    else:
        return False
    return all(_is_plain(part, seen) for part in parts)


def _kind_of(value: Any) -> str:
    """The type of a value, and what else the code relies on."""
    name = type(value).__qualname__
    if isinstance(value, defaultdict):
        return f"{name}({getattr(value.default_factory, '__name__', '')})"
    if isinstance(value, deque):
        return f"{name}({value.maxlen})"
    return name
