"""What in a value has no encoding, and where: for the messages about such a value."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import msgspec

__all__ = ["INTEGERS", "Obstacle", "obstacles_in"]

INTEGERS = "an integer must be from -2**63 to 2**64 - 1: send a larger one as str or bytes"
"""The hint."""
_DEPTH_MAX = 200

_encode = msgspec.msgpack.Encoder().encode


class Obstacle(NamedTuple):
    """Sorted by what it is, so that members whose sets and dicts have another order agree.

    path: as in `.lines[3]`, to be put behind the value's name; "" for the value itself.
    """

    problem: str
    path: str
    is_integer: bool = False


def obstacles_in(value: Any) -> list[Obstacle]:
    """All that is in the way; empty when nothing was found."""
    search = _Search()
    search.visit(value, "", 0)
    return sorted(search.obstacles)


class _Search:
    def __init__(self) -> None:
        self.obstacles: list[Obstacle] = []
        self._visited: dict[int, Any] = {}

    def visit(self, value: Any, path: str, depth: int) -> None:
        if type(value) in {type(None), bool, float, bytes}:
            return
        if isinstance(value, int):
            if not -(1 << 63) <= value < 1 << 64:
                bits = value.bit_length()
                problem = f"an integer {'below -2**63' if value < 0 else 'above 2**64 - 1'}"
                problem = f"{problem} ({bits} bits)"
                self.obstacles.append(Obstacle(problem, path, is_integer=True))
            return
        if isinstance(value, str):
            self._try(value, path)
            return
        if id(value) in self._visited:
            return
        self._visited[id(value)] = value
        if depth > _DEPTH_MAX:
            self.obstacles.append(Obstacle(f"something more than {_DEPTH_MAX} deep", path))
            return
        before = len(self.obstacles)
        for name, part in _parts(value):
            self.visit(part, f"{path}{name}", depth + 1)
        if len(self.obstacles) == before and not isinstance(value, list | dict):
            self._try(value, path)

    def _try(self, value: Any, path: str) -> None:
        try:
            _encode(value)
        except UnicodeEncodeError:
            self.obstacles.append(Obstacle("text that is no Unicode (a lone surrogate)", path))
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  (the value's own code may raise anything)
            self.obstacles.append(Obstacle(f"a value of type `{type(value).__name__}`", path))


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield f" (the key {_short(key)})", key
            yield f"[{_short(key)}]", item
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield f"[{number}]", item
    elif isinstance(value, AbstractSet):
        for item in value:
            yield f" (the member {_short(item)})", item
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield f".{name}", getattr(value, name)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield f".{field.name}", getattr(value, field.name, None)


def _short(value: Any) -> str:
    """Of a key or member; others are named by their type."""
    if isinstance(value, int) and value.bit_length() >= 64:
        return f"of {value.bit_length()} bits"
    if not isinstance(value, str | bytes | int):
        return f"of type {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
