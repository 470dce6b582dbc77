"""Builds the runs that a committed log would give, by hand; and reads replies back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from copycat.machine.apply_result import ApplyResult, MachineQuery, RunReply
from copycat.machine.envelope import (
    encode_close,
    encode_expire,
    encode_incarnation,
    encode_keep_alive,
    encode_register,
)
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.operations import Operation, encode_operation
from copycat.protocol.results import decode_result, decode_results
from copycat.types import EntryKind, Release, Run

__all__ = ["Entry", "Script", "cut", "extend", "released", "values"]

Entry = tuple[int, int, int, int, int, bytes]
"""(kind, time_ms, session, sequence, acked, payload)."""


def cut(entries: Sequence[Entry], first_index: int, longest: int) -> list[Run]:
    """Runs of at most `longest` commands, the way `Batch.runs` cuts them."""
    runs: list[Run] = []
    for index, entry in enumerate(entries, start=first_index):
        extend(runs, index, entry, longest)
    return runs


def extend(runs: list[Run], index: int, entry: Entry, longest: int) -> None:
    """The next entry, in the last run or in one of its own."""
    kind, time_ms, session, sequence, acked, payload = entry
    last = runs[-1] if runs else None
    if (
        kind == EntryKind.COMMAND
        and last is not None
        and last.kind == kind
        and len(last.payloads) < longest
        and (last.time_ms, last.session) == (time_ms, session)
        and last.first_sequence + len(last.payloads) == sequence
        and last.acked <= acked
    ):
        runs[-1] = last._replace(acked=acked, payloads=[*last.payloads, payload])
    else:
        runs.append(Run(index, kind, time_ms, session, sequence, acked, [payload]))


class Script:
    """One executor and the log that it is fed, entry by entry."""

    def __init__(self, machine: Any, longest: int = 1 << 20, **options: Any) -> None:
        self.executor = SessionExecutor(machine, **options)
        self.machine = machine
        self.longest = longest
        self.time_ms = 1000
        self.sequences: dict[int, int] = {}

    def entries(self, entries: Sequence[Entry]) -> ApplyResult:
        runs = cut(entries, self.executor.last_applied + 1, self.longest)
        return self.executor.apply(runs)

    def entry(self, kind: EntryKind, payload: bytes = b"") -> ApplyResult:
        return self.entries([(kind, self.time_ms, 0, 0, 0, payload)])

    def register(self, client_id: str = "client", timeout_ms: int = 5000) -> int:
        outcome = self.entry(EntryKind.REGISTER, encode_register(client_id, timeout_ms))
        self.sequences[outcome.last_applied] = 0
        return outcome.last_applied

    def keep_alive(self, session: int, acked: int) -> ApplyResult:
        return self.entry(EntryKind.KEEP_ALIVE, encode_keep_alive(session, acked))

    def close(self, session: int) -> ApplyResult:
        return self.entry(EntryKind.CLOSE, encode_close(session))

    def expire(self, session: int, active_index: int) -> ApplyResult:
        return self.entry(EntryKind.EXPIRE, encode_expire(session, active_index))

    def record_incarnation(self, member: int, incarnation: int) -> ApplyResult:
        return self.entry(EntryKind.INCARNATION, encode_incarnation(member, incarnation))

    def noop(self) -> ApplyResult:
        return self.entry(EntryKind.NOOP)

    def tick(self, time_ms: int) -> ApplyResult:
        self.time_ms = time_ms
        return self.entry(EntryKind.TICK)

    def commands(
        self,
        session: int,
        operations: Sequence[Operation[Any] | bytes],
        first_sequence: int = 0,
        acked: int = 0,
    ) -> ApplyResult:
        """Commands from `first_sequence` on; 0 continues where the last ones ended."""
        first = first_sequence or self.sequences[session] + 1
        self.sequences[session] = max(self.sequences.get(session, 0), first + len(operations) - 1)
        return self.entries(
            [
                (EntryKind.COMMAND, self.time_ms, session, first + offset, acked, encoded(one))
                for offset, one in enumerate(operations)
            ]
        )

    def results(self, session: int, *operations: Operation[Any] | bytes) -> list[Any]:
        return values(self.commands(session, operations).replies)

    def query(self, session: int, operation: Operation[Any]) -> Any:
        (answer,) = self.executor.query([MachineQuery(1, session, encode_operation(operation))])
        return decode_result(answer.body, Any)


def encoded(operation: Operation[Any] | bytes) -> bytes:
    return operation if isinstance(operation, bytes) else encode_operation(operation)


def released(*outcomes: ApplyResult) -> list[tuple[int, Release]]:
    """(index, class) of everything that was released, by index."""
    return sorted(
        (index, policy)
        for outcome in outcomes
        for policy, indexes in outcome.releases
        for index in indexes
    )


def values(replies: Sequence[RunReply]) -> list[Any]:
    """Decoded results of all replies, in order; exceptions as values."""
    results: list[Any] = []
    for reply in replies:
        results += decode_results(reply.body, reply.count, [Any] * reply.count)
    return results
