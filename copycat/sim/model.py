"""The machine that the simulated clients use, twice: as shipped code would write it, and as a
reference that keeps the whole history of every key.

Appends of unique tokens make a command that is applied twice, lost or reordered visible; `fail`
has an effect that must survive the error it raises never having happened.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from copycat.machine import StateMachine, command, query
from copycat.protocol.operations import Operation, encode_operation
from copycat.sim.world import Dice

__all__ = ["FAILED", "PROBE_KEY", "ReferenceModel", "SimMachine", "draw_command", "encode"]

PROBE_KEY = 99
"""The list that only probes of the calm phase append to."""


class SimMachine(StateMachine):
    """Registers and lists under small integer keys."""

    def __init__(self) -> None:
        super().__init__()
        self.registers: dict[int, int] = {}
        self.lists: dict[int, list[int]] = {}

    @command
    def put(self, key: int, value: int) -> int | None:
        """Set a register; the value before."""
        before = self.registers.get(key)
        self.registers[key] = value
        return before

    @command
    def cas(self, key: int, expected: int | None, value: int) -> bool:
        """Set a register if it holds `expected`; whether it did."""
        if self.registers.get(key) != expected:
            return False
        self.registers[key] = value
        return True

    @command
    def append(self, key: int, token: int) -> int:
        """Append to a list; its length now."""
        return self._append(key, token)

    @command
    def pad(self, key: int, token: int, padding: bytes) -> int:
        """Append to a list, with bytes that only make the entry large."""
        return self._append(key, token)

    @command
    def fail(self, key: int, token: int) -> None:
        """Raise before any effect: the error is the result (F23)."""
        raise ValueError(f"asked to fail with {token} on {key}")

    def _append(self, key: int, token: int) -> int:
        items = self.lists.setdefault(key, [])
        items.append(token)
        return len(items)

    @query
    def get(self, key: int) -> int | None:
        """The value of a register."""
        return self.registers.get(key)

    @query
    def items(self, key: int) -> list[int]:
        """All tokens of a list, in order."""
        return list(self.lists.get(key, []))


_MAKERS: dict[str, Callable[..., Operation[Any]]] = {
    "put": SimMachine.put,
    "cas": SimMachine.cas,
    "append": SimMachine.append,
    "fail": SimMachine.fail,
    "get": SimMachine.get,
    "items": SimMachine.items,
}


def encode(kind: str, key: int, arguments: tuple[int, ...]) -> bytes:
    """The operation as a client sends it. An append with a second argument is that large."""
    if kind == "append" and len(arguments) == 2:
        return encode_operation(SimMachine.pad(key, arguments[0], bytes(arguments[1])))
    return encode_operation(_MAKERS[kind](key, *arguments))


def draw_command(
    dice: Dice, keys: int, values: int, token: int
) -> tuple[str, int, tuple[int, ...]]:
    """One command: mostly appends of `token`, which nobody else appends."""
    key, draw = dice.below(keys), dice.below(100)
    if draw < 50:
        return "append", key, (token,)
    if draw < 55:
        return "append", key, (token, dice.below(dice.pick((50, 500, 3_000))))
    if draw < 85:
        return "put", key, (dice.below(values),)
    if draw < 97:
        return "cas", key, (dice.below(values), dice.below(values))
    return "fail", key, (token,)


class _Failed:
    def __repr__(self) -> str:
        return "FAILED"


FAILED = _Failed()
"""What the reference answers where the machine raises."""


class ReferenceModel:
    """The same operations over plain values, remembering what each key held at each index."""

    def __init__(self) -> None:
        self._indexes: dict[int, list[int]] = {}
        self._values: dict[int, list[int]] = {}
        self._list_indexes: dict[int, list[int]] = {}
        self._lists: dict[int, list[int]] = {}

    def apply(self, index: int, kind: str, key: int, arguments: tuple[int, ...]) -> object:
        """Carry out one command at a log index above all before; its result."""
        if kind == "append":
            self._list_indexes.setdefault(key, []).append(index)
            items = self._lists.setdefault(key, [])
            items.append(arguments[0])
            return len(items)
        if kind == "fail":
            return FAILED
        before = self._values[key][-1] if key in self._values else None
        if kind == "cas" and before != arguments[0]:
            return False
        self._indexes.setdefault(key, []).append(index)
        self._values.setdefault(key, []).append(arguments[-1])
        return True if kind == "cas" else before

    def read(self, index: int, kind: str, key: int) -> object:
        """What a query must answer right after entry `index` was applied."""
        if kind == "items":
            end = bisect_right(self._list_indexes.get(key, []), index)
            return self._lists.get(key, [])[:end]
        at = bisect_right(self._indexes.get(key, []), index)
        return self._values[key][at - 1] if at else None

    def tokens(self) -> dict[int, list[int]]:
        """Every list, whole."""
        return self._lists
