"""Is a recorded history linearizable? Two answers, neither of which relies on the other.

(a) *The index witness*: every answer names its log index, so the order is given and only has to
agree with real time and with the replayed values: O(n log n) at any concurrency.
(b) *The search* (Wing and Gong, just in time, one key after the other) relies on no index, so a
bug in the indexes cannot hide itself: an index only says what is tried first. Commands of one
session form a chain (I18): only its first open operation can be next. That bounds the search by
the number of sessions.

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
    """The result of "items" as the search compares it; set at the first comparison."""

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
    """A register whose value may expire at any time: only log time says when (C25)."""

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
        self.read_from = [_read_from(operation) for operation in operations] + [NEVER]
        """From when on the operation at each position may be taken as a read; NEVER for an
        operation that always changes something, and at the end."""


def _read_from(operation: Operation) -> float:
    """Most operations change nothing in some state, even a put of the value that is there."""
    is_read = operation.result is not UNKNOWN and operation.kind not in ("lend", "append")
    return operation.invoked_us if is_read else NEVER


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


def _take_reads(
    chains: list[_Chain], positions: list[int], deadlines: list[float], state: Hashable
) -> None:
    """Take at once every open operation that fits and changes nothing: `positions` moves over
    them, and `deadlines` (`must_return` of each chain at its position) with it.

    If there is a linear order with such an operation later, there is one with it now: nothing
    has to come before it any more, and nobody sees the difference. Else every subset of
    concurrent reads would be a state of its own. A lend is never such an operation: where it
    finds the value that it leaves, it may still be what lets that value expire.
    """
    deadline = min(deadlines, default=NEVER)
    while deadline != NEVER:  # at NEVER only operations are open that were never answered
        for place, chain in enumerate(chains):
            at = start = positions[place]
            while chain.read_from[at] <= deadline:
                if _step(state, chain.operations[at]) != (True, state):
                    break
                at += 1
            if at > start:
                positions[place] = at
                deadlines[place] = chain.must_return[at]
        later = min(deadlines)
        if later == deadline:
            return  # every open operation was tried
        deadline = later


def _search(chains: list[_Chain], states_max: int) -> bool:
    start = [0] * len(chains)
    _take_reads(chains, start, [chain.must_return[0] for chain in chains], None)
    stack: list[tuple[tuple[int, ...], Hashable]] = [(tuple(start), None)]
    seen: set[tuple[tuple[int, ...], Hashable]] = {stack[0]}
    furthest = stack[0][0]
    while stack:
        positions, state = stack.pop()
        if sum(positions) > sum(furthest):
            furthest = positions
        deadlines = [chain.must_return[at] for chain, at in zip(chains, positions, strict=True)]
        deadline = min(deadlines, default=NEVER)
        if deadline == NEVER:
            return True
        if len(seen) > states_max:
            return False
        successors = []
        refused = NEVER  # the lowest index of an operation that cannot be next in this state
        for place, chain in enumerate(chains):
            at = positions[place]
            if at == len(chain.operations) or chain.operations[at].invoked_us > deadline:
                continue
            operation = chain.operations[at]
            index = operation.index or NEVER
            allowed, after = _step(state, operation)
            if not allowed:
                refused = min(refused, index)
                continue
            new = _moved(chains, positions, deadlines, place, after)
            if new not in seen:
                seen.add(new)
                successors.append((index, deadlines[place], place, new))
        if isinstance(state, _Lent):  # its time may be over now
            new = _moved(chains, positions, deadlines, None, None)
            if new not in seen:
                seen.add(new)
                successors.append((refused, NEVER, -1, new))
        # The order of the log first: a linear history is then found almost without a detour. The
        # index is a guess only: what it puts first is still judged by its result and its times.
        successors.sort(reverse=True)
        stack += [new for _, _, _, new in successors]
    heads = [
        chain.operations[at]
        for chain, at in zip(chains, furthest, strict=True)
        if at < len(chain.operations)
    ]
    raise _violated("I14", "no order of these operations is linear; stuck at", heads)


def _moved(
    chains: list[_Chain],
    positions: tuple[int, ...],
    deadlines: list[float],
    place: int | None,
    state: Hashable,
) -> tuple[tuple[int, ...], Hashable]:
    """What follows when the chain at `place` moves by one (None: no chain does) and the state is
    `state` then: all reads that fit are taken too."""
    after = list(positions)
    due = deadlines.copy()
    if place is not None:
        after[place] += 1
        due[place] = chains[place].must_return[after[place]]
    _take_reads(chains, after, due, state)
    return tuple(after), state
