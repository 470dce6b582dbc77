"""`snapshot_aliases`: what older snapshots of a machine call otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from copycat.errors import ConfigurationError

__all__ = ["Aliases"]


class Aliases:
    """The table of one machine's class.

    {"OldClass": NewClass}: a class was renamed. {"Class.old": "new"}: a field, or a member of an
    enum, was. {"old": "new"}: an attribute or a method of the machine was. None in place of the
    new name: what older snapshots have there is left out.
    """

    def __init__(self, machine: type[Any]) -> None:
        table = getattr(machine, "snapshot_aliases", {})
        self.classes: dict[str, type[Any]] = {}
        self._names: dict[str, str | None] = {}
        if not isinstance(table, Mapping):
            raise _bad(machine, f"is a {type(table).__name__}, and no dict")
        for old, new in table.items():
            if not isinstance(old, str):
                raise _bad(machine, f"has the key {old!r}, which is no name")
            if isinstance(new, type):
                self.classes[old] = new
            elif new is None or isinstance(new, str):
                self._names[old] = new
            else:
                raise _bad(machine, f"has {new!r} for {old!r}")

    def attribute(self, old: str) -> str | None:
        """The name now of an attribute or method of the machine; None when it is left out."""
        return self._names.get(old, old)

    def field(self, old_class: str, new_class: str, old: str) -> str | None:
        """The name now of a field or member. The class may be named as it was, or as it is."""
        for name in (old_class, new_class):
            if f"{name}.{old}" in self._names:
                return self._names[f"{name}.{old}"]
        return old


def _bad(machine: type[Any], problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"{machine.__name__}.snapshot_aliases {problem}",
        hint='as in {"OldClass": NewClass, "Class.old_field": "new_field", "attribute": None}',
    )
