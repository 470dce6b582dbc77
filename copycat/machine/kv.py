"""A key-value machine: the example, the benchmark and the tests use it."""

from __future__ import annotations

from copycat.machine.machine import StateMachine
from copycat.machine.operation_methods import command, query

__all__ = ["KeyValueStore"]


class KeyValueStore(StateMachine):
    """Bytes under strings, and lists of bytes to append to.

    put, swap and delete overwrite their key whatever it was (that swap and delete answer with
    what was there does not matter: an entry stays until that answer has arrived). So they
    release what was there before. compare_and_set looks first, so it stays until one of them
    overwrites the key. Lists grow by every append: only a snapshot replaces their entries.
    """

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.lists: dict[str, list[bytes]] = {}

    @command(key="key")
    def put(self, key: str, value: bytes) -> None:
        """Set a key."""
        self.values[key] = value

    @command(key="key")
    def swap(self, key: str, value: bytes) -> bytes | None:
        """Set a key; its value before, None when it had none."""
        before = self.values.get(key)
        self.values[key] = value
        return before

    @command(key="key", tombstone=True)
    def delete(self, key: str) -> bool:
        """Remove a key; whether it was there."""
        return self.values.pop(key, None) is not None

    @command(key="key", reads=True)
    def compare_and_set(self, key: str, expected: bytes | None, value: bytes) -> bool:
        """Set a key that holds `expected` (None: that is not there); whether it was set."""
        if self.values.get(key) != expected:
            return False
        self.values[key] = value
        return True

    @command
    def append(self, key: str, item: bytes) -> int:
        """Append to a list; its length now."""
        items = self.lists.setdefault(key, [])
        items.append(item)
        return len(items)

    @query
    def get(self, key: str) -> bytes | None:
        """The value of a key."""
        return self.values.get(key)

    @query
    def items(self, key: str) -> list[bytes]:
        """A list, whole."""
        return self.lists.get(key, [])

    @query
    def size(self) -> int:
        """How many keys there are."""
        return len(self.values)
