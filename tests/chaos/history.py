"""What the clients wrote down, as the operations that the checkers judge."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from copycat.sim.checkers.linearizability import Operation

__all__ = ["History", "longest_silence_s", "read_histories"]

_COMMANDS = {"put", "cas", "append"}


class History(NamedTuple):
    """All operations that may have taken effect, and the tokens of those that cannot have.

    operations: answered ones, and commands whose outcome is unknown. unsent: tokens of commands
    that the client promised never to send. failed_queries: queries without an answer.
    """

    operations: list[Operation]
    unsent: set[int]
    failed_queries: int
    codes: dict[str, int]
    """How often which error was raised."""

    def acknowledged(self) -> list[Operation]:
        """The commands that were answered."""
        return [one for one in self.operations if not one.is_query and is_answered(one)]

    def unknown(self) -> list[Operation]:
        """The commands whose outcome the client does not know."""
        return [one for one in self.operations if not is_answered(one)]


def is_answered(operation: Operation) -> bool:
    return operation.returned_us != float("inf")


def token_of(operation: Operation) -> int:
    """The number that only this command has."""
    return operation.arguments[-1]


def read_histories(paths: Iterable[Path]) -> History:
    """Read the files of all client processes."""
    lines: list[list[Any]] = []
    for path in paths:
        with path.open(encoding="ascii") as file:
            lines += [json.loads(line) for line in file]
    return history_of(lines)


def history_of(lines: Iterable[list[Any]]) -> History:
    """Match each answer with what was asked."""
    asked: dict[tuple[int, int], Operation] = {}
    history = History([], set(), 0, {})
    failed_queries = 0
    for word, worker, number, *fields in lines:
        if word == "ask":
            chain, kind, key, arguments, at = fields
            asked[worker, number] = Operation(
                chain=chain,
                number=number,
                kind=kind,
                key=key,
                arguments=tuple(arguments),
                invoked_us=at,
            )
            continue
        operation = asked[worker, number]
        at, outcome = fields
        if word == "ok":
            operation.returned_us, operation.result = at, outcome
            continue
        history.codes[outcome] = history.codes.get(outcome, 0) + 1
        if operation.is_query:
            failed_queries += 1
            del asked[worker, number]
        elif word == "unsent":
            history.unsent.add(token_of(operation))
            del asked[worker, number]
    history.operations.extend(asked.values())
    return history._replace(failed_queries=failed_queries)


def longest_silence_s(operations: Iterable[Operation]) -> float:
    """The longest time between two acknowledged commands that follow each other, in seconds."""
    times = sorted(
        one.returned_us for one in operations if one.kind in _COMMANDS and is_answered(one)
    )
    return max((later - earlier for earlier, later in pairwise(times)), default=0.0) / 1e6
