"""Is a recorded history linearizable? Two answers that do not trust each other.

(a) *The index witness*: every answer names its log index, so the order is given and only has to
agree with real time and with the replayed values: O(n log n) at any concurrency.
(b) *The search* (Wing and Gong, just in time, one key after the other) never looks at an index,
so a bug in the indexes cannot hide itself. Commands of one session form a chain (I18): only its
first open operation can be next. That bounds the search by the number of sessions.

An operation whose answer never came returns at infinity: it may have taken effect at any time
after it was asked, or never.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from copycat.errors import InvariantError

__all__ = ["NEVER", "UNKNOWN", "Operation", "check_linearizable", "check_witness"]

NEVER = math.inf
"""`returned_us` of an operation that was never answered."""


class _Unknown:
    """The result of an operation that was never answered."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()


class Operation(msgspec.Struct, kw_only=True):
    """One operation of one client: what it asked, when, and what it heard.

    chain: commands of one session share one; neighbours in `number` order.
    kind: "put", "lend", "alarm", "delete", "hush", "cas" and "get" on a register,
    "hold" and "let_go" on a token, "append" and "items" on a list.
    index: the log index that the answer named; of an unanswered command, where the checker
    found it in the log; 0 when nowhere.
    """

    chain: Hashable
    number: int
    kind: str
    key: int
    arguments: tuple[int, ...]
    invoked_us: int
    returned_us: float = NEVER
    result: object = UNKNOWN
    index: int = 0
    folded: tuple[int, int] | None = None
    """The result of "items" as the search compares it, once it was needed."""

    @property
    def is_query(self) -> bool:
        return self.kind in ("get", "items")

    def summary(self) -> str:
        """One line for a report."""
        return (
            f"{self.chain}#{self.number} {self.kind}(k{self.key}, "
            f"{', '.join(map(str, self.arguments))}) -> {self.result!r} @{self.index} "
            f"[{self.invoked_us / 1e6:.6f}, {self.returned_us / 1e6:.6f}]"
        )


def _violated(rule: str, message: str, operations: Iterable[Operation]) -> InvariantError:
    lines = "\n".join(operation.summary() for operation in operations)
    return InvariantError(f"{rule}: {message}", state=lines, rule=rule)


# --- (a) the index witness ----------------------------------------------------------------


def check_witness(operations: Sequence[Operation]) -> None:
    """Order by index agrees with real time: what returned before another was asked stands
    before it; a command strictly, a query at or above. Raises InvariantError (I14)."""
    returned = sorted(
        (one for one in operations if one.returned_us != NEVER), key=lambda one: one.returned_us
    )
    asked = sorted(
        (one for one in operations if one.index), key=lambda one: (one.invoked_us, one.index)
    )
    newest: Operation | None = None
    at = 0
    for operation in asked:
        while at < len(returned) and returned[at].returned_us < operation.invoked_us:
            if newest is None or returned[at].index > newest.index:
                newest = returned[at]
            at += 1
        if newest is None:
            continue
        least = newest.index + (0 if operation.is_query else 1)
        if operation.index < least:
            raise _violated(
                "I14", "an operation stands before one that had returned", [newest, operation]
            )


# --- (b) the search -----------------------------------------------------------------------

_LIST_START = (0, 0)
_PLACES = {"append": "list", "items": "list", "hold": "token", "let_go": "token"}
"""Where an operation acts; all others on the register of its key."""


class _Lent(NamedTuple):
    """A register whose value may be gone at any time: when, log time alone knows (C25)."""

    value: int


def _value(state: Hashable) -> Hashable:
    return state.value if isinstance(state, _Lent) else state


def _step(state: Hashable, operation: Operation) -> tuple[bool, Hashable]:
    """Whether `operation` may return what it did in `state`, and the state after it."""
    known, result = operation.result is not UNKNOWN, operation.result
    match operation.kind:
        case "put" | "alarm" | "hold":
            return (not known or result == _value(state)), operation.arguments[0]
        case "lend":
            return (not known or result == _value(state)), _Lent(operation.arguments[0])
        case "delete" | "hush" | "let_go":
            return (not known or result == _value(state)), None
        case "cas":
            expected, value = operation.arguments
            swapped = _value(state) == expected
            after = _Lent(value) if isinstance(state, _Lent) else value
            return (not known or result is swapped), after if swapped else state
        case "get":
            return (not known or result == _value(state)), state
        case "append":
            length, chain = state if isinstance(state, tuple) else _LIST_START
            longer = (length + 1, hash((chain, operation.arguments[0])))
            return (not known or result == longer[0]), longer
        case _:
            if operation.folded is None:
                operation.folded = _fold(result)
            return (not known or operation.folded == (state or _LIST_START)), state


