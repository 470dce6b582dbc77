"""The machine that the simulated clients use, twice: as shipped code would write it, and as a
reference that keeps the whole history of every key.

Registers are keyed, so that their entries leave the log: blind writes, deletions, writes that
expire, commands that read first, and some that touch a timer, which only a snapshot replaces
(C20). Commits are released by hand. Lists are neither keyed nor released by hand: only a
snapshot replaces their entries.

Appends of unique tokens make a command that is applied twice, lost or reordered visible; `fail`
raises before it has any effect.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

from copycat.machine import Commit, Scheduled, StateMachine, command, query
from copycat.protocol.operations import CompactionMode, Operation, encode_operation
from copycat.seeded_random import SimRandom
from copycat.sim.checkers.compaction import Write
from copycat.sim.options import WorkloadOptions

__all__ = ["FAILED", "PROBE_KEY", "ReferenceModel", "SimMachine", "draw_command", "encode", "make"]

PROBE_KEY = 99
"""The list that only probes of the calm phase append to."""


COMMIT_KEYS = 1000
"""Added to the key of a commit in the reference, whose registers have the same small keys."""


class SimMachine(StateMachine):
    """A state machine with registers, lists and commits under small integer keys."""

    def __init__(self) -> None:
        super().__init__()
        self.registers: dict[int, int] = {}
        self.lists: dict[int, list[int]] = {}
        self.commits: dict[int, Commit[Any]] = {}
        self.pending: dict[int, Scheduled] = {}
        self.rung: dict[int, int] = {}

    @command(key="key")
    def put(self, key: int, value: int) -> int | None:
        """Set a register; the value before."""
        before = self.registers.get(key)
        self.registers[key] = value
        return before

    @command(key="key", expires=lambda operation: operation.ms / 1000)
    def lend(self, key: int, value: int, ms: int) -> int | None:
        """Set a register until `ms` milliseconds of log time have passed; the value before."""
        before = self.registers.get(key)
        self.registers[key] = value
        return before

    @command(key="key", tombstone=True)
    def delete(self, key: int) -> int | None:
        """Empty a register; the value before."""
        return self.registers.pop(key, None)

    @command(key="key")
    def alarm(self, key: int, value: int, ms: int) -> int | None:
        """Set a register, and schedule a callback that counts; returns the value before."""
        self.pending[key] = self.executor.schedule(ms / 1000, partial(self._ring, key))
        return self.put(key, value)

    def _ring(self, key: int) -> None:
        self.rung[key] = self.rung.get(key, 0) + 1
        self.pending.pop(key, None)

    @command(key="key", tombstone=True)
    def hush(self, key: int) -> int | None:
        """Empty a register, and cancel its callback; returns the value before."""
        if key in self.pending:
            self.pending.pop(key).cancel()
        return self.registers.pop(key, None)

    @command(compaction=CompactionMode.RELEASE)
    def hold(self, key: int, token: int) -> int | None:
        """Keep this entry's commit in place of the earlier one; returns the earlier one's
        token."""
        old = self.commits.get(key)
        self.commits[key] = self.commit
        if old is not None:
            old.release()
        return None if old is None else old.operation.token

    @command(compaction=CompactionMode.TOMBSTONE)
    def let_go(self, key: int) -> int | None:
        """Release the commit that was kept; returns its token."""
        old = self.commits.pop(key, None)
        if old is not None:
            old.release()
        self.commit.release()
        return None if old is None else old.operation.token

    @command(key="key", reads=True)
    def cas(self, key: int, expected: int | None, value: int) -> bool:
        """Set a register if its value is `expected`; returns whether it was."""
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

    @command(key="key")
    def fail(self, key: int, token: int) -> None:
        """Raise before any effect: the error is the result (F23)."""
        raise ValueError(f"asked to fail with {token} on {key}")

    def _append(self, key: int, token: int) -> int:
        items = self.lists.setdefault(key, [])
        items.append(token)
        return len(items)

    def on_key_expired(self, key: Any) -> None:
        """The time of a value is over: empty the register."""
        self.registers.pop(key, None)

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
    "lend": SimMachine.lend,
    "delete": SimMachine.delete,
    "alarm": SimMachine.alarm,
    "hush": SimMachine.hush,
    "hold": SimMachine.hold,
    "let_go": SimMachine.let_go,
    "cas": SimMachine.cas,
    "append": SimMachine.append,
    "fail": SimMachine.fail,
    "get": SimMachine.get,
    "items": SimMachine.items,
}


def make(kind: str, key: int, arguments: tuple[int, ...]) -> Operation[Any]:
    """The operation that a client submits. An append with a second argument is that large."""
    if kind == "append" and len(arguments) == 2:
        return SimMachine.pad(key, arguments[0], bytes(arguments[1]))
    return _MAKERS[kind](key, *arguments)


def encode(kind: str, key: int, arguments: tuple[int, ...]) -> bytes:
    """The same as bytes."""
    return encode_operation(make(kind, key, arguments))


def draw_command(
    random: SimRandom, options: WorkloadOptions, token: int
) -> tuple[str, int, tuple[int, ...]]:
    """One command: mostly appends of `token`, which nobody else appends."""
    values = options.values
    key, draw = random.below(options.keys), random.below(100)
    if options.is_keyed:
        return _draw_keyed(random, key, values, token, draw)
    if draw < 50:
        return "append", key, (token,)
    if draw < 55:
        return "append", key, (token, random.below(random.pick((50, 500, 3_000))))
    if draw < 85:
        return "put", key, (random.below(values),)
    if draw < 97:
        return "cas", key, (random.below(values), random.below(values))
    return "fail", key, (token,)


def _draw_keyed(
    random: SimRandom, key: int, values: int, token: int, draw: int
) -> tuple[str, int, tuple[int, ...]]:
    """Of a workload whose log is worth cleaning: mostly on registers."""
    if draw < 30:
        return "put", key, (random.below(values),)
    if draw < 42:
        return "delete", key, ()
    if draw < 52:
        return "lend", key, (random.below(values), random.pick((0, 20, 300, 3_000)))
    if draw < 62:
        return "cas", key, (random.below(values), random.below(values))
    if draw < 66:
        return "alarm", key, (random.below(values), random.pick((0, 50, 1_000)))
    if draw < 69:
        return "hush", key, ()
    if draw < 77:
        return "hold", key, (token,)
    if draw < 82:
        return "let_go", key, ()
    if draw < 85:
        return "fail", key, (token,)
    return "append", key, (token, random.pick((0, 0, 50, 500)))


class _Failed:
    def __repr__(self) -> str:
        return "FAILED"


FAILED = _Failed()
"""What the reference answers where the machine raises."""


class ReferenceModel:
    """The same operations over plain values, remembering what each key held at each index."""

    def __init__(self) -> None:
        self._indexes: dict[int, list[int]] = {}
        self._values: dict[int, list[int | None]] = {}
        self._list_indexes: dict[int, list[int]] = {}
        self._lists: dict[int, list[int]] = {}
        self._dues: dict[int, tuple[int, int]] = {}
        """Log time after which what a register holds expires, and the entry that says so."""
        self.expired = 0
        self.writes: dict[Hashable, list[Write]] = {}
        """By key, in order. One that expired deletes too, and is there a second time."""

    def expire(self, index: int, time_ms: int) -> None:
        """Entry `index` brings log time to `time_ms`: what is due expires before it is applied."""
        if self._dues:
            for key in [key for key, (due_ms, _) in self._dues.items() if due_ms < time_ms]:
                self.writes[key].append(Write(self._dues.pop(key)[1], True, time_ms))
                self._set(index, key, None)
                self.expired += 1

    def _set(self, index: int, key: int, value: int | None) -> None:
        self._indexes.setdefault(key, []).append(index)
        self._values.setdefault(key, []).append(value)

    def apply(
        self, index: int, kind: str, key: int, arguments: tuple[int, ...], time_ms: int = 0
    ) -> object:
        """Execute one command at a log index above all earlier ones; returns its result."""
        if kind == "append":
            self._list_indexes.setdefault(key, []).append(index)
            items = self._lists.setdefault(key, [])
            items.append(arguments[0])
            return len(items)
        if kind == "fail":
            return FAILED
        if kind in ("hold", "let_go"):
            key += COMMIT_KEYS
        deletes = kind in ("delete", "hush", "let_go")
        due_ms = time_ms + arguments[1] if kind == "lend" else 0
        write = Write(index, deletes, time_ms, due_ms, kind == "cas")
        self.writes.setdefault(key, []).append(write)
        before = self._values[key][-1] if key in self._values else None
        if kind == "cas":
            if before == arguments[0]:
                self._set(index, key, arguments[1])
            return before == arguments[0]
        self._dues.pop(key, None)
        self._set(index, key, arguments[0] if arguments else None)
        if kind == "lend":
            self._dues[key] = due_ms, index
        return before

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
