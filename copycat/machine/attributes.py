"""The state of a machine: all its attributes, wherever Python keeps them.

A class with `__slots__` keeps some of them outside of the object's dictionary. They are state
like the others: what is left out here is lost with the next snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MemberDescriptorType
from typing import Any

__all__ = ["BINDING", "attributes_of", "replace_attributes", "slots_of"]

BINDING = "_binding"
"""The attribute that `machine.bind` sets; no part of the state."""


def slots_of(kind: type[Any]) -> dict[str, MemberDescriptorType]:
    """The slots of a class and its bases by the name of the attribute; of two the outer one."""
    return {
        name: slot
        for base in reversed(kind.__mro__)
        for name, slot in vars(base).items()
        if type(slot) is MemberDescriptorType
    }


def attributes_of(machine: object) -> dict[str, Any]:
    """All attributes by name, those of slots last."""
    attributes = {name: value for name, value in vars(machine).items() if name != BINDING}
    for name, slot in slots_of(type(machine)).items():
        try:
            attributes[name] = slot.__get__(machine)
        except AttributeError:
            continue  # it was not set
    return attributes


def replace_attributes(machine: object, state: Mapping[str, Any]) -> None:
    """Put these in place of all attributes."""
    slots, own = slots_of(type(machine)), vars(machine)
    binding = own[BINDING]
    own.clear()
    for name in slots:
        if name not in state and hasattr(machine, name):
            object.__delattr__(machine, name)
    for name, value in state.items():
        if name in slots:
            object.__setattr__(machine, name, value)
        else:
            own[name] = value
    own[BINDING] = binding
