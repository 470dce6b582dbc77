"""The state machine of the members: registers and lists, and the order in which tokens came.

Every command has a token that no other command has: the value that it writes, or the item that
it appends. What is applied twice, lost or reordered is therefore visible in `order`. `note`
alone is not counted there: it is a blind write with a key, so that logs have entries to compact.
"""

from __future__ import annotations

from copycat.machine import StateMachine, command, query

__all__ = ["NOTE_KEYS", "ChaosMachine"]

NOTE_KEYS = 1 << 32
"""From here on, keys are those of notes."""


class ChaosMachine(StateMachine):
    """Registers and lists of integers under integer keys."""

    def __init__(self) -> None:
        self.registers: dict[int, int] = {}
        self.notes: dict[int, int] = {}
        self.lists: dict[int, list[int]] = {}
        self.order: list[int] = []

    @command
    def put(self, key: int, value: int) -> int | None:
        """Set a register; the value before."""
        self.order.append(value)
        before = self.registers.get(key)
        self.registers[key] = value
        return before

    @command
    def cas(self, key: int, expected: int | None, value: int) -> bool:
        """Set a register if its value is `expected`; returns whether it was."""
        self.order.append(value)
        if self.registers.get(key) != expected:
            return False
        self.registers[key] = value
        return True

    @command
    def append(self, key: int, token: int) -> int:
        """Append to a list; its length now."""
        self.order.append(token)
        items = self.lists.setdefault(key, [])
        items.append(token)
        return len(items)

    @command(key="key")
    def note(self, key: int, value: int) -> int | None:
        """Set a note; the value before."""
        before = self.notes.get(key)
        self.notes[key] = value
        return before

    @query
    def get(self, key: int) -> int | None:
        """The value of a register, or of a note."""
        return self.notes.get(key) if key >= NOTE_KEYS else self.registers.get(key)

    @query
    def items(self, key: int) -> list[int]:
        """All tokens of a list, in order."""
        return list(self.lists.get(key, []))

    @query
    def whole(self) -> tuple[dict[int, int], dict[int, int], dict[int, list[int]], list[int]]:
        """The whole state: registers, notes, lists, order."""
        return self.registers, self.notes, self.lists, self.order
