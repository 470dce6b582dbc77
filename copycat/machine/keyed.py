"""What `@command(key=..., tombstone=..., reads=..., expires=...)` means, checked and compiled."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from datetime import timedelta
from operator import attrgetter
from typing import Any, NamedTuple

from copycat.errors import ConfigurationError
from copycat.machine.release_tracker import release_of
from copycat.protocol.operations import Command, CompactionMode, Operation
from copycat.types import Release

__all__ = ["Keyed", "Special", "check_keyed", "keyed_of"]


class Special(NamedTuple):
    """What makes a keyed command more than a blind write with a fixed class."""

    is_tombstone: bool
    reads: bool
    expires: Callable[[Any], float | timedelta | None] | None
    policy: Callable[[Operation[Any]], Release] | None
    """Its class, where the user's `compaction()` decides it."""


class Keyed(NamedTuple):
    """How a class of commands is keyed."""

    key: Callable[[Any], Hashable]
    policy: Release
    """The policy of its entries."""
    special: Special | None


def check_keyed(label: str, fields: Sequence[str], operation: Any, place: str = "") -> None:
    """ConfigurationError that says what is wrong with the key settings of a command's class."""
    key, expires = operation.__key__, operation.__expires__
    problem = ""
    for name, value in (("key", key), ("expires", expires)):
        if value is None or callable(value):
            continue
        if not isinstance(value, str):
            problem = f"{name} is {value!r}, neither a parameter's name nor a function"
        elif value not in fields:
            known = ", ".join(fields) or "none"
            problem = f"{name} names {value!r}, which is no parameter (there are: {known})"
    flags = {"tombstone": operation.__tombstone__, "reads": operation.__reads__}
    used = [name for name, value in flags.items() if value]
    used += ["expires"] if expires is not None else []
    if used and key is None:
        problem = f"{used[0]} without a key"
    elif len(used) > 1:
        problem = "only one of tombstone, reads and expires can be"
    for name, value in flags.items():
        if not isinstance(value, bool):
            problem = f"{name} is {value!r}, neither True nor False"
    if problem:
        where = f" ({place})" if place else ""
        raise ConfigurationError(
            f"{label}: {problem}{where}",
            hint='name a parameter, as in @command(key="name", tombstone=True), or give a '
            "function of the operation",
        )


def keyed_of(operation: type[Command[Any]], *, snapshottable: bool) -> Keyed | None:
    """How the commands of a class are keyed; None when they are not."""
    label = operation.__operation_name__
    check_keyed(label, operation.__struct_fields__, operation)
    key, expires = operation.__key__, operation.__expires__
    if key is None:
        return None

    def policy(command: Operation[Any]) -> Release:
        mode: CompactionMode = command.compaction()  # type: ignore[attr-defined]
        return release_of(CompactionMode(mode), keyed=True, snapshottable=snapshottable)

    is_fixed = operation.compaction is Command.compaction
    special = Special(
        operation.__tombstone__,
        operation.__reads__,
        attrgetter(expires) if isinstance(expires, str) else expires,
        None if is_fixed else policy,
    )
    mode = operation.__compaction__
    return Keyed(
        key if callable(key) else attrgetter(key),
        release_of(mode, keyed=True, snapshottable=snapshottable),
        special if any(special) else None,
    )