def _fold(items: object) -> tuple[int, int]:
    state = _LIST_START
    for item in items if isinstance(items, list) else ():
        state = (state[0] + 1, hash((state[1], item)))
    return state


class _Chain:
    """Operations of which only the first open one can be next."""

    def __init__(self, operations: list[Operation]) -> None:
        self.operations = operations
        self.must_return = [NEVER] * (len(operations) + 1)
        """Earliest return among this position and all after it; NEVER at the end."""
        for at in range(len(operations) - 1, -1, -1):
            self.must_return[at] = min(self.must_return[at + 1], operations[at].returned_us)


def _chains(operations: Sequence[Operation]) -> list[_Chain]:
    by_chain: dict[Hashable, list[Operation]] = {}
    for operation in operations:
        by_chain.setdefault(operation.chain, []).append(operation)
    return [_Chain(sorted(one, key=lambda o: o.number)) for one in by_chain.values()]


def check_linearizable(operations: Sequence[Operation], states_max: int = 60_000) -> bool:
    """True when every key's history has a linear order; InvariantError when one has none.

    False when the search gave up on some key after `states_max` states (nothing is claimed).
    """
    decided = True
    by_key: dict[tuple[str, int], list[Operation]] = {}
    for one in operations:
        by_key.setdefault((_PLACES.get(one.kind, "register"), one.key), []).append(one)
    for ops in by_key.values():
        answered = [one for one in ops if not (one.is_query and one.returned_us == NEVER)]
        decided &= _search(_chains(answered), states_max)
    return decided


def _deadlines(chains: list[_Chain], positions: Sequence[int]) -> list[float]:
    return [chain.must_return[at] for chain, at in zip(chains, positions, strict=True)]


def _take_reads(chains: list[_Chain], positions: list[int], state: Hashable) -> list[float]:
    """Take at once every open operation that fits and changes nothing; the deadlines then.

    If there is a linear order with such an operation later, there is one with it now: nothing
    has to come before it any more, and nobody sees the difference. Else every subset of
    concurrent reads would be a state of its own. A lend is never such an operation: where it
    finds the value that it leaves, it may still be what lets that value expire.
    """
    while True:
        deadlines = _deadlines(chains, positions)
        deadline = min(deadlines, default=NEVER)
        moved = False
        for place, chain in enumerate(chains):
            while positions[place] < len(chain.operations):
                operation = chain.operations[positions[place]]
                if operation.result is UNKNOWN or operation.invoked_us > deadline:
                    break
                if operation.kind == "lend" or _step(state, operation) != (True, state):
                    break
                positions[place] += 1
                moved = True
        if not moved:
            return deadlines


def _search(chains: list[_Chain], states_max: int) -> bool:
    start = [0] * len(chains)
    _take_reads(chains, start, None)
    stack: list[tuple[tuple[int, ...], Hashable]] = [(tuple(start), None)]
    seen: set[tuple[tuple[int, ...], Hashable]] = {stack[0]}
    furthest = stack[0][0]
    while stack:
        positions, state = stack.pop()
        if sum(positions) > sum(furthest):
            furthest = positions
        deadlines = _deadlines(chains, positions)
        deadline = min(deadlines, default=NEVER)
        if deadline == NEVER:
            return True
        if len(seen) > states_max:
            return False
        successors = []
        for place, chain in enumerate(chains):
            at = positions[place]
            if at == len(chain.operations) or chain.operations[at].invoked_us > deadline:
                continue
            allowed, after = _step(state, chain.operations[at])
            if not allowed:
                continue
            moved = list(positions)
            moved[place] += 1
            _take_reads(chains, moved, after)
            new = (tuple(moved), after)
            if new not in seen:
                seen.add(new)
                successors.append((deadlines[place], place, new))
        if isinstance(state, _Lent):  # its time may be over now
            moved = list(positions)
            _take_reads(chains, moved, None)
            new = (tuple(moved), None)
            if new not in seen:
                seen.add(new)
                successors.append((NEVER, -1, new))
        # The most pressing first: a linear history is then found almost without a detour.
        successors.sort(reverse=True)
        stack += [new for _, _, new in successors]
    heads = [
        chain.operations[at]
        for chain, at in zip(chains, furthest, strict=True)
        if at < len(chain.operations)
    ]
    raise _violated("I14", "no order of these operations is linear; stuck at", heads)
